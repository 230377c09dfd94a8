// The page with flows that do not end at its own port: device codes and fixed callback ports.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, afterEach, before, describe, test } from 'node:test';
import { startAuthorizationServer } from './lib/authorization-server.mjs';
import { answerOnDevice } from './lib/browser.mjs';
import { startLlmApi } from './lib/llm-api.mjs';
import { freePorts, listen } from './lib/net.mjs';
import { openProvider, openPage, press, setupUrl } from './lib/page.mjs';
import { startPixy } from './lib/pixy.mjs';
import { installed, startChromium, startFirefox, violations } from './lib/real-browsers.mjs';

const POLL_TIMEOUT = 20_000; // a device code is polled every five seconds

const stage = {};

async function prepare(startBrowser) {
  stage.server = await startAuthorizationServer({ accessTokenSeconds: 600 });
  stage.api = await startLlmApi({ isActive: stage.server.isActive });
  stage.other = await listen((_, response) => response.end('Another program'));
  const { server, api, other } = stage;
  const [free] = await freePorts(1);
  const account = (more) => ({
    provider: 'oauth',
    profile: {
      link: { issuer: server.issuer, client_id: 'pixy', scopes: server.scopes, authorize_params: { prompt: 'consent' }, ...more },
      api: { base_url: api.url, allow: ['GET /v1/models'] },
    },
  });
  const at = (port) => account({ redirect: { loopback: { host: 'localhost', ports: [Number(port)], path: '/auth/callback' } } });
  const any = account({ redirect: { loopback: { host: 'localhost', ports: 'any', path: '/auth/callback' } } });
  const accounts = { device: account({ flow: 'device_code' }), free: at(free), held: at(new URL(other.url).port), any };
  stage.pixy = await startPixy({ server, api, accounts });
  stage.browser = await startBrowser();
}

/** Restores the state before a test. */
async function reset() {
  stage.server.forge = undefined;
  for (const name of ['device', 'free', 'held', 'any']) {
    const { attempt } = await stage.pixy.account(name);
    if (attempt) await stage.pixy.call('DELETE', `/api/attempts/${attempt.attempt}`);
    await stage.pixy.call('DELETE', `/api/accounts/${name}`);
  }
}

async function close() {
  for (const name of ['browser', 'pixy', 'other', 'api', 'server']) await stage[name]?.close();
}

describe('Chromium', { skip: !installed('chromium') && 'chromium is not installed' }, () => {
  before(() => prepare(startChromium));
  afterEach(reset);
  after(close);

  const person = (t) => openPage(stage.pixy, stage.browser, t);
  const href = (page, name) => page.locator(`#of-${name}-open`).getAttribute('href');

  async function confirm({ card, says }, name) {
    await card(name).getByText('anna@example.com · Anna').waitFor({ timeout: POLL_TIMEOUT });
    assert.equal((await stage.pixy.account(name)).state, 'unlinked', 'nothing is stored before the person confirms');
    await press(card(name), 'Confirm');
    await says("Linked. In the agent's environment:");
    assert.equal((await stage.pixy.ask(`/${name}/v1/models`)).status, 200);
  }

  test('a device code links without another click', async (t) => {
    const me = await person(t);
    const { page, card, says } = me;
    await press(card('device'), 'Link');
    await says('Waiting for the provider…');
    const code = await card('device').locator('.user-code').innerText();
    assert.match(code, /^[A-Z]{4}-[A-Z]{4}$/);
    const { attempt } = await stage.pixy.account('device');
    assert.deepEqual([code, await href(page, 'device')], [attempt.user_code, attempt.verification_url_complete]);
    await says('only if you started this here yourself');
    assert.equal(await card('device').getByRole('textbox').count(), 0, 'there is nothing to paste');
    assert.deepEqual(await violations(page), []);
    const tab = await openProvider(me, 'device');
    assert.equal(new URL(tab.url()).origin, stage.server.issuer);
    await tab.close();

    assert.match(await answerOnDevice(await href(page, 'device')), /Sign-in Success/);
    await card('device').getByText('Is this you?').first().waitFor({ timeout: POLL_TIMEOUT });
    assert.equal(await page.locator('.filled').count(), 1, 'Confirm is the one filled button');
    await confirm(me, 'device');
  });

  test('a denied device code leads to a new one', async (t) => {
    const me = await person(t);
    const { page, card } = me;
    await press(card('device'), 'Link');
    const refused = await href(page, 'device');
    await answerOnDevice(refused, 'abort');
    await card('device').getByText('Access was denied at the provider.').waitFor({ timeout: POLL_TIMEOUT });
    assert.equal(await page.locator('h1').innerText(), 'device was not linked this time');
    await press(card('device'), 'Start again');
    await page.waitForFunction((before) => ![undefined, before].includes(document.querySelector('#of-device-open')?.href), refused);
    await answerOnDevice(await href(page, 'device'));
    await confirm(me, 'device');
  });

  test('a fixed callback port receives the redirect', async (t) => {
    const me = await person(t);
    await press(me.card('free'), 'Link');
    await me.says('Waiting for the provider…');
    const tab = await openProvider(me, 'free');
    assert.equal(await tab.innerText('h1'), 'The provider has answered for free');
    assert.deepEqual(await violations(tab), []);
    await tab.close();
    await confirm(me, 'free');
  });

  test('attack_90_a_squatter_on_the_other_loopback_gets_nothing', async (t) => {
    const stolen = [];
    const squatter = http.createServer((request, response) => { stolen.push(request.url); response.end('Another program'); });
    await new Promise((done, failed) => squatter.once('error', failed).listen(stage.pixy.ports.link, '::1', done));
    t.after(() => { squatter.close(); squatter.closeAllConnections(); });
    const probe = await stage.browser.newContext();
    t.after(() => probe.close());
    const page = await probe.newPage();
    await page.goto(`http://localhost:${stage.pixy.ports.link}/probe`);
    assert.deepEqual(stolen.splice(0).filter((url) => url === '/probe'), ['/probe'], 'the browser takes localhost for ::1 first');

    const me = await person(t);
    await press(me.card('any'), 'Link');
    await me.card('any').getByText(/is in use by another program, which could receive the code/).waitFor();
    const tab = await openProvider(me, 'any');
    assert.equal(await tab.innerText('h1'), 'The provider has answered for any');
    await tab.close();
    await confirm(me, 'any');
    assert.deepEqual(stolen.filter((url) => url.includes('code=')), []);
  });

  test('a callback port in use: the page takes the pasted address', async (t) => {
    const me = await person(t);
    await press(me.card('held'), 'Link');
    await me.card('held').getByText(/is in use by another program/).waitFor();
    assert.equal(await me.card('held').getByText('Waiting for the provider…').count(), 0);
    const tab = await openProvider(me, 'held');
    assert.equal(await tab.innerText('body'), 'Another program');
    await me.card('held').getByRole('textbox').fill(tab.url());
    await me.says('Looks like the answer to this attempt.');
    await press(me.card('held'), 'Continue');
    await confirm(me, 'held');
  });

  test('an invalid id_token is reported once, and can be retried', async (t) => {
    const me = await person(t);
    stage.server.forge = (claims) => { claims.nonce = 'another'; };
    await press(me.card('held'), 'Link');
    const again = async () => {
      const tab = await openProvider(me, 'held');
      await me.card('held').getByRole('textbox').fill(tab.url());
      await press(me.card('held'), 'Continue');
      await tab.close();
    };
    await again();
    await me.card('held').getByText(/was rejected: it belongs to another attempt/).waitFor();
    assert.equal(await me.card('held').getByText(/was rejected/).count(), 1);
    assert.equal(await me.page.evaluate(() => document.activeElement.id), 'of-held-check', 'the focus is on the error');
    stage.server.forge = undefined;
    await press(me.card('held'), 'Start again');
    await again();
    await confirm(me, 'held');
  });
});

describe('Firefox', { skip: !installed('firefox-esr') && 'firefox-esr is not installed' }, () => {
  before(() => prepare(startFirefox));
  afterEach(reset);
  after(close);

  async function open(t, url) {
    const page = await stage.browser.newPage();
    page.setDefaultTimeout(POLL_TIMEOUT);
    t.after(() => page.close());
    await page.goto(url);
    return page;
  }

  const says = (page, text) => page.waitForFunction((text) => document.body.innerText.includes(text), {}, text);
  const pressOn = (page, name, label) => page.evaluate((name, label) => {
    [...document.querySelectorAll(`#of-${name}-card button`)].find((button) => button.textContent === label).click();
  }, name, label);

  async function confirmed(page, name) {
    await says(page, 'anna@example.com · Anna');
    await pressOn(page, name, 'Confirm');
    await says(page, "Linked. In the agent's environment:");
    assert.equal((await stage.pixy.ask(`/${name}/v1/models`)).status, 200);
  }

  test('a fixed callback port receives the redirect', async (t) => {
    const page = await open(t, await setupUrl(stage.pixy));
    await says(page, 'No account is linked yet');
    await pressOn(page, 'free', 'Link');
    const link = await page.waitForSelector('#of-free-open');
    await open(t, await link.evaluate((link) => link.href)); // the provider allows it and redirects
    await confirmed(page, 'free');
  });

  test('a device code links without another click', async (t) => {
    const page = await open(t, await setupUrl(stage.pixy));
    await says(page, 'No account is linked yet');
    await pressOn(page, 'device', 'Link');
    await page.waitForSelector('#of-device-card .user-code');
    const { attempt } = await stage.pixy.account('device');
    await answerOnDevice(attempt.verification_url_complete);
    await confirmed(page, 'device');
  });
});
