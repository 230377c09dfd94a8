import { call } from "./api.js";
import { part, pick, web } from "./dom.js";
import { expected, look } from "./look.js";
import { act, focusOn } from "./state.js";
import { inWords, told } from "./words.js";

export const begin = (name) => act(name, async (own) => {
  own.begun = (await call("POST", `/api/accounts/${name}/attempts`, {})).attempt;
  focusOn(name, "open");
});

export function flow(account, attempt) {
  const { name, now } = account, path = `/api/attempts/${attempt.attempt}`;
  const cancel = () => act(name, async (own) => {
    own.begun = null;
    focusOn(name, "link");
    await call("DELETE", path);
  });
  const { redirect, ...known } = expected(attempt), { verification_url_complete: whole, verification_url: page } = attempt;
  const facts = { ...account, ...attempt, ...known, cancel, link: () => begin(name), lacks: inWords(attempt.missing_scopes) }, to = web(whole ?? page ?? attempt.authorize_url);
  if (now === "to_confirm") return check(facts, path);
  if (now === "failed") return part("failed", { ...facts, told: told(attempt.error) });
  if (now === "exchanging") return part("exchanging", facts);
  return part("flow", { ...facts, to, host: to?.host, local: redirect?.host, port: redirect?.port,
    waits: known.comesBack || attempt.user_code, words: inWords(attempt.scopes), form: paste(name, attempt, path) });
}

function paste(name, attempt, path) {
  const see = () => {
    const hint = look(field.value.trim(), attempt);
    said.replaceChildren(...(hint ? [pick("hints", `[data-hint=${hint}]`)] : []));
    return hint === "good";
  };
  const send = () => act(name, async () => {
    focusOn(name, "check");
    await call("POST", `${path}/paste`, { text: field.value }).catch((problem) => said.replaceChildren(told(problem)));
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

function check(facts, path) {
  const { name, scopes: asked, granted, identity, replaces: before } = facts;
  const surplus = granted.filter((scope) => !asked.includes(scope));
  return part("check", {
    ...facts, words: inWords(granted), surplus,
    before: before && (before.length ? before : ["another login"]), same: before && String(before) === String(identity),
    confirm: () => act(name, async (own) => {
      await call("POST", `${path}/confirm`, {});
      Object.assign(own, { begun: null, use: true, fresh: true });
      focusOn(name, "fresh");
    }),
  });
}
