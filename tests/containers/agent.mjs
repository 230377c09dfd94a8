// An agent with the Anthropic SDK, configured as every agent is: by its environment. With `agent.mjs SOCKET` it has no network, and a
// listener on its loopback forwards to the socket, as socat does.

import { createRequire } from 'node:module';
import net from 'node:net';

const Anthropic = createRequire(new URL('../peers/package.json', import.meta.url))('@anthropic-ai/sdk');
const [, , socket] = process.argv;
setTimeout(() => process.exit(1), 40_000); // as the first process of a container it is deaf to other ends

if (socket) {
  const bridge = net.createServer((here) => {
    const there = net.connect(socket);
    here.pipe(there).pipe(here);
    for (const end of [here, there]) end.on('error', () => { here.destroy(); there.destroy(); });
  });
  await new Promise((resolve) => bridge.listen(8700, '127.0.0.1', resolve));
}

const client = new Anthropic({ maxRetries: 0, timeout: 20_000 });
const asked = { model: 'small', messages: [{ role: 'user', content: 'hi' }] };
const words = [];
for await (const event of client.messages.stream({ ...asked, max_tokens: 100 })) {
  if (event.type !== 'content_block_delta') continue;
  words.push(event.delta.text);
  if (words.length === 1) await client.messages.countTokens(asked); // only now does the rest come
}
console.log(`${words.length} words: ${words.join('')}`);
process.exit();
