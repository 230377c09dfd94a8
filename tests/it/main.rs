//! Integration tests: one binary, a module for each subject.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#![allow(clippy::format_collect, reason = "requests are written as they are read")]

mod agents; // agents with keys: what each may use, and how much
mod canary; // a marked token is found nowhere that an agent or a log reader can look
mod catalogue; // SECURITY.md names tests that exist, for all of the attacks
mod config; // the file: every fault at once, each with its place
mod doctor; // mistakes planted around a Pixy and around an agent, each found
mod doctor_examples; // the shipped examples say what they mean, and keep Pixy and the agent apart
mod surface_audit; // every call of the surfaces and every place that sends a request, listed
mod fakes; // the fakes do what they say
mod framing; // the way in: what is no request that means one thing only, and what is too much
mod gateway; // a request's way: what passes, what does not, what the agent hears
mod agent_isolation; // Pixy as one user and the agent as another, in a network namespace
mod vault_admin; // the vault as a whole, while Pixy runs: a new key, moving house
mod io_threads; // more than one thread for connections: nothing is different
mod kill; // a login against kill -9 at every syscall of its refresh, and against a disk that fails
mod layers; // the order of the modules, and the bans
mod linking; // a link's way: what a person does, and what an attacker would have them do
mod listening; // sockets: modes, the accept queue, leftover files
mod monitoring; // /metrics and the rules for Prometheus, checked by promtool
mod openapi; // the description of the JSON API: whole, and true of a running Pixy
mod profiles; // what each provider's profile says, and what none of them allows
mod program; // the binary, as a person runs it
mod reload; // the configuration is reloaded while Pixy runs
mod repair; // an upstream's 401 before its time: one refresh, the same request once more
mod request_ids; // one id for a request in the response and in the log
mod scrub; // what an upstream sends back of Pixy's secrets: found in every spelling, however it is cut
mod sockets; // WebSockets: what passes, what does not, and how they end
mod support; // the harness: fake providers, a raw client, a whole Pixy
mod observability; // metrics and logs hold no text of agents or providers
mod tokens; // the life of a login: refreshes, failures, crashes
mod traces; // W3C Trace Context is forwarded unchanged
mod upstream; // the way out: full, dead and hostile servers
mod usage; // what a person is told of an account's use
mod version; // the commit in `pixy --version`
mod vault; // sealed files: swapped, damaged, rolled back, full disks, key rotation, moving house
mod coalescing; // what came together leaves together
