//! Pixy holds a person's LLM logins so that the agent beside it never does.
//!
//! A person links an account once. From then on an agent talks to `http://127.0.0.1:8700/<account>/…`; Pixy takes out whatever
//! credentials the agent sent, attaches a fresh token, forwards to the one upstream of the account and streams the answer back.
//! It is a gateway (RFC 9110 §3.7): it needs no certificate authority and never chooses its upstream from a request.
//!
//! # The two journeys
//!
//! **A request** ([`proxy`], `Proxy::pass`): route → strip → agent → token → attach → forward → scrub → stream; a 401 before
//! the token's end takes token, attach and forward once more (`replay`), and a WebSocket goes on as frames after its 101
//! (`upgrade`). Each step is a file of its name, and each hands on a type that it alone can make, so that a forgotten check
//! does not compile.
//!
//! **A link** ([`link`], `Linker::begin`, `paste`, `confirm`): begin makes verifier, challenge and state; paste reads what came
//! back and spends the code, once; the person sees whose account it is; confirm seals, stores and announces it.
//!
//! # Where things are
//!
//! | module | what it knows |
//! |---|---|
//! | [`cli`] | what a person types; the exit codes; the terminal's side of linking |
//! | [`app`] | how a running Pixy is put together, changed by a new configuration (`reload`, `listeners`), and taken down; where it is reached by now (`signs`) |
//! | [`config`] | the file, its faults with their places, the provider profiles of `config/providers` |
//! | [`proxy`] | the agent surface: one request's way, and what an agent hears when it ends early |
//! | [`link`] | the person's surface: attempts, the paste parser, sessions, the JSON API, the page |
//! | [`ops`] | probes and metrics |
//! | [`api`] | the JSON API as data: requests, answers, the table of routes, OpenAPI |
//! | [`account`] | one login's state machine (`state`, pure), the task that keeps it fresh (`refresh`); the vault's only writer |
//! | [`oauth`] | the provider as data (`profile`), calls to its endpoints, what their answers mean |
//! | [`vault`] | one sealed record an account: envelope, key, files |
//! | [`upstream`] | the way out: connections (`pool`), TLS, timeouts, no redirects |
//! | [`hardening`] | what the process takes from itself before it holds a secret, and who else is on the machine |
//! | [`server`] | the way in: listeners, limits, who makes room (`crowd`), drain |
//! | [`scrub`] | an account's secrets in every spelling, found in what an upstream sends; below `account`, which makes the needles, because `proxy` uses them |
//! | [`usage`] | tokens of the model, counted in passing; requests by the hour; the quota as the provider tells it |
//! | [`metrics`], [`name`], [`secret`], [`clock`], [`lock`] | what everything may use |
//!
//! # Layers
//!
//! The modules stand below in their order, and one uses only those declared after it; `tests/it/layers.rs` enforces that. And:
//! `proxy` and `link` never import each other, only `account` writes to the vault, only `config` reads the environment, and
//! nothing below `app` but `cli` imports `config`.
//!
//! # What must stay true
//!
//! - Nothing that an agent can see holds a credential: no answer, log line, metric, error, page, environment or file.
//! - No request reaches an upstream with a credential that the agent sent, or without the checks of route, agent and path.
//! - No token is sent to another host than the one its account names, and no expired token is sent.
//! - No refresh token is spent before the store was proven writable; no new token is used before it is durable.
//! - No failure empties the store, and no client's disconnect cancels a refresh.
//! - No stream is buffered.

#[cfg(feature = "internals")]
pub mod internals;
pub mod cli;
pub mod app;
pub mod config;
pub mod proxy;
pub mod link;
pub mod ops;
pub mod api;
pub mod account;
pub mod oauth;
pub mod vault;
pub mod upstream;
pub mod hardening;
pub mod server;
pub mod scrub;
pub mod usage;
pub mod metrics;
pub mod name;
pub mod secret;
pub mod clock;
pub mod lock;

/// What `pixy --version` says after the name: the version, and the commit if the build knew it (`build.rs`).
pub const VERSION: &str = match option_env!("PIXY_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
