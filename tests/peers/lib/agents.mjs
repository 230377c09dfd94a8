// The real agents, configured only by the output of `pixy env`.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { everySecret, hits } from './canary.mjs';

const HERE = dirname(dirname(fileURLToPath(import.meta.url)));
const BIN = join(HERE, 'node_modules', '.bin');

/** The command of each agent, the API path that it uses, and its settings file if it is not configured by environment variables. */
export const AGENTS = {
  'claude-code': { command: join(BIN, 'claude'), arguments: ['-p', 'hi'], path: '/v1/messages' },
  codex: { command: join(BIN, 'codex'), arguments: ['exec', '--skip-git-repo-check', 'hi'], path: '/v1/responses', settings: 'config.toml' },
  anthropic: { command: process.execPath, arguments: [join(HERE, 'sdk', 'anthropic.mjs')], path: '/v1/messages' },
  'openai chat': { command: process.execPath, arguments: [join(HERE, 'sdk', 'openai-chat.mjs')], path: '/v1/chat/completions' },
  'openai responses': { command: process.execPath, arguments: [join(HERE, 'sdk', 'openai-responses.mjs')], path: '/v1/responses' },
};

/** Runs an agent to its end, configured by the printed lines. Fails if its output contains a secret. Returns as {@link run}. */
export async function runAgent(name, lines, { seconds = 60 } = {}) {
  const agent = AGENTS[name];
  const home = await mkdtemp(join(tmpdir(), 'pixy-agent-'));
  try {
    const env = { PATH: process.env.PATH, HOME: home };
    if (agent.settings) {
      await mkdir(join(home, '.codex'));
      await writeFile(join(home, '.codex', agent.settings), `${lines}\n`);
    } else {
      Object.assign(env, await exported(lines));
    }
    const ended = await run(agent.command, agent.arguments, { cwd: home, env, timeout: seconds * 1000 });
    assert.deepEqual(hits(`what ${name} wrote`, ended.all, everySecret()), []);
    return ended;
  } finally {
    await rm(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** The environment variables of a shell that has read the lines. */
async function exported(lines) {
  const { code, output } = await run('bash', ['-euc', `${lines}\nenv -0`], { env: { PATH: process.env.PATH } });
  if (code !== 0) throw new Error(`the printed lines are not for a shell:\n${lines}`);
  const pairs = output.split('\0').filter(Boolean).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]);
  return Object.fromEntries(pairs.filter(([key]) => !['PATH', 'PWD', 'SHLVL', '_'].includes(key)));
}

/** Runs a child process to its end; `timeout` is in milliseconds. */
export function run(command, parameters, { input, ...options } = {}) {
  const started = Date.now();
  return new Promise((resolve) => {
    const settings = { timeout: 20_000, killSignal: 'SIGKILL', maxBuffer: 64 << 20, ...options };
    const child = execFile(command, parameters, settings, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : -1) : 0;
      resolve({ code, signal: error?.signal, output: stdout, errors: stderr, all: stdout + stderr, seconds: (Date.now() - started) / 1000 });
    });
    child.stdin.on('error', () => {}); // it may exit without reading stdin
    child.stdin.end(input ?? '');
  });
}
