// Real HTTP servers as upstreams: each reports the requests that it received. nginx and haproxy forward to a recorder, which gets the bodies.

import { spawn, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts, listen, until } from './net.mjs';

const ENV = { PATH: `${process.env.PATH}:/usr/sbin` };

/** Whether a server is installed. */
export function isInstalled(command) {
  return spawnSync(command, ['-v'], { env: ENV }).error === undefined;
}

/** Node's own server, which records complete and truncated requests. */
export async function startRecorder() {
  const recorder = { whole: [], cut: [] };
  const { url, close } = await listen(async (request, response) => {
    const { method, url: target } = request;
    const chunks = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch { /* the client disconnected within the body */ }
    const body = Buffer.concat(chunks).toString('latin1');
    (request.complete ? recorder.whole : recorder.cut).push({ method, target, body });
    response.end('recorded');
  });
  // `counted` reads an independent counter, which this server does not have.
  return Object.assign(recorder, { url, close, counted: async () => undefined });
}

/** nginx in front of a recorder. It buffers request bodies, and logs every request. */
export function startNginx() {
  return startProxy(async (directory, port, target) => {
    const log = join(directory, 'access.log');
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${directory}/${name};`);
    const configuration = `
      ${process.getuid() === 0 ? 'user root;' : ''}
      daemon off; worker_processes 1; pid ${directory}/nginx.pid; error_log ${directory}/error.log;
      events {}
      http {
        ${temporary.join(' ')}
        log_format seen '$status $request_method $request_uri';
        access_log ${log} seen;
        upstream recorder { server ${target}; }
        server { listen 127.0.0.1:${port}; location / { proxy_pass http://recorder; } }
      }`;
    const file = join(directory, 'nginx.conf');
    await writeFile(file, configuration);
    const counted = async () => {
      const lines = (await readFile(log, 'utf8')).split('\n').filter((line) => line.startsWith('200 '));
      return lines.map((line) => line.slice(4));
    };
    return { command: 'nginx', parameters: ['-p', directory, '-e', join(directory, 'error.log'), '-c', file], counted };
  });
}

/** haproxy in front of a recorder. It counts requests. */
export function startHaproxy() {
  return startProxy(async (directory, port, target) => {
    const socket = join(directory, 'stats.sock');
    const configuration = `
global
  stats socket ${socket} mode 600 level user
defaults
  mode http
  timeout connect 10s
  timeout client 30s
  timeout server 30s
frontend in
  bind 127.0.0.1:${port}
  default_backend recorder
backend recorder
  server recorder ${target}
`;
    const file = join(directory, 'haproxy.cfg');
    await writeFile(file, configuration);
    const counted = async () => {
      const table = (await ask(socket, 'show stat\n')).trim().split('\n').map((line) => line.split(','));
      const column = table[0].indexOf('hrsp_2xx');
      return Number(table.find(([name, kind]) => name === 'in' && kind === 'FRONTEND')[column]);
    };
    return { command: 'haproxy', parameters: ['-db', '-f', file], counted };
  });
}

async function startProxy(configure) {
  const recorder = await startRecorder();
  const directory = await mkdtemp(join(tmpdir(), 'pixy-origin-'));
  await mkdir(join(directory, 'logs'));
  const [port] = await freePorts(1);
  const { command, parameters, counted } = await configure(directory, port, new URL(recorder.url).host);
  const child = spawn(command, parameters, { env: ENV, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => { output += bytes; });
  const ended = new Promise((done) => { child.once('error', done); child.once('exit', done); });
  await until(`${command} listens`, async () => {
    if (child.exitCode !== null) throw new Error(`${command} did not start:\n${output}`);
    return new Promise((resolve) => {
      const probe = net.connect(port, '127.0.0.1', () => { probe.destroy(); resolve(true); });
      probe.once('error', () => resolve(false));
    });
  });
  const close = async () => {
    child.kill('SIGTERM');
    const killTimer = setTimeout(() => child.kill('SIGKILL'), 5000);
    await ended;
    clearTimeout(killTimer);
    await recorder.close();
    await rm(directory, { recursive: true, force: true });
  };
  return { whole: recorder.whole, cut: recorder.cut, counted, url: `http://127.0.0.1:${port}`, close };
}

/** Sends one command to haproxy. */
function ask(path, command) {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = net.connect(path, () => socket.write(command));
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer from haproxy')));
    socket.on('data', (bytes) => { text += bytes; });
    socket.once('error', reject).once('close', () => resolve(text));
  });
}
