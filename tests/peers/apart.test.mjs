// Two sidecars of one person, each with its own grant: neither affects the login of the other.
// schmitthub/clawker PR#378: a host and a container that share one login invalidate each other's tokens.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startAuthorizationServer } from './lib/authorization-server.mjs';
import { startDjango } from './lib/django.mjs';
import { bearer } from './lib/headers.mjs';
import { startLlmApi } from './lib/llm-api.mjs';
import { until } from './lib/net.mjs';
import { startPixy } from './lib/pixy.mjs';

for (const [name, startServer] of [['oidc-provider', startAuthorizationServer], ['django-oauth-toolkit', startDjango]]) {
  describe(`host and container, at ${name}`, () => {
    const opened = [];
    const open = async (peer) => { opened.unshift(await peer); return opened[0]; };
    let api, host, container;

    before(async () => {
      const server = await open(startServer({ accessTokenSeconds: 4 }));
      api = await open(startLlmApi(server));
      host = await open(startPixy({ server, api }));
      container = await open(startPixy({ server, api }));
    });
    after(async () => { for (const peer of opened) await peer.close(); });

    test('a login in one, rotations in both: the other stays linked', async () => {
      await host.link('claude');
      await until('a rotation of the first', () => hasRotated(host, 1));
      await container.link('claude');
      await Promise.all([until('three rotations of the first', () => hasRotated(host, 4), { seconds: 30 }),
        until('three of the second', () => hasRotated(container, 3), { seconds: 30 })]);
      const [one, other] = [await tokenOf(host), await tokenOf(container)];
      assert.notEqual(one, other, 'each has its own token');
    });

    test('an unlinking of one ends its own grant alone', async () => {
      const { code, all } = await container.command(['unlink', 'claude']);
      assert.equal(code, 0, all);
      assert.notEqual((await container.message()).status, 200);
      const had = await rotations(host);
      await until('two more rotations of the first', () => hasRotated(host, had + 2), { seconds: 30 });
      await tokenOf(host);
    });

    /** The token that the API received with a successful request. */
    async function tokenOf(pixy) {
      api.forget();
      const response = await pixy.message();
      assert.equal(response.status, 200, await response.text());
      return bearer(api.seen.at(-1).headers);
    }
  });
}

async function hasRotated(pixy, times) {
  return (await rotations(pixy)) >= times;
}

/** The number of renewals; fails if a refresh had another outcome. */
async function rotations(pixy) {
  const metrics = await (await fetch(`http://127.0.0.1:${pixy.ports.ops}/metrics`)).text();
  const counted = [...metrics.matchAll(/^pixy_refreshes_total\{.*outcome="(\w+)".*\} (\d+)$/gm)];
  assert.deepEqual(counted.filter(([, outcome, times]) => outcome !== 'renewed' && times !== '0'), []);
  return counted.reduce((sum, [, , times]) => sum + Number(times), 0); // some counters of each account are 0
}
