//! Whether each provider can be reached from here: requests without a credential.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::DATE;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use tokio::time::timeout;

use super::Report;
use crate::clock::Clock;
use crate::config::Config;
use crate::upstream::Upstream;

/// Checks name resolution, connection and TLS; any answer will do. An unreachable provider of a `needed` account is bad, of
/// another account a warning.
pub(super) async fn check(config: &Config, needed: impl Fn(&str) -> bool, report: &mut Report) {
    let upstream = match Upstream::new(&config.upstream) {
        Ok(upstream) => upstream,
        Err(error) => return report.bad("tls", error.to_string()),
    };
    // Several accounts can share a provider.
    let mut origins: BTreeMap<String, bool> = BTreeMap::new();
    for account in &config.accounts {
        *origins.entry(account.profile.api.base_url.as_str().to_owned()).or_default() |= needed(account.name.as_str());
    }
    for (url, needed) in origins {
        check_provider(&upstream, &url, needed, report).await;
    }
}

async fn check_provider(upstream: &Upstream, url: &str, needed: bool, report: &mut Report) {
    let mut say = |fault: String| if needed { report.bad("provider", fault) } else { report.warn("provider", fault) };
    let Ok(uri) = url.parse::<http::Uri>() else { return say(format!("{url} is not a URL")) };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let looked_up = timeout(TIMEOUT, tokio::net::lookup_host((host.as_str(), 0))).await;
    if let Err(why) =
        looked_up.map_err(|_| "no answer in time".to_owned()).and_then(|found| found.map_err(|error| error.to_string()))
    {
        return say(format!("the name {host} cannot be resolved: {why}"));
    }
    let request = match Request::get(url).body(Empty::new().map_err(|never| match never {}).boxed_unsync()) {
        Ok(request) => request,
        Err(error) => return say(format!("{url}: {error}")),
    };
    match upstream.fetch(request, MAX_BODY_BYTES, TIMEOUT).await {
        Err(error) => say(format!("{host} cannot be reached: {error}")),
        Ok(fetched) => {
            let status = fetched.status.as_u16();
            let over = if uri.scheme_str() == Some("https") { " over TLS" } else { "" };
            report.good("provider", format!("{host} answers{over} ({status} to a request without a login)"));
            check_clock(&host, &fetched.headers, report);
        }
    }
}

/// Compares the clocks (Date, RFC 9110 §6.6.1): token lifetimes are counted on ours.
fn check_clock(host: &str, headers: &HeaderMap, report: &mut Report) {
    let Some(theirs) = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(seconds) else { return };
    let apart = Clock::default().wall().as_seconds() - theirs;
    let said = match apart {
        1.. => format!("this clock is {apart} s ahead of {host}"),
        0 => format!("this clock agrees with {host}"),
        _ => format!("this clock is {} s behind {host}", -apart),
    };
    match apart.abs() {
        0..=30 => report.good("clock", said),
        31..=300 => report.warn("clock", said),
        _ => report.bad("clock", format!("{said}: tokens would be renewed at the wrong time. Synchronize it (NTP).")),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(date).ok().map(|moment| moment.timestamp().as_second())
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// Enough for a provider's front page.
const MAX_BODY_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Outcome;

    #[test]
    fn clocks_are_compared() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        let judged = |apart: i64| {
            let now = jiff::Timestamp::from_second(Clock::default().wall().as_seconds() - apart).unwrap();
            let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            let mut report = Report::default();
            check_clock("a", &HeaderMap::from_iter([(DATE, date.parse().unwrap())]), &mut report);
            report.findings.remove(0).outcome
        };
        assert_eq!([0, 100, -3600].map(judged), [Outcome::Good, Outcome::Warning, Outcome::Bad]);
    }
}
