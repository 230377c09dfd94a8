//! One attempt to link an account: what it is bound to, what the person does, and how far it is. In memory alone.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::attempt_binding::AttemptBinding;
use super::authorization_request::AuthorizationRequest;
use super::paste::{Client, Expected};
use super::problem::Problem;
use crate::account::Login;
use crate::clock::{Clock, Tick, Timestamp};
use crate::oauth::pkce::Verifier;
use crate::oauth::profile::Flow;
use crate::secret::Secret;

/// An attempt ends after this (RFC 6749 §4.1.2 recommends the same for a code); a failed attempt is reported for this long.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// A device code's polling reports that the code expired; the attempt stays this much longer, for the person to read it.
const DEVICE_GRACE: Duration = Duration::from_mins(1);

/// An attempt to link one account.
pub struct Attempt {
    /// What every later step is bound to.
    pub binding: Arc<AttemptBinding>,
    /// What the person does.
    pub flow: AttemptFlow,
    /// By the wall clock, for display.
    pub expires_at: Timestamp,
    /// How far it is.
    pub stage: Stage,
    ends: Tick,
}

/// What the person does.
pub enum AttemptFlow {
    /// Opens an address; a code arrives by a redirect or by pasting.
    AuthorizationCode(Box<AuthorizationRequest>),
    /// Types a code at the provider (RFC 8628).
    DeviceCode(DevicePrompt),
}

/// What the person needs for a device authorization (RFC 8628 §3.3).
pub struct DevicePrompt {
    /// The code to type.
    pub user_code: String,
    /// Where to type it.
    pub verification_url: Url,
    /// The same with the code in it.
    pub verification_url_complete: Option<Url>,
}

/// How far an attempt is.
pub enum Stage {
    /// Waits for the person at the provider.
    Waiting,
    /// The code was sent to the token endpoint: it is spent.
    Exchanging,
    /// Tokens arrived; waits for the person to confirm.
    ToConfirm(Box<Login>),
    /// Ended without a login.
    Failed(Box<AttemptFailure>),
}

/// Why an attempt ended without a login.
#[derive(Clone)]
pub struct AttemptFailure {
    /// For the person.
    pub problem: Problem,
    /// The required scopes that were not granted, where that is the reason.
    pub missing_scopes: Vec<String>,
}

/// A code with all that its one token request needs (RFC 6749 §4.1.3, RFC 7636 §4.5).
pub struct CodeRedemption {
    /// The attempt.
    pub binding: Arc<AttemptBinding>,
    /// The client id that the grant belongs to; the response may have issued it.
    pub client_id: Option<String>,
    /// The code.
    pub code: Secret,
    /// Its verifier.
    pub verifier: Verifier,
    /// The redirect URI of the authorization request.
    pub redirect_uri: Url,
    /// For providers that want it repeated.
    pub state: Option<Secret>,
}

impl Attempt {
    /// An attempt that waits for the person.
    pub fn new(binding: AttemptBinding, flow: AttemptFlow, lifetime: Duration, clock: &Clock) -> Self {
        let grace = if let AttemptFlow::DeviceCode(_) = flow { DEVICE_GRACE } else { Duration::ZERO };
        Self {
            binding: Arc::new(binding),
            flow,
            expires_at: clock.wall().after(lifetime),
            stage: Stage::Waiting,
            ends: clock.tick().after(lifetime + grace),
        }
    }

    /// See [`AttemptBinding::id`].
    pub fn id(&self) -> &str {
        &self.binding.id
    }

    /// What a response must hold to belong to this attempt; `None` where none arrives by a redirect.
    pub fn expected_response(&self) -> Option<Expected<'_>> {
        let AttemptFlow::AuthorizationCode(request) = &self.flow else { return None };
        let client = match (request.issues_client_id, self.binding.client_id.as_deref()) {
            (false, _) => Client::Ours,
            (true, Some(issued)) if self.binding.client_id_was_issued => Client::Known(issued),
            (true, asked_with) => Client::Issued { asked_with },
        };
        Some(Expected {
            state: &request.state,
            redirect_uri: &request.redirect_uri,
            issuer: self.binding.endpoints.issuer.as_ref(),
            sends_iss: self.binding.endpoints.sends_iss,
            client,
        })
    }

    /// Takes the verifier of a code that arrived: from here on the code counts as spent. `None` the second time.
    pub fn take_redemption(&mut self, code: Secret, issued_client_id: Option<String>) -> Option<CodeRedemption> {
        let (Stage::Waiting, AttemptFlow::AuthorizationCode(request)) = (&self.stage, &mut self.flow) else {
            return None;
        };
        let verifier = request.verifier.take()?;
        self.stage = Stage::Exchanging;
        Some(CodeRedemption {
            binding: Arc::clone(&self.binding),
            client_id: issued_client_id.or_else(|| self.binding.client_id.clone()),
            code,
            verifier,
            redirect_uri: request.redirect_uri.clone(),
            state: Some(request.state.clone()),
        })
    }

    /// Ends the attempt; it stays for [`LIFETIME`], so that the person can read why.
    pub fn fail(&mut self, failure: AttemptFailure, clock: &Clock) {
        self.stage = Stage::Failed(Box::new(failure));
        self.ends = clock.tick().after(LIFETIME);
    }

    /// Time until it expires; zero once it has.
    pub fn remaining(&self, clock: &Clock) -> Duration {
        self.ends.since(clock.tick())
    }

    /// Whether its time is over.
    pub fn is_expired(&self, clock: &Clock) -> bool {
        self.remaining(clock).is_zero()
    }
}

impl AttemptFlow {
    /// The flow by its name in profiles and in the API.
    pub fn kind(&self) -> Flow {
        match self {
            Self::AuthorizationCode(_) => Flow::AuthorizationCode,
            Self::DeviceCode(_) => Flow::DeviceCode,
        }
    }
}

impl From<Problem> for AttemptFailure {
    fn from(problem: Problem) -> Self {
        Self { problem, missing_scopes: Vec::new() }
    }
}
