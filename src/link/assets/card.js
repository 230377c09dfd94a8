import { call } from "./api.js";
import { at, fill, idOf, part, pick, web } from "./dom.js";
import { begin, flow } from "./flow.js";
import { act, focusOn, lost, mine, note, page } from "./state.js";
import { signOf, told } from "./words.js";

export function update(account) {
  const { attempt, quota: limits, usage: day, terms: { status, url, ...terms }, ...rest } = account, { name } = rest;
  const facts = { ...rest, ...terms, url: web(url), terms: status !== "open" && status }, own = mine(name);
  const node = at(idOf(name, "card")) ?? at("cards").appendChild(part("card", { name }));
  const [top, notice, link, gauges, acts, lines] = node.children, { begun, busy, problem, form, use, fresh, env } = own;
  // This tab's attempt has ended.
  if (begun && !attempt && !busy) Object.assign(own, { begun: null, end: problem ? null : "over" });
  node.setAttribute("aria-labelledby", idOf(name, "name"));
  node.ariaBusy = !!busy;
  fill(top, facts, () => part("head", { ...facts, sign: signOf(facts), told: facts.error && told(facts.error),
    lines: `accounts:\n  ${name}:\n    accept_terms: true` }));
  // The attempt shows its own error.
  const news = problem?.title !== attempt?.error?.title && problem;
  fill(notice, [news, own.end], () => (news ? told(news) : pick("ends", `[data-end=${own.end}]`)));
  fill(link, [attempt, begun, form], () => (attempt ? flow(facts, attempt) : form && secret(facts)));
  fill(gauges, [limits, day], () => [limits?.map(quota), day && usage(day)].flat());
  fill(acts, [facts, use, form], () => !attempt && !form && actions(facts, use));
  fill(lines, [use, fresh, env, page.client], () => use && recipes(name, own));
  return node;
}

function actions(facts, shown) {
  const { name } = facts, post = (what, body = {}) => () => act(name, () => call("POST", `/api/accounts/${name}/${what}`, body));
  return part("actions", { ...facts, shown, link: () => begin(name), give: () => form(name, true), unlink: () => unlink(facts),
    renew: post("refresh"), moved: post("moved", { seen: facts.error?.title }),
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
      note(name, {});
    } });
    return tab;
  });
  return part("use", { name, fresh, tabs, lines: chosen?.lines.join("\n") });
}

function quota({ used, ...facts }) {
  const percent = Math.round(used * 100), known = used != null, past = !known && new Date(facts.resets_at) < Date.now();
  return part("quota", { ...facts, known, past, percent, nearly: used >= 0.9, bar: `M0 3H${percent}` });
}

// Requests as bars above a line, tokens below it; and as a table.
function usage({ hours }) {
  const all = (key) => hours.reduce((sum, hour) => sum + hour[key], 0).toLocaleString("en", { notation: "compact" });
  const bars = (start, size, of) => hours.map((hour, place) =>
    `M${place * 10 + 5} ${start}v${(of(hour) / Math.max(...hours.map(of), 1)) * size}`).join("");
  return part("usage", { requests: all("requests"), input: all("input_tokens"), output: all("output_tokens"),
    up: bars(32, -32, (hour) => hour.requests), down: bars(33, 15, (hour) => hour.input_tokens + hour.output_tokens),
    rows: hours.filter(({ requests }) => requests).map((hour) =>
      part("hour", { ...hour, from: new Date(hour.from).toTimeString().slice(0, 5) })) });
}
