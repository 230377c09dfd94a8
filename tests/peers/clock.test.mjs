// The wall clock of the real program steps by a year, forward and back: under traffic, during a refresh, and while Pixy is
// stopped. libfaketime steps only the wall clock; the boot clock continues, as on a real machine.

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
const REFRESHED_AFTER = 3.4; // seconds of that lifetime

// In Pixy's working directory, the only one it can read. Without the file the clock is correct.
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
    test('under traffic, and the step back', () => assertNoFailures(async ({ rotations }) => {
      for (const to of [seconds, 0]) {
        step(to);
        await rotations(2);
        await assertClock(to);
      }
    }));

    test('during a refresh, and the step back', () => assertNoFailures(async ({ rotations }) => {
      const { server } = stage;
      for (const to of [seconds, 0]) {
        server.holding = true;
        try {
          await until('a refresh is in progress', () => server.held.length > 0);
          step(to);
        } finally {
          server.release();
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
        await assertNoFailures(({ rotations }) => rotations(2));
        await assertClock(to);
        assertFew(server.calls.refresh_token - calls, started);
      }
      assert.deepEqual(api.seen.filter(({ status }) => status !== 200), []);
    });
  });
}

/** Runs `scenario` under the traffic of four agents, and asserts that no request failed and the login is intact. */
async function assertNoFailures(scenario) {
  const { pixy, api, server } = stage;
  const [calls, started, failed] = [server.calls.refresh_token, Date.now(), []];
  let [done, served] = [false, 0];
  const agent = async () => {
    while (!done) {
      const response = await message();
      if (response.status === 200 && response.text === ANSWER) served += 1;
      else failed.push(response);
    }
  };
  const agents = Promise.all([agent(), agent(), agent(), agent()]);
  const rotations = async (count) => {
    const wanted = server.calls.refresh_token + count;
    await until(`${count} rotations`, () => server.calls.refresh_token >= wanted, { seconds: 20 });
  };
  try {
    await scenario({ rotations });
  } finally {
    done = true;
    await agents;
  }
  assert.deepEqual(failed, [], `of ${served + failed.length} requests`);
  assert.deepEqual(api.seen.filter(({ status }) => status !== 200), [], 'no expired token reached the API');
  assert.deepEqual([server.reuses, server.errors], [0, []]);
  assert.equal((await pixy.account('claude')).state, 'linked');
  assertFew(server.calls.refresh_token - calls, started);
}

/** One call for each refreshed token, and one more for each of the two steps and each end. */
function assertFew(calls, started) {
  const seconds = (Date.now() - started) / 1000;
  assert.ok(calls <= seconds / REFRESHED_AFTER + 4, `${calls} token calls within ${seconds} s`);
}

async function assertClock(to) {
  const { refreshed_at: shown } = await stage.pixy.account('claude');
  assert.ok(Math.abs(Date.parse(shown) - Date.now() - to * 1000) < 60_000, `Pixy's clock is not ${to} s off: ${shown}`);
}

async function message() {
  const response = await stage.pixy.message();
  const text = await response.text();
  const words = [...text.matchAll(/"text":"([^"]+)"/g)].map(([, word]) => word).join('');
  return { status: response.status, text: response.status === 200 ? words : text };
}

/** Sets the offset of Pixy's wall clock, atomically. */
function step(seconds) {
  const file = join(stage.pixy.directory, FILE);
  writeFileSync(`${file}.new`, `${seconds < 0 ? '' : '+'}${seconds}\n`);
  renameSync(`${file}.new`, file);
}
