//! Integration tests: one binary, a module for each subject.
#![allow(clippy::unwrap_used, reason = "a test that panics fails")]
#![allow(clippy::format_collect, reason = "easier to read")]

mod agents; // agent keys: their accounts and limits
mod canary; // a marked token appears in no output
mod catalogue; // SECURITY.md's table and the tests agree
mod config; // configuration files: every fault with its place
mod doctor; // `pixy doctor` finds planted mistakes
mod doctor_examples; // the shipped examples isolate Pixy from the agent
mod surface_audit; // every call of the surfaces and every place that sends a request, listed
mod fakes; // tests of the fake provider and client
mod floods; // floods: memory stays under its limit, probes and polite agents are served
mod framing; // malformed, ambiguous and oversized requests are refused
mod gateway; // requests through the proxy: what passes, what is refused, with which error
mod agent_isolation; // Pixy and a hostile agent as two users in a network namespace
mod vault_admin; // key rotation, export and import while Pixy runs
mod control_socket; // who answers on the control socket
mod hosts; // `Host` names this Pixy, or the request is refused
mod io_threads; // the same behaviour with several I/O threads
mod kill; // kill -9 at each system call of a refresh; failing disks
mod layers; // module layers, import circles, file length
mod linking; // linking: the flows, and attacks on them
mod log_floods; // floods of log lines, and a standard error that accepts nothing
mod listening; // sockets: modes, the accept queue, leftover files
mod origins; // a changed configuration sends a stored login nowhere before a person confirms
mod monitoring; // /metrics and the rules for Prometheus, checked by promtool
mod openapi; // the OpenAPI description is complete and matches a running Pixy
mod pass_lists; // what of a request reaches the provider is what `pixy explain` prints
mod profiles; // the shipped provider profiles
mod program; // the binary from the command line
mod reload; // the configuration is reloaded while Pixy runs
mod repair; // an early 401: one refresh, one replay
mod representation; // parts, charsets and codings that cannot be searched
mod request_ids; // one id for a request in the response and in the log
mod scrub; // secrets in responses are replaced, in every encoding
mod sockets; // WebSockets: handshake, frames, close
mod socket_activation; // sockets that a service manager holds while Pixy restarts
mod support; // the harness: fake providers, a raw client, a whole Pixy
mod observability; // metrics and logs hold no text of agents or providers
mod token_refused; // which responses refuse a token, and what follows
mod tokens; // refreshes, their failures, crashes
mod traces; // W3C Trace Context is forwarded unchanged
mod upstream; // full, dead and hostile upstreams
mod usage; // usage figures of an account
mod version; // the commit in `pixy --version`
mod vault; // sealed files: swapped, damaged, rolled back, full disks, rotation
mod coalescing; // events that arrive together are sent in one write
