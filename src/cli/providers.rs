//! `pixy providers`: the profiles that are shipped.

use std::fmt::Write as _;

use super::CommandError;
use super::terminal::column_widths;
use crate::config;
use crate::oauth::profile::{Flow, TermsStatus};

/// The table of `pixy providers`.
pub(super) fn table() -> String {
    let mut rows = vec![["NAME", "TITLE", "LINKED BY", "TERMS", "NEEDS FROM YOU"].map(str::to_owned)];
    for name in config::provider_names() {
        let Some(outline) = config::shipped_profile_outline(name) else { continue };
        let needs = config::shipped_profile_needs(name).join(", ");
        let (flow, terms) = (outline.link.flow.as_str().to_owned(), outline.terms.status.as_str().to_owned());
        rows.push([name.to_owned(), outline.title, flow, terms, needs]);
    }
    let widths = column_widths(&rows);
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  "));
        let _ = writeln!(out, "{}", cells.collect::<String>().trim_end()); // a String accepts it, here and below
    }
    out.push_str("\n`pixy providers NAME` shows one in full.\n");
    out
}

/// `pixy providers NAME`: the profile as it is shipped, what it needs, and how to use it.
///
/// # Errors
/// No provider of this name is shipped.
pub(super) fn describe(name: &str) -> Result<String, CommandError> {
    let (Some(text), Some(outline)) = (config::shipped_profile_text(name), config::shipped_profile_outline(name))
    else {
        let names = config::provider_names().join(", ");
        return Err(CommandError::Usage(format!(
            "pixy: no provider of this name is shipped; there are: {names}. For another one, start from `oauth`."
        )));
    };
    let needs = config::shipped_profile_needs(name);
    let mut out = format!("{}\n", text.trim_end());
    out.push_str("\n# How to use it, in pixy.yaml:\n#   accounts:\n");
    let _ = writeln!(out, "#     {name}:\n#       provider: {name}");
    if outline.terms.status != TermsStatus::Open {
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
    let then = match outline.link.flow {
        Flow::ApiKey => "paste the key on the page or into the terminal",
        Flow::ClientCredentials => "paste the client secret on the page or into the terminal",
        Flow::DeviceCode | Flow::AuthorizationCode => "sign in with your browser",
    };
    let _ = writeln!(out, "# Then: pixy link {name} ({then}), and: pixy env {name}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_every_provider() {
        let table = table();
        for name in config::provider_names() {
            assert!(table.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}\n{table}");
        }
        assert!(table.contains("oauth              OAuth 2.0 server"), "{table}");
        assert!(table.contains("link.issuer, link.client_id, api.base_url, api.allow"), "{table}");
    }

    #[test]
    fn a_provider_is_described_with_what_it_needs() {
        let shown = describe("claude").unwrap();
        assert!(
            shown.contains("base_url: https://api.anthropic.com") && shown.contains("accept_terms: true"),
            "{shown}"
        );
        let shown = describe("huggingface").unwrap();
        assert!(shown.contains("#         link:\n#           client_id: …"), "{shown}");
        assert!(!shown.contains("accept_terms"), "{shown}");
        let Err(CommandError::Usage(text)) = describe("unknown") else { panic!() };
        assert!(text.contains("openrouter"), "{text}");
    }
}
