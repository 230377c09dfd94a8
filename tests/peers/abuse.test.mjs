// Clients that mean harm, on Pixy's own listener: meanwhile every request of a polite agent succeeds, and memory stays.
// Rows 39 and 40 of the threats. With PIXY_LONG=1 they are more, and stay longer.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { floodHttp2, hasSlowhttptest, memory, slowly, startPoliteAgent, watchMemory } from './lib/abuse.mjs';
import { startAuthorizationServer } from './lib/authorization-server.mjs';
import { until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const LONG = process.env.PIXY_LONG === '1';
const MIB = 1024; // KiB
const WARM = 1000; // ms
const STAGE = { linked: ['claude'], accessTokenSeconds: 600, log: 'warn', startServer };

/** Its tokens outlive the story: the API need not ask again and again, and is not what is slow here. */
async function startServer(options) {
  const server = await startAuthorizationServer(options);
  const [active, ask] = [new Set(), server.isActive];
  server.isActive = async (token) => active.has(token) || ((await ask(token)) && active.add(token) && true);
  return server;
}

/** A Pixy that has served a polite agent for a while. */
function warmed(limits) {
  const stage = peers({ ...STAGE, limits });
  before(async () => {
    const polite = startPoliteAgent(stage.pixy);
    await new Promise((warm) => setTimeout(warm, WARM));
    assert.deepEqual((await polite.stop()).failed, []);
  });
  return stage;
}

/** An attack, a polite agent beside it, and what is left of both. */
async function endure({ pixy }, context, attack, most = 32 * MIB) {
  const before = await memory(pixy.pid);
  const [polite, watch] = [startPoliteAgent(pixy), watchMemory(pixy.pid)];
  const came = await attack(pixy);
  const { asked, failed, slowest, median } = await polite.stop();
  const grown = (await watch.stop()) - before;
  context.diagnostic(`${asked} polite requests, median ${median} ms, slowest ${slowest} ms; memory +${(grown / MIB).toFixed(1)} MiB at most`);
  assert.ok(asked >= 20, `${asked} polite requests`);
  assert.deepEqual(failed, [], `of ${asked} polite requests`);
  assert.ok(grown <= most, `+${grown} KiB, from ${before}`);
  await until('memory is as before', async () => (await memory(pixy.pid)) - before <= most);
  return came;
}

const [CONNECTIONS, SECONDS] = LONG ? [5000, 60] : [2000, 10]; // Pixy takes 1024

async function slow(stage, context, path, parameters, connections, most) {
  const { said } = await endure(stage, context, ({ ports }) => slowly([
    ...parameters, '-c', String(connections), '-r', String(connections / 4), '-u', `http://127.0.0.1:${ports.agent}${path}`,
  ], SECONDS), most);
  assert.match(said, /Test ended/i, said);
}

describe('slow clients', { skip: !hasSlowhttptest && 'slowhttptest is missing' }, () => {
  const stage = warmed();

  test('attack_40_slow_heads_starve_nobody', (context) => (
    slow(stage, context, '/claude/v1/models', ['-H', '-i', '1', '-x', '24'], CONNECTIONS)));

  // Each is a request under way, with a connection to the API: 1024 of them are no small thing, and stay what they are.
  test('attack_40_slow_bodies_starve_nobody', (context) => (
    slow(stage, context, '/claude/v1/messages', ['-B', '-i', '1', '-s', '65536', '-f', 'application/json'], CONNECTIONS, 96 * MIB)));
});

// Few places, so that all of them have an answer within moments, whatever a test build takes for it.
describe('slow readers', { skip: !hasSlowhttptest && 'slowhttptest is missing' }, () => {
  const stage = warmed({ connections: 64 });

  test('attack_40_slow_readers_starve_nobody', (context) => {
    stage.api.long = Buffer.alloc(160 << 10, 'x'); // more than Pixy holds of an answer that is not taken
    const parameters = ['-X', '-w', '512', '-y', '1024', '-n', '1', '-z', '16'];
    return slow(stage, context, '/claude/v1/models', parameters, CONNECTIONS / 10);
  });
});

// Pixy does not speak HTTP/2: it rejects the preface and discards what follows.
describe('HTTP/2', () => {
  const stage = warmed();

  test('attack_39_http2_floods_harm_nobody', async (context) => {
    const { connections, rejected, bytes } = await endure(stage, context, (pixy) => floodHttp2(pixy, SECONDS));
    context.diagnostic(`${connections} connections, ${rejected} rejected, ${bytes >> 20} MiB`);
    assert.ok(connections > 20 && bytes > 10 << 20, `${connections} connections, ${bytes} bytes`);
    assert.ok(rejected * 2 > connections, `${rejected} of ${connections} rejected`); // a reset may overtake the 400
  });
});
