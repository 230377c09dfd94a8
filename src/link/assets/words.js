// What to say of accounts. The words themselves stand in the page's templates.

import { at, pick } from "./dom.js";

const kinds = [...at("states").content.children];
const kind = (now) => kinds.find(({ dataset }) => dataset.state === now);

// Where an account is `now`, as a person would say it, and whether it takes a `key` rather than a login.
export function stage({ state, attempt, error, flow }) {
  const key = /^(api_key|client_credentials)$/.test(flow);
  const isLate = state === "refreshing" && error, bare = isLate ? "late" : state === "linked" && key ? "key" : state;
  return { key, now: attempt ? (attempt.exchanged ? "confirm" : "waiting") : kind(bare) ? bare : "uncertain" };
}

export const signOf = ({ now }) => kind(now).cloneNode(true);

export const byNeed = (one, other) => kinds.indexOf(kind(one.now)) - kinds.indexOf(kind(other.now));

// `[sentence, the rest, whom it is about]`.
export function sentence(accounts) {
  const groups = {}, { length } = accounts;
  let says, about = [];
  for (const { dataset: { state, one, many, group }, textContent } of kinds) {
    const these = accounts.filter(({ now }) => now === state), word = group ?? textContent.toLowerCase();
    if (these.length && one && !says) {
      about = these;
      says = `${list(these.map(({ name }) => name))} ${these[1] ? many : one}`;
    } else if (these.length) groups[word] = (groups[word] ?? 0) + these.length;
  }
  const words = Object.keys(groups), rest = list(words.map((word) => `${groups[word]} ${word}`)), [first, second] = about;
  if (says) {
    const why = first.state === "relink_required" && !second && first.error ? `: ${within(first.error.title)}` : "";
    return [says + why, rest && `Otherwise ${rest}.`, !second && first];
  }
  if (!length) return ["No account yet", "Accounts are named under “accounts:” in Pixy's configuration."];
  if (length === 1) return [`${accounts[0].name} is ${words[0]}`, "", accounts[0]];
  if (groups.working === length) return [`${length} accounts, all working`];
  return [groups.working ? `${groups.working} of ${length} accounts working` : "No account is linked yet", `${rest}.`];
}

// "The provider ended …: code." goes on within a sentence, without the code.
const within = (text) => text.replace(/^(The|This|No|It)\b/, (word) => word.toLowerCase()).replace(/(: \w+)?\.$/, "");

const list = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");

// What scopes let Pixy do, each said once; an unknown one by its own name.
export const inWords = (scopes) => list([...new Set(scopes.map((scope) =>
  pick("scopes", `[value="${CSS.escape(scope)}"]`)?.textContent ?? `may use “${scope}”`))]);
