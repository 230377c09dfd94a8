// The world beside Pixy, in its network: an OAuth server and an LLM API. `world.mjs DIRECTORY KEY` writes there what Pixy's accounts at
// them are: `accounts` by a login, `with_a_key` by the KEY; and to `calls`, at every request of an agent, what the server was asked how often.

import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startAuthorizationServer } from '../peers/lib/authorization-server.mjs';
import { startLlmApi } from '../peers/lib/llm-api.mjs';

const [, , directory, key] = process.argv;
const server = await startAuthorizationServer({ accessTokenSeconds: 3 });
const api = await startLlmApi({ isActive: async (token) => token === key || server.isActive(token) });
const held = [];

// A stream to the SDK stops after its first word until the agent has asked for something else: whoever buffers waits in vain.
api.whenHalfway = ({ seen }) => seen.headers.some(([, value]) => value.startsWith('curl/')) || new Promise((goOn) => held.push(goOn));
api.distrusts = ({ path }) => {
  appendFileSync(join(directory, 'calls'), `${JSON.stringify(server.calls)}\n`);
  if (path.endsWith('/count_tokens')) held.splice(0).forEach((goOn) => goOn());
  return false;
};

const login = {
  issuer: server.issuer, client_id: 'pixy', scopes: server.scopes, authorize_params: { prompt: 'consent' },
  redirect: { paste: server.pasteUri },
};
const base_url = api.url;
const allow = ['POST /v1/messages', 'POST /v1/messages/count_tokens'];
account('with_a_key', { provider: 'anthropic', profile: { api: { base_url, attach: { header: 'authorization', scheme: 'Bearer' } } } });
account('accounts', { provider: 'oauth', profile: { link: login, api: { base_url, allow, errors: 'anthropic' } } });

/** JSON is YAML. */
function account(file, anthropic) {
  writeFileSync(join(directory, file), `accounts: ${JSON.stringify({ anthropic })}\n`);
}

process.on('SIGTERM', () => process.exit());
