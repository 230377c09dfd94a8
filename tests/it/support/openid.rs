//! An OpenID provider that signs with ES256: discovery, keys, a consent without a page, token and revocation endpoints. It is
//! strict unless a test changes its replies.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::reply::Reply;
use super::upstream::{Seen, Upstream, lock};

type Change = Box<dyn Fn(&mut Value) + Send>;

/// The provider; it stops when dropped.
pub(crate) struct OpenId {
    upstream: Upstream,
    state: Arc<Mutex<State>>,
}

struct State {
    issuer: String,
    signer: Signer,
    /// The replies of `/jwks` in order; the last one repeats.
    key_sets: Vec<Value>,
    codes: HashMap<String, HashMap<String, String>>,
    refresh_tokens: HashMap<String, Grant>,
    issued: usize,
    metadata: Vec<Change>,
    header: Vec<Change>,
    claims: Vec<Change>,
    reply: Vec<Change>,
    /// The callback issues this client id, and the token endpoint accepts no other.
    issues_client: Option<String>,
    /// Seconds within which a refresh spends its token and is refused.
    earliest_refresh: Option<i64>,
    down: Vec<&'static str>,
}

#[derive(Clone)]
struct Grant {
    client_id: String,
    earliest: i64,
}

struct Signer {
    pair: EcdsaKeyPair,
    kid: String,
}

impl OpenId {
    pub(crate) async fn start() -> Self {
        let signer = Signer::new("key-1");
        let state = Arc::new(Mutex::new(State {
            issuer: String::new(),
            key_sets: vec![signer.set()],
            signer,
            codes: HashMap::new(),
            refresh_tokens: HashMap::new(),
            issued: 0,
            metadata: Vec::new(),
            header: Vec::new(),
            claims: Vec::new(),
            reply: Vec::new(),
            issues_client: None,
            earliest_refresh: None,
            down: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        let upstream = Upstream::answering(move |seen| lock(&shared).answer(seen)).await;
        lock(&state).issuer = upstream.url();
        Self { upstream, state }
    }

    pub(crate) fn issuer(&self) -> String {
        self.upstream.url()
    }

    /// An account of provider `oauth` that is linked here, by a loopback redirect.
    pub(crate) fn account(&self, upstream: &Upstream) -> Value {
        json!({ "provider": "oauth", "profile": {
            "link": { "issuer": self.issuer(), "client_id": "pixy", "scopes": ["openid", "email", "offline_access"] },
            "api": { "base_url": upstream.url(), "allow": ["GET /v1/models"] },
        } })
    }

    /// Grants an authorization request; returns the redirect.
    pub(crate) fn consent(&self, authorize_url: &str) -> Url {
        let url = Url::parse(authorize_url).expect("an authorization URL");
        let asked: HashMap<String, String> = url.query_pairs().into_owned().collect();
        assert_eq!(asked["code_challenge_method"], "S256");
        let mut state = lock(&self.state);
        let code = format!("marked-code-{}", state.codes.len());
        let mut back = Url::parse(&asked["redirect_uri"]).expect("an absolute redirect URI");
        back.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", &asked["state"])
            .append_pair("iss", &state.issuer);
        if let Some(client_id) = &state.issues_client {
            back.query_pairs_mut().append_pair("client_id", client_id);
        }
        state.codes.insert(code, asked);
        back
    }

    /// Changes the metadata from now on.
    pub(crate) fn publish(&self, change: impl Fn(&mut Value) + Send + 'static) {
        lock(&self.state).metadata.push(Box::new(change));
    }

    /// Changes the header of every id_token from now on.
    pub(crate) fn head(&self, change: impl Fn(&mut Value) + Send + 'static) {
        lock(&self.state).header.push(Box::new(change));
    }

    /// Changes the claims of every id_token from now on.
    pub(crate) fn claim(&self, change: impl Fn(&mut Value) + Send + 'static) {
        lock(&self.state).claims.push(Box::new(change));
    }

    /// Changes every token reply from now on.
    pub(crate) fn reply(&self, change: impl Fn(&mut Value) + Send + 'static) {
        lock(&self.state).reply.push(Box::new(change));
    }

    /// The callback issues this client id, and the token endpoint accepts no other.
    pub(crate) fn issue_client(&self, client_id: &str) {
        lock(&self.state).issues_client = Some(client_id.to_owned());
    }

    /// Refuses refreshes for so many seconds.
    pub(crate) fn refuse_refresh_for(&self, seconds: i64) {
        lock(&self.state).earliest_refresh = Some(seconds);
    }

    /// Signs with a new key. `seen_at` is the fetch of `/jwks` (from 1) that returns it; 0 is never.
    pub(crate) fn rotate_key(&self, kid: &str, seen_at: usize) {
        let mut state = lock(&self.state);
        let old = state.key_sets[0].clone();
        state.signer = Signer::new(kid);
        let new = state.signer.set();
        state.key_sets = match seen_at {
            0 => vec![old],
            1 => vec![new],
            later => std::iter::repeat_n(old, later - 1).chain([new]).collect(),
        };
    }

    /// Answers 503 on these paths from now on.
    pub(crate) fn take_down(&self, paths: &[&'static str]) {
        lock(&self.state).down = paths.to_vec();
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.upstream.connections()
    }

    /// Requests of a path.
    pub(crate) fn asked(&self, path: &str) -> Vec<Seen> {
        self.upstream.requests().into_iter().filter(|seen| seen.path() == path).collect()
    }

    /// The fields of every form that was posted to a path.
    pub(crate) fn forms(&self, path: &str) -> Vec<BTreeMap<String, String>> {
        self.asked(path).iter().map(form).collect()
    }

    /// Resolves after so many requests of any kind.
    pub(crate) async fn until_requests(&self, count: usize) {
        self.upstream.until_requests(count).await;
    }
}

impl State {
    fn answer(&mut self, seen: &Seen) -> Reply {
        if self.down.contains(&seen.path()) {
            return Reply::new(503);
        }
        match (seen.method.as_str(), seen.path()) {
            ("GET", "/.well-known/openid-configuration") => Reply::json(200, &self.metadata()),
            ("GET", "/jwks") => {
                let next = if self.key_sets.len() > 1 { self.key_sets.remove(0) } else { self.key_sets[0].clone() };
                Reply::json(200, &next)
            }
            ("POST", "/token") => match self.token(&form(seen)) {
                Ok(reply) => Reply::json(200, &reply),
                Err(error) => Reply::json(400, &json!({ "error": error })),
            },
            ("POST", "/revoke") => Reply::new(200),
            ("POST", "/device") => Reply::json(
                200,
                &json!({ "device_code": "marked-device", "user_code": "ABCD", "verification_uri": self.issuer,
                         "expires_in": 60, "interval": 1 }),
            ),
            _ => Reply::new(404),
        }
    }

    fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        let metadata = json!({
            "issuer": self.issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
            "revocation_endpoint": at("/revoke"), "jwks_uri": at("/jwks"), "device_authorization_endpoint": at("/device"),
            "authorization_response_iss_parameter_supported": true,
        });
        changed(metadata, &self.metadata)
    }

    fn token(&mut self, form: &BTreeMap<String, String>) -> Result<Value, &'static str> {
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let client_id = field("client_id");
        if self.issues_client.as_deref().is_some_and(|issued| issued != client_id) {
            return Err("invalid_client");
        }
        let nonce = match field("grant_type") {
            "authorization_code" => {
                let asked = self.codes.remove(field("code")).ok_or("invalid_grant")?;
                let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier")));
                if challenge != asked["code_challenge"] || field("redirect_uri") != asked["redirect_uri"] {
                    return Err("invalid_grant");
                }
                asked.get("nonce").cloned()
            }
            "urn:ietf:params:oauth:grant-type:device_code" if field("device_code") == "marked-device" => None,
            "refresh_token" => {
                let grant = self.refresh_tokens.remove(field("refresh_token")).ok_or("invalid_grant")?;
                if grant.client_id != client_id || now() < grant.earliest {
                    return Err("invalid_grant"); // and the token is spent
                }
                None
            }
            _ => return Err("unsupported_grant_type"),
        };
        Ok(self.issue(client_id, nonce))
    }

    fn issue(&mut self, client_id: &str, nonce: Option<String>) -> Value {
        self.issued += 1;
        let (access, refresh) = (format!("marked-access-{}", self.issued), format!("marked-refresh-{}", self.issued));
        let earliest = self.earliest_refresh.map(|seconds| now() + seconds);
        let grant = Grant { client_id: client_id.to_owned(), earliest: earliest.unwrap_or(0) };
        self.refresh_tokens.insert(refresh.clone(), grant);
        let mut claims = json!({
            "iss": self.issuer, "aud": client_id, "sub": "ada", "email": "ada@example.com", "iat": now(), "exp": now() + 3600,
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        let header = changed(json!({ "alg": "ES256", "kid": self.signer.kid }), &self.header);
        let id_token = self.signer.sign(&header, &changed(claims, &self.claims));
        let mut reply = json!({
            "access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 3600, "id_token": id_token,
        });
        if let Some(earliest) = earliest {
            reply["earliest_refresh_at"] = json!(earliest);
        }
        changed(reply, &self.reply)
    }
}

impl Signer {
    fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { pair, kid: kid.to_owned() }
    }

    fn set(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": x, "y": y }] })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn changed(mut value: Value, changes: &[Change]) -> Value {
    for change in changes {
        change(&mut value);
    }
    value
}

fn form(seen: &Seen) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(&seen.body).into_owned().collect()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("it fits")
}
