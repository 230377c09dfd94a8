// Fills the page's templates. Data only ever becomes text, never markup.

export const at = (id) => document.getElementById(id);

// Web addresses alone become links.
export const web = (text) => (/^https?:/i.test(text) && URL.canParse(text) ? new URL(text) : null);

export const idOf = (name, what) => `of-${name}-${what}`;

export const pick = (id, match = "*") => at(id).content.querySelector(match)?.cloneNode(true);

const has = (fact) => fact != null && fact !== false && fact.length !== 0;

// Fills a copy of a template, as described above the templates.
export function part(id, facts) {
  const root = pick(id), { name, now } = facts;
  const holds = (key) => (key[0] === "!" ? !has(facts[key.slice(1)]) : has(facts[key]));
  for (const node of [root, ...root.querySelectorAll("*")]) {
    const { at: stages, if: wants, text, node: nodes, time, href, d, do: does, id: own = does } = node.dataset;
    if (stages?.split(" ").includes(now) === false || wants?.split(" ").every(holds) === false) {
      node.remove();
      continue;
    }
    if (text) node.textContent = [facts[text]].flat().join(" · ");
    if (nodes) node.append(...[facts[nodes]].flat());
    if (time) node.dateTime = facts[time];
    if (href) node.href = facts[href];
    if (d) node.setAttribute("d", facts[d]);
    if (own) node.id = idOf(name, own);
    if (!does) continue;
    node.setAttribute("aria-describedby", idOf(name, "name"));
    node.addEventListener(node.matches("form") ? "submit" : "click", (event) => {
      event.preventDefault();
      (facts[does] ?? copy)(node);
    });
  }
  return root;
}

// Rebuilds a part only when its facts changed: keeps typing and focus.
export function fill(node, facts, make) {
  const key = JSON.stringify(facts);
  if (node.facts === key) return;
  node.facts = key;
  const focused = node.contains(document.activeElement) && document.activeElement.id;
  node.replaceChildren(...[make()].flat().filter(Boolean));
  tick();
  if (focused) at(focused)?.focus();
}

async function copy(button) {
  const lines = button.previousElementSibling;
  button.textContent = await navigator.clipboard.writeText(lines.textContent).then(() => "Copied", () => {
    getSelection().selectAllChildren(lines);
    return "Press Ctrl+C";
  });
  setTimeout(() => (button.textContent = "Copy"), 2500);
}

// Times are relative, and exact under the pointer or the focus.
function tick() {
  for (const node of document.querySelectorAll("time")) {
    const { as } = node.dataset, when = new Date(node.dateTime), seconds = Math.round((when - Date.now()) / 1000);
    const left = as === "past" ? seconds : Math.max(seconds, 0);
    const [size, unit] = UNITS.find(([size]) => Math.abs(left) >= size * 1.5) ?? [1, "second"];
    const text = as === "clock" ? `${Math.floor(left / 60)}:${String(left % 60).padStart(2, 0)}`
      : node.matches(":hover, :focus") ? String(when).slice(0, 24)
      : RELATIVE.format(Math.round(left / size), unit);
    node.tabIndex = 0;
    if (node.textContent !== text) node.textContent = text;
  }
}

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"]];
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

setInterval(tick, 1000);
for (const event of ["pointerover", "pointerout", "focusin", "focusout"]) document.addEventListener(event, tick);
