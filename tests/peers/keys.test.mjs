// Agent keys: each is valid for its accounts alone, and is never forwarded.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { AGENTS, runAgent } from './lib/agents.mjs';
import { credentials } from './lib/headers.mjs';
import { ANSWER } from './lib/llm-api.mjs';
import { peers } from './lib/peers.mjs';

const agentKey = `agent-${randomBytes(24).toString('hex')}`;
const stage = peers({ agentKey, linked: ['claude', 'gpt'] });

for (const agent of ['claude-code', 'anthropic']) {
  test(`${agent} with the key that \`pixy env\` makes a shell read`, async () => {
    const { pixy, api, server } = stage;
    const lines = await pixy.lines('claude', agent);
    assert.ok(!lines.includes(agentKey), 'the key itself is not printed');
    const { code, output, all } = await runAgent(agent, lines);
    assert.equal(code, 0, all);
    assert.match(output, new RegExp(ANSWER));
    const [{ headers, target, body }] = api.to(AGENTS[agent].path);
    assert.ok(!JSON.stringify([headers, target, body]).includes(agentKey), 'the key was forwarded to the API');
    assert.equal(credentials(headers).length, 1);
    assert.ok(server.secrets.has(credentials(headers)[0][1].replace('Bearer ', '')));
  });
}

const REFUSED = [
  { title: 'no key', path: '/claude/v1/models', headers: {}, status: 401, code: 'agent_key_missing' },
  { title: 'a wrong key', path: '/claude/v1/models', headers: { authorization: 'Bearer wrong' }, status: 401, code: 'agent_key_wrong' },
  { title: 'an account that is not granted to the key', path: '/gpt/v1/models', headers: { authorization: `Bearer ${agentKey}` }, status: 403, code: 'account_not_granted' },
];

for (const { title, path, headers, status, code } of REFUSED) {
  test(`${title} is refused`, async () => {
    const response = await stage.pixy.ask(path, { headers });
    assert.deepEqual([response.status, response.headers.get('x-pixy-error')], [status, code]);
    assert.ok(!(await response.text()).includes(agentKey));
    assert.deepEqual(stage.api.seen, []);
  });
}

test('the key works in every field that clients use', async () => {
  for (const headers of [{ authorization: `Bearer ${agentKey}` }, { 'x-api-key': agentKey }, { 'x-goog-api-key': agentKey }]) {
    assert.equal((await stage.pixy.ask('/claude/v1/models', { headers })).status, 200, Object.keys(headers)[0]);
  }
  for (const { headers } of stage.api.seen) assert.ok(!JSON.stringify(headers).includes(agentKey));
  assert.equal(stage.api.seen.length, 3);
});
