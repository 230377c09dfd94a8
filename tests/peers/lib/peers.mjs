// Everything that a story needs, started before it and ended after it.

import { after, before, beforeEach } from 'node:test';
import { startAuthorizationServer } from './authorization-server.mjs';
import { startLlmApi } from './llm-api.mjs';
import { startPixy } from './pixy.mjs';

/** The peers of one test file; what is returned is filled, and the accounts are `linked`, before the first story. */
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
