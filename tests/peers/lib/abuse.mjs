// Abusive clients, a well-behaved agent that runs beside them, and a probe of Pixy's memory.

import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { run } from './agents.mjs';

const TIMEOUT_MS = 5_000; // of a request of the polite agent

/** Whether slowhttptest is installed. */
export const hasSlowhttptest = spawnSync('slowhttptest', ['-h']).error === undefined;

/** Runs slowhttptest with the hard limit of open files. Returns its exit code and its output without escape sequences. */
export async function runSlowhttptest(parameters, seconds) {
  const script = 'ulimit -n "$(ulimit -Hn)"; exec slowhttptest "$@"';
  const { code, all } = await run('bash', ['-c', script, 'slowhttptest', ...parameters, '-l', String(seconds)], {
    timeout: (seconds + 30) * 1000,
  });
  return { code, output: all.replace(/\x1b\[[0-9;]*[A-Za-z]/g, '') };
}

/**
 * Runs twenty clients that speak HTTP/2 with prior knowledge: each sends the preface and HEADERS frames until it is disconnected,
 * then reconnects. Returns { connections, rejected: connections that got 400, bytes: sent }.
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
 * An agent that sends 20 requests per second, alternately on a kept and on a new connection.
 * `stop()` returns { asked: requests, failed: [error], slowest, median } with times in milliseconds.
 */
export function startPoliteAgent(pixy, { perSecond = 20 } = {}) {
  const kept = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const clients = [
    ['a kept connection', () => ask(pixy, kept)],
    ['a new connection', () => ask(pixy, false)],
  ];
  const failed = [], times = [], pending = new Set();
  let asked = 0;
  const timer = setInterval(() => {
    const [name, send] = clients[asked % clients.length];
    asked += 1;
    const started = Date.now();
    const request = send().then(
      (answer) => { if (answer !== '200 {"input_tokens":7}') failed.push(`${name}: ${answer}`); },
      (error) => failed.push(`${name}: ${error.message}`),
    ).finally(() => { times.push(Date.now() - started); pending.delete(request); });
    pending.add(request);
  }, 1000 / perSecond);
  return {
    async stop() {
      clearInterval(timer);
      await Promise.all(pending);
      kept.destroy();
      times.sort((one, other) => one - other);
      return { asked, failed, slowest: times.at(-1), median: times[times.length >> 1] };
    },
  };
}

const PATH = '/claude/v1/messages/count_tokens';

function ask(pixy, agent) {
  return new Promise((resolve, reject) => {
    const settings = { port: pixy.ports.agent, host: '127.0.0.1', path: PATH, method: 'POST', agent, timeout: TIMEOUT_MS };
    const request = http.request(settings, async (response) => {
      try {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve(`${response.statusCode} ${text}`);
      } catch (error) { reject(error); }
    });
    request.once('timeout', () => request.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`))).once('error', reject);
    request.end('{}');
  });
}

/** The resident set size (VmRSS) in KiB. */
export async function memory(pid) {
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'latin1'))[1]);
}

/** Samples the memory every 50 ms. `stop()` returns the maximum. */
export function watchMemory(pid) {
  let peak = 0;
  const sample = async () => { peak = Math.max(peak, await memory(pid)); };
  const timer = setInterval(() => sample().catch(() => {}), 50);
  return { async stop() { clearInterval(timer); await sample(); return peak; } };
}
