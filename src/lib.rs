//! Pixy holds a person's LLM logins so that the agent beside it never does.
//!
//! A person links an account once. From then on an agent sends its requests to `http://127.0.0.1:8700/<account>/…`; Pixy removes
//! the credentials that the agent sent, attaches a fresh token, forwards the request to the one upstream of the account and streams
//! the response back. It is a gateway (RFC 9110 §3.7): it needs no certificate authority and never chooses its upstream from a
//! request.
//!
//! # The two main paths
//!
//! **A request** ([`proxy`], `Proxy::pass`): `route` finds the account and checks the path, `strip` removes what must not pass,
//! `agent` checks the agent's key and limits, the account supplies its token, `attach` builds the outgoing request, `forward` sends
//! it, `response_scrub` replaces secrets in the response, `response_body` streams it. After a 401 the account supplies a newer token
//! and the kept body (`replay_body`) is sent once more. A WebSocket continues as frames after the 101 (`websocket_relay`). Each step
//! returns a type that only this step can make, so that a forgotten check does not compile.
//!
//! **A link** ([`link`], `Linker::begin`, `paste`, `confirm`): `begin` makes verifier, challenge and state; `paste` reads the pasted
//! text and exchanges the code, once; the person sees the identity; `confirm` seals, stores and publishes the login.
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`cli`] | the command line, its exit codes, linking in a terminal, the doctor |
//! | [`app`] | starts all components, reloads the configuration (`reload`, `listeners`), stops; the addresses for agents (`endpoints`) |
//! | [`config`] | reads the file, reports its faults with their places; the provider profiles of `config/providers` |
//! | [`proxy`] | the agent surface: the steps of a request, and the errors that agents get (`refusal`, `reject_response`) |
//! | [`link`] | the person's surface: link attempts, sessions (`authentication`), the calls of the JSON API (`api`), the page |
//! | [`ops`] | probes and metrics over HTTP |
//! | [`api`] | the types and routes of the JSON API, shared by `link` and `cli`; OpenAPI |
//! | [`account`] | a login's state machine (`state`, pure), its storage and publication (`lifecycle`), refreshes; the only writer of the vault |
//! | [`oauth`] | the provider profile as data (`profile`), calls to its endpoints, and the meaning of the responses |
//! | [`vault`] | one sealed record for each account: envelope (`seal`), keys, files, high-water marks |
//! | [`upstream`] | connections to providers (`pool`, `h1`, `h2`), checks of responses (`response_framer`), TLS, timeouts; follows no redirects |
//! | [`hardening`] | restricts the process before it holds a secret, and warns of peers that can read it |
//! | [`server`] | listeners, checks of requests (`framing`), connection limits (`admission`, `stall`), drain |
//! | [`framing`] | the strict reading of HTTP/1.1 messages that `server` and `upstream` share |
//! | [`scrub`] | finds an account's secrets, in every encoding, in what an upstream sends |
//! | [`usage`] | counts tokens of the model and requests by the hour; reads quota headers |
//! | [`memory`] | the budget of bytes that clients may occupy |
//! | [`metrics`], [`name`], [`secret`], [`clock`], [`lock`] | shared by all |
//!
//! # Layers
//!
//! A module uses only modules that are declared below it, and no two files import each other. `proxy` and `link` never import each
//! other, only `account` writes to the vault, only `config` reads the environment, and only `cli` and `app` import `config`.
//! `tests/it/layers.rs` enforces all of it.
//!
//! # Invariants
//!
//! - Nothing that an agent can see holds a credential: no response, log line, metric, error, page, environment or file.
//! - No request reaches an upstream with a credential that the agent sent, or without the checks of route, agent and path.
//! - No token is sent to a host other than the one its account names, and no expired token is sent.
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
pub mod framing;
pub mod scrub;
pub mod usage;
pub mod metrics;
pub mod memory;
pub mod name;
pub mod secret;
pub mod clock;
pub mod lock;

/// What `pixy --version` prints after the name: the version, and the commit if the build knows it (`build.rs`).
pub const VERSION: &str = match option_env!("PIXY_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
