// Sentences about accounts.

import { at, part, pick } from "./dom.js";

const kinds = [...at("states").content.children];
const kind = (now) => kinds.find(({ dataset }) => dataset.state === now);

// Where an account is `now`, and whether it takes a `key` rather than a login.
export function stage({ state, attempt, error, flow, token_refused }) {
  const key = /^(api_key|client_credentials)$/.test(flow);
  const now = attempt?.stage ?? error?.reason ?? (state === "linked" && token_refused ? "refused"
    : state === "refreshing" && error ? "late" : state === "linked" && key ? "key" : state);
  return { key, now: kind(now) ? now : "uncertain" };
}

export const signOf = ({ now }) => kind(now).cloneNode(true);

export const byNeed = (one, other) => kinds.indexOf(kind(one.now)) - kinds.indexOf(kind(other.now));

// `[sentence, the rest, the account that it is about]`.
export function sentence(accounts) {
  const groups = {}, { length } = accounts, names = (of) => list(of.map(({ name }) => name));
  let says, about = [];
  for (const { dataset: { state, one, many, group }, textContent } of kinds) {
    const these = accounts.filter(({ now }) => now === state), word = group ?? textContent.toLowerCase();
    if (these[0] && one && !says) [about, says] = [these, `${names(these)} ${these[1] ? many : one}`];
    else if (these[0]) groups[word] = [...(groups[word] ?? []), ...these];
  }
  const { working, ...idle } = groups, [first, second] = about;
  const rest = (groups) => list(Object.entries(groups).map(([word, of]) => `${of[1] ? of.length : names(of)} ${of[1] ? "are" : "is"} ${word}`));
  if (says) {
    const why = first.state === "relink_required" && !second && first.error ? `: ${within(first.error.title)}` : "";
    return [says + why, rest(groups), !second && first];
  }
  if (!length) return ["No account yet", "Accounts are named under “accounts:” in Pixy's configuration."];
  if (length === 1) return [rest(groups), "", accounts[0]];
  if (!working) return ["No account is linked yet", "Link the one that your agent is to use: it takes a minute."];
  return working.length === length ? [`${length} accounts, all working`] : [`${working.length} of ${length} accounts working`, rest(idle)];
}

// A protocol's code is no sentence.
const CODE = /(?:: | \()([a-z]+_\w+)\)?/;

export const plain = (text = "") => text.replace(CODE, "").replaceAll("`", "");

export const told = ({ title, detail }) => part("told", { title: plain(title), detail: plain(detail) });

const within = (text) => plain(text).replace(/^(The|This|No|It)\b/, (word) => word.toLowerCase()).replace(/\.$/, "");

const list = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");

// What Pixy may do by scopes, each said once.
export const inWords = (scopes) => list([...new Set(scopes.map((scope) =>
  pick("scopes", `[value="${CSS.escape(scope)}"]`)?.textContent ?? `use “${scope}”`))]);
