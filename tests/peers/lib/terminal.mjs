// A terminal that a person sits at: tmux on a server of its own, typed into and looked at.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { run } from './agents.mjs';
import { until } from './net.mjs';

let opened = 0;

export const hasTmux = spawnSync('tmux', ['-V']).error === undefined;

/** A terminal whose shell runs `pixy …` of this Pixy. Its server ends with `close`. */
export async function openTerminal(pixy, { columns = 100, rows = 50, env = {} } = {}) {
  const socket = join(pixy.directory, `tmux-${(opened += 1)}.sock`); // a server that is ending would take the next terminal along
  const tmux = (...parameters) => run('tmux', ['-S', socket, '-f', '/dev/null', ...parameters], {
    env: { PATH: process.env.PATH, HOME: pixy.directory, LANG: 'C.UTF-8', SHELL: '/bin/sh' },
  });
  const variables = Object.entries({ PS1: 'ready$ ', DISPLAY: ':0', ...env }).map(([name, value]) => `${name}=${value}`);
  const shell = ['env', '-i', `PATH=${process.env.PATH}`, `HOME=${pixy.directory}`, 'LANG=C.UTF-8', 'TERM=screen', ...variables, 'sh'];
  const begun = await tmux('-u', 'new-session', '-d', '-s', 'one', '-x', String(columns), '-y', String(rows), ...shell);
  if (begun.code !== 0) throw new Error(`tmux did not start: ${begun.all}`);
  const typed = [];
  const terminal = {
    /** All that is shown and was scrolled away, lines that were wrapped as one; with `colours`, as escape sequences. */
    async screen({ colours } = {}) {
      const { output } = await tmux('capture-pane', '-p', '-J', '-S', '-', ...(colours ? ['-e'] : []), '-t', 'one');
      pixy.printed += typed.reduce((rest, line) => rest.replaceAll(line, ''), output); // a code that the person types is theirs to show
      return output;
    },
    /** Waits until the screen shows it; answers the match, or says what is shown instead. */
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
    /** Starts a command on a clean screen; its exit code is shown at its end. */
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
