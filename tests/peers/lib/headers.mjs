// What must become of an agent's headers on their way through Pixy: said once, for every agent, as a whole list.

const CREDENTIALS = ['authorization', 'x-api-key', 'api-key', 'x-goog-api-key', 'cookie', 'proxy-authorization'];
const OF_ONE_CONNECTION = ['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'proxy-connection'];
const OF_BROWSERS = ['sec-fetch-mode', 'sec-fetch-site', 'sec-fetch-dest', 'origin', 'referer'];

/** Different in every run of an agent: only that they are there once can be compared. */
const OF_ONE_RUN = [
  'content-length', 'x-claude-code-session-id', 'x-client-request-id', 'session-id', 'session_id', 'thread-id',
  'x-codex-window-id', 'x-codex-turn-metadata', 'x-codex-installation-id', 'x-stainless-retry-count',
];

/** A request's whole header list as it can be compared: names in lower case, in order, values of one run left out. */
export function wholeList(headers) {
  const list = headers.map(([name, value]) => [name.toLowerCase(), value]);
  return list.map(([name, value]) => `${name}: ${OF_ONE_RUN.includes(name) ? '…' : value}`).toSorted();
}

/** The list that must arrive through Pixy when `direct` is what the agent sends to an API itself. */
export function throughPixy(direct, { host, token, merge = {} }) {
  const taken = ['host', 'accept-encoding', ...CREDENTIALS, ...OF_ONE_CONNECTION, ...OF_BROWSERS, ...Object.keys(merge)];
  const passing = direct.filter(([name]) => !taken.includes(name.toLowerCase()));
  const merged = Object.entries(merge).map(([name, member]) => {
    const sent = direct.find(([other]) => other.toLowerCase() === name)?.[1];
    return [name, sent ? `${sent},${member}` : member];
  });
  return wholeList([...passing, ...merged, ['host', host], ['accept-encoding', 'identity'], ['authorization', `Bearer ${token}`]]);
}

/** Everything in a header list that could be a credential. */
export function credentials(headers) {
  return headers.filter(([name, value]) => CREDENTIALS.includes(name.toLowerCase()) || /^(bearer|basic) /i.test(value));
}

/** The token of a request's bearer credential. */
export function bearer(headers) {
  return headers.find(([name]) => name.toLowerCase() === 'authorization')?.[1].replace(/^Bearer /, '');
}
