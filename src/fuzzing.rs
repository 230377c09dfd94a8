//! The door for `fuzz/`, which sees only what is public: one function a target, and every one asserts what must stay true
//! whatever the bytes are. Compiled with `--cfg fuzzing`, or for `benches/` with the feature
//! `doors`, alone.
//!
//! The steps themselves stay private; what looks into them is beside them (`proxy/fuzzing.rs`, `link/fuzzing.rs`,
//! `vault/fuzzing.rs`, `scrub/fuzzing.rs`).
#![allow(clippy::missing_panics_doc, reason = "a panic is how a target tells that a rule is broken")]

use std::sync::{Arc, LazyLock};

use http::header::{CONTENT_ENCODING, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::account::{self, Account, Bearer, Login, Renewal};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config, Env};
use crate::metrics::Metrics;
use crate::oauth::profile::Profile;
use crate::oauth::token_response::{self, FailureKind, LONGEST_LIFETIME, LONGEST_RETRY_AFTER};
use crate::secret::Secret;
use crate::upstream::{self, Fetched, Upstream};
use crate::vault::Vault;

pub use crate::link::fuzzing::pasted_text;
pub use crate::vault::fuzzing::vault_record;

/// What was checked is what is sent, and to nobody else.
pub fn target_and_path(data: &[u8]) {
    crate::proxy::fuzzing::target_and_path(&WORLD.account, &WORLD.bearer, data);
}

/// Exactly one credential arrives at the upstream, ours.
pub fn headers(data: &[u8]) {
    crate::proxy::fuzzing::headers(&WORLD.account, &WORLD.bearer, data);
}

/// No secret crosses, and nothing else changes, wherever the text is cut.
pub fn scrubber(data: &[u8]) {
    crate::scrub::fuzzing::scrubber(data);
}

/// Two bytes choose the head of a token endpoint's answer, the rest is its body.
pub fn token_reply(data: &[u8]) {
    let [status, field, body @ ..] = data else { return };
    let status = [200, 200, 200, 400, 401, 429, 503, 302, 204][usize::from(*status) % 9];
    let mut headers = HeaderMap::new();
    // A piece of the body as a field too: the server chooses both.
    let text = HeaderValue::from_bytes(&body[..body.len().min(40)]);
    if let (Ok(text), 1..) = (text, field % 4) {
        headers.insert([RETRY_AFTER, CONTENT_ENCODING, DATE][usize::from(field % 4) - 1].clone(), text.clone());
        if field % 8 > 4 {
            headers.insert(DATE, HeaderValue::from_static("Thu, 26 Nov 2026 05:00:00 GMT"));
            headers.insert(RETRY_AFTER, text);
        }
    }
    let status = StatusCode::from_u16(status).expect("it is one");
    let fetched = Fetched { status, headers, body: Zeroizing::new(body.to_vec()) };
    let profile = &WORLD.profiles[usize::from(*field) % WORLD.profiles.len()];
    match token_response::sort(profile, &fetched, Timestamp::from_seconds(1_795_000_000)) {
        Ok(tokens) => {
            assert_eq!(status, StatusCode::OK);
            for token in [Some(&tokens.access_token), tokens.refresh_token.as_ref()].into_iter().flatten() {
                let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
                assert!(!token.is_empty() && value.is_ok(), "a token can be sent");
            }
            assert!(tokens.lifetime.is_none_or(|lifetime| lifetime <= LONGEST_LIFETIME));
        }
        Err(failure) => {
            assert!(failure.retry_after.is_none_or(|wait| wait <= LONGEST_RETRY_AFTER));
            assert!(!failure.surely_unspent, "an answer never proves that nothing was spent");
            assert!(failure.kind != FailureKind::Unheard, "there was an answer");
            // Nothing of the body but a known code is kept (row 55).
            let code = failure.code.unwrap_or_default();
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && code.len() < 32, "{code}");
            assert!(failure.what.is_ascii() && failure.what.len() < 140, "{}", failure.what);
        }
    }
}

/// A configuration has a meaning, or faults that say where.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text, Some("pixy.yaml".into()), &env()) {
        Ok(config) => {
            assert!(!config.agent_listeners.is_empty());
            let open = config.agent_keys.is_empty();
            let local = config.agent_listeners.iter().all(|listener| listener.address.is_local());
            assert!(!open || local, "an address that others reach has keys");
            for account in &config.accounts {
                let base = &account.profile.api.base_url;
                let plain = base.scheme() == "http" && upstream::is_loopback_host(base.host_str().unwrap_or_default());
                assert!(base.scheme() == "https" || plain, "{base}");
            }
        }
        Err(faults) => assert!(!faults.to_string().trim().is_empty()),
    }
}

/// One account with a token that no input can know.
pub(crate) struct World {
    pub(crate) account: Arc<Account>,
    pub(crate) bearer: Arc<Bearer>,
    profiles: Vec<Arc<Profile>>,
    /// The account's tasks.
    _runtime: tokio::runtime::Runtime,
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let Config { accounts, mut vault, upstream, .. } =
        config::parse(CONFIGURATION, None, &env()).unwrap_or_else(|faults| panic!("{faults}"));
    let directory = tempfile::Builder::new().prefix("pixy-fuzz-").tempdir().expect("there is room").keep();
    vault.state_dir = directory.join("state");
    vault.store = crate::vault::StoreSettings::Files(directory.join("vault"));
    vault.key = crate::vault::KeySettings::File(directory.join("key"));
    let parts = account::AccountServices {
        vault: Vault::open(&vault).unwrap_or_else(|error| panic!("{error}")),
        upstream: Upstream::new(&upstream).unwrap_or_else(|error| panic!("{error}")),
        clock: Clock::default(),
        metrics: Arc::new(Metrics::new()),
        changes: watch::Sender::new(0),
    };
    let profiles: Vec<_> = accounts.iter().map(|account| Arc::clone(&account.profile)).collect();
    let first = &accounts[0];
    let account = Account::new(first.name.clone(), Arc::clone(&first.profile), true, parts);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there are threads");
    let bearer = runtime.block_on(async {
        account.adopt(login()).await.unwrap_or_else(|error| panic!("{error}"));
        account
            .bearer(tokio::time::Instant::now() + crate::account::LONGEST_WAIT)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"))
    });
    let _ = std::fs::remove_dir_all(directory); // nothing is stored from here on
    World { account, bearer, profiles, _runtime: runtime }
});

/// With a token that is made anew each time.
pub(crate) fn login() -> Login {
    Login {
        access_token: Secret::random(32),
        renewal: Renewal::None,
        obtained_at: Timestamp::from_seconds(1_795_000_000),
        lifetime: None,
        not_before: None,
        serial: 1,
        client_id: None,
        token_url: None,
        revoke_url: None,
        scopes: Vec::new(),
        identity: Vec::new(),
        claim_headers: vec![("x-account".to_owned(), "ours".to_owned())],
    }
}

pub(crate) fn env() -> Env {
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
