// Ambiguous requests against real upstreams: none receives a request or a path that Pixy did not send.
// tests/it/framing/corpus.rs generates the corpus.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import net from 'node:net';
import { test } from 'node:test';
import { until } from './lib/net.mjs';
import { isInstalled, startHaproxy, startNginx, startRecorder } from './lib/origins.mjs';
import { startPixy } from './lib/pixy.mjs';

const { successor, cases } = JSON.parse(await readFile(new URL('../data/framing.json', import.meta.url)));
const SUCCESSOR = { method: 'GET', target: '/v1/models?after=successor', body: '' };

const ORIGINS = [
  { name: 'node', start: startRecorder },
  { name: 'nginx', start: startNginx },
  { name: 'haproxy', start: startHaproxy },
];

for (const { name, start } of ORIGINS) {
  const skip = name !== 'node' && !isInstalled(name) && `${name} is not installed`;
  test(`${name} receives only Pixy's requests`, { skip }, async () => {
    const origin = await start();
    const account = { provider: 'anthropic', profile: { api: { base_url: origin.url } } };
    const pixy = await startPixy({ accounts: { a: account }, log: 'warn' });
    try {
      const key = await pixy.call('POST', '/api/accounts/a/key', { key: 'sk-of-the-account' });
      assert.equal(key.status, 200, key.text);
      const expected = [];
      for (const { name: title, bytes, expected: outcome } of cases) {
        const before = origin.whole.length;
        const answer = await exchange(pixy.ports.agent, bytes + successor);
        if (outcome === 'broken') {
          assert.ok(!answer.includes('HTTP/1.1 200'), `${title}: ${answer}`);
        } else if (outcome.refused) {
          assert.ok(answer.startsWith(`HTTP/1.1 ${outcome.refused} `), `${title}: ${answer}`);
        } else {
          assert.equal(answer.split('HTTP/1.1 200').length, 3, `${title}: ${answer}`);
          expected.push(outcome, SUCCESSOR);
          assert.deepEqual(origin.whole.slice(before), [outcome, SUCCESSOR], title);
        }
        assert.equal(origin.whole.length, expected.length, title);
      }
      assert.ok(cases.length >= 500 && expected.length >= 100);
      // Of a truncated request the head was forwarded: it must be the intended one.
      for (const { method, target } of origin.cut) assert.deepEqual([method, target], ['POST', '/v1/messages']);
      // A log line may be written after its response.
      await until('the second counter is up to date', async () => {
        const counted = await origin.counted();
        return counted === undefined || (counted.length ?? counted) >= expected.length;
      });
      const counted = await origin.counted();
      if (Array.isArray(counted)) assert.deepEqual(counted, expected.map(({ method, target }) => `${method} ${target}`));
      else if (counted !== undefined) assert.equal(counted, expected.length);
      assert.deepEqual(origin.whole, expected, 'no late request');
    } finally {
      await pixy.close();
      await origin.close();
    }
  });
}

/** Sends one byte per character, and reads until Pixy closes. */
function exchange(port, text) {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = net.connect(port, '127.0.0.1', () => socket.write(Buffer.from(text, 'latin1')));
    socket.setTimeout(20_000, () => socket.destroy(new Error(`no end after ${JSON.stringify(answer)} to ${JSON.stringify(text)}`)));
    socket.on('data', (bytes) => { answer += bytes.toString('latin1'); });
    socket.once('close', () => resolve(answer));
    // A reset after the response also ends the exchange.
    socket.once('error', (error) => { if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') reject(error); });
  });
}
