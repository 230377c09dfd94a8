//! The device flow's journey: Pixy asks the provider until the person has typed the code, and no longer than the codes live.

use std::sync::{Arc, Weak};

use super::Linker;
use super::attempt::{self, Attempt, Bound, Device, Failed, Spending, Stage, Way};
use super::code_exchange::Exchange;
use super::problem::Problem;
use crate::account::Account;
use crate::clock::Tick;
use crate::oauth::device::{self, Approval, DeviceAuthorization, PollOutcome};

impl Linker {
    /// Asks for a code to type. The polls go on until the attempt ends, whoever asked.
    pub(super) async fn begin_on_device(
        self: &Arc<Self>,
        account: &Account,
        bound: Bound,
    ) -> Result<(Attempt, Polls), Problem> {
        let profile = account.profile();
        let url = bound.endpoints.device.clone().ok_or_else(|| Problem::no_endpoint("device authorization"))?;
        if bound.endpoints.token.is_none() {
            return Err(Problem::no_endpoint("token"));
        }
        let parameters = attempt::device_parameters(&profile, &account.services().vault.installation());
        let authorization = device::authorize(&self.upstream, &profile, &url, bound.client_id.as_deref(), &parameters)
            .await
            .map_err(|failure| Problem::no_device_code(url.host_str().unwrap_or(&profile.title), &failure))?;
        let shown = Device {
            user_code: authorization.user_code.clone(),
            verification_url: authorization.verification_url.clone(),
            verification_url_complete: authorization.verification_url_complete.clone(),
        };
        let attempt = Attempt::new(bound, Way::Device(shown), authorization.lifetime, &self.clock);
        let until = self.clock.tick().after(authorization.lifetime);
        let polls = Polls { until, linker: Arc::downgrade(self), bound: Arc::clone(&attempt.bound), authorization };
        Ok((attempt, polls))
    }
}

/// The polls of one attempt (RFC 8628 §3.4).
pub(super) struct Polls {
    // Weak: a Pixy that has gone down must not be kept alive, its vault locked, by a person who never comes.
    linker: Weak<Linker>,
    bound: Arc<Bound>,
    authorization: DeviceAuthorization,
    /// When the codes are over.
    until: Tick,
}

impl Polls {
    /// Asks until the person has decided, the codes are over, or the attempt is.
    pub(super) async fn go_on(self) {
        let mut interval = self.authorization.interval();
        let mut pause = interval.first();
        loop {
            let Some(remaining) = self.remaining() else { return };
            if pause >= remaining {
                tokio::time::sleep(remaining).await;
                return self.end(Failed::because(Problem::device_code_over()));
            }
            tokio::time::sleep(pause).await;
            let Some(linker) = self.linker.upgrade() else { return };
            if self.remaining().is_none() {
                return;
            }
            let answer = self.ask(&linker).await;
            match interval.after(&answer) {
                Some(next) => pause = next,
                None => return self.decided(&linker, answer).await,
            }
        }
    }

    async fn ask(&self, linker: &Linker) -> PollOutcome {
        let Bound { account, endpoints, client_id, .. } = &*self.bound;
        let Some(account) = linker.accounts.find(account.as_str()) else { return PollOutcome::Unavailable(None) };
        let now = linker.clock.wall();
        device::poll(&linker.upstream, &account.profile(), endpoints, client_id.as_deref(), &self.authorization, now)
            .await
    }

    async fn decided(&self, linker: &Arc<Linker>, answer: PollOutcome) {
        let allowed = match answer {
            PollOutcome::Approved(allowed) => *allowed,
            PollOutcome::Failed(failure) => {
                let host = self.bound.endpoints.token.as_ref().and_then(|url| url.host_str()).unwrap_or("The provider");
                return self.end(Failed::because(Problem::not_allowed_on_device(host, &failure)));
            }
            PollOutcome::Pending | PollOutcome::SlowDown | PollOutcome::Unavailable(_) => return,
        };
        self.change(linker, |attempt| attempt.stage = Stage::Exchanging);
        let exchange = Exchange { bound: Arc::clone(&self.bound), client_id: self.bound.client_id.clone() };
        // What comes of it is told by the attempt.
        let _ = match allowed {
            Approval::Tokens(tokens) => linker.keep_tokens(exchange, Ok(tokens)).await,
            Approval::Code { code, verifier, redirect_uri } => {
                let spending = Spending { verifier, redirect_uri, state: None };
                linker.spend(exchange, code, spending).await
            }
        };
    }

    /// How long the codes live, if the attempt still waits.
    fn remaining(&self) -> Option<std::time::Duration> {
        let linker = self.linker.upgrade()?;
        let attempts = linker.attempts();
        let attempt = attempts.values().find(|attempt| attempt.id() == self.bound.id)?;
        matches!(attempt.stage, Stage::Waiting).then(|| self.until.since(linker.clock.tick()))
    }

    fn end(&self, failed: Failed) {
        if let Some(linker) = self.linker.upgrade() {
            linker.fail(&self.bound.id, failed);
        }
    }

    fn change(&self, linker: &Linker, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = linker.attempts().values_mut().find(|attempt| attempt.id() == self.bound.id) {
            change(attempt);
        }
        linker.changed();
    }
}
