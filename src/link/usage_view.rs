//! What a person is shown of an account's use.

use serde::Serialize;

use crate::account::Account;
use crate::clock::Timestamp;

/// One limit of the plan, as the provider told it last.
#[derive(Debug, Serialize)]
pub(super) struct QuotaJson {
    name: String,
    used: Option<f64>,
    limit: Option<u64>,
    remaining: Option<u64>,
    resets_at: Option<String>,
}

/// The last 24 hours, the oldest first.
#[derive(Debug, Serialize)]
pub(super) struct UsageJson {
    hours: Vec<HourJson>,
}

#[derive(Debug, Serialize)]
struct HourJson {
    from: String,
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
}

/// Nothing before the provider has told anything.
pub(super) fn quota(account: &Account) -> Option<Vec<QuotaJson>> {
    let limits = account.quota().into_iter().map(|quota| QuotaJson {
        name: quota.name,
        used: quota.used,
        limit: quota.limit,
        remaining: quota.remaining,
        resets_at: quota.resets_at.map(Timestamp::to_rfc3339),
    });
    Some(limits.collect::<Vec<_>>()).filter(|limits| !limits.is_empty())
}

/// Nothing for an account that nobody asked anything of.
pub(super) fn usage(account: &Account) -> Option<UsageJson> {
    let hours = account.usage()?.into_iter().map(|hour| HourJson {
        from: hour.from.to_rfc3339(),
        requests: hour.requests,
        input_tokens: hour.tokens.input,
        output_tokens: hour.tokens.output,
    });
    Some(UsageJson { hours: hours.collect() })
}
