// The wall clock steps by a year, forward and back, under the real program: while it runs, in the middle of a renewal, and
// while it is stopped. libfaketime steps the wall clock alone; the boot clock goes on, as it does on a real machine.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ANSWER } from './lib/llm-api.mjs';
import { until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const YEAR = 365 * 24 * 3600; // seconds
const LIFETIME = 5; // seconds
const RENEWED_AFTER = 3.4; // seconds, of such a token

// In Pixy's own folder, where it starts: it reads nowhere else. Without the file the clock is right.
const FILE = 'step';
const env = {
  LD_PRELOAD: execFileSync('faketime', ['-m', '-f', '+0', 'printenv', 'LD_PRELOAD'], { encoding: 'utf8' }).trim(),
  FAKETIME_TIMESTAMP_FILE: FILE,
  FAKETIME_NO_CACHE: '1',
  DONT_FAKE_MONOTONIC: '1',
};
const stage = peers({ accessTokenSeconds: LIFETIME, linked: ['claude'], env });

for (const [name, seconds] of [['forward', YEAR], ['back', -YEAR]]) {
  describe(`a step ${name} by a year`, () => {
    test('under traffic, and the step back', () => unharmed(async ({ rotations }) => {
      for (const to of [seconds, 0]) {
        step(to);
        await rotations(2);
        await assertClock(to);
      }
    }));

    test('during a refresh, and the step back', () => unharmed(async ({ rotations }) => {
      const { server } = stage;
      for (const to of [seconds, 0]) {
        server.holding = true;
        try {
          await until('a renewal is under way', () => server.held.length > 0);
          step(to);
        } finally {
          server.letGo();
        }
        await rotations(2);
        await assertClock(to);
      }
    }));

    test('while Pixy is stopped, and the step back', async () => {
      const { pixy, api, server } = stage;
      for (const to of [seconds, 0]) {
        const [calls, started] = [server.calls.refresh_token, Date.now()];
        await pixy.stop('SIGKILL');
        step(to);
        await pixy.start();
        assert.deepEqual(await message(), { status: 200, text: ANSWER });
        await unharmed(({ rotations }) => rotations(2));
        await assertClock(to);
        assertFew(server.calls.refresh_token - calls, started);
      }
      assert.deepEqual(api.seen.filter(({ status }) => status !== 200), []);
    });
  });
}

/** Tells the story while four agents work, and sees that nothing happened to them or to the login. */
async function unharmed(story) {
  const { pixy, api, server } = stage;
  const [calls, started, failed] = [server.calls.refresh_token, Date.now(), []];
  let [over, served] = [false, 0];
  const agent = async () => {
    while (!over) {
      const answer = await message();
      if (answer.status === 200 && answer.text === ANSWER) served += 1;
      else failed.push(answer);
    }
  };
  const agents = Promise.all([agent(), agent(), agent(), agent()]);
  const rotations = async (count) => {
    const wanted = server.calls.refresh_token + count;
    await until(`${count} rotations`, () => server.calls.refresh_token >= wanted, { seconds: 20 });
  };
  try {
    await story({ rotations });
  } finally {
    over = true;
    await agents;
  }
  assert.deepEqual(failed, [], `of ${served + failed.length} requests`);
  assert.deepEqual(api.seen.filter(({ status }) => status !== 200), [], 'no token that was over reached the API');
  assert.deepEqual([server.reuses, server.errors], [0, []]);
  assert.equal((await pixy.account('claude')).state, 'linked');
  assertFew(server.calls.refresh_token - calls, started);
}

/** As many calls as tokens ended, and one more for each of the two steps and for each end. */
function assertFew(calls, started) {
  const seconds = (Date.now() - started) / 1000;
  assert.ok(calls <= seconds / RENEWED_AFTER + 4, `${calls} token calls within ${seconds} s`);
}

async function assertClock(to) {
  const { refreshed_at: shown } = await stage.pixy.account('claude');
  assert.ok(Math.abs(Date.parse(shown) - Date.now() - to * 1000) < 60_000, `Pixy's clock was to be ${to} s off: ${shown}`);
}

async function message() {
  const response = await stage.pixy.message();
  const text = await response.text();
  const words = [...text.matchAll(/"text":"([^"]+)"/g)].map(([, word]) => word).join('');
  return { status: response.status, text: response.status === 200 ? words : text };
}

/** Sets how far the wall clock of Pixy is off, at once for all that asks it. */
function step(seconds) {
  const file = join(stage.pixy.directory, FILE);
  writeFileSync(`${file}.new`, `${seconds < 0 ? '' : '+'}${seconds}\n`);
  renameSync(`${file}.new`, file);
}
