//! Usage and rate limits of an account, as the API reports them.

use crate::account::Account;
use crate::api::{QuotaLimit, Time, UsageHistory, UsageHour};

/// `None` before the provider has reported a limit.
pub(super) fn quota(account: &Account) -> Option<Vec<QuotaLimit>> {
    let limits = account.quota().into_iter().map(|quota| QuotaLimit {
        name: quota.name,
        used: quota.used,
        limit: quota.limit,
        remaining: quota.remaining,
        resets_at: quota.resets_at.map(Time),
    });
    Some(limits.collect::<Vec<_>>()).filter(|limits| !limits.is_empty())
}

/// `None` before the first request.
pub(super) fn usage(account: &Account) -> Option<UsageHistory> {
    let hours = account.usage()?.into_iter().map(|hour| UsageHour {
        from: Time(hour.from),
        requests: hour.requests,
        input_tokens: hour.tokens.input,
        output_tokens: hour.tokens.output,
    });
    Some(UsageHistory { hours: hours.collect() })
}
