//! The authorization server over HTTP: consent, tokens, revocation, metadata.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, LOCATION, REFERRER_POLICY};
use hyper::{Method, Request, StatusCode};
use maud::Markup;
use serde_json::json;
use url::{Host, Url};

use crate::grants::{Asked, Grants, Refusal, Tokens};
use crate::pages;
use crate::web::{self, Answer, Reply};

/// The authorization server.
#[derive(Clone)]
pub(crate) struct Server {
    /// `http://127.0.0.1:8790`, which is also the issuer.
    pub(crate) origin: String,
    /// The grants, shared with the API.
    pub(crate) grants: Arc<Mutex<Grants>>,
    /// Whether consent is given without a form.
    pub(crate) consents: bool,
}

impl Answer for Server {
    async fn answer(self, request: Request<Incoming>) -> Reply {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/authorize") => self.authorize(request.uri().query().unwrap_or_default()),
            (&Method::POST, "/decide") => self.decide(request).await,
            (&Method::GET, "/paste") => show_code(request.uri().query().unwrap_or_default()),
            (&Method::POST, "/token") => self.token(request).await,
            (&Method::POST, "/revoke") => self.revoke(request).await,
            (&Method::GET, "/.well-known/oauth-authorization-server") => self.metadata(),
            (&Method::GET, "/") => page(StatusCode::OK, "", &pages::note("The playground runs", WELCOME)),
            _ => page(StatusCode::NOT_FOUND, "", &pages::note("Nothing here", "The playground has no such page.")),
        }
    }
}

impl Server {
    /// `GET /authorize` (RFC 6749 §4.1.1, RFC 7636 §4.3).
    fn authorize(&self, query: &str) -> Reply {
        let Some(parameters) = web::parameters(query.as_bytes()) else { return wrong("A parameter is repeated.") };
        let given = |name: &str| parameters.get(name).map_or("", String::as_str);
        // Before client and redirect_uri are validated, no redirect is sent (RFC 6749 §4.1.2.1).
        if given("client_id") != CLIENT_ID {
            return wrong("The client_id is not `playground`.");
        }
        let redirect_uri = given("redirect_uri");
        if !self.may_redirect(redirect_uri) {
            return wrong("The redirect_uri is neither this server's /paste nor a loopback address.");
        }
        let state = given("state");
        let refuse = |error: &str| redirect(redirect_uri, &[("error", error), ("state", state)]);
        if given("response_type") != "code" {
            return refuse("unsupported_response_type");
        }
        let challenge = given("code_challenge");
        if given("code_challenge_method") != "S256"
            || !URL_SAFE_NO_PAD.decode(challenge).is_ok_and(|hash| hash.len() == 32)
        {
            return refuse("invalid_request");
        }
        if given("scope").split_whitespace().any(|scope| !SCOPES.contains(&scope)) {
            return refuse("invalid_scope");
        }
        let asked = Asked {
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.to_owned(),
            state: state.to_owned(),
            scope: given("scope").to_owned(),
        };
        if self.consents {
            return self.decided(asked, true);
        }
        let scope = asked.scope.clone();
        let ticket = self.grants().ask(asked);
        page(StatusCode::OK, "", &pages::consent(&ticket, &scope))
    }

    /// `POST /decide`: the consent form.
    async fn decide(&self, request: Request<Incoming>) -> Reply {
        let Some(form) = web::fields(request).await else { return wrong("This is not the consent form.") };
        let asked = form.get("ticket").and_then(|ticket| self.grants().take(ticket));
        let Some(asked) = asked else { return wrong("This question was answered before. Start the link again.") };
        self.decided(asked, form.get("decision").is_some_and(|decision| decision == "allow"))
    }

    fn decided(&self, asked: Asked, allowed: bool) -> Reply {
        let (redirect_uri, state) = (asked.redirect_uri.clone(), asked.state.clone());
        if !allowed {
            println!("  consent: denied");
            return redirect(&redirect_uri, &[("error", "access_denied"), ("state", &state)]);
        }
        println!("  consent: allowed");
        let code = self.grants().allow(asked);
        redirect(&redirect_uri, &[("code", &code), ("state", &state)])
    }

    /// `POST /token` (RFC 6749 §3.2), form or JSON.
    async fn token(&self, request: Request<Incoming>) -> Reply {
        let Some(fields) = web::fields(request).await else {
            return refusal(&Refusal { code: "invalid_request", why: "the body is neither a form nor a JSON object" });
        };
        match self.issue(&fields) {
            Ok(tokens) => {
                let seconds = tokens.lifetime.as_secs();
                match tokens.rotation {
                    0 => println!("  tokens: issued for {seconds} s"),
                    again => println!("  tokens: refreshed for {seconds} s (rotation {again})"),
                }
                let reply = json!({
                    "access_token": tokens.access, "token_type": "Bearer", "expires_in": seconds,
                    "refresh_token": tokens.refresh, "scope": tokens.scope,
                    "account": { "uuid": "00000000-0000-4000-8000-0000000000ad", "email_address": pages::EMAIL },
                    "organization": { "uuid": "00000000-0000-4000-8000-000000000001", "name": pages::ORGANIZATION },
                });
                web::json(StatusCode::OK, &reply)
            }
            Err(refused) => refusal(&refused),
        }
    }

    fn issue(&self, fields: &HashMap<String, String>) -> Result<Tokens, Refusal> {
        let field = |name: &str| {
            let missing = Refusal { code: "invalid_request", why: "a field of the token request is missing" };
            fields.get(name).map(String::as_str).ok_or(missing)
        };
        if field("client_id")? != CLIENT_ID {
            return Err(Refusal { code: "invalid_client", why: "the client_id is not `playground`" });
        }
        match field("grant_type")? {
            "authorization_code" => {
                self.grants().exchange(field("code")?, field("redirect_uri")?, field("code_verifier")?)
            }
            "refresh_token" => self.grants().refresh(field("refresh_token")?),
            _ => Err(Refusal { code: "unsupported_grant_type", why: "only authorization_code and refresh_token" }),
        }
    }

    /// `POST /revoke` (RFC 7009): an unknown token is no error.
    async fn revoke(&self, request: Request<Incoming>) -> Reply {
        let fields = web::fields(request).await.unwrap_or_default();
        if fields.get("token").is_some_and(|token| self.grants().revoke(token)) {
            println!("  tokens: revoked, the grant has ended");
        }
        web::reply(StatusCode::OK, "text/plain", "")
    }

    /// RFC 8414.
    fn metadata(&self) -> Reply {
        let origin = &self.origin;
        let metadata = json!({
            "issuer": origin,
            "authorization_endpoint": format!("{origin}/authorize"),
            "token_endpoint": format!("{origin}/token"),
            "revocation_endpoint": format!("{origin}/revoke"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": SCOPES,
        });
        web::json(StatusCode::OK, &metadata)
    }

    /// Allows the paste page and loopback addresses with any port (RFC 8252 §7.3).
    fn may_redirect(&self, redirect_uri: &str) -> bool {
        let Ok(url) = Url::parse(redirect_uri) else { return false };
        let is_loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        redirect_uri == format!("{}/paste", self.origin) || (url.scheme() == "http" && is_loopback)
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `GET /paste`: the redirect target that shows the code to paste.
fn show_code(query: &str) -> Reply {
    let parameters = web::parameters(query.as_bytes()).unwrap_or_default();
    match (parameters.get("code"), parameters.get("state")) {
        (Some(code), Some(state)) => {
            let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
            page(StatusCode::OK, &nonce, &pages::code(code, state, &nonce))
        }
        _ => wrong("There is no code: consent was denied, or the request was invalid."),
    }
}

fn redirect(to: &str, parameters: &[(&str, &str)]) -> Reply {
    let Ok(mut url) = Url::parse(to) else { return wrong("The redirect_uri is not a URL.") };
    url.query_pairs_mut().extend_pairs(parameters);
    let Ok(location) = HeaderValue::from_str(url.as_str()) else { return wrong("The redirect_uri is not a URL.") };
    let mut reply = web::reply(StatusCode::SEE_OTHER, "text/plain", "");
    reply.headers_mut().insert(LOCATION, location);
    reply
}

fn wrong(text: &str) -> Reply {
    page(StatusCode::BAD_REQUEST, "", &pages::note("That did not work", text))
}

fn refusal(refused: &Refusal) -> Reply {
    println!("  tokens: refused, {} ({})", refused.code, refused.why);
    let status = if refused.code == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
    web::json(status, &json!({ "error": refused.code, "error_description": refused.why }))
}

fn page(status: StatusCode, nonce: &str, markup: &Markup) -> Reply {
    let script = if nonce.is_empty() { "'none'".to_owned() } else { format!("'nonce-{nonce}'") };
    // form-action also applies to the redirect after the form, hence the loopback hosts.
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src {script}; base-uri 'none'; frame-ancestors 'none'; \
         form-action 'self' http://127.0.0.1:* http://localhost:* http://[::1]:*"
    );
    let mut reply = web::reply(status, "text/html; charset=utf-8", markup.0.clone());
    let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    reply.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}

/// The registered public client.
pub(crate) const CLIENT_ID: &str = "playground";
/// The scopes that can be requested.
pub(crate) const SCOPES: [&str; 2] = ["llm.invoke", "offline_access"];

const WELCOME: &str = "This is a fake LLM provider. Start Pixy with the command that the playground printed, \
then link the account `play`: it sends you here to consent.";
