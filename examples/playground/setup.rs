//! Pixy's configuration for the playground, and instructions.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::authorization::{CLIENT_ID, SCOPES};
use crate::dialects::MODEL;

/// The parameters of the configuration.
pub(crate) struct Setup {
    /// Origin of the authorization server.
    pub(crate) authorization: String,
    /// Origin of the LLM API.
    pub(crate) api: String,
    /// Pixy's agent port; link and ops take the next two.
    pub(crate) pixy_port_base: u16,
    /// The lifetime of an access token.
    pub(crate) token_seconds: u64,
}

impl Setup {
    /// Writes `pixy.yaml` into `directory` and changes nothing else there: Pixy's vault and key survive a restart of the
    /// playground.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<PathBuf> {
        // The vault rejects a directory that others can read.
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let directory = directory.canonicalize()?;
        let file = directory.join("pixy.yaml");
        fs::write(&file, self.configuration(&directory))?;
        Ok(file)
    }

    /// The instructions for the terminal.
    pub(crate) fn instructions(&self, configuration: &Path) -> String {
        let Self { authorization, api, token_seconds, .. } = self;
        let file = configuration.display();
        let agent = match self.pixy_port_base {
            0 => "http://127.0.0.1:PORT".to_owned(), // Pixy prints the port
            port => format!("http://127.0.0.1:{port}"),
        };
        format!(
            "The playground runs: a fake provider that you can link without an account.
  authorization server   {authorization}
  LLM API                {api}
  configuration          {file}

Start Pixy with it, in a second terminal:

  cargo run -- --config '{file}'

Then, in a third:
  1. Link the imaginary account: open the printed address, allow, and paste the code.
       cargo run -- --config '{file}' link play
  2. Send a request as an agent would, without a credential; the response streams:
       curl -N {agent}/play/v1/messages -H 'content-type: application/json' \\
         -d '{{\"model\":\"{MODEL}\",\"max_tokens\":99,\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'
  3. Kill Pixy (kill -9), start it again, repeat 2: it is still linked.

Access tokens expire after {token_seconds} s, so refreshes appear here soon. Grants are kept in memory: after a restart of the playground, link again.
Ctrl-C stops it. Events:"
        )
    }

    fn configuration(&self, directory: &Path) -> String {
        let Self { authorization, api, .. } = self;
        let port = |offset: u16| if self.pixy_port_base == 0 { 0 } else { self.pixy_port_base.saturating_add(offset) };
        let (agent, link, ops) = (port(0), port(1), port(2));
        let scopes = SCOPES.join(", ");
        let path = |name: &str| quoted(&directory.join(name));
        let (state, vault, key) = (path("state"), path("vault"), path("key"));
        format!(
            r#"# Written at each start of `cargo run --example playground`: changes are lost.
agent: {{ listen: 127.0.0.1:{agent} }}
link: {{ listen: 127.0.0.1:{link} }}
ops: {{ listen: 127.0.0.1:{ops} }}
state_dir: {state}
vault:
  dir: {vault}
  key_file: {key}
accounts:
  play:
    provider: oauth
    profile:
      title: The playground
      link:
        flow: authorization_code
        authorize_url: {authorization}/authorize
        redirect: {{ paste: "{authorization}/paste" }}
        client_id: {CLIENT_ID}
        scopes: [{scopes}]
      token:
        url: {authorization}/token
        body: form
      identity: [[token, account, email_address], [token, organization, name]]
      revoke: {{ url: "{authorization}/revoke", body: form }}
      api:
        base_url: {api}
        allow:
          - POST /v1/messages
          - POST /v1/messages/count_tokens
          - POST /v1/chat/completions
          - POST /v1/responses
          - GET /v1/models
          - GET /v1/models/*
        errors: anthropic
        quota_headers: [anthropic-ratelimit-unified-*]
"#
        )
    }
}

/// A path as a YAML string; every JSON string is one.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.display().to_string()).to_string()
}
