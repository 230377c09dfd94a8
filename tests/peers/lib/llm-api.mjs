// A small LLM API on loopback in the dialects of Anthropic and OpenAI: streams, introspects every token at the authorization
// server, and records each request with its raw header list.

import { WebSocketServer } from 'ws';
import { listen } from './net.mjs';

const WORDS = ['Hello', ' from', ' the', ' small', ' API.'];
export const ANSWER = WORDS.join('');

const ROUTES = {
  'POST /v1/messages': messages,
  'POST /v1/messages/count_tokens': (_, reply) => reply.json(200, { input_tokens: 7 }),
  'POST /v1/chat/completions': chatCompletions,
  'POST /v1/responses': responses,
  'GET /v1/models': (_, reply) => reply.api.long ? reply.response.end(reply.api.long) : reply.json(200, {
    object: 'list',
    data: [{ id: 'small', type: 'model', object: 'model', display_name: 'Small', created: 0, owned_by: 'test' }],
    has_more: false,
  }),
};

/** `isActive(token)` decides, as introspection does for a real API; without a bearer token, `token` is undefined. */
export async function startLlmApi({ isActive }) {
  const api = {
    seen: [], // { method, target, path, headers: [[name, value], …], body, status }
    long: undefined, // replaces the list of models, for tests that need a long response
    rejects: () => false, // (request) => whether its token is rejected although it is valid
    bearers: new Set(), // every token received
    afterFirstWord: () => {}, // (reply) => called and awaited after the first word of every stream
    /** The requests to a path since `forget()`. */
    to: (path) => api.seen.filter((request) => request.path === path),
    forget: () => { api.seen.length = 0; },
  };
  const { url, close, server } = await listen(async (request, response) => {
    const seen = await read(request).catch(() => undefined);
    if (!seen) return; // the request was truncated
    api.seen.push(seen);
    const reply = new Reply(response, seen, api);
    const bearer = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
    if (bearer) api.bearers.add(bearer);
    if (api.rejects(seen) || !(await isActive(bearer))) {
      reply.json(401, { type: 'error', error: { type: 'authentication_error', message: 'the API does not know this token' } });
    } else {
      const route = ROUTES[`${seen.method} ${seen.path}`];
      await (route ? route(seen.json, reply) : reply.json(404, { error: { message: 'no such path' } }));
    }
  });
  speakWebSocket(server, api, isActive);
  return Object.assign(api, { url, close });
}

/** `GET /v1/responses` as a WebSocket: answers `response.create` with the events of `POST`, echoes everything else. */
function speakWebSocket(server, api, isActive) {
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: true });
  server.on('upgrade', async (request, socket, head) => {
    const seen = await read(request);
    api.seen.push(seen);
    const bearer = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
    if (bearer) api.bearers.add(bearer);
    seen.status = api.rejects(seen) || !(await isActive(bearer)) ? 401 : seen.path === '/v1/responses' ? 101 : 404;
    if (seen.status !== 101) return socket.end(`HTTP/1.1 ${seen.status} No\r\ncontent-length: 0\r\n\r\n`);
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.on('message', async (data, isBinary) => {
        let body;
        try { body = JSON.parse(data); } catch { /* not JSON: echoed */ }
        if (body?.type !== 'response.create') return client.send(data, { binary: isBinary });
        seen.json = body;
        for (const event of responseEvents(body)) client.send(JSON.stringify(event));
      });
      client.on('close', (code) => { seen.closed = code; });
    });
  });
}

async function read(request) {
  const { method, url, rawHeaders } = request;
  const headers = [];
  for (let at = 0; at < rawHeaders.length; at += 2) headers.push([rawHeaders[at], rawHeaders[at + 1]]);
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  let json = {};
  try { json = JSON.parse(body); } catch { /* not every request has a body */ }
  return { method, target: url, path: url.split('?')[0], headers, body, json };
}

class Reply {
  constructor(response, seen, api) {
    Object.assign(this, { response, seen, api });
  }

  json(status, value) {
    this.seen.status = status;
    this.response.writeHead(status, { 'content-type': 'application/json', 'request-id': 'req_small' });
    this.response.end(JSON.stringify(value));
  }

  /** Sends the events one by one, and awaits `afterFirstWord` once the first word is sent. */
  async events(events) {
    this.seen.status = 200;
    this.response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache', 'request-id': 'req_small' });
    let halfway = false;
    for (const event of events) {
      if (this.response.destroyed) return;
      const name = event.type ? `event: ${event.type}\n` : '';
      this.response.write(`${name}data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`);
      await new Promise((resolve) => setTimeout(resolve, 2)); // one write, one packet
      if (!halfway && JSON.stringify(event).includes(WORDS[0])) {
        halfway = true;
        await this.api.afterFirstWord(this);
      }
    }
    this.response.end();
  }
}

function messages(body, reply) {
  const message = { id: 'msg_1', type: 'message', role: 'assistant', model: body.model, stop_sequence: null };
  if (!body.stream) {
    return reply.json(200, {
      ...message, content: [{ type: 'text', text: ANSWER }], stop_reason: 'end_turn', usage: { input_tokens: 7, output_tokens: 5 },
    });
  }
  return reply.events([
    { type: 'message_start', message: { ...message, content: [], stop_reason: null, usage: { input_tokens: 7, output_tokens: 1 } } },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'ping' },
    ...WORDS.map((text) => ({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } })),
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: 5 } },
    { type: 'message_stop' },
  ]);
}

function chatCompletions(body, reply) {
  const usage = { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 };
  const common = { id: 'chatcmpl-1', created: 0, model: body.model };
  if (!body.stream) {
    const choice = { index: 0, message: { role: 'assistant', content: ANSWER }, finish_reason: 'stop' };
    return reply.json(200, { ...common, object: 'chat.completion', choices: [choice], usage });
  }
  const chunk = (delta, finish_reason = null) => ({
    ...common, object: 'chat.completion.chunk', choices: [{ index: 0, delta, finish_reason }],
  });
  return reply.events([
    chunk({ role: 'assistant', content: '' }),
    ...WORDS.map((content) => chunk({ content })),
    chunk({}, 'stop'),
    { ...common, object: 'chat.completion.chunk', choices: [], usage },
    '[DONE]',
  ]);
}

function responses(body, reply) {
  return body.stream ? reply.events(responseEvents(body)) : reply.json(200, responseEvents(body).at(-1).response);
}

function responseEvents(body) {
  const part = (text) => ({ type: 'output_text', text, annotations: [] });
  const item = (status, content) => ({ id: 'msg_1', type: 'message', role: 'assistant', status, content });
  const usage = {
    input_tokens: 7, input_tokens_details: { cached_tokens: 0 },
    output_tokens: 5, output_tokens_details: { reasoning_tokens: 0 }, total_tokens: 12,
  };
  const whole = (status, output, more = {}) => ({
    id: 'resp_1', object: 'response', created_at: 0, status, model: body.model, output, error: null, incomplete_details: null,
    instructions: null, metadata: {}, parallel_tool_calls: true, temperature: 1, tool_choice: 'auto', tools: [], top_p: 1, ...more,
  });
  const done = whole('completed', [item('completed', [part(ANSWER)])], { usage });
  const place = { item_id: 'msg_1', output_index: 0, content_index: 0 };
  const events = [
    { type: 'response.created', response: whole('in_progress', []) },
    { type: 'response.in_progress', response: whole('in_progress', []) },
    { type: 'response.output_item.added', output_index: 0, item: item('in_progress', []) },
    { type: 'response.content_part.added', ...place, part: part('') },
    ...WORDS.map((delta) => ({ type: 'response.output_text.delta', ...place, delta, logprobs: [] })),
    { type: 'response.output_text.done', ...place, text: ANSWER, logprobs: [] },
    { type: 'response.content_part.done', ...place, part: part(ANSWER) },
    { type: 'response.output_item.done', output_index: 0, item: item('completed', [part(ANSWER)]) },
    { type: 'response.completed', response: done },
  ];
  return events.map((event, sequence_number) => ({ ...event, sequence_number }));
}
