//! `pixy explain ACCOUNT`: everything that requests of the account can carry to the provider, as names.

use std::fmt::Write as _;

use serde::Serialize;

use super::control_client::ControlClient;
use super::terminal::{OutputStyle, print_json_pretty};
use super::{CommandError, print_text, runtime};
use crate::api;
use crate::config::Config;
use crate::oauth::profile::pass_list::{self, BASE_FIELDS, BASE_PREFIXES, BASE_QUERY};
use crate::oauth::profile::{Api, Profile};

/// Everything that can reach the provider of an account. Names without values; no secret.
#[derive(Debug, Serialize)]
struct Explanation {
    account: String,
    provider: String,
    title: String,
    base_url: String,
    requests: Vec<AllowedRequest>,
    /// Fields that pass as the agent sent them; a `*` at the end stands for any end.
    fields: Vec<String>,
    /// Query keys that pass as the agent sent them; a `*` at the end stands for any end.
    query_keys: Vec<String>,
    written: Vec<WrittenField>,
}

/// A method and a path below the base URL; a `*` stands for one segment or its beginning.
#[derive(Debug, Serialize)]
struct AllowedRequest {
    method: String,
    path: String,
    websocket: bool,
}

/// A field that Pixy writes.
#[derive(Debug, Serialize)]
struct WrittenField {
    name: String,
    why: Why,
}

/// Why Pixy writes a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    /// The account's token or key.
    Credential,
    /// `api.headers.set`, whatever the agent sent.
    Set,
    /// Copied from the login.
    Claim,
    /// `api.headers.default`, if the agent sent none.
    Default,
    /// `api.headers.merge`: members added to the agent's list.
    Merge,
    /// Of Pixy's own connection.
    Connection,
    /// Of Pixy's own connection, with a WebSocket only.
    Websocket,
}

/// Fields of Pixy's own connection to the provider. Over HTTP/2 `host` is `:authority`.
const CONNECTION: [&str; 4] = ["host", "content-length", "transfer-encoding", "accept-encoding"];

/// Fields of a WebSocket's handshake. Of the agent's subprotocols only `realtime` and `openai-beta.*` pass.
const WEBSOCKET: [&str; 5] =
    ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key", "sec-websocket-protocol"];

/// The width of the text where the terminal's is not known.
const DEFAULT_WIDTH: usize = 80;

/// Prints what the configuration lets through.
pub(super) fn print(config: &Config, name: &str, as_json: bool) -> Result<(), CommandError> {
    let Some(account) = config.accounts.iter().find(|account| account.name.as_str() == name) else {
        let names: Vec<_> = config.accounts.iter().map(|account| account.name.as_str()).collect();
        let names = names.join(", ");
        return Err(CommandError::Runtime(format!("there is no account \"{name}\"; the configuration has {names}")));
    };
    let explanation = Explanation::new(name, &account.profile);
    if as_json {
        print_json_pretty(&explanation);
        return Ok(());
    }
    print_text(&explanation.text(width()))
}

/// Prints the names that requests of a running Pixy lost last.
pub(super) fn print_last(control: &ControlClient, name: &str, as_json: bool) -> Result<(), CommandError> {
    let names = runtime()?.block_on(control.call::<api::ShowDropped>(name, &()))?;
    if as_json {
        print_json_pretty(&names);
        return Ok(());
    }
    print_text(&dropped_text(name, &names, width()))
}

impl Explanation {
    fn new(account: &str, profile: &Profile) -> Self {
        let api = &profile.api;
        let allowed = api.allow.iter().map(|rule| AllowedRequest {
            method: rule.method.to_string(),
            path: rule.path.as_str().to_owned(),
            websocket: false,
        });
        let websockets = api.websocket.iter().map(|path| AllowedRequest {
            method: "GET".to_owned(),
            path: path.as_str().to_owned(),
            websocket: true,
        });
        let base = BASE_QUERY.iter().map(|&key| key.to_owned());
        Self {
            account: account.to_owned(),
            provider: profile.provider.clone(),
            title: profile.title.clone(),
            base_url: api.base_url.as_str().to_owned(),
            requests: allowed.chain(websockets).collect(),
            fields: fields(api),
            query_keys: sorted(base.chain(api.pass_query.iter().map(Into::into))),
            written: written(api),
        }
    }

    fn text(&self, width: usize) -> String {
        let mut out = format!("{}: {} ({})\n{}\n", self.account, self.title, self.provider, self.base_url);
        out.push_str("\nRequests that may be sent, below that URL:\n");
        for AllowedRequest { method, path, websocket } in &self.requests {
            let note = if *websocket { " (WebSocket)" } else { "" };
            let _ = writeln!(out, "  {method:<6} {path}{note}"); // a String accepts it, here and below
        }
        out.push_str("\nHeader fields of the agent that pass:\n");
        wrap(&mut out, self.fields.iter(), width);
        out.push_str("\nQuery keys of the agent that pass:\n");
        wrap(&mut out, self.query_keys.iter(), width);
        out.push_str("\nHeader fields that Pixy writes:\n");
        for (why, title) in [
            (Why::Credential, "the account's token or key"),
            (Why::Set, "set by the profile"),
            (Why::Claim, "copied from the login"),
            (Why::Default, "added if the agent sent none"),
            (Why::Merge, "with members added"),
            (Why::Connection, "of its own connection"),
            (Why::Websocket, "of its own connection, for a WebSocket"),
        ] {
            let names: Vec<_> = self.written.iter().filter(|field| field.why == why).map(|field| &field.name).collect();
            if !names.is_empty() {
                let _ = writeln!(out, "  {title}:");
                wrap_with(&mut out, "    ", names.into_iter(), width);
            }
        }
        out.push_str("\nA `*` stands for any text. The body passes unchanged.\n");
        let _ = writeln!(
            out,
            "All else is dropped or refused. The last that was dropped:\n  pixy explain {} --last",
            self.account
        );
        out
    }
}

/// The fields of agents that pass: the base list, the profile's, and those that Pixy adds to. Not those that it writes itself.
fn fields(api: &Api) -> Vec<String> {
    let base = BASE_FIELDS.iter().map(|&name| name.to_owned());
    let prefixes = BASE_PREFIXES.iter().map(|prefix| format!("{prefix}*"));
    let listed = api.pass_headers.iter().map(Into::into);
    let defaults = api.headers.default.given().map(|(name, _)| name.as_str().to_owned());
    let merged = api.headers.merge.given().map(|(name, _)| name.as_str().to_owned());
    let all = base.chain(prefixes).chain(listed).chain(defaults).chain(merged);
    sorted(all.filter(|name| {
        let folded = pass_list::fold(name);
        !api.writes(&folded) && !api.attaches(&folded)
    }))
}

fn written(api: &Api) -> Vec<WrittenField> {
    let headers = &api.headers;
    let field = |name: &str, why: Why| WrittenField { name: name.to_owned(), why };
    let mut all = vec![field(api.attach.header.as_str(), Why::Credential)];
    all.extend(headers.set.given().map(|(name, _)| field(name.as_str(), Why::Set)));
    all.extend(headers.claims.given().map(|(name, _)| field(name.as_str(), Why::Claim)));
    all.extend(headers.default.given().map(|(name, _)| field(name.as_str(), Why::Default)));
    all.extend(headers.merge.given().map(|(name, _)| field(name.as_str(), Why::Merge)));
    all.extend(CONNECTION.iter().map(|name| field(name, Why::Connection)));
    if !api.websocket.is_empty() {
        all.extend(WEBSOCKET.iter().map(|name| field(name, Why::Websocket)));
    }
    all
}

fn dropped_text(account: &str, names: &api::DroppedNames, width: usize) -> String {
    if names.fields.is_empty() && names.query_keys.is_empty() {
        return format!("{account}: nothing was dropped since Pixy started.\n");
    }
    let mut out = format!("{account}: dropped since Pixy started, the last first\n");
    for (title, key, list) in
        [("Header fields", "pass_headers", &names.fields), ("Query keys", "pass_query", &names.query_keys)]
    {
        if !list.is_empty() {
            let _ = writeln!(out, "\n{title} (api.{key} of the profile adds one):");
            wrap(&mut out, list.iter(), width);
        }
    }
    out
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn width() -> usize {
    OutputStyle::of_stdout().size().map_or(DEFAULT_WIDTH, |(columns, _)| columns)
}

fn wrap<'a>(out: &mut String, names: impl Iterator<Item = &'a String>, width: usize) {
    wrap_with(out, "  ", names, width);
}

/// Writes the names, separated by spaces, in indented lines of at most `width` characters.
fn wrap_with<'a>(out: &mut String, indent: &str, names: impl Iterator<Item = &'a String>, width: usize) {
    let mut line = String::new();
    for name in names {
        let length = name.chars().count();
        if !line.is_empty() && indent.len() + line.chars().count() + 2 + length > width {
            let _ = writeln!(out, "{indent}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push_str("  ");
        }
        line.push_str(name);
    }
    if !line.is_empty() {
        let _ = writeln!(out, "{indent}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Env};

    fn explained(account: &str) -> Explanation {
        let env = Env { home: Some("/home/me".into()), ..Env::default() };
        let text = r"
accounts:
  claude: { provider: claude, accept_terms: true }
  codex: { provider: codex, accept_terms: true }
  gemini: { provider: gemini }
  router: { provider: openrouter }
  mine:
    provider: openai-compatible
    profile:
      api:
        base_url: https://llm.example.com/v1
        pass_headers: [X-Team, OpenAI-Project]
        pass_query: [region]
        headers: { set: { OpenAI-Project: proj_1 } }
";
        let config = config::parse(text, Some("/p.yaml".into()), &env).unwrap_or_else(|faults| panic!("{faults}"));
        let found = config.accounts.iter().find(|known| known.name.as_str() == account).unwrap();
        Explanation::new(account, &found.profile)
    }

    #[test]
    fn an_account_is_explained_by_names() {
        let Explanation { fields, query_keys, written, .. } = explained("mine");
        for name in ["x-team", "x-title", "user-agent", "x-stainless-*", "anthropic-version"] {
            assert!(fields.iter().any(|field| field == name), "{name}: {fields:?}");
        }
        assert!(!fields.iter().any(|field| field == "openai-project"), "Pixy writes it");
        assert!(["region", "limit", "alt"].iter().all(|key| query_keys.iter().any(|known| known == key)));
        let why = |name: &str| written.iter().find(|field| field.name == name).map(|field| field.why);
        assert_eq!(why("openai-project"), Some(Why::Set));
        assert_eq!(why("authorization"), Some(Why::Credential));
        assert_eq!((why("accept-encoding"), why("upgrade")), (Some(Why::Connection), None));
        let codex = explained("codex");
        let claim = codex.written.iter().find(|field| field.why == Why::Claim).unwrap();
        assert_eq!(claim.name, "chatgpt-account-id");
        assert!(codex.requests.iter().any(|request| request.websocket && request.path == "/responses"));
        let text = serde_json::to_string(&explained("mine")).unwrap();
        assert!(!text.contains("proj_1"), "names alone: {text}");
    }

    #[test]
    fn the_text_fits_terminals_of_60_and_80_columns() {
        let dropped = api::DroppedNames {
            fields: vec!["sec-fetch-mode".to_owned(), "x-some-other-field-of-an-agent".to_owned(), "x".repeat(30)],
            query_keys: vec!["subscription-key".to_owned()],
        };
        for width in [60, 80] {
            let texts = ["claude", "codex", "gemini", "router", "mine"].map(|account| explained(account).text(width));
            for text in texts.into_iter().chain([dropped_text("mine", &dropped, width)]) {
                for line in text.lines() {
                    assert!(line.chars().count() <= width, "{width}: {line}");
                }
            }
        }
        assert_eq!(
            dropped_text("a", &api::DroppedNames::default(), 60),
            "a: nothing was dropped since Pixy started.\n"
        );
    }
}
