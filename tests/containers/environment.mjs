// An OAuth server and an LLM API in Pixy's network. `environment.mjs DIRECTORY KEY` writes to the directory the configuration of Pixy's
// accounts, `accounts` with a login and `with_a_key` with KEY, and at every request of an agent appends the server's request counts to `calls`.

import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startAuthorizationServer } from '../peers/lib/authorization-server.mjs';
import { startLlmApi } from '../peers/lib/llm-api.mjs';

const [, , directory, key] = process.argv;
const server = await startAuthorizationServer({ accessTokenSeconds: 3 });
const api = await startLlmApi({ isActive: async (token) => token === key || server.isActive(token) });
const paused = [];

// A stream to the SDK pauses after its first word until the agent has sent another request, so a proxy that buffers fails the test.
api.afterFirstWord = ({ seen }) => seen.headers.some(([, value]) => value.startsWith('curl/')) || new Promise((resume) => paused.push(resume));
api.rejects = ({ path }) => {
  appendFileSync(join(directory, 'calls'), `${JSON.stringify(server.calls)}\n`);
  if (path.endsWith('/count_tokens')) paused.splice(0).forEach((resume) => resume());
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
