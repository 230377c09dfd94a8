// One Pixy: the real program with a configuration and a home directory of its own.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './agents.mjs';
import { logIn } from './browser.mjs';
import { forgetAnswers, hits, watchAnswers } from './canary.mjs';
import { freePorts, until } from './net.mjs';

const PROGRAM = resolve(process.env.PIXY_BIN ?? fileURLToPath(new URL('../../../target/debug/pixy', import.meta.url)));

export const BETA = 'oauth-2025-04-20';

/**
 * Starts Pixy with two accounts on these peers: `claude`, linked by a pasted code, and `gpt`, linked by a loopback redirect; or with
 * `accounts`. With an `agentKey`, agents must present it, and it is valid for `claude` alone. `limits` go into the configuration, `env`
 * into the environment.
 *
 * `close` fails the test if a secret of the server, a token that the API received, or the agent's key appears where an agent or a log
 * reader can read it: in the log, metrics, probes, responses to agents, or the output of commands.
 */
export async function startPixy({ server, api, log = 'info', agentKey, accounts, env, limits }) {
  const directory = await mkdtemp(join(tmpdir(), 'pixy-peer-'));
  const [agent, link, ops] = await freePorts(3);
  const pixy = new Pixy({ directory, log, ports: { agent, link, ops }, env, server, api, agentKey });
  if (agentKey) await writeFile(pixy.keyFile, `${agentKey}\n`, { mode: 0o600 });
  // JSON is YAML.
  const settings = { ...surfaces(pixy, agentKey), limits, accounts: accounts ?? linkable(server, api) };
  await writeFile(pixy.config, JSON.stringify(settings, null, 2));
  await pixy.start();
  return pixy;
}

function surfaces({ directory, ports, keyFile }, agentKey) {
  const keys = agentKey ? [{ name: 'coder', key_file: keyFile, accounts: ['claude'] }] : undefined;
  return {
    agent: { listen: [{ address: `127.0.0.1:${ports.agent}`, hosts: ['pixy'] }], keys },
    link: { listen: `127.0.0.1:${ports.link}` },
    ops: { listen: `127.0.0.1:${ports.ops}` },
    state_dir: join(directory, 'state'),
    vault: { dir: join(directory, 'vault'), key_file: join(directory, 'key') },
  };
}

function linkable(server, api) {
  const login = (redirect) => ({
    issuer: server.issuer, client_id: 'pixy', scopes: server.scopes, authorize_params: { prompt: 'consent' }, redirect,
  });
  return {
    claude: {
      provider: 'oauth',
      profile: {
        link: login({ paste: server.pasteUri }),
        api: {
          base_url: api.url,
          allow: ['POST /v1/messages', 'POST /v1/messages/count_tokens', 'GET /v1/models'],
          errors: 'anthropic',
          headers: { merge: { 'anthropic-beta': [BETA] } },
        },
      },
    },
    gpt: {
      provider: 'oauth',
      profile: {
        link: login({ loopback: { host: '127.0.0.1', ports: 'any', path: '/callback' } }),
        api: {
          base_url: api.url,
          allow: ['POST /v1/chat/completions', 'POST /v1/responses', 'GET /v1/models'],
          websocket: ['/v1/responses'],
          errors: 'openai',
        },
      },
    },
  };
}

class Pixy {
  constructor(parts) {
    Object.assign(this, parts);
    this.config = join(this.directory, 'pixy.yaml');
    this.keyFile = join(this.directory, 'agent.key');
    this.vault = join(this.directory, 'vault');
    this.logged = '';
    this.printed = '';
    const secrets = () => this.secrets();
    this.answers = ['agent', 'ops'].map((surface) => watchAnswers(this.ports[surface], secrets));
    this.env = { PATH: process.env.PATH, HOME: this.directory, ...this.env };
  }

  /** The secrets that must not appear anywhere. */
  secrets() {
    const { server, api, agentKey } = this;
    return [...new Set([...(server?.secrets ?? []), ...(api?.bearers ?? []), ...(agentKey ? [agentKey] : [])])];
  }

  get pid() { return this.child.pid; }

  /** The path of the program. */
  get program() { return PROGRAM; }

  /** Starts or restarts the program, and waits for `/livez`. */
  async start() {
    this.child = spawn(PROGRAM, ['--config', this.config, '--log-format', 'json', '--log', this.log, 'serve'], {
      cwd: this.directory, env: this.env, stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { child } = this;
    this.ended = new Promise((done) => { child.once('error', done); child.once('exit', done); });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => { this.logged += bytes; });
    await until('Pixy is alive', async () => {
      if (child.exitCode !== null || !child.pid) throw new Error(`Pixy did not start:\n${this.logged}`);
      return fetch(`http://127.0.0.1:${this.ports.ops}/livez`).then((response) => response.ok, () => false);
    });
  }

  /** Ends the process with `signal`, after 10 s with SIGKILL. */
  async stop(signal = 'SIGTERM') {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    const killTimer = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
    await this.ended;
    clearTimeout(killTimer);
  }

  async close() {
    try {
      await this.assertNoSecretsLeaked();
    } finally {
      await this.stop();
      for (const surface of ['agent', 'ops']) forgetAnswers(this.ports[surface]);
      await rm(this.directory, { recursive: true, force: true });
    }
    assert.deepEqual(hits('the log', this.logged, this.secrets()), []); // the log of the shutdown included
  }

  /** Fails if a secret appears in the log, the output of commands or a response. */
  async assertNoSecretsLeaked() {
    const secrets = this.secrets();
    if (this.child?.exitCode === null && this.child.signalCode === null) {
      for (const path of ['/metrics', '/readyz', '/livez']) {
        await fetch(`http://127.0.0.1:${this.ports.ops}${path}`).then((response) => response.text(), () => {}); // `fetch` is watched
      }
    }
    const found = [...hits('the log', this.logged, secrets), ...hits('what commands printed', this.printed, secrets)];
    assert.deepEqual([...found, ...this.answers.flatMap((answers) => answers.found)], [], 'secrets were seen');
  }

  /** Runs one `pixy …` command to its end. */
  async command(parameters, options = {}) {
    const ended = await run(PROGRAM, ['--config', this.config, ...parameters], { cwd: this.directory, env: this.env, ...options });
    this.printed += ended.all;
    return ended;
  }

  async status() {
    const { code, output, all } = await this.command(['status', '--json']);
    assert.equal(code, 0, all);
    return JSON.parse(output);
  }

  async account(name) {
    return (await this.status()).find((account) => account.name === name);
  }

  /** The lines of `pixy env NAME --for CLIENT`, as printed. */
  async lines(name, client) {
    const { code, output, all } = await this.command(['env', name, '--for', client]);
    assert.equal(code, 0, all);
    return output;
  }

  /** Runs `pixy link NAME --yes`; `person(url)` logs in and returns the text to paste, or nothing after a redirect. */
  async linkInTerminal(name, person) {
    const child = spawn(PROGRAM, ['--config', this.config, 'link', name, '--yes'], { cwd: this.directory, env: this.env });
    let shown = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => { shown += bytes; });
    const exit = new Promise((done) => child.once('exit', done));
    const killTimer = setTimeout(() => child.kill('SIGKILL'), 30_000);
    try {
      const url = await until('`pixy link` shows an address', () => {
        if (child.exitCode !== null) throw new Error(`\`pixy link\` ended with ${child.exitCode}:\n${shown}`);
        return /^\s*(http\S+)\s*$/m.exec(shown)?.[1];
      });
      const typed = await person(url);
      if (typed) child.stdin.write(`${typed}\n`);
      return { code: await exit, shown };
    } finally {
      this.printed += shown;
      clearTimeout(killTimer);
      child.kill('SIGKILL');
    }
  }

  /** Calls the JSON API on the control socket. */
  call(method, path, body) {
    const settings = {
      socketPath: join(this.directory, 'state', 'control.sock'), method, path, timeout: 20_000,
      headers: { host: 'localhost', 'content-type': 'application/json' },
    };
    return new Promise((resolve, reject) => {
      const request = http.request(settings, async (response) => {
        let text = '';
        for await (const chunk of response) text += chunk;
        this.printed += `${text}\n`;
        resolve({ status: response.statusCode, body: text && JSON.parse(text), text });
      });
      request.once('timeout', () => request.destroy(new Error(`no answer from the control socket: ${method} ${path}`)));
      request.once('error', reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  async begin(name) {
    const { status, text, body } = await this.call('POST', `/api/accounts/${name}/attempts`);
    assert.equal(status, 200, text);
    return body;
  }

  paste(attempt, text) {
    return this.call('POST', `/api/attempts/${attempt}/paste`, { text });
  }

  /** Links an account by a pasted address. */
  async link(name) {
    const { attempt, authorize_url: url } = await this.begin(name);
    const back = await logIn(url);
    const pasted = await this.paste(attempt, back);
    assert.equal(pasted.status, 200, pasted.text);
    const confirmed = await this.call('POST', `/api/attempts/${attempt}/confirm`);
    assert.deepEqual([confirmed.status, confirmed.body.state], [200, 'linked'], confirmed.text);
  }

  /** Sends a request as an agent. */
  ask(path, options = {}) {
    return fetch(`http://127.0.0.1:${this.ports.agent}${path}`, { signal: AbortSignal.timeout(20_000), ...options });
  }

  /** Requests one streamed message of the account `claude`; times out after a minute at most. */
  message(headers = {}, signal = AbortSignal.timeout(20_000)) {
    const body = { model: 'small', max_tokens: 100, stream: true, messages: [{ role: 'user', content: 'hi' }] };
    return this.ask('/claude/v1/messages', {
      method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers },
      signal: AbortSignal.any([signal, AbortSignal.timeout(60_000)]),
    });
  }
}
