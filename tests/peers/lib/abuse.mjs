// Those who abuse Pixy, one who does not, and what Pixy's memory does meanwhile.

import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './agents.mjs';

const HERE = fileURLToPath(new URL('..', import.meta.url));
const PATIENCE = 5_000; // of a polite agent, in milliseconds

/** Whether it is installed. */
export const hasSlowhttptest = spawnSync('slowhttptest', ['-h']).error === undefined;

/** slowhttptest with these parameters, as many files allowed as it needs. Answers what it said. */
export async function slowly(parameters, seconds) {
  const script = 'ulimit -n "$(ulimit -Hn)"; exec slowhttptest "$@"';
  const { code, all } = await run('bash', ['-c', script, 'slowhttptest', ...parameters, '-l', String(seconds)], {
    timeout: (seconds + 30) * 1000,
  });
  return { code, said: all.replace(/\x1b\[[0-9;]*[A-Za-z]/g, '') };
}

/** One of the attacks of `abuse/http2.py`: { connections, ended, bytes, goaways: { code: count } }. */
export async function overHttp2(attack, pixy, path, seconds) {
  const parameters = [join(HERE, 'abuse/http2.py'), attack, String(pixy.ports.agent), path, String(seconds)];
  const { code, output, all } = await run(join(HERE, '.venv/bin/python'), parameters, { timeout: (seconds + 30) * 1000 });
  if (code !== 0) throw new Error(`http2.py ${attack}: ${all}`);
  return JSON.parse(output);
}

/**
 * An agent with 20 requests a second, in turn on a connection that it keeps, on a new one, and as a stream of HTTP/2.
 * `stop()` answers { asked, failed: [what went wrong], slowest, median } in milliseconds.
 */
export function startPoliteAgent(pixy, { perSecond = 20 } = {}) {
  const kept = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const ways = [
    ['a kept connection', () => over1(pixy, kept)],
    ['a new connection', () => over1(pixy, false)],
    ['HTTP/2', over2(pixy)],
  ];
  const failed = [], times = [], under = new Set();
  let asked = 0;
  const timer = setInterval(() => {
    const [name, ask] = ways[asked % ways.length];
    asked += 1;
    const started = Date.now();
    const request = ask().then(
      (answer) => { if (answer !== '200 {"input_tokens":7}') failed.push(`${name}: ${answer}`); },
      (error) => failed.push(`${name}: ${error.message}`),
    ).finally(() => { times.push(Date.now() - started); under.delete(request); });
    under.add(request);
  }, 1000 / perSecond);
  return {
    async stop() {
      clearInterval(timer);
      await Promise.all(under);
      kept.destroy();
      ways[2][1].close();
      times.sort((one, other) => one - other);
      return { asked, failed, slowest: times.at(-1), median: times[times.length >> 1] };
    },
  };
}

const PATH = '/claude/v1/messages/count_tokens';

function over1(pixy, agent) {
  return new Promise((resolve, reject) => {
    const settings = { port: pixy.ports.agent, host: '127.0.0.1', path: PATH, method: 'POST', agent, timeout: PATIENCE };
    const request = http.request(settings, async (response) => {
      try {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve(`${response.statusCode} ${text}`);
      } catch (error) { reject(error); }
    });
    request.once('timeout', () => request.destroy(new Error(`no answer in ${PATIENCE} ms`))).once('error', reject);
    request.end('{}');
  });
}

/** Asks on one connection of HTTP/2, and on the next one when a server has ended it between two requests. */
function over2(pixy) {
  let session;
  const ask = () => new Promise((resolve, reject) => {
    if (!session || session.closed || session.destroyed) {
      session = http2.connect(`http://127.0.0.1:${pixy.ports.agent}`);
      session.on('error', () => {}); // its requests tell
    }
    const stream = session.request({ ':method': 'POST', ':path': PATH });
    let status, text = '';
    stream.setTimeout(PATIENCE, () => { stream.close(); reject(new Error(`no answer in ${PATIENCE} ms`)); });
    stream.setEncoding('utf8').once('response', (headers) => { status = headers[':status']; });
    stream.on('data', (chunk) => { text += chunk; }).once('error', reject).once('end', () => resolve(`${status} ${text}`));
    stream.end('{}');
  });
  ask.close = () => session?.destroy();
  return ask;
}

/** In KiB, as the kernel counts. */
export async function memory(pid) {
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'latin1'))[1]);
}

/** Looks every 50 ms. `stop()` answers the most that it saw. */
export function watchMemory(pid) {
  let most = 0;
  const look = async () => { most = Math.max(most, await memory(pid)); };
  const timer = setInterval(() => look().catch(() => {}), 50);
  return { async stop() { clearInterval(timer); await look(); return most; } };
}
