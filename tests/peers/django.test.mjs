// A login at another authorization server: django-oauth-toolkit revokes the old access token when it rotates, so the API
// rejects requests that are in flight at that moment.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startDjango } from './lib/django.mjs';
import { bearer } from './lib/headers.mjs';
import { until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const ROTATIONS = process.env.PIXY_LONG === '1' ? 60 : 20;
const LIFETIME = 4; // seconds

const stage = peers({ accessTokenSeconds: LIFETIME, linked: ['claude'], startServer: startDjango });

test(`no request fails during ${ROTATIONS} rotations`, { timeout: ROTATIONS * 10_000 }, async () => {
  const { api, server } = stage;
  const before = (await server.counts()).refresh_token;
  const end = Date.now() + ROTATIONS * LIFETIME * 1000;
  const failed = [];
  let [served, rotations] = [0, 0];
  const agent = async () => {
    while (rotations < ROTATIONS && Date.now() < end) {
      const { status, text } = await message();
      if (status === 200 && text.includes('message_stop')) served += 1;
      else failed.push({ status, text });
      rotations = (await server.counts()).refresh_token - before;
    }
  };
  await Promise.all([agent(), agent(), agent(), agent()]);

  assert.ok(rotations >= ROTATIONS, `only ${rotations} rotations after ${served} requests`);
  assert.deepEqual(failed, [], `of ${served + failed.length} requests`);
  await assertNothingLost();
  assert.ok(api.seen.some(({ status }) => status === 401), 'the API rejected no request in flight, so the test shows nothing');
  const tokens = new Set(api.seen.map(({ headers }) => bearer(headers)));
  assert.ok(tokens.size >= ROTATIONS, `${tokens.size} access tokens were used`);
});

test('a login survives kill -9 without a reused refresh token', async () => {
  const { pixy, server } = stage;
  const before = (await server.counts()).refresh_token;
  await until('a rotation', async () => (await server.counts()).refresh_token > before);
  await until('the rotated token is in use', async () => (await message()).status === 200);

  await pixy.stop('SIGKILL');
  await pixy.start();
  const { status, text } = await message();
  assert.equal(status, 200, text);
  assert.equal((await pixy.account('claude')).state, 'linked');

  const now = (await server.counts()).refresh_token;
  await until('a rotation after the crash', async () => (await server.counts()).refresh_token > now);
  assert.equal((await message()).status, 200);
  await assertNothingLost();
});

async function message() {
  const response = await stage.pixy.message();
  return { status: response.status, text: await response.text() };
}

async function assertNothingLost() {
  const { reuses, refused } = await stage.server.counts();
  assert.deepEqual([reuses, refused], [0, []]);
}
