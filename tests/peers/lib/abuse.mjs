// Abusive clients, a polite one beside them, and Pixy's memory meanwhile.

import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { run } from './agents.mjs';

const TIMEOUT = 5_000; // of a polite agent, in milliseconds

/** Whether slowhttptest is installed. */
export const hasSlowhttptest = spawnSync('slowhttptest', ['-h']).error === undefined;

/** Runs slowhttptest with these parameters, without a limit of open files. Answers its exit code and output. */
export async function slowly(parameters, seconds) {
  const script = 'ulimit -n "$(ulimit -Hn)"; exec slowhttptest "$@"';
  const { code, all } = await run('bash', ['-c', script, 'slowhttptest', ...parameters, '-l', String(seconds)], {
    timeout: (seconds + 30) * 1000,
  });
  return { code, said: all.replace(/\x1b\[[0-9;]*[A-Za-z]/g, '') };
}

/**
 * Twenty clients that speak HTTP/2 with prior knowledge for so many seconds: each sends the preface and HEADERS frames until it
 * is disconnected, and connects again. Answers { connections, rejected: those that got 400, bytes: sent }.
 */
export async function floodHttp2(pixy, seconds) {
  const total = { connections: 0, rejected: 0, bytes: 0 };
  const end = Date.now() + seconds * 1000;
  await Promise.all(Array.from({ length: 20 }, async () => {
    while (Date.now() < end) {
      const { received, bytes } = await floodOnce(pixy.ports.agent);
      total.connections += 1;
      total.rejected += received.startsWith('HTTP/1.1 400 ') ? 1 : 0;
      total.bytes += bytes;
    }
  }));
  return total;
}

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const FRAMES = Buffer.alloc(12 * 5000, Buffer.from('000003010500000001828486', 'hex')); // HEADERS with a request

function floodOnce(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    let received = '';
    const send = () => { while (socket.writable && socket.write(FRAMES)); };
    socket.once('connect', () => { socket.write(PREFACE); send(); }).on('drain', send);
    socket.on('data', (chunk) => { received += chunk.toString('latin1'); });
    socket.on('error', () => {}); // a reset
    socket.once('close', () => resolve({ received, bytes: socket.bytesWritten }));
  });
}

/**
 * An agent with 20 requests a second, alternately on a connection that it keeps and on a new one.
 * `stop()` answers { asked, failed: [what went wrong], slowest, median } in milliseconds.
 */
export function startPoliteAgent(pixy, { perSecond = 20 } = {}) {
  const kept = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const ways = [
    ['a kept connection', () => ask(pixy, kept)],
    ['a new connection', () => ask(pixy, false)],
  ];
  const failed = [], times = [], under = new Set();
  let asked = 0;
  const timer = setInterval(() => {
    const [name, send] = ways[asked % ways.length];
    asked += 1;
    const started = Date.now();
    const request = send().then(
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
      times.sort((one, other) => one - other);
      return { asked, failed, slowest: times.at(-1), median: times[times.length >> 1] };
    },
  };
}

const PATH = '/claude/v1/messages/count_tokens';

function ask(pixy, agent) {
  return new Promise((resolve, reject) => {
    const settings = { port: pixy.ports.agent, host: '127.0.0.1', path: PATH, method: 'POST', agent, timeout: TIMEOUT };
    const request = http.request(settings, async (response) => {
      try {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve(`${response.statusCode} ${text}`);
      } catch (error) { reject(error); }
    });
    request.once('timeout', () => request.destroy(new Error(`no answer in ${TIMEOUT} ms`))).once('error', reject);
    request.end('{}');
  });
}

/** In KiB, as the kernel counts. */
export async function memory(pid) {
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'latin1'))[1]);
}

/** Reads the memory every 50 ms. `stop()` answers the maximum. */
export function watchMemory(pid) {
  let most = 0;
  const look = async () => { most = Math.max(most, await memory(pid)); };
  const timer = setInterval(() => look().catch(() => {}), 50);
  return { async stop() { clearInterval(timer); await look(); return most; } };
}
