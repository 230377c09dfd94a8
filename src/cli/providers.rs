//! `pixy providers`: the profiles that are shipped.

use std::fmt;
use std::fmt::Write as _;

use crate::config;
use crate::oauth::profile::{Flow, TermsStatus};

/// No provider of this name is shipped.
#[derive(Debug)]
pub(super) struct UnknownProvider;

/// The table of `pixy providers`.
pub(super) fn table() -> String {
    let mut rows = vec![["NAME", "TITLE", "LINKED BY", "TERMS", "NEEDS FROM YOU"].map(str::to_owned)];
    for name in config::provider_names() {
        let Some(outline) = config::shipped_profile_outline(name) else { continue };
        let needs = config::shipped_profile_needs(name).join(", ");
        rows.push([
            name.to_owned(),
            outline.title,
            outline.link.flow.as_str().to_owned(),
            outline.terms.status.as_str().to_owned(),
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

/// `pixy providers NAME`: the profile as it is shipped, what it needs, and how to use it.
pub(super) fn describe(name: &str) -> Result<String, UnknownProvider> {
    let (Some(text), Some(outline)) = (config::shipped_profile_text(name), config::shipped_profile_outline(name))
    else {
        return Err(UnknownProvider);
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

impl fmt::Display for UnknownProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = config::provider_names().join(", ");
        write!(f, "no provider of this name is shipped; there are: {names}. For another one, start from `oauth`.")
    }
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
        assert!(describe("unknown").unwrap_err().to_string().contains("openrouter"));
    }
}
