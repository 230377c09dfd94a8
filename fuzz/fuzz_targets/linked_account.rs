//! A linked account with a random token, which no input contains. Shared by the fuzz targets and `benches/micro.rs`.
#![allow(dead_code, reason = "each user needs a part")]

use std::sync::{Arc, LazyLock};

use pixy::account::{Account, AccountServices, Bearer, LONGEST_WAIT, Login, RefreshCredential};
use pixy::clock::{Clock, Timestamp};
use pixy::config::{self, Config, Env};
use pixy::metrics::Metrics;
use pixy::oauth::profile::Profile;
use pixy::secret::Secret;
use pixy::upstream::Upstream;
use pixy::vault::{KeySettings, Vault};
use tokio::sync::watch;

pub struct LinkedAccount {
    pub account: Arc<Account>,
    pub bearer: Arc<Bearer>,
    /// The profiles of all accounts in the configuration.
    pub profiles: Vec<Arc<Profile>>,
    /// Runs the account's tasks.
    _runtime: tokio::runtime::Runtime,
}

pub static LINKED: LazyLock<LinkedAccount> = LazyLock::new(|| {
    let Config { accounts, mut vault, upstream, .. } =
        config::parse(CONFIGURATION, None, &env()).unwrap_or_else(|faults| panic!("{faults}"));
    let directory = tempfile::Builder::new().prefix("pixy-fuzz-").tempdir().expect("a directory is made").keep();
    vault.state_dir = directory.join("state");
    vault.directory = directory.join("vault");
    vault.key = KeySettings::File(directory.join("key"));
    let services = AccountServices {
        vault: Vault::open(&vault).unwrap_or_else(|error| panic!("{error}")),
        upstream: Upstream::new(&upstream).unwrap_or_else(|error| panic!("{error}")),
        clock: Clock::default(),
        metrics: Arc::new(Metrics::new()),
        changes: watch::Sender::new(0),
    };
    let profiles = accounts.iter().map(|account| Arc::clone(&account.profile)).collect();
    let first = &accounts[0];
    let account = Account::new(first.name.clone(), Arc::clone(&first.profile), true, services);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let bearer = runtime.block_on(async {
        account.adopt(login()).await.unwrap_or_else(|error| panic!("{error}"));
        let deadline = tokio::time::Instant::now() + LONGEST_WAIT;
        account.bearer(deadline).await.unwrap_or_else(|error| panic!("{error:?}"))
    });
    let _ = std::fs::remove_dir_all(directory); // nothing is stored after this
    LinkedAccount { account, bearer, profiles, _runtime: runtime }
});

/// A login with a new random token.
pub fn login() -> Login {
    Login {
        access_token: Secret::random(32),
        refresh_credential: RefreshCredential::None,
        obtained_at: Timestamp::from_seconds(1_795_000_000),
        lifetime: None,
        not_before: None,
        serial: 1,
        client_id: None,
        token_url: None,
        revoke_url: None,
        scopes: Vec::new(),
        subject: None,
        bound: None,
        identity: Vec::new(),
        claim_headers: vec![("x-account".to_owned(), "ours".to_owned())],
    }
}

pub fn env() -> Env {
    Env { home: Some("/home/fuzz".into()), ..Env::default() }
}

const CONFIGURATION: &str = r#"
accounts:
  a:
    provider: openai-compatible
    profile:
      api:
        base_url: https://llm.example.com/base
        allow:
          - POST /v1/messages
          - GET /v1/models
          - GET /v1/models/*
          - GET /v1/*/*/files
          - POST /v1beta/models/*:generateContent
        headers:
          default: { anthropic-version: "2023-06-01" }
          merge: { anthropic-beta: [ours-1, ours-2] }
          set: { x-set: ours }
          claims: { x-account: [token, account] }
  claude: { provider: claude, accept_terms: true }
  codex: { provider: codex, accept_terms: true }
  openrouter: { provider: openrouter }
"#;
