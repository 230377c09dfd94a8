//! `pixy doctor --as-agent`: what the agent can reach, by trying it. It needs nothing that the agent has not got.

use std::collections::{BTreeMap, BTreeSet};

use http::Uri;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::call::{self, Answer, Place};
use super::ports::{self, Listening};
use super::{Options, Report, files, processes, variables};
use crate::config::{self, Env};
use crate::secret::Secret;

pub(super) async fn look(options: &Options) -> Report {
    let mut report = Report::default();
    let environment = config::variables();
    let base_url = options.base_url.clone().or_else(|| base_url(&environment)).unwrap_or_else(|| DEFAULT.to_owned());
    let candidates = variables::candidates(environment);
    let place = Place::of(&base_url);
    let mut agent_key = None;
    match &place {
        Some((place, path)) => agent_key = base_url_works(place, path, &candidates, &mut report).await,
        None => report.bad(
            "base url",
            format!("{base_url} is no address of Pixy's: it is http://HOST:PORT/ACCOUNT or unix:/PATH"),
        ),
    }
    processes::look(&mut report);
    if let Some((place, _)) = &place {
        another_user(place, &mut report).await;
        page(place, &mut report).await;
    }
    files::look(Env::read().home.as_deref(), &options.look_in, agent_key.as_ref(), &mut report).await;
    variables::look(&candidates, agent_key.as_ref(), &mut report);
    direct_way(&options.provider, &mut report).await;
    report
}

/// What the agent's own clients would use.
fn base_url(environment: &[(String, Secret)]) -> Option<String> {
    let value = |wanted: &&str| {
        let (_, value) = environment.iter().find(|(name, _)| name == wanted)?;
        let url = value.expose().to_owned(); // an address, no secret
        url.starts_with("http://").then_some(url)
    };
    BASE_URLS.iter().find_map(value)
}

/// Whether Pixy answers there, and lets this agent in; the key that it took.
async fn base_url_works(
    place: &Place,
    path: &str,
    candidates: &[variables::Candidate],
    report: &mut Report,
) -> Option<Secret> {
    // Nobody but Pixy refuses this path with a code of Pixy's, and it does so before it asks for a key.
    let nowhere = format!("{}/pixy-doctor", path.trim_end_matches('/'));
    let answer = match call::get(place, &nowhere, None).await {
        Ok(answer) => answer,
        Err(why) => {
            report.bad("base url", format!("nobody answers on {place}: {why}"));
            return None;
        }
    };
    match answer.code() {
        None => {
            report.bad("base url", format!("who answers on {place} is not Pixy: do not send it a key"));
            return None;
        }
        Some("no_route") if path == "/" => {
            report.good(
                "base url",
                format!("Pixy answers on {place}; the base URL names no account, so no more is known"),
            );
            return None;
        }
        Some("no_route") => {
            report.bad("base url", format!("Pixy answers on {place}, but {path} is no account of it"));
            return None;
        }
        Some(_) => {}
    }
    let account = format!("/{}", path.split('/').nth(1).unwrap_or_default());
    let mut root = account;
    let mut greeting = call::get(place, &root, None).await;
    if greeting.as_ref().is_ok_and(|answer| answer.code() == Some("path_not_allowed")) {
        "/".clone_into(&mut root); // a listener of one account: the first segment belongs to the provider's path
        greeting = call::get(place, &root, None).await;
    }
    let is_refused = |answer: &Result<Answer, String>| {
        answer.as_ref().ok().and_then(Answer::code).is_some_and(|code| code.starts_with("agent_key"))
    };
    if !is_refused(&greeting) {
        goes_through(place, path, None, report).await;
        return None;
    }
    for key in variables::possible_keys(candidates).take(MOST_KEYS) {
        if !is_refused(&call::get(place, &root, Some(key)).await) {
            goes_through(place, path, Some(key), report).await;
            return Some(key.clone());
        }
    }
    report.bad(
        "base url",
        format!("Pixy on {place} asks agents for a key, and no variable here holds one that it takes"),
    );
    None
}

/// Asks for the list of models, which costs no token of a model.
async fn goes_through(place: &Place, path: &str, key: Option<&Secret>, report: &mut Report) {
    for list in ["/v1/models", "/models"] {
        let Ok(answer) = call::get(place, &format!("{}{list}", path.trim_end_matches('/')), key).await else {
            continue;
        };
        match answer.code() {
            Some("path_not_allowed" | "method_not_allowed" | "no_route") => {}
            Some(code @ ("not_linked" | "relink_required")) => {
                return report
                    .bad("base url", format!("Pixy answers on {place}, but the account needs a person ({code})"));
            }
            Some(code) => {
                return report
                    .bad("base url", format!("Pixy answers on {place}, but says {code} to a request of this agent"));
            }
            None if answer.status.is_success() => {
                return report
                    .good("base url", format!("a request went to the provider and back, through Pixy on {place}"));
            }
            None => {
                let status = answer.status.as_u16();
                return report
                    .warn("base url", format!("Pixy on {place} passes requests on; the provider answered {status}"));
            }
        }
    }
    report.good("base url", format!("Pixy answers on {place}, and lets this agent in"));
}

/// Containers that share a network do not show each other's processes, but the kernel says whose a socket is.
async fn another_user(place: &Place, report: &mut Report) {
    let owner = match place {
        Place::Tcp { host, port } => {
            let here = is_here(host).then(ports::listening).unwrap_or_default();
            here.into_iter().find(|listening| listening.port == *port).map(|listening| listening.uid)
        }
        Place::Unix(socket) => {
            // Who is not let in has heard it of the base URL.
            let Ok(peer) = UnixStream::connect(socket).await.and_then(|stream| stream.peer_cred()) else { return };
            Some(peer.uid())
        }
    };
    let own = rustix::process::geteuid().as_raw();
    match owner {
        Some(uid) if uid == own => {
            report.bad(
                "separate users",
                format!("Pixy and the agent are the same user ({uid}). Run one of them as another."),
            );
        }
        Some(uid) => report.good("separate users", format!("Pixy is user {uid}, the agent is user {own}")),
        None => {
            report.good("separate users", "Pixy's socket is not of this machine or container, so neither is its user");
        }
    }
}

/// The person's page should be out of the agent's reach; where it is not, its code must hold.
async fn page(agents: &Place, report: &mut Report) {
    let Place::Tcp { host, port: agents } = agents else {
        return page_at("127.0.0.1", BTreeSet::from([USUAL_PAGE]), report).await;
    };
    let mut candidates = BTreeSet::from([USUAL_PAGE, agents.saturating_add(1)]);
    if is_here(host) {
        let here = ports::listening();
        let owner = here.iter().find(|listening| listening.port == *agents).map(|listening| listening.uid);
        let own = |listening: &&Listening| Some(listening.uid) == owner;
        candidates.extend(here.iter().filter(own).map(|listening| listening.port).take(MOST_PORTS));
    }
    candidates.remove(agents);
    page_at(host, candidates, report).await;
}

async fn page_at(host: &str, candidates: BTreeSet<u16>, report: &mut Report) {
    for port in candidates {
        let place = Place::Tcp { host: host.to_owned(), port };
        let Ok(answer) = call::get(&place, "/", None).await else { continue };
        if !answer.body.contains("<title>Pixy") {
            continue;
        }
        match call::get(&place, "/api/accounts", None).await {
            Ok(answer) if answer.status.is_success() => {
                report.bad(
                    "page",
                    format!("the page on {place} opens without a code: whoever reaches it may link and unlink"),
                );
            }
            _ => report.warn(
                "page",
                format!(
                    "the agent reaches the page on {place}; its code holds. `link: off` leaves the terminal alone."
                ),
            ),
        }
    }
    report.else_good("page", "the agent does not reach the page");
}

/// Whether the agent could do without Pixy: no leak, but with a credential of its own nothing would stop it.
async fn direct_way(asked: &[Uri], report: &mut Report) {
    let shipped = || {
        let profiles = config::provider_names().into_iter().filter_map(config::shipped_profile);
        profiles.filter_map(|profile| profile.api.base_url.as_str().parse().ok()).collect()
    };
    let urls: Vec<Uri> = if asked.is_empty() { shipped() } else { asked.to_vec() };
    let places = urls.iter().filter_map(|url| {
        let usual = if url.scheme_str() == Some("http") { 80 } else { 443 };
        Some((url.host()?.to_owned(), url.port_u16().unwrap_or(usual)))
    });
    let mut places: BTreeMap<String, u16> = places.collect();
    if asked.is_empty() {
        places.retain(|host, _| !is_here(host)); // an example in a profile
    }
    let all = places.len();
    let mut tries = JoinSet::new();
    for (host, port) in places {
        tries.spawn(async move { call::is_open(&host, port).await.is_ok().then_some(host) });
    }
    let mut open: Vec<String> = tries.join_all().await.into_iter().flatten().collect();
    open.sort();
    if open.is_empty() {
        report.good("direct way", format!("none of {all} providers is reached without Pixy"));
    } else {
        let open = open.join(", ");
        report.warn(
            "direct way",
            format!("the agent reaches {open} without Pixy. It has no login there; a network policy would close the way too."),
        );
    }
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const DEFAULT: &str = "http://127.0.0.1:8700";
const BASE_URLS: [&str; 4] = ["ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_BASE", "GOOGLE_GEMINI_BASE_URL"];
const USUAL_PAGE: u16 = 8701;
const MOST_KEYS: usize = 8;
const MOST_PORTS: usize = 32;
