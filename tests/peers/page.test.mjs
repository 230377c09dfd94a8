// The page in real browsers: linking, and attacks on it. `PIXY_SCREENSHOTS=DIRECTORY` also stores a screenshot of every state.

import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { logIn, shownCode } from './lib/browser.mjs';
import { listen } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';
import { openProvider, openPage, press, SIZES, setupUrl } from './lib/page.mjs';
import { EVIL, installed, startChromium, startEvilSite, startFirefox, violations } from './lib/real-browsers.mjs';
import { ENV, HOSTILE, STATES } from './lib/states.mjs';

const PICTURES = process.env.PIXY_SCREENSHOTS;
const CALLS = [
  ['GET', '/'], ['POST', '/api/session'], ['GET', '/api/accounts'], ['POST', '/api/accounts/claude/attempts'],
  ['POST', '/api/accounts/claude/key'], ['POST', '/api/accounts/claude/refresh'], ['DELETE', '/api/accounts/claude'],
  ['GET', '/api/accounts/claude/env'], ['GET', '/callback'],
];

const stage = peers({ accessTokenSeconds: 3600 }); // a refresh during these tests would be an attack
const address = () => `http://127.0.0.1:${stage.pixy.ports.link}`;

afterEach(async () => {
  stage.server.down = false;
  for (const name of ['claude', 'gpt']) {
    const { attempt } = await stage.pixy.account(name);
    if (attempt) await stage.pixy.call('DELETE', `/api/attempts/${attempt.attempt}`);
    await stage.pixy.call('DELETE', `/api/accounts/${name}`);
  }
});

describe('Chromium', { skip: !installed('chromium') && 'chromium is not installed' }, () => {
  let browser;
  before(async () => { browser = await startChromium(); });
  after(() => browser?.close());

  const person = (t, options) => openPage(stage.pixy, browser, t, options);

  test('linking by pasting, from the setup code to a request', async (t) => {
    const me = await person(t);
    const { page, card, says } = me;
    await says('No account is linked yet');
    assert.equal(page.url(), `${address()}/`, 'the setup code is removed from the address bar');
    await press(card('claude'), 'Link');
    await says('Pixy may know who you are');
    const tab = await openProvider(me, 'claude');
    const code = await tab.innerText('body');
    await tab.close();

    const field = card('claude').getByRole('textbox');
    await field.fill('https://news.example/story?id=7');
    await says('That is the address of another site.');
    await field.fill(code.slice(0, -4));
    await says('That is only a part of it');
    await field.fill(code);
    await says('Looks like the answer to this attempt.');
    await press(card('claude'), 'Continue');

    await card('claude').getByText('anna@example.com · Anna').waitFor();
    assert.equal((await stage.pixy.account('claude')).state, 'unlinked', 'nothing is stored before the person confirms');
    assert.equal(await page.locator('.filled').count(), 1, 'Confirm is the one filled button');
    await press(card('claude'), 'Confirm');
    await says("Linked. In the agent's environment:");
    const shown = await card('claude').locator('.use pre').innerText();
    assert.equal(shown.trim(), (await stage.pixy.lines('claude', 'claude-code')).trim());
    assert.equal((await stage.pixy.message()).status, 200);
    await says('1 of 2 accounts working');
  });

  test('a login that the configuration moved waits for a confirmation', async (t) => {
    const { pixy, api } = stage;
    await pixy.link('claude');
    const { page, card, says } = await person(t);
    const before = await readFile(pixy.config, 'utf8');
    let asked = 0;
    const moved = await listen((request, response) => {
      asked += 1;
      response.setHeader('content-type', 'application/json').end('{}');
    });
    t.after(moved.close);
    let connected = 0;
    moved.server.on('connection', () => { connected += 1; });
    t.after(async () => {
      await writeFile(pixy.config, before);
      pixy.child.kill('SIGHUP');
    });
    const settings = JSON.parse(before);
    settings.accounts.claude.profile.api.base_url = moved.url;
    await writeFile(pixy.config, JSON.stringify(settings));
    pixy.child.kill('SIGHUP');
    await says(`moved from ${api.url} to ${moved.url}`);
    assert.equal((await pixy.account('claude')).error.reason, 'moved');
    assert.equal((await pixy.message()).status, 401);
    assert.equal(connected, 0, 'nothing is sent there before the person confirms');
    await press(card('claude'), 'Confirm');
    await says('1 of 2 accounts working');
    assert.equal((await pixy.message()).status, 200);
    assert.equal(asked, 1);
    assert.deepEqual(await violations(page), []);
  });

  test('a redirect needs no pasting', async (t) => {
    const me = await person(t);
    await press(me.card('gpt'), 'Link');
    await me.says('Waiting for the provider…');
    const tab = await openProvider(me, 'gpt');
    assert.equal(await tab.innerText('h1'), 'The provider has answered for gpt');
    assert.deepEqual(await violations(tab), []);
    await tab.close();
    await me.card('gpt').getByText('anna@example.com · Anna').waitFor();
    await press(me.card('gpt'), 'Confirm');
    await me.says("Linked. In the agent's environment:");
    assert.equal((await stage.pixy.ask('/gpt/v1/models')).status, 200);
  });

  test('one click pastes and continues', async (t) => {
    const me = await person(t, { permissions: ['clipboard-read', 'clipboard-write'] });
    await press(me.card('claude'), 'Link');
    const tab = await openProvider(me, 'claude');
    const code = await tab.innerText('body');
    await tab.close();
    await me.page.evaluate((text) => navigator.clipboard.writeText(text), code);
    await press(me.card('claude'), 'Paste');
    await press(me.card('claude'), 'Confirm');
    await me.says("Linked. In the agent's environment:");
    await press(me.card('claude').locator('.use'), 'Copy');
    await me.says('Copied');
    const lines = await me.card('claude').locator('.use pre').innerText();
    assert.equal(await me.page.evaluate(() => navigator.clipboard.readText()), lines);
  });

  test('the keyboard alone: focus is on the next step', async (t) => {
    const { page, card, says } = await person(t);
    await card('claude').getByRole('button', { name: 'Link', exact: true }).focus();
    await page.keyboard.press('Enter');
    const open = page.locator('#of-claude-open:focus');
    await open.waitFor();
    const code = await shownCode(await logIn(await open.getAttribute('href')));
    await page.keyboard.press('Tab');
    await page.keyboard.type(code);
    await page.keyboard.press('Enter');
    await page.locator('#of-claude-check:focus').waitFor({ state: 'attached' });
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Confirm');
    await page.keyboard.press('Enter');
    await page.locator('#of-claude-fresh:focus').waitFor();
    await says("Linked. In the agent's environment:");
  });

  test('every failure has a next step', async (t) => {
    const me = await person(t);
    const { page, card, says } = me;
    const again = async () => {
      await card('claude').getByRole('button', { name: /^(Link|Start again)$/ }).first().click();
      return page.locator('#of-claude-open').getAttribute('href');
    };
    const paste = async (text) => {
      await card('claude').getByRole('textbox').fill(text);
      await press(card('claude'), 'Continue');
    };

    const denied = new URL(await again());
    const asked = denied.searchParams;
    const answer = new URLSearchParams({ error: 'access_denied', state: asked.get('state'), iss: stage.server.issuer });
    await card('claude').getByRole('textbox').fill(`${asked.get('redirect_uri')}?${answer}`);
    await says('The provider says that access was denied.');
    await press(card('claude'), 'Continue');

    await again();
    await stage.pixy.call('DELETE', `/api/attempts/${(await stage.pixy.account('claude')).attempt.attempt}`);
    await says('That attempt has ended.');

    const older = await shownCode(await logIn(await again()));
    await press(card('claude'), 'Cancel');
    await again();
    await paste(older);
    await says('This code belongs to another attempt.');

    stage.server.down = true;
    await press(card('claude'), 'Cancel');
    await paste(await shownCode(await logIn(await again())));
    await card('claude').getByText(/did not answer/).waitFor();
    stage.server.down = false;

    await paste(await shownCode(await logIn(await again())));
    await press(card('claude'), 'Not me');
    await card('claude').getByText('Not linked', { exact: true }).waitFor();
    await paste(await shownCode(await logIn(await again())));
    await press(card('claude'), 'Confirm');
    await says("Linked. In the agent's environment:");
  });

  test('use is shown at once, and unlinking asks first', async (t) => {
    await stage.pixy.link('claude');
    const { card, says, page } = await person(t);
    await card('claude').getByText('Working').waitFor();
    // Usage outlives a login: tests before this one have used the account.
    const used = async () => {
      const text = await card('claude').innerText();
      const [, requests = 0, input = 0, output = 0] = /Requests (\d+)\s+Tokens (\d+) in, (\d+) out/.exec(text) ?? [];
      return [requests, input, output].map(Number);
    };
    const [requests, input, output] = await used();
    await (await stage.pixy.message()).text();
    await card('claude').getByText(`Requests ${requests + 1}`).waitFor();
    assert.deepEqual(await used(), [requests + 1, input + 7, output + 5]);
    await press(card('claude'), 'Unlink');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Cancel');
    await press(page.getByRole('dialog'), 'Unlink');
    await says('The provider has ended the login, and Pixy has deleted it.');
    assert.equal((await stage.pixy.account('claude')).state, 'unlinked');
  });

  test('a stopped Pixy is reported, a restarted one needs a session', async (t) => {
    const { page, says } = await person(t);
    await says('No account is linked yet');
    await stage.pixy.stop();
    await says('Pixy does not answer');
    await stage.pixy.start();
    await says('Your session has ended');
    await page.getByRole('textbox').fill(await setupUrl(stage.pixy));
    await press(page, 'Open');
    await says('No account is linked yet');
  });

  test('attack_07_a_rebound_host_name_is_served_nothing', async (t) => {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    const response = await page.goto(`http://${EVIL}:${stage.pixy.ports.link}/`);
    assert.equal(response.status(), 421);
    assert.equal(await page.locator('#cards').count(), 0);
    for (const [method, path] of CALLS) {
      const status = await page.evaluate(([method, path]) => fetch(path, { method }).then((answer) => answer.status), [method, path]);
      assert.equal(status, 421, `${method} ${path}`);
    }
  });

  test('attack_89_a_rebound_name_reads_no_port', async (t) => {
    await stage.pixy.link('claude');
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    const { agent, link, ops } = stage.pixy.ports;
    const ports = [[agent, '/claude/v1/models', 403], [link, '/', 200], [ops, '/livez', 200], [ops, '/readyz'], [ops, '/metrics', 200]];
    const read = (path) => page.evaluate((path) => fetch(path).then(async (answer) => [answer.status, await answer.text()]), path);
    const before = stage.api.to('/v1/models').length;
    for (const [port, path, literal] of ports) {
      const response = await page.goto(`http://${EVIL}:${port}${path}`);
      assert.equal(response.status(), 421, path);
      const [status, text] = await read(path); // of the page's own origin
      assert.equal(status, 421, path);
      assert.match(text, /hosts: \[NAME\]/, path);
      assert.doesNotMatch(text, /claude|linked|pixy_/, path);
      await page.goto(`http://127.0.0.1:${port}/`);
      if (literal) assert.equal((await read(path))[0], literal, `${path} by its address`);
    }
    assert.equal(stage.api.to('/v1/models').length, before, 'nothing was forwarded');
  });

  test('the attacks succeed on a server without guards', async (t) => {
    const asked = new Set();
    const open = await listen((request, response) => {
      asked.add(`${request.method} ${request.url} ${request.headers['sec-fetch-mode']} ${request.headers['sec-fetch-dest']}`);
      response.setHeader('access-control-allow-origin', '*');
      response.setHeader('access-control-allow-headers', 'content-type, authorization');
      response.setHeader('access-control-allow-methods', '*');
      const answers = { '/api/events': ['text/event-stream', 'data: x\n\n'], '/api/accounts': ['text/javascript', 'void 0'] };
      const [type, body] = answers[request.url] ?? ['text/html', '<p id="cards">'];
      response.setHeader('content-type', type);
      response.end(body);
    });
    t.after(() => open.close());
    const evil = await startEvilSite(open.url, CALLS);
    t.after(() => evil.close());
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    await page.goto(`http://${EVIL}:${evil.port}/`);
    await page.waitForFunction(() => window.done, null, { timeout: 60_000 });
    const seen = await page.evaluate(() => window.seen);
    for (const what of ['fetch /api/session: 200', 'fetch /api/accounts/claude: 200', 'events', 'script']) assert.ok(seen.includes(what), what);
    for (const what of ['POST /api/accounts/claude/key no-cors empty', 'POST /api/accounts/claude/attempts navigate iframe', 'GET /api/accounts no-cors image', 'GET / navigate iframe']) {
      assert.ok(asked.has(what), `${what} is not among ${[...asked].join(', ')}`);
    }
    assert.equal(await page.frames().find((frame) => frame.url() === `${open.url}/`).locator('#cards').count(), 1);
  });

  for (const host of [EVIL, '127.0.0.1']) {
    test(`attack_08_to_10_a_page_of_${host === EVIL ? 'another_site' : 'another_port'}_gets_nothing`, async (t) => {
      await stage.pixy.link('claude');
      const before = await state();
      const evil = await startEvilSite(address(), CALLS);
      const { context, page: own } = await person(t); // with a session open in the same browser
      t.after(() => evil.close());
      const page = await context.newPage();
      const served = [];
      context.on('response', (response) => {
        const isOurs = response.frame().page() === own; // its events may arrive late
        if (!isOurs && response.url().startsWith(address()) && response.status() < 400) served.push(response.url());
      });
      await page.goto(`http://${host}:${evil.port}/`);
      await page.waitForFunction(() => window.done, null, { timeout: 60_000 });
      assert.deepEqual(await page.evaluate(() => window.seen), []);
      const framed = page.frames().find((frame) => frame.url().startsWith(address()) && frame !== page.mainFrame());
      assert.equal(framed ? await framed.locator('#cards').count() : 0, 0, 'the page was shown in a frame');
      assert.deepEqual(await context.cookies(), []);
      assert.deepEqual(await page.evaluate(() => [document.cookie, localStorage.length, sessionStorage.length]), ['', 0, 0]);
      assert.deepEqual(served.filter((url) => new URL(url).pathname.startsWith('/api/') && !url.endsWith('/api/events')), []);
      assert.deepEqual(await state(), before);
    });
  }

  test('attack_64_replacing_another_identity_is_shown', async (t) => {
    const { person: anna } = stage.server;
    t.after(() => { stage.server.person = anna; });
    await stage.pixy.link('claude');
    stage.server.person = { ...anna, email: 'mallory@example.net', name: 'Mallory' };
    const { page, card } = await person(t);
    await press(card('claude'), 'Link again');
    await card('claude').getByRole('textbox').fill(await shownCode(await logIn(await page.locator('#of-claude-open').getAttribute('href'))));
    await press(card('claude'), 'Continue');
    await card('claude').getByText('mallory@example.net · Mallory').waitFor();
    assert.match(await card('claude').locator('.warn').last().innerText(), /anna@example\.com · Anna, whose login Pixy then ends/);
    await press(card('claude'), 'Not me');
    await card('claude').getByText('Working').waitFor();
    assert.deepEqual((await stage.pixy.account('claude')).identity, ['anna@example.com', 'Anna']);
    assert.equal((await stage.pixy.message()).status, 200);
  });

  test('attack_65_a_hostile_name_is_shown_as_text', async (t) => {
    const { person: anna } = stage.server;
    t.after(() => { stage.server.person = anna; });
    for (const text of HOSTILE.slice(0, 6)) {
      stage.server.person = { ...anna, email: text, name: text };
      const { page, card, context } = await person(t);
      await press(card('claude'), 'Link');
      await card('claude').getByRole('textbox').fill(await shownCode(await logIn(await page.locator('#of-claude-open').getAttribute('href'))));
      await press(card('claude'), 'Continue');
      await press(card('claude'), 'Confirm');
      await card('claude').getByText('Working').waitFor();
      assert.ok((await card('claude').locator('.who').innerText()).includes(text.slice(0, 20)));
      assert.equal(await page.evaluate(() => window.pwned), undefined);
      await stage.pixy.call('DELETE', '/api/accounts/claude');
      await context.close();
    }
  });

  // The API is faked for states that take hours or a fault of a provider; the page itself is Pixy's.
  describe('every state', () => {
    const variants = [['light', 'phone'], ['dark', 'wide'], ...(PICTURES ? [['light', 'wide'], ['dark', 'phone']] : [])];
    for (const [scheme, size] of variants) {
      test(`is accessible and fits: ${scheme}, ${size}`, async (t) => {
        if (PICTURES) await mkdir(PICTURES, { recursive: true });
        const context = await browser.newContext({ colorScheme: scheme, viewport: SIZES[size], reducedMotion: 'reduce' });
        context.setDefaultTimeout(10_000);
        t.after(() => context.close());
        const each = async ([name, state]) => {
          const page = await context.newPage();
          const wrong = await fakeApi(page, state);
          await page.goto(`${address()}/#a-setup-code`);
          await page.waitForFunction(() => document.querySelector('h1').textContent !== 'One moment…');
          if (state.press) await page.getByRole('button', { name: state.press }).first().click();
          if (state.unfold) await page.evaluate(() => document.querySelectorAll('.flow details').forEach((details) => { details.open = true; }));
          if (state.type) await page.getByRole('textbox').last().fill(state.type);
          if (state.press === 'Use it') await page.locator('.use pre').waitFor();
          await assertRenders(page, name, scheme, size);
          assert.deepEqual(wrong, [], name);
          await page.close();
        };
        const states = Object.entries(STATES);
        const atOnce = PICTURES ? 1 : 4; // two full pages at once disturb each other's screenshot
        while (states.length) await Promise.all(states.splice(0, atOnce).map(each));
        const page = await context.newPage();
        await page.goto(`${address()}/#wrong`);
        await page.getByText('Open this page with a one-time link').waitFor();
        await page.getByText('Pixy runs in a container').click();
        await assertRenders(page, 'sign-in', scheme, size);
        await page.goto(`${address()}/callback?code=x&state=y`);
        await assertRenders(page, 'callback-refused', scheme, size);
      });
    }

    test('the README has a picture', { skip: !PICTURES && 'PIXY_SCREENSHOTS is not set' }, async (t) => {
      const context = await browser.newContext({ viewport: { width: 900, height: 600 }, deviceScaleFactor: 1.5, colorScheme: 'light' });
      t.after(() => context.close());
      const page = await context.newPage();
      await fakeApi(page, STATES.picture);
      await page.goto(`${address()}/#a-setup-code`);
      await page.getByRole('button', { name: 'Use it' }).first().click();
      await page.locator('.use pre').waitFor();
      await page.evaluate(() => document.querySelector('footer').remove());
      await page.locator('body').screenshot({ path: join(PICTURES, 'readme.png') });
    });

    /** Fakes the API's responses with a state. Returns a list of the page's errors, which keeps growing. */
    async function fakeApi(page, state) {
      const wrong = [];
      page.on('pageerror', (error) => wrong.push(error.message));
      page.on('dialog', (dialog) => { wrong.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
      page.on('request', (request) => { if (!request.url().startsWith(address())) wrong.push(`a request to ${request.url()}`); });
      const accounts = () => state.accounts(stage.pixy.ports.link);
      const answers = {
        '/api/session': () => ({ json: { session: 'a-session' } }),
        '/api/accounts': () => ({ json: accounts() }),
        '/api/events': () => ({ contentType: 'text/event-stream', body: `data: ${JSON.stringify(accounts())}\n\n` }),
      };
      // Simulates a forwarded port: the page's port differs from Pixy's.
      if (state.forwarded) await page.route(`${address()}/`, async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: (await response.text()).replace(/data-port="\d+"/, 'data-port="8701"') });
      });
      await page.route('**/api/**', (route) => {
        const { pathname } = new URL(route.request().url());
        return route.fulfill(answers[pathname]?.() ?? { json: ENV });
      });
      return wrong;
    }

    async function assertRenders(page, name, scheme, size) {
      const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(sideways <= 0, `${name} is ${sideways} px too wide`);
      assert.deepEqual(await violations(page), [], `${name}, ${scheme}, ${size}`);
      assert.equal(await page.evaluate(() => window.pwned), undefined, name);
      const fullPage = name !== 'hostile' && name !== 'unlink';
      if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}-${scheme}-${size}.png`), fullPage });
    }
  });
});

describe('Firefox', { skip: !installed('firefox-esr') && 'firefox-esr is not installed' }, () => {
  let browser;
  before(async () => { browser = await startFirefox(); });
  after(() => browser?.close());

  async function open(t, url) {
    const page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    t.after(() => page.close());
    await page.goto(url);
    return { page };
  }

  const says = (page, text) => page.waitForFunction((text) => document.body.innerText.includes(text), {}, text);
  const press = (page, name) => page.evaluate((name) => {
    [...document.querySelectorAll('#of-claude-card button')].find((button) => button.textContent === name).click();
  }, name);

  test('a person links an account by pasting', async (t) => {
    const { page } = await open(t, await setupUrl(stage.pixy));
    await says(page, 'No account is linked yet');
    await press(page, 'Link');
    const link = await page.waitForSelector('#of-claude-open');
    const code = await shownCode(await logIn(await link.evaluate((link) => link.href)));
    await page.type('#of-claude-field', code);
    await says(page, 'Looks like the answer to this attempt.');
    await page.keyboard.press('Enter');
    await says(page, 'anna@example.com · Anna');
    await press(page, 'Confirm');
    await says(page, "Linked. In the agent's environment:");
    assert.equal((await stage.pixy.message()).status, 200);
  });

  test('attack_07_a_rebound_host_name_is_served_nothing', async (t) => {
    const { page } = await open(t, 'about:blank');
    const status = await page.goto(`http://${EVIL}:${stage.pixy.ports.link}/`).then((response) => response.status(), (error) => error.message);
    assert.match(String(status), /^421$|NS_ERROR_NET_ERROR_RESPONSE/); // Firefox shows its own page for that status
    assert.equal(await page.evaluate(() => document.querySelectorAll('#cards').length), 0);
  });

  test('attack_08_to_10_a_page_of_another_site_gets_nothing', async (t) => {
    await stage.pixy.link('claude');
    const before = await state();
    const evil = await startEvilSite(address(), CALLS);
    t.after(() => evil.close());
    const { page } = await open(t, `http://${EVIL}:${evil.port}/`);
    await page.waitForFunction(() => window.done, { timeout: 60_000 });
    assert.deepEqual(await page.evaluate(() => window.seen), []);
    const shown = await Promise.all(page.frames().map((frame) => frame.evaluate(() => document.querySelectorAll('#cards').length).catch(() => 0)));
    assert.deepEqual(shown.filter(Boolean), []);
    assert.deepEqual(await state(), before);
  });
});

/** What a successful attack would change. */
async function state() {
  return (await stage.pixy.status()).map(({ name, state, attempt, refreshed_at: refreshed }) => ({ name, state, attempt, refreshed }));
}
