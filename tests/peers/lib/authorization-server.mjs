// A certified authorization server on loopback: PKCE required, refresh tokens rotate and a reuse ends the grant,
// access tokens expire within seconds. It counts its requests and records every secret that it issued.

import { createSign, generateKeyPairSync, randomUUID } from 'node:crypto';
import { listen } from './net.mjs';

const PERSON = { sub: 'anna', email: 'anna@example.com', email_verified: true, name: 'Anna' };
const API_SECRET = randomUUID();

export const SCOPES = ['openid', 'profile', 'email', 'offline_access', 'llm.invoke'];

export async function startAuthorizationServer({ accessTokenSeconds = 5 } = {}) {
  let answer; // the issuer holds the port, so the port comes first
  const { url: issuer, close } = await listen((request, response) => answer(request, response));
  const server = {
    issuer,
    close,
    scopes: SCOPES,
    pasteUri: `${issuer}/paste`,
    down: false, // true: every call to the token endpoint is cut
    cut: 0,
    holding: false, // true: every call to the token endpoint waits in `held` until the story lets it go on
    held: [],
    calls: { authorization_code: 0, refresh_token: 0, revocation: 0, introspection: 0 },
    renewals: [], // the answers to refresh tokens: { at, token }
    errors: [], // what it refused: { route, error }
    reuses: 0, // grants that ended because a refresh token came twice
    secrets: new Set(), // every code, access, refresh and id token ever issued
    latest: {}, // the last token reply, as the client saw it
    person: { ...PERSON }, // who logs in; a story may name them otherwise
    lie: undefined, // changes the header and the claims of every id_token, which is then signed again with `signer`
    signer: undefined, // the private key of lies, if not the server's own
    keys: undefined, // answers a request for the keys in place of the server: (its answer, how often it was asked) => answer
    keysAsked: 0,
    isActive: shared(async (token) => token !== undefined && introspect(issuer, token)),
    letGo: () => { server.holding = false; server.held.splice(0).forEach((goOn) => goOn()); },
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
    if (server.holding && pathname === '/token') await new Promise((goOn) => server.held.push(goOn));
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
        application_type: 'native', // any loopback port will do (RFC 8252 §7.3)
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
  if (route === 'token' && body?.id_token && server.lie) context.body = { ...body, id_token: lied(body.id_token, server) };
  if (route !== 'token' || context.status !== 200) return;
  server.latest = { ...body };
  if (kind === 'refresh_token') server.renewals.push({ at: Date.now(), token: body.access_token });
  for (const field of ['access_token', 'refresh_token', 'id_token']) {
    if (body[field]) server.secrets.add(body[field]);
  }
}

/** The id_token, as the forgery changed it. */
function lied(idToken, { lie, signer }) {
  const [header, claims] = idToken.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url')));
  lie(claims, header);
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

/** Identical concurrent requests get the same answer. */
function shared(ask) {
  const asked = new Map();
  return (about) => {
    if (!asked.has(about)) asked.set(about, ask(about).finally(() => asked.delete(about)));
    return asked.get(about);
  };
}

/** Silences the server's advice for production. */
async function quietly(action) {
  const { info, warn } = console;
  Object.assign(console, { info() {}, warn() {} });
  try {
    return await action();
  } finally {
    Object.assign(console, { info, warn });
  }
}
