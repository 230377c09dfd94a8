//! A plan's remaining quota, as providers report it in response headers.
//!
//! The names follow no standard but one scheme: a prefix (the profile's pattern), then the name of a limit and the name of a value, in
//! either order: `anthropic-ratelimit-unified-5h-utilization`, `x-ratelimit-remaining-tokens`, `x-codex-primary-used-percent`.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;

use crate::clock::Timestamp;

/// One limit of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Quota {
    /// For display: `5 hours`, `requests`, `input tokens`.
    pub name: String,
    /// The share that is used, 0 to 1.
    pub used: Option<f64>,
    /// The limit.
    pub limit: Option<u64>,
    /// What remains of it.
    pub remaining: Option<u64>,
    /// When it resets.
    pub resets_at: Option<Timestamp>,
}

/// The names of values; longer ones first, because some are prefixes or suffixes of others.
const FIELDS: [&str; 8] =
    ["reset-after-seconds", "window-minutes", "used-percent", "utilization", "remaining", "reset-at", "reset", "limit"];

/// Limits what an upstream can store in memory and show on the page.
const MAX_LIMITS: usize = 8;

/// See [`MAX_LIMITS`]; in bytes.
const MAX_NAME: usize = 32;

/// The values reported for one limit.
#[derive(Default)]
struct LimitReport {
    used: Option<f64>,
    limit: Option<u64>,
    remaining: Option<u64>,
    resets_at: Option<Timestamp>,
    window_minutes: Option<u64>,
}

/// The limits in a response's headers, by name.
pub(super) fn parse(patterns: &[String], headers: &HeaderMap, now: Timestamp) -> Vec<Quota> {
    if patterns.is_empty() {
        return Vec::new();
    }
    let mut limits: BTreeMap<&str, LimitReport> = BTreeMap::new();
    for (name, value) in headers {
        let rest = patterns.iter().find_map(|pattern| name.as_str().strip_prefix(pattern.strip_suffix('*')?));
        let Some((limit, field)) = rest.and_then(split) else { continue };
        let Ok(value) = value.to_str() else { continue };
        let has_room = limits.len() < MAX_LIMITS && limit.len() <= MAX_NAME;
        if has_room || limits.contains_key(limit) {
            limits.entry(limit).or_default().set(field, value.trim(), now);
        }
    }
    limits.into_iter().filter_map(|(name, report)| report.quota(name)).collect()
}

/// The name of the limit and the name of the value.
fn split(rest: &str) -> Option<(&str, &'static str)> {
    FIELDS.iter().find_map(|&field| {
        if rest == field {
            return Some(("requests", field));
        }
        let before = rest.strip_suffix(field).and_then(|name| name.strip_suffix('-'));
        let after = rest.strip_prefix(field).and_then(|name| name.strip_prefix('-'));
        before.or(after).filter(|name| !name.is_empty()).map(|name| (name, field))
    })
}

impl LimitReport {
    fn set(&mut self, field: &str, value: &str, now: Timestamp) {
        let fraction = |whole: f64| value.parse::<f64>().ok().map(|number| (number / whole).clamp(0.0, 1.0));
        match field {
            "utilization" => self.used = fraction(1.0).filter(|used| !used.is_nan()),
            "used-percent" => self.used = fraction(100.0).filter(|used| !used.is_nan()),
            "limit" => self.limit = value.parse().ok(),
            "remaining" => self.remaining = value.parse().ok(),
            "window-minutes" => self.window_minutes = value.parse().ok(),
            _ => self.resets_at = parse_time(value, now),
        }
    }

    fn quota(self, name: &str) -> Option<Quota> {
        let Self { limit, remaining, resets_at, .. } = self;
        #[allow(clippy::cast_precision_loss, reason = "a bar on the page needs less precision")]
        let share = |left: u64, of: u64| (1.0 - left as f64 / of as f64).max(0.0);
        let counted = limit.zip(remaining).filter(|&(limit, _)| limit > 0).map(|(limit, left)| share(left, limit));
        let used = self.used.or(counted);
        if used.is_none() && remaining.is_none() {
            return None;
        }
        let name = self.window_minutes.filter(|&minutes| minutes > 0).map_or_else(|| in_words(name), window);
        Some(Quota { name, used, limit, remaining, resets_at })
    }
}

fn in_words(name: &str) -> String {
    let minutes = |end, each: u64| name.strip_suffix(end)?.parse::<u64>().ok()?.checked_mul(each);
    match minutes('h', 60).or_else(|| minutes('d', 1440)) {
        Some(minutes) if minutes > 0 => window(minutes),
        _ => name.replace(['-', '_'], " "),
    }
}

fn window(minutes: u64) -> String {
    let (count, unit) = match minutes {
        days if days % 1440 == 0 => (days / 1440, "day"),
        hours if hours % 60 == 0 => (hours / 60, "hour"),
        minutes => (minutes, "minute"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// RFC 3339; seconds or milliseconds since 1970; seconds from now; or a duration like `6m0s` or `17ms`.
fn parse_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(number) = text.parse::<f64>() {
        if !(0.0..1e15).contains(&number) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "it is between 0 and 10^15, as checked above")]
        return Some(match number {
            milliseconds if milliseconds > 1e11 => Timestamp::from_seconds((milliseconds / 1000.0) as i64),
            seconds if seconds > 1e9 => Timestamp::from_seconds(seconds as i64),
            from_now => now.after(Duration::from_secs_f64(from_now)),
        });
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_seconds(time.as_second()));
    }
    parse_duration(text).map(|duration| now.after(duration))
}

/// In the format of Go's `time.Duration`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = behind;
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_764_144_000;

    fn parse_from(pattern: &str, lines: &[(&'static str, &str)]) -> Vec<Quota> {
        let headers = lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        parse(&[pattern.to_owned()], &headers, Timestamp::from_seconds(NOW))
    }

    fn quota(name: &str, used: Option<f64>, of: Option<(u64, u64)>, resets_in: Option<i64>) -> Quota {
        Quota {
            name: name.to_owned(),
            used,
            limit: of.map(|(_, limit)| limit),
            remaining: of.map(|(remaining, _)| remaining),
            resets_at: resets_in.map(|seconds| Timestamp::from_seconds(NOW + seconds)),
        }
    }

    #[test]
    fn a_claude_plan_has_two_windows() {
        let parsed = parse_from(
            "anthropic-ratelimit-unified-*",
            &[
                ("anthropic-ratelimit-unified-status", "allowed"),
                ("anthropic-ratelimit-unified-reset", "1764154800"),
                ("anthropic-ratelimit-unified-7d-utilization", "0.031"),
                ("anthropic-ratelimit-unified-7d-reset", "1764748800"),
                ("anthropic-ratelimit-unified-5h-status", "allowed"),
                ("anthropic-ratelimit-unified-5h-utilization", "1.2"),
                ("anthropic-ratelimit-unified-5h-reset", "1764154800"),
                ("x-request-id", "req_1"),
            ],
        );
        let (hours, days) =
            (quota("5 hours", Some(1.0), None, Some(10_800)), quota("7 days", Some(0.031), None, Some(604_800)));
        assert_eq!(parsed, [hours, days]);
    }

    #[test]
    fn limit_and_value_are_named_in_either_order() {
        let parsed = parse_from(
            "x-ratelimit-*",
            &[
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", "45"),
                ("x-ratelimit-reset-requests", "1m30s"),
                ("x-ratelimit-limit-tokens", "0"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "1h0m"),
            ],
        );
        assert_eq!(
            parsed,
            [quota("requests", Some(0.25), Some((45, 60)), Some(90)), quota("tokens", None, Some((0, 0)), Some(3600))]
        );
        let parsed = parse_from(
            "anthropic-ratelimit-*",
            &[
                ("anthropic-ratelimit-input-tokens-limit", "200"),
                ("anthropic-ratelimit-input-tokens-remaining", "250"),
                ("anthropic-ratelimit-input-tokens-reset", "2025-11-26T08:00:10Z"),
            ],
        );
        assert_eq!(parsed, [quota("input tokens", Some(0.0), Some((250, 200)), Some(10))]);
    }

    #[test]
    fn a_codex_plan_names_its_windows_in_minutes() {
        let parsed = parse_from(
            "x-codex-*",
            &[
                ("x-codex-primary-used-percent", "12.5"),
                ("x-codex-primary-window-minutes", "300"),
                ("x-codex-primary-reset-at", "1764144060"),
                ("x-codex-secondary-used-percent", "40"),
                ("x-codex-secondary-window-minutes", "10080"),
                ("x-codex-secondary-reset-after-seconds", "7"),
                ("x-codex-primary-over-secondary-limit-percent", "3"),
            ],
        );
        assert_eq!(parsed, [quota("5 hours", Some(0.125), None, Some(60)), quota("7 days", Some(0.4), None, Some(7))]);
    }

    #[test]
    fn attack_invalid_and_excessive_quota_fields_are_ignored() {
        let nonsense = [
            ("x-ratelimit-remaining", "many"),
            ("x-ratelimit-utilization", "NaN"),
            ("x-ratelimit-reset", "-5"),
            ("x-ratelimit--used-percent", "inf"),
            ("x-ratelimit-a-reset", "1e400"),
        ];
        assert_eq!(parse_from("x-ratelimit-*", &nonsense), []);
        for text in ["", "5", "s", "5x", "1.2.3s", "9e9999d", "é"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        let many: HeaderMap = (0..1000)
            .map(|n| (format!("x-ratelimit-remaining-{n:040}").parse().unwrap(), "1".parse().unwrap()))
            .chain((0..1000).map(|n| (format!("x-ratelimit-remaining-{n}").parse().unwrap(), "1".parse().unwrap())))
            .collect();
        assert_eq!(parse(&["x-ratelimit-*".to_owned()], &many, Timestamp::from_seconds(NOW)).len(), MAX_LIMITS);
    }

    proptest! {
        /// Release builds abort at a panic.
        #[test]
        fn attack_95_no_quota_field_panics(
            window in "[0-9]{0,20}[hd]?[a-z0-9-]{0,8}",
            field in "(used|limit|remaining|reset|reset-after|utilization|window-minutes|status)?(-[a-z]{1,6})?",
            value in "[0-9]{0,25}(\\.[0-9]{0,9})?(e[0-9]{1,3})?(ms|s|m|h|d|x)?[ -~]{0,6}",
        ) {
            let name = format!("x-ratelimit-{window}-{field}");
            if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse::<http::HeaderValue>()) {
                let headers = HeaderMap::from_iter([(name, value)]);
                for now in [0, NOW, i64::MAX] {
                    let _ = parse(&["x-ratelimit-*".to_owned()], &headers, Timestamp::from_seconds(now));
                }
            }
        }
    }
}
