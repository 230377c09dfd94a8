//! `pixy check`: the summary of a valid configuration.

use std::fmt::Write as _;

use crate::app;
use crate::config::Config;
use crate::oauth::profile::TermsStatus;
use crate::vault::KeySettings;

/// The warnings and the summary of a configuration without faults.
pub(super) fn summary(config: &Config) -> String {
    let mut out = String::new();
    for warning in &config.warnings {
        let _ = writeln!(out, "{warning}"); // a String accepts it, here and below
    }
    let accounts = count(config.accounts.len(), "account");
    let listeners = count(config.agent_listeners.len(), "agent listener");
    let keys = match config.agent_keys.len() {
        0 => "no agent keys (every client that reaches the listener may use every account)".to_owned(),
        keys => count(keys, "agent key"),
    };
    let file = config.file.as_ref().map(|file| file.display().to_string());
    let file = file.as_deref().unwrap_or("the built-in one; yours would be ~/.config/pixy/pixy.yaml");
    let _ = writeln!(out, "configuration is fine: {accounts}, {listeners}, {keys}\n  file      {file}");
    for listener in &config.agent_listeners {
        let bound = listener.account.as_ref().map_or_else(String::new, |account| format!(" (only {account})"));
        let _ = writeln!(out, "  agents    {}{bound}", listener.address);
    }
    let page = config.link_listen.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string);
    let (ops, store) = (&config.ops_listen, config.vault.directory.display());
    let opened_by = match &config.vault.key {
        KeySettings::File(file) => format!("the key in {}", file.display()),
        KeySettings::Passphrase(file) => format!("the passphrase in {}", file.display()),
    };
    let _ = writeln!(out, "  page      {page}\n  ops       {ops}\n  vault     {store}, opened by {opened_by}");
    let fits = app::capacity(config);
    let mib = config.memory >> 20;
    let _ = writeln!(
        out,
        "  clients   {} connections of agents fit; {} allows no more (limits.memory: {mib} MiB)",
        fits.agents,
        fits.bound.setting()
    );
    for account in &config.accounts {
        let profile = &account.profile;
        let _ = write!(out, "  account   {}: {} -> {}", account.name, profile.title, *profile.api.base_url);
        if profile.terms.status != TermsStatus::Open && !account.accept_terms {
            let _ = write!(out, " (not linked before accept_terms: true; see `pixy providers {}`)", profile.provider);
        }
        out.push('\n');
    }
    out
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Env};

    #[test]
    fn a_valid_configuration_is_summarized() {
        let env = Env { home: Some("/home/me".into()), ..Env::default() };
        let text = "link: off\naccounts: { me: { provider: claude }, k: { provider: openai } }";
        let summary = summary(&config::parse(text, Some("/p.yaml".into()), &env).unwrap());
        assert!(summary.starts_with("configuration is fine: 2 accounts, 1 agent listener, no agent keys"), "{summary}");
        assert!(
            summary.contains("account   me: Claude subscription -> https://api.anthropic.com/ (not linked"),
            "{summary}"
        );
        assert!(
            summary.contains("page      off") && summary.contains("opened by the key in /home/me/.config/pixy/key"),
            "{summary}"
        );
    }
}
