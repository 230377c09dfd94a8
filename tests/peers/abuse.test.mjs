// Abusive clients of Pixy's listener (rows 39 and 40 of SECURITY.md): every request of a polite agent succeeds meanwhile, and memory
// stays bounded. PIXY_LONG=1 runs more clients for longer.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { floodHttp2, hasSlowhttptest, memory, runSlowhttptest, startPoliteAgent, watchMemory } from './lib/abuse.mjs';
import { startAuthorizationServer } from './lib/authorization-server.mjs';
import { until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const LONG = process.env.PIXY_LONG === '1';
const MIB = 1024; // KiB
const WARM_UP_MS = 1000;
const STAGE = { linked: ['claude'], accessTokenSeconds: 600, log: 'warn', startServer };

/** Caches introspection, because the tokens outlive the test and the API should not be the bottleneck. */
async function startServer(options) {
  const server = await startAuthorizationServer(options);
  const [active, ask] = [new Set(), server.isActive];
  server.isActive = async (token) => active.has(token) || ((await ask(token)) && active.add(token) && true);
  return server;
}

/** Starts Pixy and lets it serve a polite agent for a second. */
function warmed(limits) {
  const stage = peers({ ...STAGE, limits });
  before(async () => {
    const polite = startPoliteAgent(stage.pixy);
    await new Promise((warm) => setTimeout(warm, WARM_UP_MS));
    assert.deepEqual((await polite.stop()).failed, []);
  });
  return stage;
}

/** Runs an attack beside a polite agent; fails if a polite request fails or memory grows by more than `most` KiB. Returns the attack's result. */
async function endure({ pixy }, context, attack, most = 32 * MIB) {
  const before = await memory(pixy.pid);
  const [polite, watch] = [startPoliteAgent(pixy), watchMemory(pixy.pid)];
  const result = await attack(pixy);
  const { asked, failed, slowest, median } = await polite.stop();
  const grown = (await watch.stop()) - before;
  context.diagnostic(`${asked} polite requests, median ${median} ms, slowest ${slowest} ms; memory +${(grown / MIB).toFixed(1)} MiB at most`);
  assert.ok(asked >= 20, `${asked} polite requests`);
  assert.deepEqual(failed, [], `of ${asked} polite requests`);
  assert.ok(grown <= most, `+${grown} KiB, from ${before}`);
  await until('memory is as before', async () => (await memory(pixy.pid)) - before <= most);
  return result;
}

const [CONNECTIONS, SECONDS] = LONG ? [5000, 60] : [2000, 10]; // Pixy accepts 1024

async function slow(stage, context, path, parameters, connections, most) {
  const { output } = await endure(stage, context, ({ ports }) => runSlowhttptest([
    ...parameters, '-c', String(connections), '-r', String(connections / 4), '-u', `http://127.0.0.1:${ports.agent}${path}`,
  ], SECONDS), most);
  assert.match(output, /Test ended/i, output);
}

describe('slow clients', { skip: !hasSlowhttptest && 'slowhttptest is missing' }, () => {
  const stage = warmed();

  test('attack_40_slow_heads_starve_no_agent', (context) => (
    slow(stage, context, '/claude/v1/models', ['-H', '-i', '1', '-x', '24'], CONNECTIONS)));

  // Each is a request in progress with a connection to the API: 1024 of them need more memory, which stays bounded.
  test('attack_40_slow_bodies_starve_no_agent', (context) => (
    slow(stage, context, '/claude/v1/messages', ['-B', '-i', '1', '-s', '65536', '-f', 'application/json'], CONNECTIONS, 96 * MIB)));
});

// Few connections, so that all of them get a response soon even from a debug build.
describe('slow readers', { skip: !hasSlowhttptest && 'slowhttptest is missing' }, () => {
  const stage = warmed({ connections: 64 });

  test('attack_40_slow_readers_starve_no_agent', (context) => {
    stage.api.long = Buffer.alloc(160 << 10, 'x'); // more than Pixy buffers of a response
    const parameters = ['-X', '-w', '512', '-y', '1024', '-n', '1', '-z', '16'];
    return slow(stage, context, '/claude/v1/models', parameters, CONNECTIONS / 10);
  });
});

// Pixy does not speak HTTP/2: it rejects the preface and discards what follows.
describe('HTTP/2', () => {
  const stage = warmed();

  test('attack_39_http2_floods_harm_no_agent', async (context) => {
    const { connections, rejected, bytes } = await endure(stage, context, (pixy) => floodHttp2(pixy, SECONDS));
    context.diagnostic(`${connections} connections, ${rejected} rejected, ${bytes >> 20} MiB`);
    assert.ok(connections > 20 && bytes > 10 << 20, `${connections} connections, ${bytes} bytes`);
    assert.ok(rejected * 2 > connections, `${rejected} of ${connections} rejected`); // a reset may overtake the 400
  });
});
