//! Texts of `pixy check` and `pixy providers`.

use std::fmt::Write as _;

use crate::config::{self, Config};
use crate::oauth::profile::TermsStatus;

/// What a configuration without faults comes to.
pub(super) fn check(config: &Config) -> String {
    let file =
        config.file.as_ref().map_or_else(|| "the built-in configuration".to_owned(), |file| file.display().to_string());
    let mut text =
        format!("{file} is fine: {} accounts, {} agent keys.\n", config.accounts.len(), config.agent_keys.len());
    for account in &config.accounts {
        let profile = &account.profile;
        let terms = match profile.terms.status {
            TermsStatus::Open => "",
            _ if account.accept_terms => ", terms accepted",
            _ => ", needs accept_terms: true",
        };
        let _ = writeln!(text, "  {}: {} ({}){terms}", account.name, profile.title, profile.api.base_url); // a String takes it
    }
    text
}

/// The shipped providers, as a table.
pub(super) fn providers() -> String {
    let mut text = String::from("PROVIDER           TERMS        LINKED BY            TITLE\n");
    for name in config::provider_names() {
        let field = |key: &str| find(name, key).unwrap_or_default();
        let (terms, flow, title) = (field("status:"), field("flow:"), field("title:"));
        let _ = writeln!(text, "{name:18} {terms:12} {flow:20} {title}");
    }
    text.push_str("\n`pixy providers NAME` shows one; any key of it can be changed under `profile:` of an account.\n");
    text
}

/// One provider, as it is shipped.
pub(super) fn provider(name: &str) -> Option<String> {
    let text = config::shipped_profile_text(name)?;
    Some(format!(
        "# accounts: {{ my-{name}: {{ provider: {name} }} }}\n# Any of these keys can be changed under `profile:` there.\n\n{text}"
    ))
}

/// A scalar of a shipped profile: they are written by us, one key a line or in braces.
fn find(name: &str, key: &str) -> Option<String> {
    let text = config::shipped_profile_text(name)?;
    let (_, rest) = text.split_once(key)?;
    let value = rest.split(['\n', ',', '}']).next()?;
    Some(value.trim().to_owned())
}
