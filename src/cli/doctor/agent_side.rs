//! `pixy doctor --as-agent`: tries what the agent can reach, with nothing but what the agent has.

use std::collections::{BTreeMap, BTreeSet};

use http::Uri;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::env_credentials::Candidate;
use super::http_probe::{self, ProbeAnswer, ProbeError, ProbeTarget};
use super::listening_ports::{self, Listening};
use super::{Options, Outcome, Report, env_credentials, file_scan, processes};
use crate::config::{self, Env};
use crate::secret::Secret;

pub(super) async fn check(options: &Options) -> Report {
    let mut report = Report::default();
    let environment = config::variables();
    let base_url =
        options.base_url.clone().or_else(|| base_url(&environment)).unwrap_or_else(|| DEFAULT_BASE_URL.to_owned());
    let candidates = env_credentials::candidates(environment);
    let target = ProbeTarget::parse(&base_url);
    let mut agent_key = None;
    match &target {
        Some((target, path)) => agent_key = check_base_url(target, path, &candidates, &mut report).await,
        None => report
            .bad("base url", format!("{base_url} is not a base URL of Pixy: http://HOST:PORT/ACCOUNT or unix:/PATH")),
    }
    processes::check(&mut report);
    if let Some((target, _)) = &target {
        check_users(target, &mut report).await;
        check_page(target, &mut report).await;
    }
    file_scan::check(Env::read().home.as_deref(), &options.look_in, agent_key.as_ref(), &mut report).await;
    env_credentials::check(&candidates, agent_key.as_ref(), &mut report);
    check_direct_access(&options.provider, &mut report).await;
    report
}

/// The base URL that the agent's clients would use.
fn base_url(environment: &[(String, Secret)]) -> Option<String> {
    let value = |wanted: &&str| {
        let (_, value) = environment.iter().find(|(name, _)| name == wanted)?;
        let url = value.expose().to_owned(); // an address, not a secret
        url.starts_with("http://").then_some(url)
    };
    BASE_URLS.iter().find_map(value)
}

/// Checks that Pixy answers at the base URL and accepts this agent. Returns the key that it accepted.
async fn check_base_url(
    target: &ProbeTarget,
    path: &str,
    candidates: &[Candidate],
    report: &mut Report,
) -> Option<Secret> {
    // Only Pixy refuses this path with a code of its own, and it does so before it checks the key.
    let unknown_path = format!("{}/pixy-doctor", path.trim_end_matches('/'));
    let answer = match http_probe::get(target, &unknown_path, None).await {
        Ok(answer) => answer,
        Err(error) => {
            report.bad("base url", format!("no answer on {target}: {error}"));
            return None;
        }
    };
    let unusable = match answer.code() {
        None => Some((Outcome::Bad, format!("another program is listening on {target}: do not send it a key"))),
        Some("unknown_host") => Some((
            Outcome::Bad,
            format!(
                "Pixy answers on {target} with 421: it has no such name. Add the name to `hosts` of this address in \
                 `agent.listen`, or use an IP address"
            ),
        )),
        Some("no_route") if path == "/" => {
            let says = format!("Pixy answers on {target}; the base URL names no account, so nothing else was checked");
            Some((Outcome::Good, says))
        }
        Some("no_route") => {
            Some((Outcome::Bad, format!("Pixy answers on {target}, but {path} is not one of its accounts")))
        }
        Some(_) => None,
    };
    if let Some((outcome, says)) = unusable {
        report.add("base url", outcome, says);
        return None;
    }
    let mut root = format!("/{}", path.split('/').nth(1).unwrap_or_default());
    let mut first = http_probe::get(target, &root, None).await;
    if first.as_ref().is_ok_and(|answer| answer.code() == Some("path_not_allowed")) {
        "/".clone_into(&mut root); // the listener serves one account: the first segment belongs to the provider's path
        first = http_probe::get(target, &root, None).await;
    }
    let is_refused = |answer: &Result<ProbeAnswer, ProbeError>| {
        answer.as_ref().ok().and_then(ProbeAnswer::code).is_some_and(|code| code.starts_with("agent_key"))
    };
    if !is_refused(&first) {
        check_request(target, path, None, report).await;
        return None;
    }
    for key in env_credentials::possible_keys(candidates).take(MAX_KEYS) {
        if !is_refused(&http_probe::get(target, &root, Some(key)).await) {
            check_request(target, path, Some(key), report).await;
            return Some(key.clone());
        }
    }
    report.bad(
        "base url",
        format!("Pixy on {target} requires a key from agents, and no variable here holds one that it accepts"),
    );
    None
}

/// Requests the list of models, which uses no model.
async fn check_request(target: &ProbeTarget, path: &str, key: Option<&Secret>, report: &mut Report) {
    for list in ["/v1/models", "/models"] {
        let Ok(answer) = http_probe::get(target, &format!("{}{list}", path.trim_end_matches('/')), key).await else {
            continue;
        };
        let status = answer.status.as_u16();
        let (outcome, says) = match answer.code() {
            Some("path_not_allowed" | "method_not_allowed" | "no_route") => continue,
            Some(code @ ("not_linked" | "relink_required")) => {
                (Outcome::Bad, format!("Pixy answers on {target}, but the account must be linked ({code})"))
            }
            Some(code) => {
                (Outcome::Bad, format!("Pixy answers on {target}, but refuses a request of this agent with {code}"))
            }
            None if answer.status.is_success() => {
                (Outcome::Good, format!("a request went to the provider and back, through Pixy on {target}"))
            }
            None => (Outcome::Warning, format!("Pixy on {target} forwards requests; the provider answered {status}")),
        };
        return report.add("base url", outcome, says);
    }
    report.good("base url", format!("Pixy answers on {target}, and accepts this agent"));
}

/// Checks that Pixy runs as another user, by the owner of its socket: containers that share a network do not show each other's
/// processes.
async fn check_users(target: &ProbeTarget, report: &mut Report) {
    let owner = match target {
        ProbeTarget::Tcp { host, port } => {
            let here = is_loopback(host).then(listening_ports::listening).unwrap_or_default();
            here.into_iter().find(|listening| listening.port == *port).map(|listening| listening.uid)
        }
        ProbeTarget::Unix(socket) => {
            // A refused connection was reported with the base URL.
            let Ok(peer) = UnixStream::connect(socket).await.and_then(|stream| stream.peer_cred()) else { return };
            Some(peer.uid())
        }
    };
    let own = rustix::process::geteuid().as_raw();
    let (outcome, says) = match owner {
        Some(uid) if uid == own => {
            (Outcome::Bad, format!("Pixy and the agent are the same user ({uid}). Run one of them as another."))
        }
        Some(uid) => (Outcome::Good, format!("Pixy is user {uid}, the agent is user {own}")),
        None => {
            let says = "Pixy's socket is on another machine or in another container, and so is its user";
            (Outcome::Good, says.to_owned())
        }
    };
    report.add("separate users", outcome, says);
}

/// Checks that the agent does not reach the page, or at least not without its setup code.
async fn check_page(agents: &ProbeTarget, report: &mut Report) {
    let ProbeTarget::Tcp { host, port: agents } = agents else {
        return check_page_ports("127.0.0.1", BTreeSet::from([DEFAULT_PAGE_PORT]), report).await;
    };
    let mut candidates = BTreeSet::from([DEFAULT_PAGE_PORT, agents.saturating_add(1)]);
    if is_loopback(host) {
        let here = listening_ports::listening();
        let owner = here.iter().find(|listening| listening.port == *agents).map(|listening| listening.uid);
        let own = |listening: &&Listening| Some(listening.uid) == owner;
        candidates.extend(here.iter().filter(own).map(|listening| listening.port).take(MAX_PORTS));
    }
    candidates.remove(agents);
    check_page_ports(host, candidates, report).await;
}

async fn check_page_ports(host: &str, candidates: BTreeSet<u16>, report: &mut Report) {
    for port in candidates {
        let target = ProbeTarget::Tcp { host: host.to_owned(), port };
        let Ok(answer) = http_probe::get(&target, "/", None).await else { continue };
        // Another name in `Host` may be one that the page accepts.
        if !["<title>Pixy", "urn:pixy:problem:unknown_host"].iter().any(|mark| answer.body.contains(mark)) {
            continue;
        }
        let is_open =
            http_probe::get(&target, "/api/accounts", None).await.is_ok_and(|answer| answer.status.is_success());
        let (outcome, says) = if is_open {
            (Outcome::Bad, "opens without a code: every client that reaches it can link and unlink accounts")
        } else {
            (Outcome::Warning, "requires its code. The agent reaches it; `link: off` leaves only the terminal.")
        };
        report.add("page", outcome, format!("the page on {target} {says}"));
    }
    report.good_by_default("page", "the agent does not reach the page");
}

/// Checks whether the agent can reach providers without Pixy: no leak, but nothing would stop an agent with its own credential.
async fn check_direct_access(requested: &[Uri], report: &mut Report) {
    let shipped = || {
        let profiles = config::provider_names().into_iter().filter_map(config::shipped_profile);
        profiles.filter_map(|profile| profile.api.base_url.as_str().parse().ok()).collect()
    };
    let urls: Vec<Uri> = if requested.is_empty() { shipped() } else { requested.to_vec() };
    let hosts = urls.iter().filter_map(|url| {
        let usual = if url.scheme_str() == Some("http") { 80 } else { 443 };
        Some((url.host()?.to_owned(), url.port_u16().unwrap_or(usual)))
    });
    let mut hosts: BTreeMap<String, u16> = hosts.collect();
    if requested.is_empty() {
        hosts.retain(|host, _| !is_loopback(host)); // a placeholder of a profile
    }
    let all = hosts.len();
    let mut tries = JoinSet::new();
    for (host, port) in hosts {
        tries.spawn(async move { http_probe::is_open(&host, port).await.then_some(host) });
    }
    let mut open: Vec<String> = tries.join_all().await.into_iter().flatten().collect();
    open.sort();
    if open.is_empty() {
        report.good("direct way", format!("none of {all} providers can be reached without Pixy"));
    } else {
        let open = open.join(", ");
        report.warn(
            "direct way",
            format!("the agent reaches {open} without Pixy. It has no login there; a network policy would block the connection too."),
        );
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const DEFAULT_BASE_URL: &str = "http://127.0.0.1:8700";
const BASE_URLS: [&str; 4] = ["ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_BASE", "GOOGLE_GEMINI_BASE_URL"];
const DEFAULT_PAGE_PORT: u16 = 8701;
const MAX_KEYS: usize = 8;
const MAX_PORTS: usize = 32;
