// Flows against a certified server: device codes, two issuers, and invalid id_tokens, which are forged in the server's responses.

import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, afterEach, before, test } from 'node:test';
import { startAuthorizationServer } from './lib/authorization-server.mjs';
import { answerOnDevice, logIn } from './lib/browser.mjs';
import { startLlmApi } from './lib/llm-api.mjs';
import { freePorts, until } from './lib/net.mjs';
import { startPixy } from './lib/pixy.mjs';

const stage = {};

before(async () => {
  stage.server = await startAuthorizationServer({ accessTokenSeconds: 600 });
  stage.other = await startAuthorizationServer();
  stage.api = await startLlmApi({ isActive: stage.server.isActive });
  [stage.port] = await freePorts(1);
  const account = (server, more) => ({
    provider: 'oauth',
    profile: {
      link: { issuer: server.issuer, client_id: 'pixy', scopes: server.scopes, authorize_params: { prompt: 'consent' }, ...more },
      api: { base_url: stage.api.url, allow: ['GET /v1/models'] },
    },
  });
  const accounts = {
    a: account(stage.server),
    other: account(stage.other),
    device: account(stage.server, { flow: 'device_code' }),
    fixed: account(stage.server, { redirect: { loopback: { host: 'localhost', ports: [stage.port], path: '/auth/callback' } } }),
  };
  stage.pixy = await startPixy({ accounts });
});

afterEach(async () => {
  Object.assign(stage.server, { forge: undefined, keys: undefined, keysAsked: 0 });
  for (const name of ['a', 'other', 'device', 'fixed']) await stage.pixy.call('DELETE', `/api/accounts/${name}`);
});

after(async () => {
  for (const name of ['pixy', 'api', 'other', 'server']) await stage[name]?.close();
});

test('a code typed on a device', async () => {
  const { pixy, server } = stage;
  const begun = await pixy.begin('device');
  assert.deepEqual([begun.flow, begun.redirect, begun.authorize_url], ['device_code', 'device', null]);
  assert.match(begun.user_code, /^[A-Z]{4}-[A-Z]{4}$/);
  assert.equal(begun.verification_url, `${server.issuer}/device`);
  assert.match(await answerOnDevice(begun.verification_url_complete), /Sign-in Success/);
  const shown = await stageOf('device', 'to_confirm');
  assert.deepEqual([shown.attempt, shown.identity], [begun.attempt, ['anna@example.com', 'Anna']]);
  assert.equal((await pixy.account('device')).state, 'unlinked', 'nothing is stored before the person confirms');
  const confirmed = await pixy.call('POST', `/api/attempts/${begun.attempt}/confirm`);
  assert.equal(confirmed.status, 200, confirmed.text);
  assert.equal((await pixy.ask('/device/v1/models')).status, 200);
  const { access_token: token } = server.latest;
  assert.deepEqual((await pixy.call('DELETE', '/api/accounts/device')).body, { revoked: true });
  assert.equal(await server.isActive(token), false);
});

test('a code that is denied on the device', async () => {
  const begun = await stage.pixy.begin('device');
  await answerOnDevice(begun.verification_url_complete, 'abort');
  const { error } = await stageOf('device', 'failed');
  assert.equal(error.type, 'urn:pixy:problem:consent_denied');
});

test('an account of the browser flow may be linked on a device', async () => {
  const { body } = await stage.pixy.call('POST', '/api/accounts/a/attempts', { flow: 'device_code' });
  assert.match(await answerOnDevice(body.verification_url_complete), /Sign-in Success/);
  await stageOf('a', 'to_confirm');
});

test('a redirect to a fixed callback port', async () => {
  const { pixy, port } = stage;
  await assert.rejects(fetch(`http://127.0.0.1:${port}/`), 'nothing is open before');
  const begun = await pixy.begin('fixed');
  assert.equal(begun.redirect, 'loopback');
  const back = new URL(await logIn(begun.authorize_url));
  assert.deepEqual([back.hostname, back.port], ['localhost', String(port)]);
  assert.equal((await fetch(back)).status, 200);
  const confirmed = await pixy.call('POST', `/api/attempts/${begun.attempt}/confirm`);
  assert.equal(confirmed.status, 200, confirmed.text);
  assert.equal((await pixy.ask('/fixed/v1/models')).status, 200);
  await until('the port is closed', () => fetch(`http://127.0.0.1:${port}/`).then(() => false, () => true));
});

test('a response of another issuer is rejected', async () => {
  const { pixy, server, other } = stage;
  // The first server redirects the person to the other one, with its own state (RFC 9700 §4.4).
  const begun = await pixy.begin('a');
  const back = await logIn(begun.authorize_url.replace(server.issuer, other.issuer));
  assert.equal(new URL(back).searchParams.get('iss'), other.issuer);
  const asked = [server, other].map(({ calls }) => calls.authorization_code);
  const pasted = await pixy.paste(begun.attempt, back);
  assert.deepEqual([pasted.status, pasted.body.type], [422, 'urn:pixy:problem:paste_other_issuer'], pasted.text);
  assert.match(await (await fetch(back)).text(), /from another server/);
  const without = new URL(back);
  without.searchParams.delete('iss');
  const stripped = await pixy.paste(begun.attempt, without.href);
  assert.equal(stripped.body.type, 'urn:pixy:problem:paste_other_issuer', 'this server announced that it sends iss');
  assert.deepEqual([server, other].map(({ calls }) => calls.authorization_code), asked, 'no code was sent');
});

const HOUR = 3600;
const now = () => Math.floor(Date.now() / 1000);

const FORGERIES = {
  'of another attempt': (claims) => { claims.nonce = 'another'; },
  'without a nonce': (claims) => { delete claims.nonce; },
  'for another client': (claims) => { claims.aud = 'llm-api'; },
  'for several clients, and not issued to this one': (claims) => { claims.aud = ['pixy', 'llm-api']; },
  'issued to another client': (claims) => { claims.azp = 'llm-api'; },
  'of another issuer': (claims) => { claims.iss = stage.other.issuer; },
  'that has expired': (claims) => { Object.assign(claims, { iat: now() - 2 * HOUR, exp: now() - HOUR }); },
  'issued in the future': (claims) => { Object.assign(claims, { iat: now() + 24 * HOUR, exp: now() + 25 * HOUR }); },
  'that is not signed': (claims, header) => { header.alg = 'none'; },
  'with an unknown kid': (claims, header) => { header.kid = 'unknown'; },
};

for (const [what, forge] of Object.entries(FORGERIES)) {
  test(`an id_token ${what} links nothing`, async () => {
    const { pixy, server } = stage;
    server.forge = forge;
    const begun = await pixy.begin('a');
    const pasted = await pixy.paste(begun.attempt, await logIn(begun.authorize_url));
    assert.deepEqual([pasted.status, pasted.body.type], [422, 'urn:pixy:problem:id_token_refused'], pasted.text);
    const { attempt, state } = await pixy.account('a');
    assert.deepEqual([attempt.stage, attempt.error.title, state], ['failed', pasted.body.title, 'unlinked']);
    const { access_token: token } = server.latest;
    await until('the login is revoked', async () => !(await server.isActive(token)));
  });
}

test('an id_token for several clients with our azp', async () => {
  stage.server.forge = (claims) => { Object.assign(claims, { aud: ['llm-api', 'pixy'], azp: 'pixy' }); };
  await stage.pixy.link('a');
});

test('rotated keys are found by one more request', async () => {
  const { pixy, server } = stage;
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const fresh = { ...publicKey.export({ format: 'jwk' }), kid: 'fresh', use: 'sig', alg: 'ES256' };
  const before = server.signer;
  server.signer = { key: privateKey, dsaEncoding: 'ieee-p1363' };
  server.forge = (claims, header) => { Object.assign(header, { alg: 'ES256', kid: 'fresh' }); };
  try {
    server.keys = ({ keys }, times) => ({ keys: times > 1 ? [...keys, fresh] : keys });
    await pixy.link('a');
    assert.equal(server.keysAsked, 2);
    server.keysAsked = 0;
    server.keys = (answer) => answer; // the key is unknown again
    const begun = await pixy.begin('a');
    const pasted = await pixy.paste(begun.attempt, await logIn(begun.authorize_url));
    assert.equal(pasted.body.type, 'urn:pixy:problem:id_token_refused', pasted.text);
    assert.equal(server.keysAsked, 2, 'fetched twice');
  } finally {
    server.signer = before;
  }
});

function stageOf(name, wanted) {
  return until(`${name} is ${wanted}`, async () => {
    const { attempt } = await stage.pixy.account(name);
    return attempt?.stage === wanted && attempt;
  }, { seconds: 20, every: 100 });
}
