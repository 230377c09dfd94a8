// What this tab knows, and how actions run.

import { accounts } from "./api.js";
import { at, idOf } from "./dom.js";
import { stage } from "./words.js";

export const page = { accounts: [] };

const notes = new Map();

export const mine = (name) => notes.get(name) ?? notes.set(name, {}).get(name);

const draw = () => dispatchEvent(new Event("pixy-draw"));

export function note(name, what) {
  Object.assign(mine(name), what);
  draw();
}

export function take(list) {
  page.accounts = list.map((account) => ({ ...account, ...stage(account) }));
  page.silent = false;
  draw();
}

export function lost({ status }) {
  page.silent = !status;
  draw();
}

let wanted;

// Focused once it is drawn.
export const focusOn = (name, what) => (wanted = idOf(name, what));

export function settle() {
  if (!at(wanted)) return;
  at(wanted).focus();
  wanted = null;
}

// One action on an account at a time; a problem becomes the card's notice.
export async function act(name, work) {
  const own = mine(name);
  if (own.busy) return;
  note(name, { busy: true, problem: null, end: null });
  await work(own).catch((problem) => (own.problem = problem));
  await accounts().then(take, lost);
  note(name, { busy: false });
}
