//! The exact lines that each kind of agent needs to use an account: for the page, `pixy env` and `pixy run`.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::account::Account;
use crate::api::{ClientSnippet, Variable};
use crate::oauth::profile::{ErrorShape, Profile};
use crate::server::Address;

/// What agents send as their API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentCredential {
    /// Agents need none; a placeholder serves clients that insist on one.
    Any,
    /// The agent's key is in this file.
    File(PathBuf),
    /// Only its digest is configured.
    Known,
}

/// Where agents connect, and what they send as their API key.
#[derive(Debug, Clone)]
pub struct AgentEndpoint {
    /// The listener's address.
    pub address: Address,
    /// The listener serves one account alone: paths have no account prefix.
    pub bound: bool,
    /// The agent's key.
    pub key: AgentCredential,
}

/// The snippets of an account: one for each client of its provider's API.
pub fn snippets(account: &Account, endpoint: &AgentEndpoint) -> Vec<ClientSnippet> {
    let profile = account.profile();
    let (root, key) = (base_url(account, endpoint), &endpoint.key);
    let mut snippets = Vec::new();
    if let Some(prefix) = prefix_of(&profile, "/v1/messages") {
        let base = format!("{root}{prefix}");
        let urls = [("ANTHROPIC_BASE_URL", base.as_str())];
        snippets.push(variables("claude-code", "Claude Code", &urls, "ANTHROPIC_AUTH_TOKEN", key));
        snippets.push(variables("anthropic", "Anthropic SDKs", &urls, "ANTHROPIC_AUTH_TOKEN", key));
    }
    let openai = prefix_of(&profile, "/chat/completions").or_else(|| prefix_of(&profile, "/responses"));
    if let Some(prefix) = openai {
        let base = format!("{root}{prefix}");
        let urls = [("OPENAI_BASE_URL", base.as_str()), ("OPENAI_API_BASE", &base)];
        snippets.push(variables("openai", "OpenAI SDKs", &urls, "OPENAI_API_KEY", key));
        snippets.push(opencode(account, &base, key));
    }
    if let Some(prefix) = prefix_of(&profile, "/responses") {
        snippets.push(codex(account, &format!("{root}{prefix}"), key));
    }
    if prefix_of(&profile, "/v1beta/models").is_some() {
        let urls = [("GOOGLE_GEMINI_BASE_URL", root.as_str())];
        snippets.push(variables("gemini", "Gemini CLI and SDKs", &urls, "GEMINI_API_KEY", key));
    }
    snippets.push(curl(&profile, &root, key));
    snippets
}

/// The start of every base URL of an agent: `http://127.0.0.1:8700/claude`.
pub fn base_url(account: &Account, endpoint: &AgentEndpoint) -> String {
    let prefix = if endpoint.bound { String::new() } else { format!("/{}", account.name()) };
    match &endpoint.address {
        Address::Tcp(address) if address.ip().is_unspecified() => {
            format!("http://127.0.0.1:{}{prefix}", address.port())
        }
        Address::Tcp(address) => format!("http://{address}{prefix}"),
        // A base URL cannot name a Unix socket; its path is configured in the client.
        Address::Unix(_) => format!("http://pixy{prefix}"),
    }
}

/// The part of an allowed path before `end`, which a client's base URL must contain.
fn prefix_of(profile: &Profile, end: &str) -> Option<String> {
    profile.api.allow.iter().find_map(|rule| rule.path.as_str().strip_suffix(end).map(str::to_owned))
}

fn variables(
    client: &str,
    title: &str,
    pairs: &[(&str, &str)],
    key_name: &str,
    key: &AgentCredential,
) -> ClientSnippet {
    let plain =
        pairs.iter().map(|(name, value)| Variable { name: (*name).to_owned(), value: (*value).to_owned(), file: None });
    let file = match key {
        AgentCredential::File(path) => Some(path.clone()),
        AgentCredential::Any | AgentCredential::Known => None,
    };
    let variables: Vec<Variable> =
        plain.chain([Variable { name: key_name.to_owned(), value: key.plain().to_owned(), file }]).collect();
    let value = |variable: &Variable| if variable.name == key_name { key.for_shell() } else { variable.value.clone() };
    let lines = variables.iter().map(|variable| format!("export {}={}", variable.name, value(variable))).collect();
    ClientSnippet { client: client.to_owned(), title: title.to_owned(), lines, variables }
}

/// A provider in Codex's own configuration: with its built-in provider, Codex requires its own login.
fn codex(account: &Account, base: &str, key: &AgentCredential) -> ClientSnippet {
    let name = account.name();
    let mut lines = vec![
        "# in ~/.codex/config.toml".to_owned(),
        "model_provider = \"pixy\"".to_owned(),
        String::new(),
        "[model_providers.pixy]".to_owned(),
        format!("name = \"Pixy ({name})\""),
        format!("base_url = \"{base}\""),
        "wire_api = \"responses\"".to_owned(),
    ];
    if *key != AgentCredential::Any {
        lines.push(format!("env_key = \"PIXY_AGENT_KEY\" # export PIXY_AGENT_KEY={}", key.for_shell()));
    }
    without_variables("codex", "Codex", lines)
}

fn opencode(account: &Account, base: &str, key: &AgentCredential) -> ClientSnippet {
    let name = account.name();
    let lines = vec![
        "// in opencode.json".to_owned(),
        "{".to_owned(),
        "  \"provider\": {".to_owned(),
        "    \"pixy\": {".to_owned(),
        "      \"npm\": \"@ai-sdk/openai-compatible\",".to_owned(),
        format!("      \"name\": \"Pixy ({name})\","),
        format!("      \"options\": {{ \"baseURL\": \"{base}\", \"apiKey\": \"{}\" }},", key.plain()),
        "      \"models\": { \"your-model\": {} }".to_owned(),
        "    }".to_owned(),
        "  }".to_owned(),
        "}".to_owned(),
    ];
    without_variables("opencode", "opencode", lines)
}

fn curl(profile: &Profile, root: &str, key: &AgentCredential) -> ClientSnippet {
    let messages = prefix_of(profile, "/v1/messages").map(|prefix| format!("{prefix}/v1/messages"));
    let chat = prefix_of(profile, "/chat/completions").map(|prefix| format!("{prefix}/chat/completions"));
    let (path, body) = match (profile.api.errors, messages, chat) {
        (ErrorShape::Anthropic, Some(path), _) | (ErrorShape::OpenAi, Some(path), None) => (
            path,
            r#"{"model":"your-model","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
        ),
        (_, _, Some(path)) => {
            (path, r#"{"model":"your-model","stream":true,"messages":[{"role":"user","content":"hi"}]}"#)
        }
        _ => {
            let first = profile.api.allow.iter().find(|rule| rule.method == http::Method::GET);
            let path = first.map_or("/", |rule| rule.path.as_str());
            return without_variables("curl", "curl", vec![format!("curl {root}{path}")]);
        }
    };
    let mut line = format!("curl -N {root}{path} -H 'content-type: application/json' -d '{body}'");
    if *key != AgentCredential::Any {
        let _ = write!(line, " -H \"authorization: Bearer {}\"", key.for_shell().trim_matches('"')); // writing to a String cannot fail
    }
    without_variables("curl", "curl", vec![line])
}

fn without_variables(client: &str, title: &str, lines: Vec<String>) -> ClientSnippet {
    ClientSnippet { client: client.to_owned(), title: title.to_owned(), lines, variables: Vec::new() }
}

impl AgentCredential {
    /// As a shell's word; a file is read by the shell.
    fn for_shell(&self) -> String {
        match self {
            Self::File(path) => format!("\"$(cat {})\"", path.display()),
            Self::Any | Self::Known => self.plain().to_owned(),
        }
    }

    /// Where a file cannot be read.
    fn plain(&self) -> &'static str {
        match self {
            Self::Any => "pixy",
            Self::File(_) | Self::Known => "your-agent-key",
        }
    }
}
