// A terminal: a tmux server whose screen can be typed into and read.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { run } from './agents.mjs';
import { until } from './net.mjs';

let opened = 0;

export const hasTmux = spawnSync('tmux', ['-V']).error === undefined;

/** Opens a terminal with a shell. `close` ends its tmux server. */
export async function openTerminal(pixy, { columns = 100, rows = 50, env = {} } = {}) {
  const socket = join(pixy.directory, `tmux-${(opened += 1)}.sock`); // one server each: a server that is exiting would also end the next terminal
  const tmux = (...parameters) => run('tmux', ['-S', socket, '-f', '/dev/null', ...parameters], {
    env: { PATH: process.env.PATH, HOME: pixy.directory, LANG: 'C.UTF-8', SHELL: '/bin/sh' },
  });
  const variables = Object.entries({ PS1: 'ready$ ', DISPLAY: ':0', ...env }).map(([name, value]) => `${name}=${value}`);
  const shell = ['env', '-i', `PATH=${process.env.PATH}`, `HOME=${pixy.directory}`, 'LANG=C.UTF-8', 'TERM=screen', ...variables, 'sh'];
  const begun = await tmux('-u', 'new-session', '-d', '-s', 'one', '-x', String(columns), '-y', String(rows), ...shell);
  if (begun.code !== 0) throw new Error(`tmux did not start: ${begun.all}`);
  const typed = [];
  const terminal = {
    /** The screen and its scrollback with wrapped lines joined; with `colours`, including escape sequences. */
    async screen({ colours } = {}) {
      const { output } = await tmux('capture-pane', '-p', '-J', '-S', '-', ...(colours ? ['-e'] : []), '-t', 'one');
      pixy.printed += typed.reduce((rest, line) => rest.replaceAll(line, ''), output); // a typed code is echoed, which is no leak
      return output;
    },
    /** Waits until the screen matches `wanted`; returns the match, or throws with the screen. */
    async shows(wanted, seconds = 10) {
      let screen = '';
      const found = until(`the screen shows ${wanted}`, async () => wanted.exec(screen = await terminal.screen()), { seconds, every: 100 });
      return found.catch((error) => { throw new Error(`${error.message}:\n${screen}`); });
    },
    async type(line) {
      if (line) typed.push(line);
      await tmux('send-keys', '-t', 'one', '-l', '--', line);
      await tmux('send-keys', '-t', 'one', 'Enter');
    },
    press: (key) => tmux('send-keys', '-t', 'one', key),
    /** Runs a command on a cleared screen, followed by its exit code. */
    async start(parameters) {
      await tmux('send-keys', '-R', '-t', 'one');
      await tmux('clear-history', '-t', 'one');
      await terminal.type(`${pixy.program} --config ${pixy.config} ${parameters}; echo "ended with $?"`);
    },
    async ends(code) {
      await terminal.shows(new RegExp(`^ended with ${code}$`, 'm'));
      return terminal.screen();
    },
    close: () => tmux('kill-server'),
  };
  await terminal.shows(/ready\$/);
  return terminal;
}
