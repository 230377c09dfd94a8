// Searches for secrets of a test run in what an agent or a log reader can read. `lib/pixy.mjs` does that for every Pixy.

/** Returns `PLACE: PREFIX…` for each secret that `text` contains, plain or encoded; the prefix has four characters. */
export function hits(place, text, secrets) {
  const byHead = new Map();
  for (const secret of secrets) {
    for (const form of forms(secret)) byHead.set(form.slice(0, HEAD), [...(byHead.get(form.slice(0, HEAD)) ?? []), [form, secret]]);
  }
  const found = new Set();
  for (let at = 0; byHead.size > 0 && at + HEAD <= text.length; at += 1) {
    for (const [form, secret] of byHead.get(text.slice(at, at + HEAD)) ?? []) {
      if (text.startsWith(form, at)) found.add(`${place}: ${secret.slice(0, 4)}…`);
    }
  }
  return [...found];
}

/** The secrets of every running Pixy. */
export function everySecret() {
  return [...new Set([...watched.values()].flatMap(({ secrets }) => secrets()))];
}

function forms(secret) {
  if (!known.has(secret)) {
    const bytes = Buffer.from(secret);
    known.set(secret, new Set([secret, bytes.toString('base64'), bytes.toString('base64url'), bytes.toString('hex'), encodeURIComponent(secret)]));
  }
  return known.get(secret);
}

const known = new Map();
const HEAD = 8; // characters by which secrets are indexed, because a long run has many

/**
 * Searches every response that `fetch` gets from this port. Bodies are searched while they stream, and not kept.
 * Returns { found: [as {@link hits}], answers: responses }, which keeps changing until `forgetAnswers`.
 */
export function watchAnswers(port, secrets) {
  const seen = { found: [], answers: 0 };
  watched.set(String(port), { secrets, seen });
  if (!original) {
    original = globalThis.fetch;
    globalThis.fetch = watchedFetch;
  }
  return seen;
}

export function forgetAnswers(port) {
  watched.delete(String(port));
}

const watched = new Map();
let original;

async function watchedFetch(input, options) {
  const response = await original(input, options);
  const url = new URL(input instanceof Request ? input.url : input);
  const watch = url.hostname === '127.0.0.1' && watched.get(url.port);
  if (!watch) return response;
  const { secrets, seen } = watch;
  const place = `the answer to ${url.pathname}`;
  seen.answers += 1;
  seen.found.push(...hits(place, JSON.stringify([...response.headers]), secrets()));
  if (!response.body) return response;
  let tail = '';
  const searched = new TransformStream({
    transform(chunk, controller) {
      const text = tail + Buffer.from(chunk).toString('latin1');
      seen.found.push(...hits(place, text, secrets()));
      tail = text.slice(-LONGEST);
      controller.enqueue(chunk);
    },
  });
  const same = new Response(response.body.pipeThrough(searched), response);
  Object.defineProperty(same, 'url', { value: response.url });
  return same;
}

/** The overlap of two chunks: longer than every encoded secret. */
const LONGEST = 8192;
