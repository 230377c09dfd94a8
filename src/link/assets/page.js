import { open, session, watch } from "./api.js";
import { update } from "./card.js";
import { at, fill, part } from "./dom.js";
import { begin } from "./flow.js";
import { lost, page, settle, take } from "./state.js";
import { byNeed, sentence } from "./words.js";

addEventListener("pixy-draw", render);
addEventListener("hashchange", enter);
at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  knock(at("setup").value);
});
enter();

// No server sees the fragment; it leaves the address bar first.
function enter() {
  const code = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (code) knock(code);
  else if (session()) watch(take, lost);
  else door("");
}

async function knock(text) {
  try {
    await open(text.trim().split("#").pop());
    at("door").hidden = true;
    watch(take, lost);
  } catch ({ title, detail, status }) {
    door(status === 401 ? title : `${title} ${detail ?? ""}`);
  }
}

function door(why) {
  at("cards").replaceChildren();
  fill(at("remedy"), "", () => "");
  say("This page needs your key", why);
  at("closable").hidden = true;
  at("door").hidden = false;
  at("setup").value = "";
  at("setup").focus();
}

function say(title, more = "") {
  fill(at("sentence"), title, () => title);
  fill(at("more"), more, () => more);
  document.title = `${title} · Pixy`;
}

function render() {
  if (!session()) return door("Your session here has ended: it was quiet for a while, or Pixy started again.");
  const { accounts, silent } = page, [title, more, about] = sentence(accounts);
  if (silent) say("Pixy does not answer", "What you see is from before. The page goes on as soon as Pixy does.");
  else say(title, more);
  fill(at("remedy"), about, () => about && part("do", { ...about, link: () => begin(about.name) }));
  // Sorted once: nothing moves away from under the hand.
  const cards = accounts.toSorted(byNeed).map(update);
  for (const node of [...at("cards").children]) if (!cards.includes(node)) node.remove();
  at("closable").hidden = !accounts[0] || !accounts.every(({ now }) => /^(linked|key|refreshing)$/.test(now));
  settle();
}
