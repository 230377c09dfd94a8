//! Attempts to link: in memory alone, one an account, ten minutes, each code used once.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::loopback::CallbackListener;
use super::paste::{Client, Expected};
use super::problem::Problem;
use crate::account::Login;
use crate::clock::{Clock, Tick, Timestamp};
use crate::name::AccountName;
use crate::oauth::discovery::Endpoints;
use crate::oauth::pkce::Verifier;
use crate::oauth::profile::{Flow, Profile};
use crate::secret::{Secret, base64_url, fill_random};

/// An attempt is over after this (RFC 6749 §4.1.2 recommends the same for a code), and one that failed is shown for so long.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// One person's try at linking one account.
pub struct Attempt {
    /// What every later step is bound to.
    pub bound: Arc<Bound>,
    /// What the person does.
    pub way: Way,
    /// By the wall clock, to show.
    pub expires_at: Timestamp,
    /// How far it is.
    pub stage: Stage,
    ends: Tick,
}

/// What every later step is bound to, as it was when the attempt began: a code goes to no other endpoint (RFC 9700 §4.4).
pub struct Bound {
    /// Names the attempt in the API; no secret opens with it.
    pub id: String,
    /// What is being linked.
    pub account: AccountName,
    /// Endpoints as they were when it began.
    pub endpoints: Endpoints,
    /// The client id that it began with.
    pub client_id: Option<String>,
    /// The client id was issued at an earlier link, by a provider that does so.
    pub client_is_known: bool,
    /// What the id_token must repeat.
    pub nonce: Option<Secret>,
}

/// What the person does.
pub enum Way {
    /// Opens an address; a code comes back, by itself or by pasting.
    Browser(Box<Browser>),
    /// Types a code elsewhere (RFC 8628).
    Device(Device),
}

/// An authorization request.
pub struct Browser {
    /// Where to send the person.
    pub authorize_url: Url,
    /// Where the provider sends the code: the exact string of both requests (RFC 6749 §4.1.3).
    pub redirect_uri: Url,
    /// The redirect ends at Pixy.
    pub comes_back: bool,
    /// Why it does not, where it should.
    pub notice: Option<String>,
    /// Held open for as long as the redirect may come.
    _door: Option<Arc<CallbackListener>>,
    verifier: Option<Verifier>,
    state: Secret,
    issues_client_id: bool,
}

/// What a device authorization shows.
pub struct Device {
    /// To be typed.
    pub user_code: String,
    /// Where.
    pub verification_url: Url,
    /// The same with the code in it.
    pub verification_url_complete: Option<Url>,
}

/// Where a redirect ends.
pub struct Landing {
    /// The redirect URI.
    pub redirect_uri: Url,
    /// See [`Browser::comes_back`].
    pub comes_back: bool,
    /// See [`Browser::notice`].
    pub notice: Option<String>,
    /// Held open for as long as the redirect may come.
    pub door: Option<Arc<CallbackListener>>,
}

/// How far an attempt is.
pub enum Stage {
    /// For the person.
    Waiting,
    /// The code is on its way to the token endpoint: it is spent.
    Exchanging,
    /// For the person to say that it is them.
    Exchanged(Box<Login>),
    /// Nothing comes of it any more.
    Failed(Box<Failed>),
}

/// Why nothing comes of it.
#[derive(Clone)]
pub struct Failed {
    /// For the person.
    pub problem: Problem,
    /// What should have been granted, where that is why.
    pub missing_scopes: Vec<String>,
}

/// What an exchange needs, taken out of its attempt.
pub struct Spending {
    /// The code's verifier.
    pub verifier: Verifier,
    /// See [`Browser::redirect_uri`].
    pub redirect_uri: Url,
    /// For providers that want it repeated.
    pub state: Option<Secret>,
}

impl Attempt {
    /// One that waits for the person.
    pub fn new(bound: Bound, way: Way, lifetime: Duration, clock: &Clock) -> Self {
        // Whoever asks the provider says that a device's code is over; then it stays for the person to read.
        let grace = if let Way::Device(_) = way { Duration::from_mins(1) } else { Duration::ZERO };
        Self {
            bound: Arc::new(bound),
            way,
            expires_at: clock.wall().after(lifetime),
            stage: Stage::Waiting,
            ends: clock.tick().after(lifetime + grace),
        }
    }

    /// See [`Bound::id`].
    pub fn id(&self) -> &str {
        &self.bound.id
    }

    /// The flow it takes.
    pub fn flow(&self) -> Flow {
        match self.way {
            Way::Browser(_) => Flow::AuthorizationCode,
            Way::Device(_) => Flow::DeviceCode,
        }
    }

    /// What an answer must be to belong to this attempt; `None` where none can come by a redirect.
    pub fn expected(&self) -> Option<Expected<'_>> {
        let Way::Browser(browser) = &self.way else { return None };
        let client = match (browser.issues_client_id, self.bound.client_id.as_deref()) {
            (false, _) => Client::Ours,
            (true, Some(known)) if self.bound.client_is_known => Client::Known(known),
            (true, asked_with) => Client::Issued { asked_with },
        };
        Some(Expected {
            state: &browser.state,
            redirect_uri: &browser.redirect_uri,
            issuer: self.bound.endpoints.issuer.as_ref(),
            sends_iss: self.bound.endpoints.sends_iss,
            client,
        })
    }

    /// Takes the verifier out, once: from here on the code counts as spent.
    pub fn spend(&mut self) -> Option<Spending> {
        let (Stage::Waiting, Way::Browser(browser)) = (&self.stage, &mut self.way) else { return None };
        let verifier = browser.verifier.take()?;
        self.stage = Stage::Exchanging;
        Some(Spending { verifier, redirect_uri: browser.redirect_uri.clone(), state: Some(browser.state.clone()) })
    }

    /// Nothing comes of it any more; it stays for ten minutes, so that the person can be told why.
    pub fn fail(&mut self, failed: Failed, clock: &Clock) {
        self.stage = Stage::Failed(Box::new(failed));
        self.ends = clock.tick().after(LIFETIME);
    }

    /// How long until it is over; zero once it is.
    pub fn remaining(&self, clock: &Clock) -> Duration {
        self.ends.since(clock.tick())
    }

    /// Its time is over.
    pub fn is_over(&self, clock: &Clock) -> bool {
        self.remaining(clock).is_zero()
    }
}

impl Bound {
    /// What an attempt that begins now is bound to. `known_client` was issued at an earlier link of this account.
    pub fn new(
        account: AccountName,
        profile: &Profile,
        flow: Flow,
        endpoints: Endpoints,
        known_client: Option<String>,
    ) -> Self {
        let known_client = known_client.filter(|_| profile.link.client_id_from_callback);
        let client_is_known = known_client.is_some();
        // A device authorization request has no place for one (RFC 8628 §3.1).
        let nonce = (flow == Flow::AuthorizationCode && wants_nonce(profile)).then(|| Secret::random(16));
        let client_id = known_client.or_else(|| profile.link.client_id.as_deref().cloned());
        Self { id: random_id(), account, endpoints, client_id, client_is_known, nonce }
    }
}

impl Browser {
    /// Makes verifier, challenge and state, and the address to open.
    pub fn new(profile: &Profile, bound: &Bound, landing: Landing, installation: &str) -> Result<Self, Problem> {
        let authorize = bound.endpoints.authorize.clone().ok_or_else(|| Problem::no_endpoint("authorization"))?;
        let Landing { redirect_uri, comes_back, notice, door } = landing;
        let (state, verifier) = (Secret::random(32), Verifier::new());
        let request =
            Request { profile, bound, redirect_uri: &redirect_uri, state: &state, verifier: &verifier, installation };
        Ok(Self {
            authorize_url: request.write(authorize),
            redirect_uri,
            comes_back,
            notice,
            _door: door,
            verifier: Some(verifier),
            state,
            issues_client_id: profile.link.client_id_from_callback,
        })
    }
}

/// The profile's parameters of an authorization request that has no redirect.
pub fn device_parameters(profile: &Profile, installation: &str) -> Vec<(String, Option<String>)> {
    let usual =
        profile.link.authorize_params.as_texts().filter(|(_, value)| {
            value.is_none_or(|value| !value.contains("{redirect_uri") && !value.contains("{nonce}"))
        });
    usual
        .map(|(name, value)| (name.to_owned(), value.map(|value| value.replace("{installation}", installation))))
        .collect()
}

/// An authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3).
struct Request<'a> {
    profile: &'a Profile,
    bound: &'a Bound,
    redirect_uri: &'a Url,
    state: &'a Secret,
    verifier: &'a Verifier,
    installation: &'a str,
}

impl Request<'_> {
    fn write(&self, mut url: Url) -> Url {
        let link = &self.profile.link;
        let mut parameters: Vec<(String, String)> = vec![
            ("response_type".into(), "code".into()),
            ("redirect_uri".into(), self.redirect_uri.to_string()),
            ("state".into(), self.state.expose().to_owned()),
            ("code_challenge".into(), self.verifier.challenge()),
            ("code_challenge_method".into(), "S256".into()),
        ];
        if let Some(client_id) = &self.bound.client_id {
            parameters.insert(1, ("client_id".into(), client_id.clone()));
        }
        if !link.scopes.is_empty() {
            parameters.push(("scope".into(), link.scopes.join(" ")));
        }
        if let Some(nonce) = &self.bound.nonce {
            parameters.push(("nonce".into(), nonce.expose().to_owned()));
        }
        for (name, value) in link.authorize_params.as_texts() {
            parameters.retain(|(present, _)| present != name);
            if let Some(value) = value {
                parameters.push((name.to_owned(), self.fill_in(value)));
            }
        }
        url.query_pairs_mut().extend_pairs(parameters);
        url
    }

    fn fill_in(&self, value: &str) -> String {
        let mut with_state = self.redirect_uri.clone();
        with_state.query_pairs_mut().append_pair("state", self.state.expose());
        value
            .replace("{redirect_uri_with_state}", with_state.as_str())
            .replace("{redirect_uri}", self.redirect_uri.as_str())
            .replace("{nonce}", self.bound.nonce.as_ref().map_or("", |nonce| nonce.expose()))
            .replace("{installation}", self.installation)
    }
}

/// Where the profile has a place for it; else with every OpenID Connect login whose id_token will be verified, unless the
/// profile takes the parameter away.
fn wants_nonce(profile: &Profile) -> bool {
    let link = &profile.link;
    if link.authorize_params.as_texts().any(|(_, value)| value.is_some_and(|value| value.contains("{nonce}"))) {
        return true;
    }
    let is_named = link.authorize_params.as_texts().any(|(name, _)| name == "nonce");
    link.issuer.is_some() && !is_named && link.scopes.iter().any(|scope| scope == "openid")
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    fill_random(&mut bytes);
    base64_url(&bytes)
}
