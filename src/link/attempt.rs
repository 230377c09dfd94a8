//! Attempts to link: in memory alone, one an account, ten minutes, each code used once.

use std::time::Duration;

use url::Url;

use super::paste::Expected;
use super::problem::Problem;
use crate::account::Login;
use crate::clock::{Clock, Tick, Timestamp};
use crate::name::AccountName;
use crate::oauth::discovery::Endpoints;
use crate::oauth::pkce::Verifier;
use crate::oauth::profile::{Ports, Profile, Redirect};
use crate::secret::{Secret, base64_url, fill_random};
use crate::server::Address;

/// An attempt is over after this (RFC 6749 §4.1.2 recommends the same for a code).
pub const LIFETIME: Duration = Duration::from_mins(10);

/// One person's try at linking one account.
pub struct Attempt {
    /// Names it in the API; no secret opens with it.
    pub id: String,
    /// What is being linked.
    pub account: AccountName,
    /// Where to send the person.
    pub authorize_url: Url,
    /// Where the provider sends the code: the exact string of both requests (RFC 6749 §4.1.3).
    pub redirect_uri: Url,
    /// Endpoints as they were when it began: a code goes to no other (RFC 9700 §4.4).
    pub endpoints: Endpoints,
    /// The client id it was begun with.
    pub client_id: Option<String>,
    /// By the wall clock, to show.
    pub expires_at: Timestamp,
    /// How far it is.
    pub stage: Stage,
    issuer: Option<Url>,
    state: Secret,
    ends: Tick,
}

/// How far an attempt is.
pub enum Stage {
    /// For the code.
    Waiting(Verifier),
    /// The code is on its way to the token endpoint: it is spent.
    Exchanging,
    /// For the person to say that it is them.
    Exchanged(Box<Login>),
}

impl Attempt {
    /// Makes verifier, challenge and state, and the address to open.
    pub fn begin(
        account: AccountName,
        profile: &Profile,
        endpoints: Endpoints,
        link_port: Option<&Address>,
        clock: &Clock,
    ) -> Result<Self, Problem> {
        let authorize = endpoints.authorize.clone().ok_or_else(|| Problem::no_endpoint("authorization"))?;
        let redirect_uri = redirect_uri(&profile.link.redirect, link_port)?;
        let (state, verifier) = (Secret::random(32), Verifier::new());
        let client_id = profile.link.client_id.clone();
        let authorize_url = authorize_url(profile, authorize, &redirect_uri, &state, &verifier);
        Ok(Self {
            id: random_id(),
            account,
            authorize_url,
            redirect_uri,
            endpoints,
            client_id,
            expires_at: clock.wall().after(LIFETIME),
            stage: Stage::Waiting(verifier),
            issuer: profile.link.issuer.clone(),
            state,
            ends: clock.tick().after(LIFETIME),
        })
    }

    /// What an answer must be to belong to this attempt.
    pub fn expected(&self) -> Expected<'_> {
        Expected {
            state: &self.state,
            redirect_uri: &self.redirect_uri,
            issuer: self.issuer.as_ref(),
            sends_iss: self.endpoints.sends_iss,
        }
    }

    /// The state, for providers that want it in the exchange.
    pub fn state(&self) -> &Secret {
        &self.state
    }

    /// Its ten minutes are over.
    pub fn is_over(&self, clock: &Clock) -> bool {
        clock.tick() >= self.ends
    }
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    fill_random(&mut bytes);
    base64_url(&bytes)
}

/// Where the provider is to send the code. A loopback redirect comes back by itself when its port is the link port's;
/// from any other the person pastes the address that the browser could not open.
fn redirect_uri(redirect: &Redirect, link_port: Option<&Address>) -> Result<Url, Problem> {
    let (host, ports, path) = match redirect {
        Redirect::Paste(page) => return Ok(page.clone()),
        Redirect::Loopback { host, ports, path } => (host, ports, path),
        Redirect::None => return Err(Problem::no_endpoint("redirect")),
    };
    let ours = match link_port {
        Some(Address::Tcp(address)) => Some(address.port()),
        Some(Address::Unix(_)) | None => None,
    };
    let port = match ports {
        Ports::Any => ours.unwrap_or(8701),
        Ports::Only(list) => ours
            .filter(|port| list.contains(port))
            .or(list.first().copied())
            .ok_or_else(|| Problem::no_endpoint("redirect"))?,
    };
    Url::parse(&format!("http://{host}:{port}{path}")).map_err(|_| Problem::no_endpoint("redirect"))
}

/// The authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3).
fn authorize_url(profile: &Profile, mut url: Url, redirect_uri: &Url, state: &Secret, verifier: &Verifier) -> Url {
    let mut redirect_with_state = redirect_uri.clone();
    redirect_with_state.query_pairs_mut().append_pair("state", state.expose());
    let mut parameters: Vec<(String, String)> = vec![
        ("response_type".into(), "code".into()),
        ("redirect_uri".into(), redirect_uri.to_string()),
        ("state".into(), state.expose().to_owned()),
        ("code_challenge".into(), verifier.challenge()),
        ("code_challenge_method".into(), "S256".into()),
    ];
    if let Some(client_id) = &profile.link.client_id {
        parameters.insert(1, ("client_id".into(), client_id.clone()));
    }
    if !profile.link.scopes.is_empty() {
        parameters.push(("scope".into(), profile.link.scopes.join(" ")));
    }
    for (name, value) in &profile.link.authorize_params {
        parameters.retain(|(present, _)| present != name);
        if let Some(value) = value {
            let value = value
                .replace("{redirect_uri_with_state}", redirect_with_state.as_str())
                .replace("{redirect_uri}", redirect_uri.as_str());
            parameters.push((name.clone(), value));
        }
    }
    url.query_pairs_mut().extend_pairs(parameters);
    url
}
