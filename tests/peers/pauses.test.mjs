// Node's HTTP server says `Keep-Alive: timeout=5` and closes a connection that nobody used for six seconds. A request that
// arrives in this moment is lost, and a POST cannot be sent again.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { peers } from './lib/peers.mjs';

const ROUNDS = process.env.PIXY_LONG === '1' ? 10 : 2;
const REQUESTS = 50;
const PATIENCE = [5000, 6000]; // of Node's server, in milliseconds: as it says, and (20.20) as it is

const stage = peers({ accessTokenSeconds: 300, linked: ['claude'] });

test(`${2 * ROUNDS} bursts of POST, each as the API is about to close its connections: none fails`, { timeout: ROUNDS * 40_000 }, async () => {
  const { api } = stage;
  const agent = new http.Agent({ keepAlive: true, maxFreeSockets: REQUESTS });
  try {
    assertServed(await burst(agent));
    for (const patience of Array(ROUNDS).fill(PATIENCE).flat()) {
      api.forget();
      await pause(patience - 100);
      const answers = burst(agent);
      await new Promise(setImmediate); // the requests are on their way …
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300); // … and the API, in this process, is busy until its patience is over
      assertServed(await answers);
      assert.equal(api.seen.length, REQUESTS, 'each arrived once');
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
    request.once('timeout', () => request.destroy(new Error('no answer')));
    request.once('error', failed);
    request.end(JSON.stringify({ model: 'small', max_tokens: 100, stream: true, messages: [{ role: 'user', content: 'hi' }] }));
  });
}

function assertServed(answers) {
  const failed = answers.filter(({ status, text }) => status !== 200 || !text.includes('message_stop'));
  assert.deepEqual(failed.slice(0, 3), [], `${failed.length} of ${answers.length} failed`);
}
