//! What `check` and `providers` print. Texts only: nothing here prints or decides.

use std::fmt::Write as _;

use crate::config::{self, Config};
use crate::oauth::profile::{Flow, TermsStatus};
use crate::vault::KeySettings;

/// What `pixy check` says of a configuration without fault.
pub fn check(config: &Config) -> String {
    let mut out: String = config.warnings.iter().map(|warning| format!("{warning}\n")).collect();
    let _ = write!(out, "configuration is fine: {}", count(config.accounts.len(), "account"));
    let _ = write!(out, ", {}", count(config.agent_listeners.len(), "agent listener"));
    match config.agent_keys.len() {
        0 => out.push_str(", no agent keys (whoever reaches the listener may use every account)"),
        keys => {
            let _ = write!(out, ", {}", count(keys, "agent key"));
        }
    }
    match &config.file {
        Some(file) => {
            let _ = writeln!(out, "\n  file      {}", file.display());
        }
        None => out.push_str("\n  file      the one that is shipped; yours would be ~/.config/pixy/pixy.yaml\n"),
    }
    for listener in &config.agent_listeners {
        let bound = listener.account.as_ref().map_or_else(String::new, |account| format!(" (only {account})"));
        let _ = writeln!(out, "  agents    {}{bound}", listener.address);
    }
    match &config.link_listen {
        Some(address) => {
            let _ = writeln!(out, "  page      {address}");
        }
        None => out.push_str("  page      off\n"),
    }
    let _ = writeln!(out, "  ops       {}", config.ops_listen);
    let store = config.vault.directory.display();
    let opened_by = match &config.vault.key {
        KeySettings::File(file) => format!("the key in {}", file.display()),
        KeySettings::Passphrase(file) => format!("the passphrase in {}", file.display()),
    };
    let _ = writeln!(out, "  vault     {store}, opened by {opened_by}");
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

/// The table of `pixy providers`.
pub fn providers() -> String {
    let mut rows = vec![["NAME", "TITLE", "LINKED BY", "TERMS", "NEEDS FROM YOU"].map(str::to_owned)];
    for name in config::provider_names() {
        let Some(outline) = config::shipped_profile_outline(name) else { continue };
        let needs = config::shipped_profile_needs(name).join(", ");
        rows.push([
            name.to_owned(),
            outline.title,
            outline.flow.as_str().to_owned(),
            outline.terms.as_str().to_owned(),
            needs,
        ]);
    }
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push_str("\n`pixy providers NAME` shows one in full.\n");
    out
}

/// What `pixy providers NAME` shows: the profile as it is shipped, what it needs, and how to use it. The error is a sentence
/// that lists the names there are.
pub fn provider(name: &str) -> Result<String, String> {
    let (Some(text), Some(outline)) = (config::shipped_profile_text(name), config::shipped_profile_outline(name))
    else {
        let names = config::provider_names().join(", ");
        return Err(format!(
            "no provider of this name is shipped; there are: {names}. For another one, start from `oauth`."
        ));
    };
    let needs = config::shipped_profile_needs(name);
    let mut out = format!("{}\n", text.trim_end());
    out.push_str("\n# How to use it, in pixy.yaml:\n#   accounts:\n");
    let _ = writeln!(out, "#     {name}:\n#       provider: {name}");
    if outline.terms != TermsStatus::Open {
        out.push_str("#       accept_terms: true    # only after you have read the terms above\n");
    }
    if !needs.is_empty() {
        out.push_str("#       profile:\n");
        let mut section = "";
        for need in &needs {
            let Some((outer, inner)) = need.split_once('.') else { continue };
            if outer != section {
                let _ = writeln!(out, "#         {outer}:");
                section = outer;
            }
            let _ = writeln!(out, "#           {inner}: …    # yours");
        }
    }
    let then = match outline.flow {
        Flow::ApiKey => "paste the key on the page or into the terminal",
        Flow::ClientCredentials => "paste the client secret on the page or into the terminal",
        Flow::DeviceCode | Flow::AuthorizationCode => "sign in with your browser",
    };
    let _ = writeln!(out, "# Then: pixy link {name} ({then}), and: pixy env {name}");
    Ok(out)
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    #[test]
    fn the_table_lists_every_provider() {
        let table = providers();
        for name in config::provider_names() {
            assert!(table.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}\n{table}");
        }
        assert!(table.contains("oauth              OAuth 2.0 server"), "{table}");
        assert!(table.contains("link.issuer, link.client_id, api.base_url, api.allow"), "{table}");
    }

    #[test]
    fn a_provider_is_shown_with_what_it_needs() {
        let shown = provider("claude").unwrap();
        assert!(
            shown.contains("base_url: https://api.anthropic.com") && shown.contains("accept_terms: true"),
            "{shown}"
        );
        let shown = provider("huggingface").unwrap();
        assert!(shown.contains("#         link:\n#           client_id: …"), "{shown}");
        assert!(!shown.contains("accept_terms"), "{shown}");
        assert!(provider("nobody").unwrap_err().contains("openrouter"));
    }

    #[test]
    fn a_fine_configuration_is_summed_up() {
        let env = Env { home: Some("/home/me".into()), ..Env::default() };
        let text = "link: off\naccounts: { me: { provider: claude }, k: { provider: openai } }";
        let said = check(&config::parse(text, Some("/p.yaml".into()), &env).unwrap());
        assert!(said.starts_with("configuration is fine: 2 accounts, 1 agent listener, no agent keys"), "{said}");
        assert!(said.contains("account   me: Claude subscription -> https://api.anthropic.com/ (not linked"), "{said}");
        assert!(
            said.contains("page      off") && said.contains("opened by the key in /home/me/.config/pixy/key"),
            "{said}"
        );
    }
}
