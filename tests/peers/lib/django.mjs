// django-oauth-toolkit as a second authorization server, in a process of its own: `django/server.py`.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const HERE = fileURLToPath(new URL('..', import.meta.url));

export async function startDjango({ accessTokenSeconds = 5 } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'pixy-django-'));
  const child = spawn(join(HERE, '.venv/bin/python'), [join(HERE, 'django/server.py'), folder, String(accessTokenSeconds)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((done) => { child.once('error', done); child.once('exit', done); });
  const close = async () => {
    child.kill('SIGKILL');
    await ended;
    await rm(folder, { recursive: true, force: true });
  };
  const port = await Promise.race([
    new Promise((found) => createInterface(child.stdout).once('line', found)),
    ended.then(() => undefined),
  ]);
  if (!port) {
    await close();
    throw new Error('django-oauth-toolkit did not start: `tests/run` installs it into tests/peers/.venv');
  }
  const issuer = `http://127.0.0.1:${port}`;
  const ask = async (path) => (await fetch(issuer + path)).json();
  return {
    issuer,
    close,
    scopes: ['llm.invoke'],
    pasteUri: `${issuer}/paste`,
    /** { refresh_token, authorization_code, reuses, refused: [the text of each refusal] } */
    counts: () => ask('/counts'),
    isActive: async (token) => token !== undefined && (await ask(`/active?token=${encodeURIComponent(token)}`)).active,
  };
}
