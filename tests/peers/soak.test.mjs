// Mixed traffic for some seconds, or ten minutes with PIXY_LONG=1: responses, streams, uploads, disconnects, refreshes and
// repairs. Pixy causes no error, and its memory and descriptors stay at their level after a warm-up.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { test } from 'node:test';
import WebSocket from 'ws';
import { memory } from './lib/abuse.mjs';
import { ANSWER } from './lib/llm-api.mjs';
import { until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const LONG = process.env.PIXY_LONG === '1';
const SECONDS = LONG ? 600 : 20;
const WORKERS = 8;
const MAX_GROWTH = 16 * 1024; // KiB: memory that the allocator keeps
const MAX_DESCRIPTORS = 8; // idle connections
const REPAIR_INTERVAL = 31_000; // ms: Pixy repairs at most once in 30 s
const UPLOAD = 3 << 20; // more than Pixy keeps for a repair

const stage = peers({ linked: ['claude', 'gpt'], accessTokenSeconds: 6, log: 'warn' });

test(`${SECONDS} s of mixed traffic`, { timeout: (SECONDS * 1.2 + 120) * 1000 }, async (context) => {
  const { pixy, api, server } = stage;
  const warm = await traffic(SECONDS / 5);
  const before = await state();
  // The API rejects a valid token as often as Pixy repairs that by a refresh, and only for requests that can be replayed.
  let [next, distrusted] = [Date.now() + 3000, 0];
  api.rejects = ({ path }) => {
    if (path !== '/v1/messages/count_tokens' || Date.now() < next) return false;
    next = Date.now() + REPAIR_INTERVAL;
    distrusted += 1;
    return true;
  };
  const { done, faults } = await traffic(SECONDS);
  const end = await until('descriptors are as before', async () => {
    const now = await state();
    return now.descriptors <= before.descriptors + MAX_DESCRIPTORS && now;
  }, { seconds: 20, every: 250 });

  const refreshes = server.calls.refresh_token;
  context.diagnostic(JSON.stringify({ done, distrusted, refreshes, before, end }));
  assert.deepEqual([...warm.faults, ...faults], []);
  for (const [kind] of KINDS) assert.ok(done[kind] >= 10, `${done[kind]} × ${kind}`);
  assert.ok(distrusted >= SECONDS / 40 && refreshes > 2 + distrusted, `${distrusted} tokens distrusted, ${refreshes} refreshes`);
  assert.deepEqual([server.reuses, server.errors], [0, []]);
  assert.ok(end.memory <= before.memory + MAX_GROWTH, `${before.memory} KiB before, ${end.memory} KiB in the end`);
  const metrics = await (await fetch(`http://127.0.0.1:${pixy.ports.ops}/metrics`)).text();
  assert.match(metrics, /^pixy_requests_total\{.*code="".*\} \d+$/m, 'the metric is missing');
  // An upload that the client aborts is counted as a 502, although the client receives no response.
  const aborted = /^pixy_requests_total\{account="gpt",status="502",code="upstream_unreachable"\} (\d+)$/;
  const errors = metrics.match(/^pixy_requests_total\{.*code="[^"].*$/gm) ?? [];
  assert.deepEqual(errors.filter((line) => !aborted.test(line)), [], 'errors of Pixy');
  const uploads = warm.done['an upload that the agent aborts'] + done['an upload that the agent aborts'];
  assert.ok(errors.every((line) => Number(aborted.exec(line)[1]) <= uploads), `${errors}, and ${uploads} aborted`);
  assert.match(metrics, new RegExp(`^pixy_repairs_total\\{.*outcome="sent_again".*\\} ${distrusted}$`, 'm'));
});

const KINDS = [
  ['a response', async (pixy) => {
    const response = await post(pixy, '/claude/v1/messages/count_tokens', '{}');
    expect(response, await response.text(), '{"input_tokens":7}');
  }],
  ['a stream', async (pixy) => {
    const response = await pixy.message();
    expect(response, await response.text(), 'event: message_stop');
  }],
  ['a stream of the other account', async (pixy) => {
    const response = await post(pixy, '/gpt/v1/responses', JSON.stringify({ model: 'small', stream: true, input: 'hi' }));
    expect(response, await response.text(), 'response.completed');
  }],
  ['an upload', async (pixy) => {
    const input = randomBytes(UPLOAD / 2).toString('hex');
    const response = await post(pixy, '/gpt/v1/responses', JSON.stringify({ model: 'small', input }));
    expect(response, await response.text(), ANSWER);
  }],
  ['a stream that the agent aborts', async (pixy) => {
    const abort = new AbortController();
    const response = await pixy.message({}, abort.signal);
    const reader = response.body.getReader();
    const { value } = await reader.read();
    expect(response, Buffer.from(value).toString(), 'message_start');
    abort.abort();
    await reader.read().catch(() => {});
  }],
  ['a WebSocket', async (pixy) => {
    const socket = new WebSocket(`ws://127.0.0.1:${pixy.ports.agent}/gpt/v1/responses`);
    await once(socket, 'open');
    for (const text of ['one', 'two', 'x'.repeat(100_000)]) {
      socket.send(text);
      const [received] = await once(socket, 'message');
      assert.equal(received.toString(), text);
    }
    socket.close(1000);
    const [code] = await once(socket, 'close');
    assert.equal(code, 1000);
  }],
  ['a WebSocket that the agent aborts', async (pixy) => {
    const socket = new WebSocket(`ws://127.0.0.1:${pixy.ports.agent}/gpt/v1/responses`);
    await once(socket, 'open');
    socket.send(JSON.stringify({ type: 'response.create', model: 'small', input: 'hi' }));
    await once(socket, 'message');
    socket.terminate();
  }],
  ['an upload that the agent aborts', async (pixy) => {
    const abort = new AbortController();
    async function* body() {
      yield randomBytes(64 << 10);
      abort.abort();
      yield randomBytes(64 << 10);
    }
    const options = { method: 'POST', body: body(), duplex: 'half', signal: abort.signal };
    const response = await pixy.ask('/gpt/v1/responses', options).catch(() => undefined);
    assert.equal(response, undefined, 'the agent aborts before the response');
  }],
];

/** Runs all kinds concurrently for `seconds`: { done: { kind: count }, faults: [messages] }. */
async function traffic(seconds) {
  const end = Date.now() + seconds * 1000;
  const done = Object.fromEntries(KINDS.map(([kind]) => [kind, 0]));
  const faults = [];
  const work = async (number) => {
    for (let index = number; Date.now() < end; index += 1) {
      const [kind, ask] = KINDS[index % KINDS.length];
      try {
        await Promise.race([ask(stage.pixy), rejectLate(kind)]);
        done[kind] += 1;
      } catch (error) {
        faults.push(`${kind}: ${error.message} ${error.cause?.message ?? ''}`);
      }
      stage.api.forget();
      await new Promise((pause) => setTimeout(pause, 10));
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, (_, number) => work(number)));
  return { done, faults };
}

/** Rejects after 30 s, so that a request that hangs is reported and does not block the others. */
function rejectLate(kind) {
  return new Promise((_, reject) => { setTimeout(() => reject(new Error(`${kind} did not end within 30 s`)), 30_000).unref(); });
}

function post(pixy, path, body) {
  return pixy.ask(path, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
}

function expect(response, text, part) {
  assert.deepEqual([response.status, response.headers.get('x-pixy-error')], [200, null], text.slice(0, 200));
  assert.ok(text.includes(part), `an incomplete response: ${text.slice(-200)}`);
}

async function state() {
  const { pid } = stage.pixy;
  return { memory: await memory(pid), descriptors: (await readdir(`/proc/${pid}/fd`)).length };
}
