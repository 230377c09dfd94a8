// Real agents, each started with exactly the lines that `pixy env` prints: their output, the requests that the API receives,
// and their error without a linked account.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { AGENTS, runAgent } from './lib/agents.mjs';
import { bearer, credentials, throughPixy, comparableHeaders } from './lib/headers.mjs';
import { ANSWER, startLlmApi } from './lib/llm-api.mjs';
import { peers } from './lib/peers.mjs';
import { BETA } from './lib/pixy.mjs';

const stage = peers();

const CASES = [
  { agent: 'claude-code', account: 'claude', client: 'claude-code', tries: 1 },
  { agent: 'anthropic', account: 'claude', client: 'anthropic', tries: 1 },
  { agent: 'openai chat', account: 'gpt', client: 'openai', tries: 1 },
  { agent: 'openai responses', account: 'gpt', client: 'openai', tries: 1 },
  { agent: 'codex', account: 'gpt', client: 'codex', tries: 6 }, // retries any status
];

describe('without a linked account', () => {
  for (const { agent, account, client, tries } of CASES) {
    test(`${agent} reports it within 30 s`, async () => {
      const { pixy, api } = stage;
      const before = await refusals(account);
      const { code, all, seconds } = await runAgent(agent, await pixy.lines(account, client));
      assert.notEqual(code, 0, all);
      assert.match(all, new RegExp(`Pixy: account \\\\?"${account}\\\\?" is not linked`));
      assert.match(all, new RegExp(`pixy link ${account}`));
      assert.ok(seconds < 30, `it took ${seconds} s`);
      const asked = (await refusals(account)) - before;
      assert.ok(asked >= 1 && asked <= tries, `it sent ${asked} requests`);
      assert.deepEqual(api.seen, [], 'nothing reaches the API');
    });
  }
});

describe('with a linked account', () => {
  let direct; // an API that accepts any token: shows what the agent sends without Pixy

  before(async () => {
    direct = await startLlmApi({ isActive: async () => true });
    await stage.pixy.link('claude');
    await stage.pixy.link('gpt');
  });
  after(() => direct?.close());

  for (const { agent, account, client } of CASES) {
    test(`${agent} streams, and the API sees one credential`, async () => {
      const { pixy, api, server } = stage;
      const lines = await pixy.lines(account, client);

      const through = await runAgent(agent, lines);
      assert.equal(through.code, 0, through.all);
      assert.match(through.output, new RegExp(ANSWER));

      direct.forget();
      const beside = await runAgent(agent, lines.replaceAll(`http://127.0.0.1:${pixy.ports.agent}/${account}`, direct.url));
      assert.equal(beside.code, 0, beside.all);

      const [sent, seen] = [direct, api].map((side) => side.to(AGENTS[agent].path));
      assert.deepEqual([sent.length, seen.length], [1, 1], 'one request, one response');
      assert.equal(seen[0].target, sent[0].target);
      assert.equal(seen[0].json.stream, true);
      const { headers } = seen[0];
      const token = bearer(headers);
      assert.ok(server.secrets.has(token), 'a token that the server issued to Pixy');
      const merge = account === 'claude' ? { 'anthropic-beta': BETA } : {};
      const expected = throughPixy(sent[0].headers, { host: new URL(api.url).host, token, merge });
      assert.deepEqual(comparableHeaders(headers), expected);
      assert.equal(credentials(headers).length, 1);
      assert.deepEqual(api.seen.filter(({ status }) => status !== 200), []);
    });
  }
});

/** How many requests got `not_linked`. */
async function refusals(account) {
  const metrics = await (await fetch(`http://127.0.0.1:${stage.pixy.ports.ops}/metrics`)).text();
  const lines = metrics.split('\n').filter((line) => line.includes('code="not_linked"') && line.includes(`account="${account}"`));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}
