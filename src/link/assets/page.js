import { close, open, session, watch } from "./api.js";
import { update } from "./card.js";
import { at, fill, part } from "./dom.js";
import { begin } from "./flow.js";
import { lost, mine, page, settle, take } from "./state.js";
import { byNeed, plain, sentence } from "./words.js";

addEventListener("pixy-draw", render);
addEventListener("hashchange", readCode);
at("signin").addEventListener("submit", (event) => {
  event.preventDefault();
  enterCode(at("setup").value);
});
at("signout").addEventListener("click", async () => {
  await close();
  signIn("You have signed out.");
});
readCode();

// Browsers send the fragment to no server; remove it first.
function readCode() {
  const code = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (code) enterCode(code);
  else if (session()) watch(take, lost);
  else signIn("");
}

async function enterCode(text) {
  try {
    await open(text.trim().split("#").pop());
    at("signin").hidden = true;
    watch(take, lost);
  } catch ({ title, detail }) {
    signIn(`${title} ${plain(detail)}`);
  }
}

function signIn(why) {
  at("cards").replaceChildren();
  fill(at("remedy"), "", () => "");
  say("Open this page with a one-time link", why);
  at("closable").hidden = at("signout").hidden = true;
  at("signin").hidden = false;
  at("setup").value = "";
  at("setup").focus();
}

function say(title, more = "") {
  fill(at("sentence"), title, () => title);
  fill(at("more"), more, () => more);
  document.title = `${title} · Pixy`;
}

function render() {
  if (!session()) return signIn("Your session has ended: it was idle, or Pixy restarted.");
  at("signout").hidden = false;
  const { accounts, silent } = page, [title, more, about] = sentence(accounts);
  if (silent) say("Pixy does not answer", "This is the last known state. The page continues once Pixy does.");
  else say(title, more);
  fill(at("remedy"), about, () => about && part("do", { ...about, link: () => begin(about.name) }));
  // Sorted once: cards do not move later.
  const cards = accounts.toSorted(byNeed).map(update);
  for (const node of [...at("cards").children]) if (!cards.includes(node)) node.remove();
  at("closable").hidden = !accounts[0] || !accounts.every(({ name, now }) => !mine(name).fresh && /^(linked|key|refreshing)$/.test(now));
  settle();
}
