// Node's HTTP server announces `Keep-Alive: timeout=5` and closes idle connections after six seconds. A request that arrives at that
// moment is lost, and a POST must not be sent again.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { peers } from './lib/peers.mjs';

const ROUNDS = process.env.PIXY_LONG === '1' ? 10 : 2;
const REQUESTS = 50;
const IDLE_TIMEOUTS = [5000, 6000]; // of Node's server, in milliseconds: announced, and actual (20.20)

const stage = peers({ accessTokenSeconds: 300, linked: ['claude'] });

test(`no POST fails around the API's idle timeout`, { timeout: ROUNDS * 40_000 }, async () => {
  const { api } = stage;
  const agent = new http.Agent({ keepAlive: true, maxFreeSockets: REQUESTS });
  try {
    assertServed(await burst(agent));
    for (const idleTimeout of Array(ROUNDS).fill(IDLE_TIMEOUTS).flat()) {
      api.forget();
      await pause(idleTimeout - 100);
      const answers = burst(agent);
      await new Promise(setImmediate); // the requests are sent …
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300); // … and the API, in this process, is blocked until after its timeout
      assertServed(await answers);
      assert.equal(api.seen.length, REQUESTS, 'each is received once');
    }
  } finally {
    agent.destroy();
  }
});

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const burst = (agent) => Promise.all(Array.from({ length: REQUESTS }, () => message(agent)));

function message(agent) {
  const settings = { port: stage.pixy.ports.agent, path: '/claude/v1/messages', method: 'POST', agent, timeout: 15_000 };
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
    request.end(JSON.stringify({ model: 'small', max_tokens: 100, stream: true, messages: [{ role: 'user', content: 'hi' }] }));
  });
}

function assertServed(answers) {
  const failed = answers.filter(({ status, text }) => status !== 200 || !text.includes('message_stop'));
  assert.deepEqual(failed.slice(0, 3), [], `${failed.length} of ${answers.length} failed`);
}
