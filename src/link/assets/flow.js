// Linking: two steps and a check. Pixy stores nothing before the person confirms.

import { call } from "./api.js";
import { part, pick, web } from "./dom.js";
import { expected, look } from "./look.js";
import { act, focusOn, mine } from "./state.js";
import { inWords } from "./words.js";

export const begin = (name) => act(name, async (own) => {
  own.answer = null;
  own.begun = (await call("POST", `/api/accounts/${name}/attempts`, {})).attempt;
  focusOn(name, "open");
});

export function flow({ name }, attempt) {
  const { begun } = mine(name), path = `/api/attempts/${attempt.attempt}`;
  const cancel = () => act(name, async (own) => {
    own.begun = null;
    focusOn(name, "link");
    await call("DELETE", path);
  });
  if (attempt.exchanged) return check(name, attempt, path, cancel);
  const { redirect, ...known } = expected(attempt);
  const to = web(attempt.verification_url ?? attempt.authorize_url);
  return part("flow", {
    ...attempt, ...known, name, to, cancel, waits: known.comesBack || attempt.user_code,
    elsewhere: begun !== attempt.attempt,
    host: to?.host, local: redirect?.host, words: inWords(attempt.scopes), form: paste(name, attempt, path),
  });
}

function paste(name, attempt, path) {
  const see = () => {
    const hint = look(field.value.trim(), attempt);
    said.replaceChildren(...(hint ? [pick("hints", `[data-hint=${hint}]`)] : []));
    return hint === "good";
  };
  const send = () => act(name, async (own) => {
    own.answer = await call("POST", `${path}/paste`, { text: field.value });
    focusOn(name, "check");
  });
  const clip = async () => {
    field.focus();
    try {
      field.value = await navigator.clipboard.readText();
      if (see()) send();
    } catch {
      said.replaceChildren(pick("hints", "[data-hint=kept]"));
    }
  };
  const form = part("paste", { name, send, clip }), field = form.querySelector("input"), said = form.querySelector(".hint");
  field.addEventListener("input", see);
  return form;
}

function check(name, attempt, path, cancel) {
  const { scopes: asked = [], identity, replaces: before, granted = mine(name).answer?.scopes ?? asked } = attempt;
  return part("check", {
    ...attempt, name, granted, cancel, words: inWords(granted),
    missing: asked.filter((scope) => !granted.includes(scope)), surplus: granted.filter((scope) => !asked.includes(scope)),
    before: before && (before.length ? before : ["another login"]), same: before && String(before) === String(identity),
    confirm: () => act(name, async (own) => {
      await call("POST", `${path}/confirm`, {});
      Object.assign(own, { begun: null, use: true, fresh: true });
      focusOn(name, "fresh");
    }),
  });
}
