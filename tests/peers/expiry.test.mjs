// 500 concurrent requests when the access token expires: one call of the token endpoint, and no request fails.
// openai/codex#10332, anthropics/claude-code#24317, anomalyco/opencode#49439: concurrent refreshes of one rotating token.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { test } from 'node:test';
import { bearer } from './lib/headers.mjs';
import { ANSWER } from './lib/llm-api.mjs';
import { until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const REPETITIONS = process.env.PIXY_LONG === '1' ? 100 : 4;
const REQUESTS = 500;
const LIFETIME = 5; // seconds; Pixy refreshes such a token 1.6 s before its expiry and sends it until 1.1 s before
const TIMEOUT = { timeout: REPETITIONS * 20_000 };

const stage = peers({ accessTokenSeconds: LIFETIME, linked: ['claude'] });

test(`${REQUESTS} requests during a slow refresh make one token call`, TIMEOUT, async () => {
  const { pixy, api, server } = stage;
  try {
    for (let repetition = 1; repetition <= REPETITIONS; repetition += 1) {
      server.holding = true;
      await until('the refresh ahead of expiry is held', () => server.held.length > 0, { seconds: 2 * LIFETIME });
      await until('the access token has expired', async () => !(await server.isActive(server.latest.access_token)));
      api.forget();
      const calls = server.calls.refresh_token;
      const responses = ask(REQUESTS);
      await until(`Pixy has read ${REQUESTS} requests`, async () => (await unreadBy(pixy, REQUESTS)) === 0);
      assert.deepEqual([api.seen.length, server.held.length], [0, 1], 'no expired token is sent, and one call is made');

      server.held.shift()(); // this call only: the next refresh is due soon
      assertServed(await responses);
      assert.equal(server.calls.refresh_token - calls, 1, `repetition ${repetition}`);
      assertOnly([server.latest.access_token]);
      // A token's lifetime counts from its request: only one that was not held has all of it.
      const unheld = server.calls.refresh_token + server.held.length + 1;
      server.release();
      await until('a refresh that is not held', () => server.calls.refresh_token === unheld);
    }
  } finally {
    server.release();
  }
  assertNothingLost();
});

test(`${REQUESTS} requests after a suspend make one token call`, TIMEOUT, async () => {
  const { pixy, api, server } = stage;
  // On connections opened before: a stopped process accepts none, and its accept queue holds 128.
  const agent = new http.Agent({ keepAlive: true, maxFreeSockets: REQUESTS });
  assertServed(await ask(REQUESTS, agent));
  for (let repetition = 1; repetition <= REPETITIONS; repetition += 1) {
    const [calls, before, old] = [server.calls.refresh_token, server.renewals.length, server.latest.access_token];
    process.kill(pixy.pid, 'SIGSTOP');
    let responses;
    try {
      await until('the access token has expired', async () => !(await server.isActive(old)), { seconds: 2 * LIFETIME });
      api.forget();
      responses = ask(REQUESTS, agent);
      await until(`${REQUESTS} requests are unread`, async () => (await unreadBy(pixy, REQUESTS)) === REQUESTS);
      assert.equal(server.calls.refresh_token, calls, 'no refresh before the suspend');
    } finally {
      process.kill(pixy.pid, 'SIGCONT');
    }
    assertServed(await responses);
    // Where 500 responses take seconds, the refresh of the new token is due before the last one.
    const refreshes = server.renewals.slice(before);
    const atOnce = refreshes.filter(({ at }) => at - refreshes[0].at < LIFETIME * 500);
    assert.equal(atOnce.length, 1, `repetition ${repetition}`);
    assertOnly(refreshes.map(({ token }) => token));
    await until('another refresh, so that the next is not due soon', () => server.calls.refresh_token > calls + 1);
  }
  agent.destroy();
  assertNothingLost();
});

test(`${REQUESTS} requests around a refresh make one token call`, TIMEOUT, async () => {
  const { api, server } = stage;
  for (let repetition = 1; repetition <= REPETITIONS; repetition += 1) {
    const first = server.latest.access_token;
    await until('a refresh', () => server.latest.access_token !== first);
    const [calls, old, from] = [server.calls.refresh_token, server.latest.access_token, Date.now()];
    api.forget();
    const start = from + LIFETIME * 1000 - 1_900;
    const end = from + LIFETIME * 1000 + 200;
    const responses = await Promise.all(Array.from({ length: REQUESTS }, async (_, nth) => {
      await at(start + ((end - start) * nth) / REQUESTS);
      return message();
    }));
    assertServed(responses);
    assert.equal(await server.isActive(old), false);
    assert.equal(server.calls.refresh_token - calls, 1, `repetition ${repetition}`);
    assertOnly([old, server.latest.access_token]);
  }
  assertNothingLost();
});

const ask = (count, agent = false) => Promise.all(Array.from({ length: count }, () => message(agent)));
const at = (moment) => new Promise((resolve) => setTimeout(resolve, moment - Date.now()));

/** One streamed message; without an HTTP agent on its own connection, whose receive queue shows whether Pixy has read it. */
function message(agent = false) {
  const body = JSON.stringify({ model: 'small', max_tokens: 100, stream: true, messages: [{ role: 'user', content: 'hi' }] });
  const settings = { port: stage.pixy.ports.agent, path: '/claude/v1/messages', method: 'POST', agent, timeout: 60_000 };
  return new Promise((resolve) => {
    const failed = (error) => resolve({ status: 0, text: String(error) });
    const request = http.request(settings, async (response) => {
      let text = '';
      try {
        for await (const piece of response) text += piece;
        resolve({ status: response.statusCode, text });
      } catch (error) {
        failed(error);
      }
    });
    request.once('timeout', () => request.destroy(new Error('no response')));
    request.once('error', failed);
    request.end(body);
  });
}

/** How many of `count` connections have bytes that Pixy has not read; undefined while there are not `count` connections. */
async function unreadBy({ ports }, count) {
  const port = ports.agent.toString(16).toUpperCase().padStart(4, '0');
  const lines = (await readFile('/proc/self/net/tcp', 'utf8')).split('\n').map((line) => line.trim().split(/\s+/));
  const established = lines.filter(([, local, , state]) => local?.endsWith(`:${port}`) && state === '01');
  if (established.length !== count) return undefined;
  return established.filter(([, , , , queues]) => !queues.endsWith(':00000000')).length;
}

function assertServed(responses) {
  const whole = (text) => [...text.matchAll(/"text":"([^"]+)"/g)].map(([, word]) => word).join('') === ANSWER && text.includes('message_stop');
  const failed = responses.filter(({ status, text }) => status !== 200 || !whole(text));
  const warnings = new Set(stage.pixy.logged.split('\n').filter((line) => line.includes('"WARN"')).map((line) => JSON.parse(line).error));
  assert.deepEqual(failed.slice(0, 3), [], `${failed.length} failed; Pixy logged: ${[...warnings].join('; ')}`);
  assert.equal(responses.length, REQUESTS);
}

/** The API received every request once, with one of `tokens`. */
function assertOnly(tokens) {
  const { seen } = stage.api;
  assert.equal(seen.length, REQUESTS);
  assert.deepEqual(seen.filter(({ headers }) => !tokens.includes(bearer(headers))), []);
}

function assertNothingLost() {
  const { server } = stage;
  assert.deepEqual([server.reuses, server.errors], [0, []]);
}
