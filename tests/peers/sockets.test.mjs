// WebSockets through Pixy: the `ws` library at both ends, and Codex, which uses WebSockets for the Responses API.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import WebSocket from 'ws';
import { runAgent } from './lib/agents.mjs';
import { bearer, credentials } from './lib/headers.mjs';
import { ANSWER } from './lib/llm-api.mjs';
import { until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const stage = peers({ linked: ['gpt'] });
const OPTIONS = { timeout: 60_000 };

/** An open WebSocket to the API through Pixy. */
async function open(path = '/gpt/v1/responses', protocols = []) {
  const socket = new WebSocket(`ws://127.0.0.1:${stage.pixy.ports.agent}${path}`, protocols, { headers: { authorization: 'Bearer dummy' } });
  await once(socket, 'open');
  return socket;
}

test('messages of every size are relayed unchanged and in order', OPTIONS, async () => {
  const { api, server } = stage;
  const socket = await open();
  assert.equal(socket.extensions, '', 'compression was offered but not negotiated');
  const messages = [0, 1, 125, 126, 65_535, 65_536, 3_000_000].map((length) => randomBytes(length));
  const received = [];
  socket.on('message', (data) => received.push(data));
  for (const message of messages) socket.send(message);
  socket.ping('are you there');
  const [pong] = await once(socket, 'pong');
  assert.equal(pong.toString(), 'are you there');
  await until('all messages are echoed', () => received.length === messages.length);
  assert.deepEqual(received.map((data, nth) => data.equals(messages[nth])), messages.map(() => true));
  socket.close(4001, 'enough');
  const [code] = await once(socket, 'close');
  assert.equal(code, 4001, "the API's close code");
  const [seen] = api.seen;
  await until('the API got the close', () => seen.closed !== undefined);
  assert.equal(seen.closed, 4001);
  assert.equal(bearer(seen.headers), server.latest.access_token);
  assert.equal(credentials(seen.headers).length, 1);
});

test('fifty concurrent agents each get their own messages', OPTIONS, async () => {
  const sockets = await Promise.all(Array.from({ length: 50 }, () => open()));
  await Promise.all(sockets.map(async (socket, nth) => {
    for (let round = 0; round < 20; round += 1) {
      socket.send(`agent ${nth}, round ${round}`);
      const [data] = await once(socket, 'message');
      assert.equal(data.toString(), `agent ${nth}, round ${round}`);
    }
    socket.close();
    await once(socket, 'close');
  }));
});

test('a path that the profile does not allow gets 426', OPTIONS, async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${stage.pixy.ports.agent}/gpt/v1/realtime`);
  const [, response] = await once(socket, 'unexpected-response');
  assert.equal(response.statusCode, 426);
  assert.deepEqual(stage.api.seen, []);
});

test('Codex gets its answer over a WebSocket', { timeout: 120_000 }, async () => {
  const { api, pixy } = stage;
  const lines = (await pixy.lines('gpt', 'codex')).replace(/(\[model_providers\.[^\]]+\]\n)/, '$1supports_websockets = true\n');
  assert.match(lines, /supports_websockets/);
  const { code, all, output } = await runAgent('codex', lines);
  assert.equal(code, 0, all);
  assert.match(output, new RegExp(ANSWER));
  const upgrades = api.seen.filter(({ method, path }) => method === 'GET' && path === '/v1/responses');
  assert.ok(upgrades.some(({ status, json }) => status === 101 && json.type === 'response.create'), JSON.stringify(api.seen.map(({ method, path, status }) => [method, path, status])));
  assert.ok(api.seen.every((seen) => credentials(seen.headers).length === 1));
});
