//! "Use it": the exact lines that each kind of agent needs, in one place for the page, `pixy env` and `pixy run`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::account::Account;
use crate::oauth::profile::{ErrorShape, Profile};
use crate::server::Address;

/// What agents of one kind need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientSnippet {
    /// As in `pixy env NAME --for …`.
    pub client: &'static str,
    /// For people.
    pub title: &'static str,
    /// To be pasted, whole.
    pub lines: Vec<String>,
    /// The environment variables among them, for `pixy run`.
    pub variables: Vec<Variable>,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, unless it is in a file.
    pub value: String,
    /// The file whose content is the value.
    pub file: Option<PathBuf>,
}

/// What agents present as their key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Agents need none; clients that insist on one get a word.
    Any,
    /// The agent's key is in this file.
    File(PathBuf),
    /// Pixy knows the digest alone.
    Known,
}

/// Where agents connect, and what they present.
#[derive(Debug, Clone)]
pub struct AgentEndpoint {
    /// The listener's address.
    pub address: Address,
    /// The listener is bound to the account: no prefix.
    pub bound: bool,
    /// What to give as the API key.
    pub key: Key,
}

/// The recipes of an account, those that suit its API alone.
pub fn recipes(account: &Account, door: &AgentEndpoint) -> Vec<ClientSnippet> {
    let profile = account.profile();
    let root = root(account, door);
    let mut recipes = Vec::new();
    if let Some(prefix) = prefix_of(&profile, "/v1/messages") {
        let base = format!("{root}{prefix}");
        recipes.push(anthropic("claude-code", "Claude Code", &base, &door.key));
        recipes.push(anthropic("anthropic", "Anthropic SDKs", &base, &door.key));
    }
    let openai = prefix_of(&profile, "/chat/completions").or_else(|| prefix_of(&profile, "/responses"));
    if let Some(prefix) = openai {
        let base = format!("{root}{prefix}");
        recipes.push(variables(
            "openai",
            "OpenAI SDKs",
            &[("OPENAI_BASE_URL", &base), ("OPENAI_API_BASE", &base)],
            "OPENAI_API_KEY",
            &door.key,
        ));
        recipes.push(opencode(account, &base, &door.key));
    }
    if let Some(prefix) = prefix_of(&profile, "/responses") {
        recipes.push(codex(account, &format!("{root}{prefix}"), &door.key));
    }
    if prefix_of(&profile, "/v1beta/models").is_some() {
        recipes.push(variables(
            "gemini",
            "Gemini CLI and SDKs",
            &[("GOOGLE_GEMINI_BASE_URL", &root)],
            "GEMINI_API_KEY",
            &door.key,
        ));
    }
    recipes.push(curl(&profile, &root, &door.key));
    recipes
}

/// `http://127.0.0.1:8700/claude`: what an agent's base URL starts with.
pub fn root(account: &Account, door: &AgentEndpoint) -> String {
    let prefix = if door.bound { String::new() } else { format!("/{}", account.name()) };
    match &door.address {
        Address::Tcp(address) if address.ip().is_unspecified() => {
            format!("http://127.0.0.1:{}{prefix}", address.port())
        }
        Address::Tcp(address) => format!("http://{address}{prefix}"),
        // No base URL can name a socket; clients that can use one are told where it is.
        Address::Unix(_) => format!("http://pixy{prefix}"),
    }
}

/// The part of an allowed path before `end`: what a client's base URL must hold.
fn prefix_of(profile: &Profile, end: &str) -> Option<String> {
    profile.api.allow.iter().find_map(|rule| rule.path.as_text().strip_suffix(end).map(str::to_owned))
}

fn anthropic(client: &'static str, title: &'static str, base: &str, key: &Key) -> ClientSnippet {
    variables(client, title, &[("ANTHROPIC_BASE_URL", base)], "ANTHROPIC_AUTH_TOKEN", key)
}

fn variables(
    client: &'static str,
    title: &'static str,
    pairs: &[(&str, &str)],
    key_name: &str,
    key: &Key,
) -> ClientSnippet {
    let plain =
        pairs.iter().map(|(name, value)| Variable { name: (*name).to_owned(), value: (*value).to_owned(), file: None });
    let file = match key {
        Key::File(path) => Some(path.clone()),
        Key::Any | Key::Known => None,
    };
    let variables: Vec<Variable> =
        plain.chain([Variable { name: key_name.to_owned(), value: key.plain().to_owned(), file }]).collect();
    let value = |variable: &Variable| if variable.name == key_name { key.for_shell() } else { variable.value.clone() };
    let lines = variables.iter().map(|variable| format!("export {}={}", variable.name, value(variable))).collect();
    ClientSnippet { client, title, lines, variables }
}

/// A provider of Codex's own configuration: with the built-in one, Codex insists on its own login.
fn codex(account: &Account, base: &str, key: &Key) -> ClientSnippet {
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
    if *key != Key::Any {
        lines.push(format!("env_key = \"PIXY_AGENT_KEY\" # export PIXY_AGENT_KEY={}", key.for_shell()));
    }
    ClientSnippet { client: "codex", title: "Codex", lines, variables: Vec::new() }
}

fn opencode(account: &Account, base: &str, key: &Key) -> ClientSnippet {
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
    ClientSnippet { client: "opencode", title: "opencode", lines, variables: Vec::new() }
}

fn curl(profile: &Profile, root: &str, key: &Key) -> ClientSnippet {
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
            let path = first.map_or_else(|| "/".to_owned(), |rule| rule.path.as_text());
            return ClientSnippet {
                client: "curl",
                title: "curl",
                lines: vec![format!("curl {root}{path}")],
                variables: Vec::new(),
            };
        }
    };
    let mut line = format!("curl -N {root}{path} -H 'content-type: application/json' -d '{body}'");
    if *key != Key::Any {
        let _ = write!(line, " -H \"authorization: Bearer {}\"", key.for_shell().trim_matches('"')); // a String takes it
    }
    ClientSnippet { client: "curl", title: "curl", lines: vec![line], variables: Vec::new() }
}

impl Key {
    /// For a shell, where a file can be read in passing.
    fn for_shell(&self) -> String {
        match self {
            Self::File(path) => format!("\"$(cat {})\"", path.display()),
            Self::Any | Self::Known => self.plain().to_owned(),
        }
    }

    /// For everything else.
    fn plain(&self) -> &'static str {
        match self {
            Self::Any => "pixy",
            Self::File(_) | Self::Known => "your-agent-key",
        }
    }
}
