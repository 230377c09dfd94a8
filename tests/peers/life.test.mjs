// A login in use: streaming, refreshes under traffic, restarts after a crash or a long stop, and a token endpoint outage.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bearer } from './lib/headers.mjs';
import { ANSWER } from './lib/llm-api.mjs';
import { until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const ROTATIONS = process.env.PIXY_LONG === '1' ? 60 : 10;

const stage = peers();

test('a response is streamed as it is produced', async () => {
  const { pixy, api } = stage;
  await pixy.link('claude');
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  api.afterFirstWord = () => released;
  try {
    const response = await pixy.message();
    let text = '';
    for await (const chunk of response.body) {
      text += Buffer.from(chunk);
      if (text.includes('Hello')) release(); // the API sends the rest only after this
    }
    const words = [...text.matchAll(/"text":"([^"]+)"/g)].map(([, word]) => word);
    assert.equal(words.join(''), ANSWER);
  } finally {
    release();
    api.afterFirstWord = () => {};
  }
});

test('an agent disconnect ends the upstream stream', async () => {
  const { pixy, api } = stage;
  const stream = {}; // the API's side of it
  api.afterFirstWord = ({ response }) => new Promise((resolve) => {
    stream.open = true;
    response.once('close', () => { stream.open = false; resolve(); });
  });
  try {
    const disconnect = new AbortController();
    const response = await pixy.message({}, disconnect.signal);
    assert.equal(response.status, 200);
    await until('the API is halfway', () => stream.open);
    disconnect.abort();
    await until('the stream ends at the API', () => stream.open === false);
  } finally {
    api.afterFirstWord = () => {};
  }
});

test(`no request fails during ${ROTATIONS} rotations`, async () => {
  const { pixy, api, server } = stage;
  await pixy.link('claude');
  const before = server.calls.refresh_token;
  const rotations = () => server.calls.refresh_token - before;
  const end = Date.now() + ROTATIONS * 8000;
  const failed = [];
  let served = 0;
  const agent = async () => {
    while (rotations() < ROTATIONS && Date.now() < end) {
      const response = await pixy.message();
      const text = await response.text();
      if (response.status === 200 && text.includes('message_stop')) served += 1;
      else failed.push({ status: response.status, text });
    }
  };
  await Promise.all([agent(), agent(), agent(), agent()]);

  assert.ok(rotations() >= ROTATIONS, `only ${rotations()} rotations after ${served} requests`);
  assert.deepEqual(failed, []);
  assert.deepEqual(server.errors, [], 'the server refused nothing');
  assert.equal(server.reuses, 0, 'no refresh token was used twice');
  const tokens = new Set(api.seen.map(({ headers }) => bearer(headers)));
  assert.ok(tokens.size >= ROTATIONS, `${tokens.size} access tokens were used`);
});

test('a login survives kill -9 with its newest refresh token', async () => {
  const { pixy, server } = stage;
  await pixy.link('claude');
  const before = server.calls.refresh_token;
  await until('a rotation', () => server.calls.refresh_token > before);
  await until('the rotated token is in use', async () => (await pixy.message()).status === 200);

  await pixy.stop('SIGKILL');
  await pixy.start();
  const response = await pixy.message();
  assert.equal(response.status, 200, await response.text());
  assert.equal((await pixy.account('claude')).state, 'linked');

  const now = server.calls.refresh_token;
  await until('a rotation after the crash', () => server.calls.refresh_token > now);
  assert.equal((await pixy.message()).status, 200);
  assert.equal(server.reuses, 0);
});

test('a request works after the access token expired in a stop', async () => {
  const { pixy, server } = stage;
  await pixy.stop();
  const token = server.latest.access_token;
  await until('the access token has expired', async () => !(await server.isActive(token)));
  await pixy.start();
  const response = await pixy.message();
  assert.equal(response.status, 200, await response.text());
});

test('a token endpoint outage sends no expired token', async () => {
  const { pixy, api, server } = stage;
  assert.equal((await pixy.message()).status, 200);
  const token = server.latest.access_token;
  let waiting;
  server.down = true;
  try {
    await until('the access token has expired', async () => !(await server.isActive(token)));
    api.forget();
    waiting = pixy.message({}, AbortSignal.timeout(60_000));
    await until('a refresh was tried', () => server.cut > 0);
    assert.deepEqual(api.seen, [], 'nothing is sent without a valid token');
  } finally {
    server.down = false;
  }
  const { status, headers } = await waiting;
  assert.ok(status === 200 || (status === 503 && headers.has('retry-after')), `response status ${status}`);
  await until('requests succeed again', async () => (await pixy.message({}, AbortSignal.timeout(60_000))).status === 200, { seconds: 60 });
  assert.equal(server.reuses, 0);
});
