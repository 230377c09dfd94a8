// Pixy's own errors as each provider's SDK reports them: status and message must reach the user.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import OpenAI from 'openai';
import { startLlmApi } from './lib/llm-api.mjs';
import { startPixy } from './lib/pixy.mjs';

const messages = [{ role: 'user', content: 'hi' }];
const SDKS = {
  anthropic: (baseURL) => new Anthropic({ baseURL, apiKey: 'pixy' }).messages.create({ model: 'small', max_tokens: 1, messages }),
  openai: (baseURL) => new OpenAI({ baseURL: `${baseURL}/v1`, apiKey: 'pixy' }).chat.completions.create({ model: 'small', messages }),
  gemini: (baseUrl) => new GoogleGenAI({ apiKey: 'pixy', httpOptions: { baseUrl } }).models.generateContent({ model: 'small', contents: 'hi' }),
};

const stage = {};

before(async () => {
  stage.api = await startLlmApi({ isActive: async () => true });
  const unlinked = (provider) => [provider, { provider, profile: { api: { base_url: stage.api.url } } }];
  stage.pixy = await startPixy({ api: stage.api, accounts: Object.fromEntries(Object.keys(SDKS).map(unlinked)) });
});
after(async () => {
  await stage.pixy?.close();
  await stage.api?.close();
});

for (const [account, request] of Object.entries(SDKS)) {
  test(`the ${account} SDK reports that the account is not linked`, async () => {
    const error = await request(`http://127.0.0.1:${stage.pixy.ports.agent}/${account}`).then(() => assert.fail('no error'), (error) => error);
    assert.equal(error.status, 401, error);
    assert.match(error.message, new RegExp(`Pixy: account \\\\?"${account}\\\\?" is not linked. A person must run: pixy link ${account}`));
    assert.deepEqual(stage.api.seen, [], 'nothing reaches the API');
  });
}

test("Google's SDK gets the error object that Google's API sends", async () => {
  const error = await SDKS.gemini(`http://127.0.0.1:${stage.pixy.ports.agent}/gemini`).catch((error) => error);
  const { code, message, status, ...rest } = JSON.parse(error.message).error;
  assert.deepEqual({ code, status, rest }, { code: 401, status: 'UNAUTHENTICATED', rest: {} });
  assert.match(message, /^Pixy: account "gemini" is not linked/);
});
