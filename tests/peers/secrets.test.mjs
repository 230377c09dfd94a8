// Searches for every code and token of the server in what an agent, a log reader or a thief of the disk can read.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { logIn } from './lib/browser.mjs';
import { forgetAnswers, hits, watchAnswers } from './lib/canary.mjs';
import { listen, until } from './lib/net.mjs';
import { peers } from './lib/peers.mjs';

const stage = peers({ log: 'trace' });

test('no code or token in logs, metrics, page or files', async () => {
  const { pixy, api, server } = stage;
  const places = new Map();
  const keep = async (place, response) => places.set(place, await written(response));

  // Every event of a login: both flows, a cancelled attempt, traffic, a refresh, refusals, an unreachable API, a restart.
  const { attempt, authorize_url: url } = await pixy.begin('claude');
  places.set('a pasted code', (await pixy.paste(attempt, await logIn(url))).text);
  places.set('an open attempt', (await pixy.call('GET', '/api/accounts')).text);
  places.set('a cancelled attempt', (await pixy.call('DELETE', `/api/attempts/${attempt}`)).text);
  await pixy.link('claude');
  const terminal = await pixy.linkInTerminal('gpt', async (address) => { await keep('the callback', await fetch(await logIn(address))); });
  assert.equal(terminal.code, 0, terminal.shown);
  places.set('the terminal', terminal.shown);
  const before = server.calls.refresh_token;
  await until('a renewal', () => server.calls.refresh_token > before);
  await keep('an answer', await pixy.message({ authorization: 'Bearer of-the-agent' }));
  await keep('a path that is not allowed', await pixy.ask('/claude/v1/files'));
  await keep('an unknown account', await pixy.ask('/unknown/v1/messages'));
  await keep('an unknown path at the API', await pixy.ask('/claude/v1/models'));
  await pixy.stop();
  await pixy.start();
  await keep('an answer after a restart', await pixy.message());
  await api.close();
  await keep('a dead API', await pixy.message());

  for (const path of ['/metrics', '/readyz', '/livez']) await keep(path, await fetch(`http://127.0.0.1:${pixy.ports.ops}${path}`));
  await keep('the page', await fetch(`http://127.0.0.1:${pixy.ports.link}/`));
  for (const words of [['status'], ['status', '--json'], ['env', 'claude'], ['env', 'gpt', '--for', 'codex'], ['check']]) {
    places.set(`pixy ${words.join(' ')}`, (await pixy.command(words)).all);
  }
  for (const name of ['environ', 'cmdline']) places.set(`/proc/PID/${name}`, await readFile(`/proc/${pixy.pid}/${name}`, 'latin1'));
  const files = await everyFile(pixy.directory);
  for (const file of files) places.set(file, await readFile(file, 'latin1'));
  places.set('the log', pixy.logged);

  assert.ok(files.some((file) => file.startsWith(pixy.vault)), `no file in the vault: ${files}`);
  assert.match(pixy.logged, /"message":"request"/, 'the log holds the requests');
  const secrets = [...server.secrets];
  assert.ok(secrets.length >= 10, `${secrets.length} secrets are too few to look for`);
  assert.notDeepEqual(hits('the API', JSON.stringify(api.seen), secrets), [], 'the search finds a secret where there is one');
  const found = [...places].flatMap(([place, text]) => hits(place, text, [...secrets, 'of-the-agent']));
  assert.deepEqual(found, []);
});

/** A response as text: status, headers and body. */
async function written(response) {
  return JSON.stringify([response.status, [...response.headers], await response.text()]);
}

async function everyFile(directory) {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

test('a secret in a log, output or answer fails the test', async () => {
  const { pixy, server } = stage;
  const [secret] = server.secrets;
  const { found } = pixy.answers[0];
  const fails = async (place) => assert.rejects(pixy.assertNoSecretsLeaked(), new RegExp(`${place}: `));
  for (const [field, place] of [['logged', 'the log'], ['printed', 'what commands printed']]) {
    const before = pixy[field];
    pixy[field] += `and ${Buffer.from(secret).toString('base64')} too`;
    await fails(place);
    pixy[field] = before;
  }
  found.push('the answer to /: x');
  await fails('the answer to /');
  found.length = 0;
  await pixy.assertNoSecretsLeaked();
  assert.ok(pixy.answers[0].answers >= 5 && pixy.answers[1].answers >= 6, 'answers are watched');
});

test('a secret split over two chunks is found', async () => {
  const secret = 'canary-0123456789-abcdef';
  const { url, close } = await listen(async (request, response) => {
    response.writeHead(200, request.url === '/head' ? { 'x-seen': secret } : {});
    response.write(`it is ${secret.slice(0, 9)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
    response.end(request.url === '/body' ? secret.slice(9) : 'nothing');
  });
  const { port } = new URL(url);
  const seen = watchAnswers(port, () => [secret]);
  for (const path of ['/none', '/head', '/body']) await (await fetch(url + path)).text();
  forgetAnswers(port);
  await close();
  assert.deepEqual(seen, { answers: 3, found: ['the answer to /head: cana…', 'the answer to /body: cana…'] });
});
