//! A token endpoint that rotates strictly ([`Rotation`]), records calls, delays replies on request, and serves every [`Fault`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use url::Url;

use super::fault::{Effect, Fault, Issued};
use super::reply::{Gate, Reply};
use super::rotation::{Pair, Refused, Rotation, Standing};
use super::upstream::{Seen, Upstream, lock};

/// A fake authorization server: `/token`, `/revoke`, and a consent without a page ([`TokenEndpoint::consent`]). Uses tokio's
/// time, so a test may pause it.
#[derive(Debug)]
pub(crate) struct TokenEndpoint {
    upstream: Upstream,
    trap: Upstream,
    state: Arc<Mutex<State>>,
}

/// One token request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The fields of the form or of the JSON object.
    pub(crate) fields: BTreeMap<String, String>,
    /// The fault that was served, if any.
    pub(crate) fault: Option<Fault>,
    /// Whether the server issued a token, even if its response was an error.
    pub(crate) issued: bool,
}

/// The result of a consent.
#[derive(Debug, Clone)]
pub(crate) struct Consent {
    /// The authorization code.
    pub(crate) code: String,
    /// The state, as it was sent.
    pub(crate) state: String,
    /// The redirect URI with code and state.
    pub(crate) redirected_to: String,
}

#[derive(Debug)]
struct State {
    rotation: Rotation,
    started: Instant,
    codes: HashMap<String, Asked>,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    gates: VecDeque<tokio::sync::oneshot::Receiver<()>>,
    calls: Vec<Call>,
    revoked: Vec<String>,
    strays: Vec<Seen>,
    rotates: bool,
    here: String,
    elsewhere: String,
}

#[derive(Debug)]
struct Asked {
    challenge: String,
    redirect_uri: String,
}

impl TokenEndpoint {
    /// Access tokens are valid for an hour; no grace period.
    pub(crate) async fn start() -> Self {
        Self::with(Rotation::new(Duration::from_hours(1), Duration::ZERO)).await
    }

    /// With this model.
    pub(crate) async fn with(rotation: Rotation) -> Self {
        let trap = Upstream::start().await;
        let state = State {
            rotation,
            started: Instant::now(),
            codes: HashMap::new(),
            faults: VecDeque::new(),
            always: None,
            gates: VecDeque::new(),
            calls: Vec::new(),
            revoked: Vec::new(),
            strays: Vec::new(),
            rotates: true,
            here: String::new(),
            elsewhere: trap.url(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let upstream = Upstream::answering(move |seen| lock(&shared).answer(seen)).await;
        lock(&state).here = upstream.url();
        Self { upstream, trap, state }
    }

    /// The token endpoint.
    pub(crate) fn url(&self) -> String {
        format!("{}/token", self.upstream.url())
    }

    /// The revocation endpoint.
    pub(crate) fn revoke_url(&self) -> String {
        format!("{}/revoke", self.upstream.url())
    }

    /// The authorization endpoint; not served, see [`TokenEndpoint::consent`].
    pub(crate) fn authorize_url(&self) -> String {
        format!("{}/authorize", self.upstream.url())
    }

    /// Issues tokens without a consent.
    pub(crate) fn grant(&self) -> Pair {
        let mut state = lock(&self.state);
        let now = state.now();
        state.rotation.link(now)
    }

    /// Grants an authorization request. The code is bound to its challenge and redirect URI.
    pub(crate) fn consent(&self, authorize_url: &str) -> Consent {
        let url = Url::parse(authorize_url).expect("an authorization URL");
        let given: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let given = |name: &str| given.get(name).cloned().unwrap_or_else(|| panic!("{name} is missing in {url}"));
        assert_eq!(given("code_challenge_method"), "S256");
        let (redirect_uri, sent) = (given("redirect_uri"), given("state"));
        let mut state = lock(&self.state);
        let code = format!("marked-code-{}", state.codes.len());
        let mut redirected_to = Url::parse(&redirect_uri).expect("an absolute redirect URI");
        redirected_to.query_pairs_mut().append_pair("code", &code).append_pair("state", &sent);
        state.codes.insert(code.clone(), Asked { challenge: given("code_challenge"), redirect_uri });
        Consent { code, state: sent, redirected_to: redirected_to.into() }
    }

    /// Queues a fault for a request.
    pub(crate) fn fail_next(&self, fault: Fault) {
        lock(&self.state).faults.push_back(fault);
    }

    /// Serves this fault for every further request; `None` for none.
    pub(crate) fn fail_always(&self, fault: Option<Fault>) {
        lock(&self.state).always = fault;
    }

    /// Further refreshes keep the refresh token; the reply has none.
    pub(crate) fn stop_rotating(&self) {
        lock(&self.state).rotates = false;
    }

    /// The next request is processed (its token is spent), but the reply is delayed until the gate opens.
    pub(crate) fn hold_next(&self) -> Gate {
        let (gate, waiting) = Gate::pair();
        lock(&self.state).gates.push_back(waiting);
        gate
    }

    /// Every token request so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.state).calls.clone()
    }

    /// The number of refresh requests.
    pub(crate) fn refreshes(&self) -> usize {
        self.calls().iter().filter(|call| call.field("grant_type") == "refresh_token").count()
    }

    /// Resolves after so many requests of any kind.
    pub(crate) async fn until_requests(&self, count: usize) {
        self.upstream.until_requests(count).await;
    }

    /// All requests as they were on the wire.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.upstream.requests()
    }

    /// Tokens of revocation requests.
    pub(crate) fn revoked(&self) -> Vec<String> {
        lock(&self.state).revoked.clone()
    }

    /// Requests that must never be made: those that follow a redirect, here or to another origin.
    pub(crate) fn strays(&self) -> Vec<Seen> {
        let mut strays = lock(&self.state).strays.clone();
        strays.extend(self.trap.requests());
        strays
    }

    /// The state of a refresh token.
    pub(crate) fn standing(&self, refresh_token: &str) -> Standing {
        lock(&self.state).rotation.standing(refresh_token)
    }

    /// Whether the API accepts this access token now.
    pub(crate) fn lets_in(&self, access_token: &str) -> bool {
        let state = lock(&self.state);
        state.rotation.lets_in(access_token, state.now())
    }

    /// [`TokenEndpoint::lets_in`] as a function for another fake.
    pub(crate) fn judge(&self) -> impl Fn(&str) -> bool + Send + 'static {
        let state = Arc::clone(&self.state);
        move |access_token| {
            let state = lock(&state);
            state.rotation.lets_in(access_token, state.now())
        }
    }

    /// Access to the model, to revoke a grant or change the grace period.
    pub(crate) fn rotation<T>(&self, with: impl FnOnce(&mut Rotation) -> T) -> T {
        with(&mut lock(&self.state).rotation)
    }
}

impl Call {
    /// A field; empty if it was not sent.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

impl State {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn answer(&mut self, seen: &Seen) -> Reply {
        let mut reply = match (seen.method.as_str(), seen.path()) {
            ("POST", "/token") => self.token(seen),
            ("POST", "/revoke") => self.revoke(seen),
            _ => {
                self.strays.push(seen.clone());
                Reply::new(404)
            }
        };
        reply.gate = self.gates.pop_front();
        reply
    }

    fn token(&mut self, seen: &Seen) -> Reply {
        let fields = fields(seen);
        let fault = self.faults.pop_front().or(self.always);
        let issued = self.issue(&fields, fault);
        let reply = match (fault, &issued) {
            (Some(fault), Ok(issued)) => fault.reply(issued),
            (None, Ok(issued)) => Reply::json(200, &self.good(issued)),
            // A faulty server does not rotate a dead token either.
            (_, Err(error)) => Reply::json(400, &json!({ "error": error })),
        };
        let issued = issued.is_ok() && fault.is_none_or(|fault| fault.effect() != Effect::Nothing);
        self.calls.push(Call { fields, fault, issued });
        reply
    }

    /// Applies the effect of the fault to the model.
    fn issue(&mut self, fields: &BTreeMap<String, String>, fault: Option<Fault>) -> Result<Issued, &'static str> {
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        let presented = field("refresh_token").to_owned() + field("code");
        let usual = if self.rotates { Effect::Rotated } else { Effect::Access };
        let now = self.now();
        let effect = fault.map_or(usual, Fault::effect);
        let (access, refresh) = match (effect, field("grant_type")) {
            (Effect::Nothing, _) => ("marked-access-invented".to_owned(), "marked-refresh-invented".to_owned()),
            (_, "authorization_code") => {
                self.check_code(&field)?;
                let Pair { access, refresh } = self.rotation.link(now);
                (access, refresh)
            }
            (Effect::Access, "refresh_token") => {
                let access = self.rotation.access_only(&presented, now).map_err(refusal)?;
                (access, presented.clone())
            }
            (Effect::Rotated, "refresh_token") => {
                let Pair { access, refresh } = self.rotation.refresh(&presented, now).map_err(refusal)?;
                (access, refresh)
            }
            _ => return Err("unsupported_grant_type"),
        };
        Ok(Issued { access, refresh, presented, here: self.here.clone(), elsewhere: self.elsewhere.clone() })
    }

    /// RFC 7636 §4.6; a code works once.
    fn check_code<'a>(&mut self, field: &impl Fn(&str) -> &'a str) -> Result<(), &'static str> {
        let asked = self.codes.remove(field("code")).ok_or("invalid_grant")?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier")));
        let fits = challenge == asked.challenge && field("redirect_uri") == asked.redirect_uri;
        fits.then_some(()).ok_or("invalid_grant")
    }

    fn good(&self, issued: &Issued) -> Value {
        let mut reply = json!({
            "access_token": issued.access, "token_type": "Bearer", "expires_in": self.rotation.lifetime.as_secs(),
            "account": { "email_address": "ada@example.com" }, "organization": { "name": "Example" },
        });
        if issued.refresh != issued.presented {
            reply["refresh_token"] = json!(issued.refresh);
        }
        reply
    }

    fn revoke(&mut self, seen: &Seen) -> Reply {
        let token = fields(seen).remove("token").unwrap_or_default();
        self.rotation.revoke(&token);
        self.revoked.push(token);
        Reply::new(200)
    }
}

/// The fields of a form or JSON body.
fn fields(seen: &Seen) -> BTreeMap<String, String> {
    match seen.json() {
        Value::Object(members) => {
            let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            members.into_iter().map(|(name, value)| (name, text(value))).collect()
        }
        _ => url::form_urlencoded::parse(&seen.body).into_owned().collect(),
    }
}

fn refusal(refused: Refused) -> &'static str {
    match refused {
        Refused::Unknown | Refused::Reused | Refused::Ended => "invalid_grant",
    }
}
