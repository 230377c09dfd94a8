// How Pixy must change an agent's headers, as a complete list for every agent.

const CREDENTIALS = ['authorization', 'x-api-key', 'api-key', 'x-goog-api-key', 'cookie', 'proxy-authorization'];
const OF_ONE_CONNECTION = ['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'proxy-connection'];
const OF_BROWSERS = ['sec-fetch-mode', 'sec-fetch-site', 'sec-fetch-dest', 'origin', 'referer'];

/** Fields whose values differ in every run of an agent; only their presence is compared. */
const OF_ONE_RUN = [
  'content-length', 'x-claude-code-session-id', 'x-client-request-id', 'session-id', 'session_id', 'thread-id',
  'x-codex-window-id', 'x-codex-turn-metadata', 'x-codex-installation-id', 'x-stainless-retry-count',
];

/** A comparable header list: sorted, names in lower case, values of {@link OF_ONE_RUN} replaced by `…`. */
export function comparableHeaders(headers) {
  const list = headers.map(([name, value]) => [name.toLowerCase(), value]);
  return list.map(([name, value]) => `${name}: ${OF_ONE_RUN.includes(name) ? '…' : value}`).toSorted();
}

/** The header list that the API must receive through Pixy, from the list that the agent sends without Pixy. */
export function throughPixy(direct, { host, token, merge = {} }) {
  const removed = ['host', 'accept-encoding', ...CREDENTIALS, ...OF_ONE_CONNECTION, ...OF_BROWSERS, ...Object.keys(merge)];
  const forwarded = direct.filter(([name]) => !removed.includes(name.toLowerCase()));
  const merged = Object.entries(merge).map(([name, member]) => {
    const sent = direct.find(([other]) => other.toLowerCase() === name)?.[1];
    return [name, sent ? `${sent},${member}` : member];
  });
  return comparableHeaders([...forwarded, ...merged, ['host', host], ['accept-encoding', 'identity'], ['authorization', `Bearer ${token}`]]);
}

/** Everything in a header list that could be a credential. */
export function credentials(headers) {
  return headers.filter(([name, value]) => CREDENTIALS.includes(name.toLowerCase()) || /^(bearer|basic) /i.test(value));
}

/** The token of a request's bearer credential. */
export function bearer(headers) {
  return headers.find(([name]) => name.toLowerCase() === 'authorization')?.[1].replace(/^Bearer /, '');
}
