// An agent with the Anthropic SDK, configured by environment variables. `agent.mjs SOCKET` runs without a network: a listener on
// loopback forwards to the socket, as socat does.

import { createRequire } from 'node:module';
import net from 'node:net';

const Anthropic = createRequire(new URL('../peers/package.json', import.meta.url))('@anthropic-ai/sdk');
const [, , socket] = process.argv;
setTimeout(() => process.exit(1), 40_000); // PID 1 of a container ignores signals without a handler

if (socket) {
  const bridge = net.createServer((client) => {
    const upstream = net.connect(socket);
    client.pipe(upstream).pipe(client);
    for (const end of [client, upstream]) end.on('error', () => { client.destroy(); upstream.destroy(); });
  });
  await new Promise((resolve) => bridge.listen(8700, '127.0.0.1', resolve));
}

const client = new Anthropic({ maxRetries: 0, timeout: 20_000 });
const request = { model: 'small', messages: [{ role: 'user', content: 'hi' }] };
const words = [];
for await (const event of client.messages.stream({ ...request, max_tokens: 100 })) {
  if (event.type !== 'content_block_delta') continue;
  words.push(event.delta.text);
  if (words.length === 1) await client.messages.countTokens(request); // the API sends the rest only after this
}
console.log(`${words.length} words: ${words.join('')}`);
process.exit();
