// The peers of a test file: started before its tests, closed after them.

import { after, before, beforeEach } from 'node:test';
import { startAuthorizationServer } from './authorization-server.mjs';
import { startLlmApi } from './llm-api.mjs';
import { startPixy } from './pixy.mjs';

/** Registers the hooks. The returned object is filled, and the accounts `linked`, before the first test. */
export function peers({ log, accessTokenSeconds, agentKey, env, limits, linked = [], startServer = startAuthorizationServer } = {}) {
  const stage = {};
  before(async () => {
    stage.server = await startServer({ accessTokenSeconds });
    stage.api = await startLlmApi({ isActive: stage.server.isActive });
    stage.pixy = await startPixy({ server: stage.server, api: stage.api, log, agentKey, env, limits });
    for (const name of linked) await stage.pixy.link(name);
  });
  beforeEach(() => { stage.api.forget(); });
  after(async () => {
    await stage.pixy?.close();
    await stage.api?.close();
    await stage.server?.close();
  });
  return stage;
}
