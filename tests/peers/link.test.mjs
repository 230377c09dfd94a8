// Linking an account by a pasted code, a pasted address or a redirect, in a terminal and through the JSON API; and attempts that
// must fail.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { afterEach, test } from 'node:test';
import { SCOPES } from './lib/authorization-server.mjs';
import { logIn, shownCode } from './lib/browser.mjs';
import { peers } from './lib/peers.mjs';

const stage = peers();

afterEach(async () => {
  for (const name of ['claude', 'gpt']) await stage.pixy.call('DELETE', `/api/accounts/${name}`);
});

test('a shown code, pasted through the JSON API', async () => {
  const { pixy } = stage;
  const { attempt, authorize_url: url } = await pixy.begin('claude');
  const code = await shownCode(await logIn(url));

  const pasted = await pixy.paste(attempt, code);
  assert.equal(pasted.status, 200, pasted.text);
  assert.deepEqual(pasted.body.identity, ['anna@example.com', 'Anna']);
  assert.deepEqual(pasted.body.scopes.toSorted(), SCOPES.toSorted());
  assert.equal((await pixy.account('claude')).state, 'unlinked', 'nothing is stored before the person confirms');

  const confirmed = await pixy.call('POST', `/api/attempts/${attempt}/confirm`);
  assert.deepEqual([confirmed.status, confirmed.body], [200, { state: 'linked' }]);
  assert.equal((await pixy.account('claude')).state, 'linked');
  await works();
});

test('the whole address, pasted into a terminal', async () => {
  const { code, shown } = await stage.pixy.linkInTerminal('claude', logIn);
  assert.equal(code, 0, shown);
  assert.match(shown, /anna@example\.com/);
  assert.match(shown, /ANTHROPIC_BASE_URL=/);
  await works();
});

test('the shown code, pasted into a terminal after a typo', async () => {
  const { code, shown } = await stage.pixy.linkInTerminal('claude', async (url) => `not a code\n${await shownCode(await logIn(url))}`);
  assert.equal(code, 0, shown);
  await works();
});

test('a redirect to the link port', async () => {
  const { pixy } = stage;
  const { attempt, authorize_url: url } = await pixy.begin('gpt');
  const back = await logIn(url);
  assert.equal(new URL(back).origin, `http://127.0.0.1:${pixy.ports.link}`);

  const page = await fetch(back);
  assert.equal(page.status, 200);
  assert.doesNotMatch(await page.text(), new RegExp(new URL(back).searchParams.get('code')));
  const shown = (await pixy.account('gpt')).attempt;
  assert.deepEqual([shown.attempt, shown.exchanged, shown.identity[0]], [attempt, true, 'anna@example.com']);

  const confirmed = await pixy.call('POST', `/api/attempts/${attempt}/confirm`);
  assert.equal(confirmed.status, 200, confirmed.text);
  assert.equal((await pixy.ask('/gpt/v1/models')).status, 200);
});

test('a redirect while a terminal waits', async () => {
  const { code, shown } = await stage.pixy.linkInTerminal('gpt', async (url) => { await (await fetch(await logIn(url))).text(); });
  assert.equal(code, 0, shown);
  assert.equal((await stage.pixy.ask('/gpt/v1/models')).status, 200);
});

test('a second link replaces and revokes the first', async () => {
  const { pixy, server } = stage;
  await pixy.link('claude');
  const revocations = server.calls.revocation;
  const { attempt, authorize_url: url } = await pixy.begin('claude');
  const pasted = await pixy.paste(attempt, await logIn(url));
  assert.deepEqual(pasted.body.replaces, ['anna@example.com', 'Anna']);
  await pixy.call('POST', `/api/attempts/${attempt}/confirm`);
  await works();
  assert.ok(server.calls.revocation > revocations, 'the old grant was not revoked');
});

test('the server rejects a code of another verifier', async () => {
  const { pixy, server } = stage;
  const { attempt, authorize_url: url } = await pixy.begin('claude');
  const forged = new URL(url);
  forged.searchParams.set('code_challenge', createHash('sha256').update(randomBytes(32)).digest('base64url'));
  const asked = server.calls.authorization_code;

  const pasted = await pixy.paste(attempt, await logIn(forged));
  assert.equal(server.calls.authorization_code, asked + 1);
  assert.deepEqual(server.errors.at(-1), { route: 'token', error: 'invalid_grant' });
  refused(pasted, 'urn:pixy:problem:');
  await notLinked();
});

test('a code works once', async () => {
  const { pixy, server } = stage;
  const { attempt, authorize_url: url } = await pixy.begin('claude');
  const back = await logIn(url);
  assert.equal((await pixy.paste(attempt, back)).status, 200);
  const asked = server.calls.authorization_code;

  refused(await pixy.paste(attempt, back), 'urn:pixy:problem:code_used');
  const later = await pixy.begin('claude');
  refused(await pixy.paste(later.attempt, back), 'urn:pixy:problem:paste_');
  assert.equal(server.calls.authorization_code, asked, 'a replayed code never reaches the server');
  await notLinked();
});

test('the state of another attempt is not accepted', async () => {
  const { pixy, server } = stage;
  const older = await pixy.begin('claude');
  const back = await logIn(older.authorize_url);
  const { attempt } = await pixy.begin('claude');
  const asked = server.calls.authorization_code;

  refused(await pixy.paste(attempt, back), 'urn:pixy:problem:paste_');
  refused(await pixy.paste(attempt, await shownCode(back)), 'urn:pixy:problem:paste_');
  refused(await pixy.paste(older.attempt, back), 'urn:pixy:problem:attempt_over');
  assert.equal(server.calls.authorization_code, asked);
  await notLinked();
});

test('an attempt survives pasted rubbish', async () => {
  const { pixy } = stage;
  const { attempt, authorize_url: url } = await pixy.begin('claude');
  const back = await logIn(url);
  const foreign = back.replace(new URL(back).host, 'evil.example');
  for (const rubbish of ['', '   ', 'hello', 'two words', '#', 'a#b', '🎷', foreign, `${back}&state=twice`, 'x'.repeat(20_000)]) {
    refused(await pixy.paste(attempt, rubbish), 'urn:pixy:problem:paste_');
  }
  assert.equal((await pixy.paste(attempt, ` "${back}" \n`)).status, 200);
});

test('unlinking ends the grant at the server', async () => {
  const { pixy, server } = stage;
  await pixy.link('claude');
  const { access_token: token } = server.latest;
  assert.equal(await server.isActive(token), true);
  const { code, all } = await pixy.command(['unlink', 'claude']);
  assert.equal(code, 0, all);
  assert.equal(await server.isActive(token), false);
  await notLinked();
});

async function works() {
  const response = await stage.pixy.message();
  assert.equal(response.status, 200, await response.text());
}

async function notLinked() {
  assert.equal((await stage.pixy.account('claude')).state, 'unlinked');
  assert.equal((await stage.pixy.message()).status, 401);
}

/** Asserts a problem document (RFC 9457) of this type with a readable title. */
function refused({ status, body, text }, type) {
  assert.ok(status >= 400 && status < 600, `accepted: ${text}`);
  assert.ok(body.type.startsWith(type), `${body.type} is not ${type}`);
  assert.ok(body.title.length > 10, text);
}
