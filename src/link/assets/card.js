// One account's card.

import { call } from "./api.js";
import { at, fill, idOf, part, pick, web } from "./dom.js";
import { begin, flow } from "./flow.js";
import { act, draw, focusOn, lost, mine, note, page } from "./state.js";
import { signOf } from "./words.js";

// Brings the card of an account up to date.
export function update(account) {
  const { attempt, quota: bars, usage: hours, ...facts } = account, { name } = facts, own = mine(name);
  const node = at(idOf(name, "card")) ?? at("cards").appendChild(part("card", { name }));
  const [top, notice, link, gauges, acts, lines] = node.children, { begun, busy, problem, form, use, fresh, env, answer } = own;
  // An attempt that this tab began and did not end is over, and says so.
  if (begun && !attempt && !busy) Object.assign(own, { begun: null, end: problem ? null : "over" });
  node.setAttribute("aria-labelledby", idOf(name, "name"));
  node.ariaBusy = Boolean(busy);
  fill(top, facts, () => head(account));
  fill(notice, [problem, own.end], () => (problem ? part("told", problem) : pick("ends", `[data-end=${own.end}]`)));
  fill(link, [attempt, begun, form, answer], () => (attempt ? flow(account, attempt) : form && secret(account)));
  fill(gauges, [bars, hours], () => [bars?.map(quota), hours && usage(hours)].flat());
  fill(acts, [facts, use, form], () => !attempt && !form && actions(account, use));
  fill(lines, [use, fresh, env, page.client], () => use && recipes(name, own));
  return node;
}

function head(account) {
  const { name, error, terms: { status, url, ...terms } } = account;
  return part("head", { ...account, ...terms, sign: signOf(account), url: web(url), terms: status !== "open" && status,
    told: error && part("told", error), lines: `accounts:\n  ${name}:\n    accept_terms: true` });
}

function actions(account, shown) {
  const { name } = account;
  return part("actions", { ...account, shown, link: () => begin(name), give: () => form(name, true), unlink: () => unlink(account),
    renew: () => act(name, () => call("POST", `/api/accounts/${name}/refresh`, {})),
    use: () => note(name, { use: !shown, fresh: false }) });
}

function form(name, open) {
  focusOn(name, open ? "secret" : "give");
  note(name, { form: open });
}

function secret({ name, flow: kind }) {
  const save = (made) => act(name, async (own) => {
    await call("POST", `/api/accounts/${name}/key`, { key: made.querySelector("input").value.trim() });
    Object.assign(own, { form: false, use: true, fresh: true });
    focusOn(name, "fresh");
  });
  return part("secret", { name, save, give: () => form(name, false), what: kind === "api_key" ? "key" : "client secret" });
}

function unlink({ name, key }) {
  const dialog = at("ask");
  at("ask-name").textContent = name;
  dialog.onclose = () => dialog.returnValue && act(name, async (own) => {
    const { revoked } = await call("DELETE", `/api/accounts/${name}`);
    Object.assign(own, { use: false, end: key ? "key" : revoked });
    focusOn(name, key ? "give" : "link");
  });
  dialog.returnValue = "";
  dialog.showModal();
}

function recipes(name, { env, fresh }) {
  if (!env) call("GET", `/api/accounts/${name}/env`).then((env) => note(name, { env }), lost);
  const chosen = env?.find(({ client }) => client === page.client) ?? env?.[0];
  const tabs = env?.map(({ client, title }) => {
    const tab = part("tab", { name: `${name}-${client}`, title });
    Object.assign(tab.firstChild, { name, checked: client === chosen.client, onchange: () => {
      page.client = client;
      draw();
    } });
    return tab;
  });
  return part("use", { name, fresh, tabs, lines: chosen?.lines.join("\n") });
}

const quota = ({ used_percent: used, ...facts }) =>
  part("quota", { ...facts, used: Math.round(used), bar: `M0 3H${Math.min(used, 100)}` });

// The last 24 hours, as bars and as a table.
function usage({ hours, requests, tokens }) {
  const short = (count) => count?.toLocaleString("en", { notation: "compact" }), most = Math.max(...hours, 1);
  return part("usage", { requests: short(requests), tokens: short(tokens),
    bars: hours.map((count, hour) => `M${hour * 10 + 5} 32v-${(count / most) * 32}`).join(""),
    rows: hours.map((count, hour) => part("hour", { ago: 23 - hour, count })) });
}
