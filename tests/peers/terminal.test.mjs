// `pixy link` and `pixy status` in a terminal: paste, redirect, device code, refusal, Ctrl-C.

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { startAuthorizationServer } from './lib/authorization-server.mjs';
import { answerOnDevice, logIn, shownCode } from './lib/browser.mjs';
import { startLlmApi } from './lib/llm-api.mjs';
import { freePorts, until } from './lib/net.mjs';
import { startPixy } from './lib/pixy.mjs';
import { hasTmux, openTerminal } from './lib/terminal.mjs';

const ADDRESS = /^ +(http\S+)$/m;
const BLOCKS = /[▀▄█]{3}/;

describe('a terminal', { skip: !hasTmux && 'tmux is missing' }, () => {
  const stage = {};
  const link = async (name, options = '') => stage.terminal.start(`link ${name} ${options}`);

  before(async () => {
    stage.server = await startAuthorizationServer({ accessTokenSeconds: 600 });
    stage.api = await startLlmApi({ isActive: stage.server.isActive });
    [stage.port] = await freePorts(1);
    const { server } = stage;
    const account = (more) => ({
      provider: 'oauth',
      profile: {
        title: 'Example',
        link: { issuer: server.issuer, client_id: 'pixy', scopes: server.scopes, authorize_params: { prompt: 'consent' }, ...more },
        api: { base_url: stage.api.url, allow: ['GET /v1/models'] },
      },
    });
    const accounts = {
      pasted: account({ redirect: { paste: server.pasteUri } }),
      comes: account({ redirect: { loopback: { host: '127.0.0.1', ports: 'any', path: '/callback' } } }),
      fixed: account({ redirect: { loopback: { host: 'localhost', ports: [stage.port], path: '/auth/callback' } } }),
      device: account({ flow: 'device_code' }),
      key: { provider: 'openai-compatible', profile: { api: { base_url: `${stage.api.url}/v1` } } },
    };
    stage.pixy = await startPixy({ server, api: stage.api, accounts });
    stage.terminal = await openTerminal(stage.pixy);
  });

  afterEach(async () => {
    await stage.terminal.press('C-c'); // a failed test must not affect the next one
    for (const { name, state } of await stage.pixy.status()) {
      if (state !== 'unlinked') await stage.pixy.call('DELETE', `/api/accounts/${name}`);
    }
  });

  after(async () => {
    await stage.terminal?.close();
    for (const name of ['pixy', 'api', 'server']) await stage[name]?.close();
  });

  test('a pasted code links, also after a typo', async () => {
    const { terminal, pixy } = stage;
    await link('pasted');
    const [, url] = await terminal.shows(ADDRESS);
    await terminal.type('not a code');
    await terminal.shows(/neither a code nor the address/);
    await terminal.type(await shownCode(await logIn(url)));
    await terminal.shows(/This is anna@example\.com · Anna\.\n.*Granted: openid .*\nLink it\? \[y\/N\]/s);
    assert.equal((await pixy.account('pasted')).state, 'unlinked', 'not linked before it is confirmed');
    await terminal.type('y');
    assert.match(await terminal.ends(0), /✓ Linked\..*pixy env pasted --for CLIENT/s);
    assert.equal((await pixy.ask('/pasted/v1/models')).status, 200);
  });

  test('a redirect links and replaces the old login', async () => {
    const { terminal, pixy } = stage;
    await pixy.link('comes');
    await link('comes');
    const [, url] = await terminal.shows(ADDRESS);
    await (await fetch(await logIn(url))).text();
    await terminal.shows(/It replaces the login that is there now.*Link it\? \[y\/N\]/s);
    await terminal.type('y');
    await terminal.ends(0);
    assert.equal((await pixy.ask('/comes/v1/models')).status, 200);
  });

  test('a redirect address pasted over SSH links', async () => {
    const { pixy } = stage;
    await stage.terminal.close();
    stage.terminal = await openTerminal(pixy, { env: { SSH_CONNECTION: '192.0.2.1 40000 192.0.2.2 22' } });
    const { terminal } = stage;
    await link('fixed', '--yes');
    const [, url] = await terminal.shows(ADDRESS);
    await terminal.shows(new RegExp(`over SSH.*\\n      ssh -N -L ${stage.port}:127\\.0\\.0\\.1:${stage.port} HOST\\n`, 's'));
    await terminal.type(await logIn(url));
    await terminal.ends(0);
    assert.equal((await pixy.ask('/fixed/v1/models')).status, 200);
  });

  test('a port in use is reported, and a paste links', async () => {
    const { terminal, pixy } = stage;
    const other = net.createServer();
    await until('the port is free', () => new Promise((done) => {
      other.once('error', () => done(false)).listen(stage.port, '127.0.0.1', () => done(true));
    }));
    try {
      await link('fixed', '--yes');
      const [, url] = await terminal.shows(ADDRESS);
      await terminal.shows(new RegExp(`Port ${stage.port} of this machine.* in use by another program`));
      await terminal.type(await logIn(url));
      await terminal.ends(0);
      assert.equal((await pixy.ask('/fixed/v1/models')).status, 200);
    } finally {
      other.close();
    }
  });

  test('a code entered on a device links', async () => {
    const { terminal, pixy, server } = stage;
    await link('device');
    const [, page] = await terminal.shows(ADDRESS);
    const [, code] = await terminal.shows(/^ +([A-Z]{4}-[A-Z]{4})$/m);
    await terminal.shows(/only if you started this yourself, here/);
    assert.equal(page, `${server.issuer}/device`);
    assert.match(await terminal.screen(), BLOCKS, 'a QR code');
    await terminal.type('y');
    await terminal.shows(/nothing to type here/);
    await answerOnDevice(`${page}?user_code=${code}`);
    await terminal.shows(/This is anna@example\.com.*Link it\? \[y\/N\]/s);
    assert.equal((await pixy.account('device')).state, 'unlinked', 'earlier input is no answer to the question');
    await terminal.type('y');
    await terminal.ends(0);
    assert.equal((await pixy.ask('/device/v1/models')).status, 200);
  });

  test('a device code that is refused ends the attempt', async () => {
    const { terminal } = stage;
    await link('device');
    const [, page] = await terminal.shows(ADDRESS);
    const [, code] = await terminal.shows(/^ +([A-Z]{4}-[A-Z]{4})$/m);
    await answerOnDevice(`${page}?user_code=${code}`, 'abort');
    assert.match(await terminal.ends(1), /pixy: Access was denied at the provider\.\n +Start again if that was a mistake\./);
  });

  test('a redirect with an error ends the attempt', async () => {
    const { terminal } = stage;
    await link('comes');
    const [, url] = await terminal.shows(ADDRESS);
    const parameters = new URL(url).searchParams;
    const back = new URL(parameters.get('redirect_uri'));
    back.search = new URLSearchParams({ error: 'access_denied', state: parameters.get('state'), iss: stage.server.issuer });
    await (await fetch(back)).text();
    assert.match(await terminal.ends(1), /pixy: .*(denied|refused|not allow)/i);
  });

  test('an unconfirmed login is revoked', async () => {
    const { terminal, pixy, server } = stage;
    await link('comes');
    const [, url] = await terminal.shows(ADDRESS);
    await (await fetch(await logIn(url))).text();
    await terminal.shows(/Link it\? \[y\/N\]/);
    const { access_token: token } = server.latest;
    await terminal.type('');
    assert.match(await terminal.ends(1), /not confirmed, so nothing was linked/);
    assert.deepEqual([(await pixy.account('comes')).state, (await pixy.account('comes')).attempt], ['unlinked', null]);
    await until('the login is revoked', async () => !(await server.isActive(token)));
  });

  for (const name of ['pasted', 'comes', 'device']) {
    test(`Ctrl-C cancels the attempt of ${name}`, async () => {
      const { terminal, pixy } = stage;
      await link(name);
      await terminal.shows(ADDRESS);
      assert.equal((await pixy.account(name)).attempt.stage, 'waiting');
      await terminal.press('C-c');
      assert.match(await terminal.ends(1), /stopped: the attempt is cancelled and nothing was linked/);
      assert.equal((await pixy.account(name)).attempt, null);
    });
  }

  test('a pasted key is not echoed, and Ctrl-C restores the echo', async () => {
    const { terminal, pixy } = stage;
    await link('key');
    await terminal.shows(/it is not shown/);
    await terminal.press('C-c');
    await terminal.ends(1);
    await terminal.type('echo seen-"again"');
    await terminal.shows(/echo seen-"again"/);
    await link('key');
    await terminal.shows(/it is not shown/);
    await terminal.type('key-that-is-not-echoed');
    assert.doesNotMatch(await terminal.ends(0), /not-echoed/);
    assert.equal((await pixy.account('key')).state, 'linked');
  });

  test('status is a table, with colours unless NO_COLOR is set', async () => {
    const { terminal, pixy } = stage;
    await pixy.link('pasted');
    await terminal.start('status');
    const shown = await terminal.ends(0);
    assert.match(shown, /^ACCOUNT +PROVIDER +STATE +WHO +TOKEN ENDS +NEXT RENEWAL$/m);
    assert.match(shown, /^pasted +oauth +✓ working +anna@example\.com · Anna +in \d+ (min|s) +in \d+ (min|s)$/m);
    assert.match(shown, /^- not linked yet → pixy link comes, pixy link fixed, /m);
    assert.match(await terminal.screen({ colours: true }), /\x1b\[[0-9;]*32m✓ working/);
    await terminal.type('NO_COLOR=1; export NO_COLOR');
    await terminal.start('status');
    await terminal.ends(0);
    assert.doesNotMatch(await terminal.screen({ colours: true }), /\x1b\[/);
    await terminal.type('unset NO_COLOR');
  });

  test('a pipe gets no QR code and no colours, or JSON steps', async () => {
    const { pixy } = stage;
    const piped = pixy.command(['link', 'device', '--json'], { input: 'y\n' });
    const { attempt } = await until('it has begun', async () => {
      const account = await pixy.account('device');
      return account.attempt && account;
    });
    assert.match(await answerOnDevice(attempt.verification_url_complete), /Sign-in Success/);
    const { code, output, all } = await piped;
    assert.equal(code, 0, all);
    const steps = output.trim().split('\n').map((line) => JSON.parse(line));
    assert.deepEqual(steps.map(({ step }) => step), ['begun', 'identified', 'linked']);
    assert.deepEqual([steps[0].user_code, steps[1].identity[0]], [attempt.user_code, 'anna@example.com']);
    assert.deepEqual(JSON.parse((await pixy.command(['env', 'device', '--for', 'curl', '--json'])).output)[0].client, 'curl');
    assert.match(JSON.parse((await pixy.command(['url', '--json'])).output).url, /^http:/);
    assert.deepEqual(JSON.parse((await pixy.command(['unlink', 'device', '--json'])).output), { revoked: true });

    // The signal also closes the reader of its pipes, as a closed terminal does.
    const { all: prose } = await pixy.command(['link', 'device'], { timeout: 2000, killSignal: 'SIGTERM' });
    assert.match(prose, /^ +[A-Z]{4}-[A-Z]{4}$/m);
    assert.doesNotMatch(prose, /[▀▄█\x1b]/);
    await until('its attempt is cancelled', async () => (await pixy.account('device')).attempt === null);
    const failed = await pixy.command(['link', 'unknown', '--json']);
    assert.equal(failed.code, 1);
    assert.deepEqual([JSON.parse(failed.output).step, failed.errors.startsWith('pixy: there is no account')], ['failed', true]);
  });
});
