//! A temporary directory for one test, and a configuration in it.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{TokenEndpoint, Upstream};

/// A directory of mode 0700, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let private = Permissions::from_mode(0o700); // the vault refuses a directory that others may read
        let directory = tempfile::Builder::new().prefix("pixy-test-").permissions(private).tempdir();
        Self { directory: directory.expect("there is room for a directory") }
    }

    /// The path of a file in the directory; of the directory if `name` is empty.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the directory is writable");
        path
    }

    /// Writes `pixy.yaml` with all paths in this directory, every port chosen by the system, and these accounts.
    pub(crate) fn config(&self, accounts: &Value) -> PathBuf {
        self.config_with(accounts, &json!({}))
    }

    /// As [`Scratch::config`], with top-level keys added or replaced.
    pub(crate) fn config_with(&self, accounts: &Value, more: &Value) -> PathBuf {
        let any = json!({ "listen": "127.0.0.1:0" });
        let mut config = json!({
            "agent": any, "link": any, "ops": any,
            "state_dir": self.path("state"),
            "vault": { "dir": self.path("vault"), "key_file": self.path("key") },
            "accounts": accounts,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        name_listeners(&mut config);
        // JSON is YAML.
        self.write("pixy.yaml", format!("{config:#}\n"))
    }

    /// Every file below the directory.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.directory.path().to_owned()];
        while let Some(directory) = waiting.pop() {
            for path in entries(&directory) {
                if path.is_dir() { waiting.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

/// An account of provider `oauth` with `endpoint` and `upstream`; a test may change it.
pub(crate) fn oauth_account(endpoint: &TokenEndpoint, upstream: &Upstream) -> Value {
    json!({ "provider": "oauth", "profile": {
        "link": {
            "flow": "authorization_code", "client_id": "pixy", "scopes": ["llm.invoke", "offline_access"],
            "authorize_url": endpoint.authorize_url(),
            "redirect": { "paste": format!("{}/paste", upstream.url()) },
        },
        "token": { "url": endpoint.url(), "body": "form", "terminal_errors": ["invalid_grant"] },
        "identity": [["token", "account", "email_address"], ["token", "organization", "name"]],
        "revoke": { "url": endpoint.revoke_url(), "body": "form" },
        "api": {
            "base_url": upstream.url(), "errors": "anthropic",
            "allow": ["POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models", "GET /v1/models/*"],
        },
    } })
}

/// Lets clients address every TCP listener by [`NAMES`], unless a test gives its own names.
fn name_listeners(config: &mut Value) {
    let is_tcp = |address: &Value| address.as_str().is_some_and(|address| address.parse::<SocketAddr>().is_ok());
    for surface in ["link", "ops"] {
        if config[surface].get("listen").is_some_and(is_tcp) && config[surface].get("hosts").is_none() {
            config[surface]["hosts"] = json!(NAMES);
        }
    }
    let Some(listen) = config["agent"].get_mut("listen") else { return };
    if listen.is_string() {
        *listen = json!([listen]);
    }
    for listener in listen.as_array_mut().into_iter().flatten() {
        if is_tcp(listener) {
            *listener = json!({ "address": listener, "hosts": NAMES });
        } else if listener.get("address").is_some_and(is_tcp) && listener.get("hosts").is_none() {
            listener["hosts"] = json!(NAMES);
        }
    }
}

/// The names by which tests address Pixy.
const NAMES: [&str; 4] = ["pixy", "a", "b", "x"];

fn entries(directory: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(directory).expect("the directory is readable");
    listed.filter_map(|entry| Some(entry.ok()?.path())).collect()
}
