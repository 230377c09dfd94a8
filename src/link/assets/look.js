// A first check of pasted text. Pixy checks it more strictly.

import { at, web } from "./dom.js";

export function expected({ authorize_url, redirect: kind }) {
  const query = web(authorize_url)?.searchParams;
  const redirect = web(query?.get("redirect_uri") ?? query?.get("callback_url"));
  const isLocal = kind === "loopback", { port } = at("cards").dataset;
  return {
    redirect,
    isLocal,
    state: query?.get("state") ?? redirect?.searchParams.get("state"),
    // Pixy listens there, on this machine if this is its own port.
    comesBack: isLocal && location.port === port,
    away: isLocal && location.port !== redirect?.port,
    ours: redirect?.port === port,
  };
}

// Which hint fits a text, if any yet.
export function look(text, attempt) {
  const { state, redirect } = expected(attempt), url = web(text), place = (one) => one && one.host + one.pathname;
  if (text.length < 8) return null;
  if (/^(sk-|sess-|AIza|eyJ)/.test(text)) return "secret";
  if (/[\s<]/.test(text)) return "more";
  if (url && place(url) === place(web(attempt.authorize_url))) return "same";
  if (url && redirect && place(url) !== place(redirect)) return "foreign";
  const [code, mark] = text.split("#"), query = url?.searchParams ?? (code.includes("=") && new URLSearchParams(code));
  if (query && query.has("error")) return "denied";
  if (query && !query.has("code")) return "codeless";
  const given = query ? query.get("state") : mark;
  return !state || given === state ? "good" : !given || state.startsWith(given) ? "part" : "older";
}
