// A certified authorization server on loopback: requires PKCE, rotates refresh tokens, revokes the grant when one is reused, and
// issues access tokens that expire within seconds. It counts its requests and records every secret that it issued.

import { createSign, generateKeyPairSync, randomUUID } from 'node:crypto';
import { listen } from './net.mjs';

const PERSON = { sub: 'anna', email: 'anna@example.com', email_verified: true, name: 'Anna' };
const API_SECRET = randomUUID();

export const SCOPES = ['openid', 'profile', 'email', 'offline_access', 'llm.invoke'];

export async function startAuthorizationServer({ accessTokenSeconds = 5 } = {}) {
  let answer; // assigned below: the issuer contains the port, so the server listens first
  const { url: issuer, close } = await listen((request, response) => answer(request, response));
  const server = {
    issuer,
    close,
    scopes: SCOPES,
    pasteUri: `${issuer}/paste`,
    down: false, // true: disconnects every call to the token endpoint
    cut: 0, // calls that were disconnected
    holding: false, // true: every call to the token endpoint waits in `held` until `release()`
    held: [],
    calls: { authorization_code: 0, refresh_token: 0, revocation: 0, introspection: 0 },
    renewals: [], // responses to refresh tokens: { at, token }
    errors: [], // rejected requests: { route, error }
    reuses: 0, // grants that were revoked because a refresh token was reused
    secrets: new Set(), // every code, access, refresh and id token ever issued
    latest: {}, // the last token response
    person: { ...PERSON }, // the claims of the user who logs in
    forge: undefined, // changes the header and the claims of every id_token, which is then signed again with `signer`
    signer: undefined, // the private key that signs forged id_tokens, initially the server's own
    keys: undefined, // replaces the response of the JWKS endpoint: (response, number of requests) => response
    keysAsked: 0,
    isActive: shared(async (token) => token !== undefined && introspect(issuer, token)),
    release: () => { server.holding = false; server.held.splice(0).forEach((resume) => resume()); },
  };

  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  server.signer = privateKey;
  const provider = await makeProvider(server, accessTokenSeconds, privateKey);
  provider.use((context, next) => watch(server, context, next));
  provider.on('grant.revoked', (context) => { if (context.oidc.route === 'token') server.reuses += 1; });
  provider.on('authorization_code.saved', (code) => server.secrets.add(code.jti));
  const standard = provider.callback();

  answer = async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, issuer);
    if (server.down && pathname === '/token') {
      server.cut += 1;
      return request.socket.destroy();
    }
    if (server.holding && pathname === '/token') await new Promise((resume) => server.held.push(resume));
    if (pathname.startsWith('/interaction/')) return consent(provider, request, response);
    if (pathname === '/paste') {
      response.setHeader('content-type', 'text/plain');
      return response.end(`${searchParams.get('code')}#${searchParams.get('state')}`);
    }
    return standard(request, response);
  };
  return server;
}

async function makeProvider(server, accessTokenSeconds, privateKey) {
  const { issuer } = server;
  const { Provider } = await quietly(() => import('oidc-provider'));
  return quietly(() => new Provider(issuer, {
    clients: [
      {
        client_id: 'pixy',
        application_type: 'native', // any loopback port is accepted (RFC 8252 §7.3)
        token_endpoint_auth_method: 'none',
        redirect_uris: [`${issuer}/paste`, 'http://127.0.0.1/callback', 'http://localhost/auth/callback'],
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        response_types: ['code'],
      },
      {
        client_id: 'llm-api',
        client_secret: API_SECRET,
        redirect_uris: [],
        grant_types: [],
        response_types: [],
      },
    ],
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] },
    cookies: { keys: [randomUUID()] },
    scopes: SCOPES,
    claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'] },
    conformIdTokenClaims: false, // claims in the id_token, as most servers have them
    findAccount: (_, accountId) => ({ accountId, claims: () => server.person }),
    pkce: { required: () => true },
    rotateRefreshToken: true,
    ttl: {
      AccessToken: accessTokenSeconds, AuthorizationCode: 60, DeviceCode: 60, IdToken: 3600, RefreshToken: 86400,
      Grant: 86400, Interaction: 600, Session: 86400,
    },
    features: {
      devInteractions: { enabled: false },
      deviceFlow: {
        enabled: true,
        userCodeInputSource: (context, form) => { context.body = form; },
        userCodeConfirmSource: (context, form) => { context.body = form; },
        successSource: (context) => { context.body = 'Sign-in Success'; },
      },
      introspection: { enabled: true, allowedPolicy: (_, client) => client.clientId === 'llm-api' },
      revocation: { enabled: true, allowedPolicy: (_, client, token) => client.clientId === token.clientId },
    },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  }));
}

/** Counts a request and records the secrets that it issued. */
async function watch(server, context, next) {
  await next();
  const { route, params, body } = { route: context.oidc?.route, params: context.oidc?.params, body: context.body };
  const kind = route === 'token' ? params?.grant_type : route;
  if (kind in server.calls) server.calls[kind] += 1;
  if (context.status >= 400) server.errors.push({ route, error: body?.error });
  if (route === 'jwks' && server.keys) context.body = server.keys(body, (server.keysAsked += 1));
  if (route === 'token' && body?.id_token && server.forge) context.body = { ...body, id_token: forged(body.id_token, server) };
  if (route !== 'token' || context.status !== 200) return;
  server.latest = { ...body };
  if (kind === 'refresh_token') server.renewals.push({ at: Date.now(), token: body.access_token });
  for (const field of ['access_token', 'refresh_token', 'id_token']) {
    if (body[field]) server.secrets.add(body[field]);
  }
}

/** The id_token, changed by `forge` and signed with `signer`. */
function forged(idToken, { forge, signer }) {
  const [header, claims] = idToken.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url')));
  forge(claims, header);
  const message = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  const signature = header.alg === 'none' ? '' : createSign('sha256').update(message).sign(signer, 'base64url');
  return `${message}.${signature}`;
}

/** Logs in and allows every requested scope. */
async function consent(provider, request, response) {
  const interaction = await provider.interactionDetails(request, response);
  const { prompt, params, session } = interaction;
  if (prompt.name === 'login') {
    return provider.interactionFinished(request, response, { login: { accountId: PERSON.sub } });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

async function introspect(issuer, token) {
  const response = await fetch(`${issuer}/token/introspection`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`llm-api:${API_SECRET}`).toString('base64')}` },
    body: new URLSearchParams({ token }),
  });
  return response.ok && (await response.json()).active === true;
}

/** Coalesces concurrent calls with the same argument. */
function shared(ask) {
  const pending = new Map();
  return (key) => {
    if (!pending.has(key)) pending.set(key, ask(key).finally(() => pending.delete(key)));
    return pending.get(key);
  };
}

/** Suppresses the library's warnings about production use. */
async function quietly(action) {
  const { info, warn } = console;
  Object.assign(console, { info() {}, warn() {} });
  try {
    return await action();
  } finally {
    Object.assign(console, { info, warn });
  }
}
