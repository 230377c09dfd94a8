//! Linking: a person's way from "not linked" to a login that is sealed and stored.
//!
//! The journey is [`Linker::begin`], [`Linker::paste`], [`Linker::confirm`]; `link/api` is its HTTP face, `link/guard` says
//! who may use it. Nothing is stored before the person has confirmed whose account it is.

pub mod api;
mod attempt;
mod callback;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod gauges;
pub mod guard;
mod json;
mod page;
mod paste;
mod problem;
mod recipe;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::account::{Account, Book, Login, Renewal, State, Unlinked};
use crate::clock::Clock;
use crate::name::AccountName;
use crate::oauth::discovery;
use crate::oauth::exchange::{self, Grant};
use crate::oauth::profile::{Flow, Profile};
use crate::oauth::reply::Tokens;
use crate::secret::Secret;
use crate::server::Address;
use crate::upstream::Upstream;
use attempt::{Attempt, Stage};
pub use page::Facts;
pub use problem::Problem;
pub use recipe::{Door, Key, Recipe, Variable};

/// Links accounts; one for the page, the control socket and the terminal.
pub struct Linker {
    book: Book,
    upstream: Upstream,
    clock: Clock,
    link_port: Option<Address>,
    attempts: Mutex<HashMap<AccountName, Attempt>>,
    changes: tokio::sync::watch::Sender<u64>,
}

/// What a person is asked to confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// Whose account the provider says it is.
    pub identity: Vec<String>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// What was asked for and not granted.
    pub missing_scopes: Vec<String>,
    /// Whose login it takes the place of.
    pub replaces: Option<Vec<String>>,
}

/// What a person needs to go on after [`Linker::begin`].
#[derive(Debug, Clone)]
pub struct Begun {
    /// The attempt's id.
    pub id: String,
    /// The address to open.
    pub authorize_url: String,
    /// When it is over, RFC 3339.
    pub expires_at: String,
    /// The redirect may come back by itself.
    pub comes_back: bool,
}

impl Linker {
    /// A linker; `link_port` is where loopback redirects come back to, if the page is on.
    pub fn new(
        book: Book,
        upstream: Upstream,
        clock: Clock,
        link_port: Option<Address>,
        changes: tokio::sync::watch::Sender<u64>,
    ) -> Self {
        Self { book, upstream, clock, link_port, attempts: Mutex::default(), changes }
    }

    /// Starts an attempt; an older one of the same account is over.
    pub async fn begin(self: &Arc<Self>, name: &str) -> Result<Begun, Problem> {
        let account = self.linkable(name)?;
        let profile = account.profile();
        match profile.link.flow {
            Flow::AuthorizationCode => {}
            Flow::DeviceCode => return Err(Problem::unsupported("the device flow")),
            flow @ (Flow::ClientCredentials | Flow::ApiKey) => return Err(Problem::other_flow(flow)),
        }
        if profile.link.client_id_from_callback {
            return Err(Problem::unsupported("a client id that is issued in the callback"));
        }
        let endpoints = discovery::endpoints(&self.upstream, profile).await;
        let endpoints = endpoints.map_err(|error| Problem::discovery(&error.0))?;
        let attempt = Attempt::begin(account.name().clone(), profile, endpoints, self.link_port.as_ref(), &self.clock)?;
        let begun = Begun {
            id: attempt.id.clone(),
            authorize_url: attempt.authorize_url.to_string(),
            expires_at: attempt.expires_at.to_rfc3339(),
            comes_back: callback::comes_back(&attempt, self.link_port.as_ref()),
        };
        let replaced = self.attempts().insert(account.name().clone(), attempt);
        self.end_later(begun.id.clone());
        self.changed();
        if let Some(replaced) = replaced {
            self.put_away(replaced);
        }
        Ok(begun)
    }

    /// Takes what the person pasted (or the browser brought back) and exchanges the code. Not stored yet.
    pub async fn paste(self: &Arc<Self>, id: &str, text: &str) -> Result<Identified, Problem> {
        let exchange = self.take_code(id, text)?;
        self.changed();
        // In a task of its own: a page that is closed now must not lose a code that is already on its way.
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.exchange(exchange).await });
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// The person has said that it is them: sealed, stored, announced.
    pub async fn confirm(&self, id: &str) -> Result<(), Problem> {
        let attempt = self.take_attempt(id, |stage| matches!(stage, Stage::Exchanged(_)))?;
        let account = self.account(attempt.account.as_str())?;
        let Stage::Exchanged(login) = &attempt.stage else { return Err(Problem::no_attempt()) };
        let adopted = account.adopt((**login).clone()).await;
        if let Err(error) = adopted {
            // The grant is good: kept, so that the person can confirm again when the disk is mended.
            self.attempts().insert(attempt.account.clone(), attempt);
            return Err(Problem::not_stored(&error.to_string()));
        }
        self.changed();
        Ok(())
    }

    /// The person has thought better of it. A grant that was exchanged is revoked.
    pub fn cancel(self: &Arc<Self>, id: &str) -> Result<(), Problem> {
        let attempt = self.take_attempt(id, |_| true)?;
        self.changed();
        self.put_away(attempt);
        Ok(())
    }

    /// Takes a static key, or a client secret that is proved at once by asking for a token with it.
    pub async fn set_key(&self, name: &str, key: &str) -> Result<(), Problem> {
        let account = self.linkable(name)?;
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Problem::bad_body("That is not a key: keys are one word of visible ASCII characters."));
        }
        let key = Secret::new(key.to_owned());
        let login = match account.profile().link.flow {
            Flow::ApiKey => self.login(account.profile(), None, None, static_tokens(key), Renewal::None),
            Flow::ClientCredentials => self.client_login(account, key).await?,
            flow @ (Flow::AuthorizationCode | Flow::DeviceCode) => return Err(Problem::other_flow(flow)),
        };
        account.adopt(login).await.map_err(|error| Problem::not_stored(&error.to_string()))
    }

    /// Ends the login at the provider and forgets it.
    pub async fn unlink(&self, name: &str) -> Result<Unlinked, Problem> {
        let account = self.account(name)?;
        account.unlink().await.map_err(|error| Problem::not_stored(&error.to_string()))
    }

    /// All accounts.
    pub fn book(&self) -> &Book {
        &self.book
    }

    fn account(&self, name: &str) -> Result<&Arc<Account>, Problem> {
        self.book.find(name).ok_or_else(|| Problem::no_account(name))
    }

    fn linkable(&self, name: &str) -> Result<&Arc<Account>, Problem> {
        let account = self.account(name)?;
        if account.terms_accepted() { Ok(account) } else { Err(Problem::terms(name, &account.profile().terms)) }
    }

    /// Checks the text against the attempt, and takes the verifier out: from here on the code counts as spent.
    fn take_code(&self, id: &str, text: &str) -> Result<Exchange, Problem> {
        let mut attempts = self.attempts();
        let attempt = attempts.values_mut().find(|attempt| attempt.id == id && !attempt.is_over(&self.clock));
        let attempt = attempt.ok_or_else(Problem::no_attempt)?;
        if !matches!(attempt.stage, Stage::Waiting(_)) {
            return Err(Problem::code_used());
        }
        let pasted = match paste::read(text, &attempt.expected()) {
            Ok(pasted) => pasted,
            Err(not_it) => {
                let account = attempt.account.clone();
                if not_it.ends_the_attempt() {
                    attempts.remove(&account);
                }
                return Err(Problem::paste(&not_it));
            }
        };
        let Stage::Waiting(verifier) = std::mem::replace(&mut attempt.stage, Stage::Exchanging) else {
            return Err(Problem::code_used());
        };
        Ok(Exchange {
            id: attempt.id.clone(),
            account: attempt.account.clone(),
            code: pasted.code,
            verifier,
            redirect_uri: attempt.redirect_uri.to_string(),
            state: attempt.state().clone(),
            token_url: attempt.endpoints.token.clone(),
            revoke_url: attempt.endpoints.revoke.clone(),
            client_id: attempt.client_id.clone(),
        })
    }

    /// Spends the code, once, whatever happens (RFC 6749 §4.1.2), and keeps what came of it for the person to confirm.
    async fn exchange(self: Arc<Self>, exchange: Exchange) -> Result<Identified, Problem> {
        let account = self.account(exchange.account.as_str())?;
        let profile = account.profile();
        let result = self.tokens(profile, &exchange).await;
        let problem = match result {
            Ok(tokens) => {
                let renewal =
                    tokens.refresh_token.clone().map_or(Renewal::None, |token| Renewal::RefreshToken { token });
                let endpoints = (exchange.token_url.clone(), exchange.revoke_url.clone());
                let login = self.login(profile, exchange.client_id.clone(), Some(endpoints), tokens, renewal);
                match missing(&profile.link.required_scopes, &login.scopes) {
                    missing if missing.is_empty() => {
                        return self.keep_for_confirming(account, &exchange.id, login).await;
                    }
                    missing => {
                        account.discard(&login).await;
                        Problem::missing_scopes(&missing)
                    }
                }
            }
            Err(problem) => problem,
        };
        self.attempts().retain(|_, attempt| attempt.id != exchange.id);
        self.changed();
        Err(problem)
    }

    async fn tokens(&self, profile: &Profile, exchange: &Exchange) -> Result<Tokens, Problem> {
        let token_url = exchange.token_url.as_ref().ok_or_else(|| Problem::no_endpoint("token"))?;
        let grant = Grant::Code {
            code: &exchange.code,
            verifier: &exchange.verifier,
            redirect_uri: &exchange.redirect_uri,
            state: &exchange.state,
        };
        let now = self.clock.wall();
        exchange::call(&self.upstream, profile, token_url, exchange.client_id.as_deref(), grant, now)
            .await
            .map_err(|failure| Problem::exchange(token_url.host_str().unwrap_or(&profile.title), &failure))
    }

    async fn keep_for_confirming(&self, account: &Account, id: &str, login: Login) -> Result<Identified, Problem> {
        let before = account.view();
        let is_linked = !matches!(before.state, State::Unlinked | State::Starting);
        let identified = Identified {
            identity: login.identity.clone(),
            scopes: login.scopes.clone(),
            missing_scopes: missing(&account.profile().link.scopes, &login.scopes),
            replaces: is_linked.then_some(before.identity),
        };
        let kept = match self.attempts().values_mut().find(|attempt| attempt.id == id) {
            Some(attempt) => {
                attempt.stage = Stage::Exchanged(Box::new(login.clone()));
                true
            }
            None => false,
        };
        self.changed();
        if kept {
            return Ok(identified);
        }
        account.discard(&login).await; // cancelled, or replaced by a newer attempt, in the meantime
        Err(Problem::no_attempt())
    }

    async fn client_login(&self, account: &Account, secret: Secret) -> Result<Login, Problem> {
        let profile = account.profile();
        let endpoints = discovery::endpoints(&self.upstream, profile).await;
        let endpoints = endpoints.map_err(|error| Problem::discovery(&error.0))?;
        let token_url = endpoints.token.clone().ok_or_else(|| Problem::no_endpoint("token"))?;
        let client_id = profile.link.client_id.clone();
        let grant = Grant::ClientSecret(&secret);
        let now = self.clock.wall();
        let tokens = exchange::call(&self.upstream, profile, &token_url, client_id.as_deref(), grant, now)
            .await
            .map_err(|failure| Problem::exchange(token_url.host_str().unwrap_or(&profile.title), &failure))?;
        let endpoints = Some((endpoints.token, endpoints.revoke));
        Ok(self.login(profile, client_id, endpoints, tokens, Renewal::ClientSecret { secret }))
    }

    fn login(
        &self,
        profile: &Profile,
        client_id: Option<String>,
        endpoints: Option<(Option<url::Url>, Option<url::Url>)>,
        tokens: Tokens,
        renewal: Renewal,
    ) -> Login {
        let (token_url, revoke_url) = endpoints.unwrap_or_default();
        Login {
            access_token: tokens.access_token,
            renewal,
            obtained_at: self.clock.wall(),
            lifetime: tokens.lifetime,
            not_before: tokens.not_before,
            serial: 0,
            client_id,
            token_url,
            revoke_url,
            // RFC 6749 §5.1: a reply without `scope` grants what was asked for.
            scopes: tokens.scopes.unwrap_or_else(|| profile.link.scopes.clone()),
            identity: tokens.identity,
            claim_headers: tokens.claim_headers,
        }
    }

    fn take_attempt(&self, id: &str, wanted: impl Fn(&Stage) -> bool) -> Result<Attempt, Problem> {
        let mut attempts = self.attempts();
        let found = attempts.iter().find(|(_, attempt)| attempt.id == id && wanted(&attempt.stage));
        let name = found.map(|(name, _)| name.clone()).ok_or_else(Problem::no_attempt)?;
        let attempt = attempts.remove(&name).ok_or_else(Problem::no_attempt)?;
        if attempt.is_over(&self.clock) { Err(Problem::no_attempt()) } else { Ok(attempt) }
    }

    /// An exchanged grant that nobody confirmed must not live on at the provider.
    fn put_away(self: &Arc<Self>, attempt: Attempt) {
        if let Stage::Exchanged(login) = attempt.stage {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                if let Ok(account) = this.account(attempt.account.as_str()) {
                    account.discard(&login).await;
                }
            });
        }
    }

    fn end_later(self: &Arc<Self>, id: String) {
        // Weak: a Pixy that has gone down must not be kept alive, its vault locked, by an attempt that waits for its end.
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(attempt::LIFETIME).await;
            let Some(this) = this.upgrade() else { return };
            let over = {
                let mut attempts = this.attempts();
                let name = attempts.iter().find(|(_, attempt)| attempt.id == id).map(|(name, _)| name.clone());
                name.and_then(|name| attempts.remove(&name))
            };
            if let Some(attempt) = over {
                this.put_away(attempt);
                this.changed();
            }
        });
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A panic elsewhere leaves attempts that are still attempts.
    fn attempts(&self) -> MutexGuard<'_, HashMap<AccountName, Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an exchange needs, taken out of its attempt.
struct Exchange {
    id: String,
    account: AccountName,
    code: Secret,
    verifier: crate::oauth::pkce::Verifier,
    redirect_uri: String,
    state: Secret,
    token_url: Option<url::Url>,
    revoke_url: Option<url::Url>,
    client_id: Option<String>,
}

fn static_tokens(key: Secret) -> Tokens {
    Tokens {
        access_token: key,
        refresh_token: None,
        lifetime: None,
        not_before: None,
        scopes: None,
        identity: Vec::new(),
        claim_headers: Vec::new(),
    }
}

fn missing(wanted: &[String], granted: &[String]) -> Vec<String> {
    wanted.iter().filter(|scope| !granted.contains(scope)).cloned().collect()
}
