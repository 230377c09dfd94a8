//! Device authorization (RFC 8628): requests a code for the person to type, and polls the token endpoint until they have.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::attempt::{Attempt, AttemptFlow, CodeRedemption, DevicePrompt};
use super::attempt_binding::AttemptBinding;
use super::authorization_request::device_parameters;
use super::code_exchange::CodeExchange;
use super::problem::Problem;
use crate::account::Account;
use crate::clock::Tick;
use crate::oauth::device::{self, Approval, DeviceAuthorization, PollOutcome};

/// Requests a device code. Returns the attempt, and the polling that is to run once the attempt is open.
///
/// # Errors
/// When an endpoint is unknown, or the provider issues no code.
pub(super) async fn begin(
    exchange: &Arc<CodeExchange>,
    account: &Account,
    binding: AttemptBinding,
) -> Result<(Attempt, DevicePolling), Problem> {
    let (profile, clock) = (&*binding.profile, &exchange.clock);
    let url = binding.endpoints.device.clone().ok_or_else(|| Problem::no_endpoint("device authorization"))?;
    if binding.endpoints.token.is_none() {
        return Err(Problem::no_endpoint("token"));
    }
    let parameters = device_parameters(profile, &account.services().vault.installation());
    let authorization = device::authorize(&exchange.upstream, profile, &url, binding.client_id.as_deref(), &parameters)
        .await
        .map_err(|error| Problem::no_device_code(url.host_str().unwrap_or(&profile.title), &error))?;
    let prompt = DevicePrompt {
        user_code: authorization.user_code.clone(),
        verification_url: authorization.verification_url.clone(),
        verification_url_complete: authorization.verification_url_complete.clone(),
    };
    let attempt = Attempt::new(binding, AttemptFlow::DeviceCode(prompt), authorization.lifetime, clock);
    let expires = clock.tick().after(authorization.lifetime);
    let (exchange, binding) = (Arc::downgrade(exchange), Arc::clone(&attempt.binding));
    Ok((attempt, DevicePolling { exchange, binding, authorization, expires }))
}

/// The polling of one attempt (RFC 8628 §3.4).
pub(super) struct DevicePolling {
    // Weak: a person who never decides must not keep a stopped Pixy, and the lock of its vault, alive.
    exchange: Weak<CodeExchange>,
    binding: Arc<AttemptBinding>,
    authorization: DeviceAuthorization,
    /// When the codes expire.
    expires: Tick,
}

impl DevicePolling {
    /// Polls until the person has decided, the codes expire, or the attempt ends.
    pub(super) async fn run(self) {
        let mut interval = self.authorization.interval();
        let mut pause = interval.first();
        loop {
            let Some(remaining) = self.remaining() else { return };
            if pause >= remaining {
                tokio::time::sleep(remaining).await;
                return self.fail(Problem::device_code_over());
            }
            tokio::time::sleep(pause).await;
            let Some(exchange) = self.exchange.upgrade() else { return };
            if self.remaining().is_none() {
                return;
            }
            let outcome = self.poll(&exchange).await;
            match interval.after(&outcome) {
                Some(next) => pause = next,
                None => return self.finish(&exchange, outcome).await,
            }
        }
    }

    async fn poll(&self, exchange: &CodeExchange) -> PollOutcome {
        let AttemptBinding { account, profile, endpoints, client_id, .. } = &*self.binding;
        if exchange.accounts.find(account.as_str()).is_none() {
            return PollOutcome::Unavailable(None);
        }
        let now = exchange.clock.wall();
        device::poll(&exchange.upstream, profile, endpoints, client_id.as_deref(), &self.authorization, now).await
    }

    /// Ends the polling with the provider's answer. The attempt shows the outcome.
    async fn finish(&self, exchange: &Arc<CodeExchange>, outcome: PollOutcome) {
        let approval = match outcome {
            PollOutcome::Approved(approval) => *approval,
            PollOutcome::Failed(error) => {
                let host = self.binding.endpoints.token.as_ref().and_then(|url| url.host_str());
                return self.fail(Problem::not_allowed_on_device(host.unwrap_or("The provider"), &error));
            }
            PollOutcome::Pending | PollOutcome::SlowDown | PollOutcome::Unavailable(_) => return,
        };
        exchange.attempts.mark_exchanging(&self.binding.id);
        let (binding, client_id) = (Arc::clone(&self.binding), self.binding.client_id.clone());
        let _ = match approval {
            Approval::Tokens(tokens) => exchange.keep_tokens(&binding, client_id, tokens).await,
            Approval::Code { code, verifier, redirect_uri } => {
                let redemption = CodeRedemption { binding, client_id, code, verifier, redirect_uri, state: None };
                exchange.redeem(redemption).await
            }
        };
    }

    /// How long the codes live, while the attempt waits.
    fn remaining(&self) -> Option<Duration> {
        let exchange = self.exchange.upgrade()?;
        exchange.attempts.is_waiting(&self.binding.id).then(|| self.expires.since(exchange.clock.tick()))
    }

    fn fail(&self, problem: Problem) {
        if let Some(exchange) = self.exchange.upgrade() {
            exchange.attempts.fail(&self.binding.id, problem.into());
        }
    }
}
