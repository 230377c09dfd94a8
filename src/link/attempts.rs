//! The open attempts and their rules: one per account, each limited in time, each code taken once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use super::attempt::{Attempt, AttemptFailure, CodeRedemption, Stage};
use super::paste::{self, PasteError};
use super::problem::Problem;
use crate::account::Login;
use crate::clock::Clock;
use crate::lock::lock;
use crate::name::AccountName;

/// The open attempts. Changes that a person could see are announced.
pub struct Attempts {
    by_account: Mutex<HashMap<AccountName, Attempt>>,
    clock: Clock,
    changes: watch::Sender<u64>,
}

/// What [`Attempts::expire`] found.
pub enum Expiry {
    /// Open for this much longer.
    In(Duration),
    /// Expired, and removed.
    Now(Box<Attempt>),
    /// Ended before.
    Gone,
}

impl Attempts {
    /// No attempt yet; `changes` is incremented with every change that a person could see.
    pub fn new(clock: Clock, changes: watch::Sender<u64>) -> Self {
        Self { by_account: Mutex::default(), clock, changes }
    }

    /// Adds an attempt. Returns the one of the same account that it replaces.
    pub fn begin(&self, attempt: Attempt) -> Option<Attempt> {
        let replaced = lock(&self.by_account).insert(attempt.binding.account.clone(), attempt);
        self.announce();
        replaced
    }

    /// Reads an authorization response and takes its code, once (RFC 6749 §4.1.2). A response that reports an error ends the
    /// attempt; a text that is no response of this attempt changes nothing.
    pub fn take_code(&self, id: &str, response: &str) -> Result<CodeRedemption, Problem> {
        let taken = {
            let mut attempts = lock(&self.by_account);
            let attempt = attempts.values_mut().find(|attempt| attempt.id() == id && !attempt.is_expired(&self.clock));
            let attempt = attempt.ok_or_else(Problem::no_attempt)?;
            match attempt.stage {
                Stage::Waiting => {}
                Stage::Exchanging | Stage::ToConfirm(_) => return Err(Problem::code_used()),
                Stage::Failed(_) => return Err(Problem::no_attempt()),
            }
            let expected = attempt.expected_response().ok_or_else(Problem::nothing_to_paste)?;
            match paste::read(response, &expected) {
                Ok(pasted) => attempt.take_redemption(pasted.code, pasted.client_id).ok_or_else(Problem::code_used),
                Err(error) if error.ends_the_attempt() => {
                    let problem = Problem::paste(&error);
                    attempt.fail(problem.clone().into(), &self.clock);
                    Err(problem)
                }
                Err(error) => return Err(Problem::paste(&error)),
            }
        };
        self.announce();
        taken
    }

    /// Finds the attempt that a response at a callback path belongs to, by its state: without the state there is none.
    pub fn find_by_response(&self, path: &str, query: &str) -> Option<(String, AccountName)> {
        let attempts = lock(&self.by_account);
        // Every attempt is compared, each in constant time.
        attempts
            .values()
            .filter_map(|attempt| Some((attempt, attempt.expected_response()?)))
            .filter(|(_, expected)| expected.redirect_uri.path() == path)
            .find_map(|(attempt, expected)| match paste::read(query, &expected) {
                Err(PasteError::OtherAttempt | PasteError::NoState) => None,
                _ => Some((attempt.id().to_owned(), attempt.binding.account.clone())),
            })
    }

    /// Marks a device's attempt: the provider has answered, and its answer is being checked.
    pub fn mark_exchanging(&self, id: &str) {
        self.with(id, |attempt| attempt.stage = Stage::Exchanging);
        self.announce();
    }

    /// Keeps a login for the person to confirm. Returns `false` when the attempt has ended.
    pub fn keep_to_confirm(&self, id: &str, login: Login) -> bool {
        let kept = self.with(id, |attempt| attempt.stage = Stage::ToConfirm(Box::new(login))).is_some();
        self.announce();
        kept
    }

    /// Ends an attempt, if it is still there.
    pub fn fail(&self, id: &str, failure: AttemptFailure) {
        self.with(id, |attempt| attempt.fail(failure, &self.clock));
        self.announce();
    }

    /// Removes an attempt with a login to confirm, and returns both. Not announced: the account changes next.
    pub fn take_to_confirm(&self, id: &str) -> Result<(Attempt, Login), Problem> {
        let attempt = self.remove_open(id, |attempt| matches!(attempt.stage, Stage::ToConfirm(_)))?;
        let Stage::ToConfirm(login) = &attempt.stage else { return Err(Problem::no_attempt()) };
        let login = Login::clone(login);
        Ok((attempt, login))
    }

    /// Puts back an attempt whose login could not be stored. Returns it when a newer one has begun, or its time is over.
    pub fn put_back(&self, attempt: Attempt) -> Result<(), Box<Attempt>> {
        let mut attempts = lock(&self.by_account);
        if attempt.is_expired(&self.clock) || attempts.contains_key(&attempt.binding.account) {
            return Err(Box::new(attempt));
        }
        attempts.insert(attempt.binding.account.clone(), attempt);
        Ok(())
    }

    /// Removes an attempt.
    pub fn take(&self, id: &str) -> Result<Attempt, Problem> {
        let attempt = self.remove_open(id, |_| true)?;
        self.announce();
        Ok(attempt)
    }

    /// Removes an attempt once its time is over.
    pub fn expire(&self, id: &str) -> Expiry {
        let removed = {
            let mut attempts = lock(&self.by_account);
            let Some((account, attempt)) = attempts.iter().find(|(_, attempt)| attempt.id() == id) else {
                return Expiry::Gone;
            };
            if !attempt.is_expired(&self.clock) {
                return Expiry::In(attempt.remaining(&self.clock));
            }
            let account = account.clone();
            attempts.remove(&account)
        };
        self.announce();
        removed.map_or(Expiry::Gone, |attempt| Expiry::Now(Box::new(attempt)))
    }

    /// Whether an attempt waits for the person at the provider.
    pub fn is_waiting(&self, id: &str) -> bool {
        self.with(id, |attempt| matches!(attempt.stage, Stage::Waiting)).unwrap_or(false)
    }

    /// Reads the open attempt of an account.
    pub fn of_account<T>(&self, account: &AccountName, read: impl FnOnce(&Attempt) -> T) -> Option<T> {
        lock(&self.by_account).get(account).filter(|attempt| !attempt.is_expired(&self.clock)).map(read)
    }

    fn with<T>(&self, id: &str, change: impl FnOnce(&mut Attempt) -> T) -> Option<T> {
        lock(&self.by_account).values_mut().find(|attempt| attempt.id() == id).map(change)
    }

    /// An expired attempt stays for [`Attempts::expire`]: its caller revokes the login.
    fn remove_open(&self, id: &str, wanted: impl Fn(&Attempt) -> bool) -> Result<Attempt, Problem> {
        let mut attempts = lock(&self.by_account);
        let is_it = |attempt: &Attempt| attempt.id() == id && !attempt.is_expired(&self.clock) && wanted(attempt);
        let account = attempts.iter().find(|(_, attempt)| is_it(attempt)).map(|(account, _)| account.clone());
        account.and_then(|account| attempts.remove(&account)).ok_or_else(Problem::no_attempt)
    }

    fn announce(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::account::RefreshCredential;
    use crate::clock::Timestamp;
    use crate::link::attempt::{AttemptFlow, DevicePrompt, LIFETIME};
    use crate::link::attempt_binding::AttemptBinding;
    use crate::oauth::discovery::Endpoints;
    use crate::secret::Secret;
    use url::Url;

    const PROFILE: &str = "{ title: A, terms: { status: open }, link: { flow: device_code }, api: { base_url: https://a.example, allow: [] } }";

    fn attempts() -> (Attempts, Clock) {
        let clock = Clock::tokio(Timestamp::EPOCH);
        (Attempts::new(clock.clone(), watch::Sender::new(0)), clock)
    }

    fn attempt(id: &str, clock: &Clock) -> Attempt {
        let binding = AttemptBinding {
            id: id.to_owned(),
            account: AccountName::parse("claude").unwrap(),
            profile: Arc::new(serde_yaml::from_str(PROFILE).unwrap()),
            endpoints: Endpoints::default(),
            client_id: None,
            client_id_was_issued: false,
            nonce: None,
        };
        let prompt = DevicePrompt {
            user_code: "AB-CD".to_owned(),
            verification_url: Url::parse("https://provider.example").unwrap(),
            verification_url_complete: None,
        };
        Attempt::new(binding, AttemptFlow::DeviceCode(prompt), LIFETIME, clock)
    }

    fn login() -> Login {
        Login {
            access_token: Secret::new("token".to_owned()),
            refresh_credential: RefreshCredential::None,
            obtained_at: Timestamp::EPOCH,
            lifetime: None,
            not_before: None,
            serial: 0,
            client_id: None,
            token_url: None,
            revoke_url: None,
            scopes: Vec::new(),
            subject: None,
            identity: Vec::new(),
            claim_headers: Vec::new(),
            bound: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_login_is_left_for_revocation() {
        let (attempts, clock) = attempts();
        attempts.begin(attempt("one", &clock));
        assert!(attempts.keep_to_confirm("one", login()));
        tokio::time::advance(LIFETIME + std::time::Duration::from_mins(1)).await;
        assert!(attempts.take_to_confirm("one").is_err());
        assert!(attempts.take("one").is_err());
        let Expiry::Now(expired) = attempts.expire("one") else { panic!("its login would never be revoked") };
        assert!(matches!(expired.stage, Stage::ToConfirm(_)));
        assert!(matches!(attempts.expire("one"), Expiry::Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_put_back_does_not_replace_a_newer_one() {
        let (attempts, clock) = attempts();
        attempts.begin(attempt("old", &clock));
        assert!(attempts.keep_to_confirm("old", login()));
        let (old, _) = attempts.take_to_confirm("old").unwrap();
        attempts.begin(attempt("new", &clock));
        assert!(attempts.put_back(old).is_err(), "its login is revoked instead");
        assert!(attempts.is_waiting("new"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_put_back_is_confirmed_again() {
        let (attempts, clock) = attempts();
        attempts.begin(attempt("one", &clock));
        assert!(attempts.keep_to_confirm("one", login()));
        let (one, _) = attempts.take_to_confirm("one").unwrap();
        assert!(attempts.take_to_confirm("one").is_err(), "it is being stored");
        assert!(attempts.put_back(one).is_ok());
        assert!(attempts.take_to_confirm("one").is_ok());
    }
}
