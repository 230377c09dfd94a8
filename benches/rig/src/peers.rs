//! The peers, all configured for the same job: HTTP in, verified TLS out, the agent's key replaced by the real one, one worker
//! thread, one log line per request.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio_rustls::TlsConnector;

use crate::Result;
use crate::api::{Api, REAL_KEY};
use crate::client::{Client, Target};
use crate::process::Running;

/// The key that the agent sends to a peer.
const AGENT_KEY: &str = "agent-key-0123456789abcdef";

/// `limits.memory` of Pixy.
const MEMORY: &str = "2GiB";

/// The paths of the programs; a peer without one is skipped.
#[derive(Default)]
pub struct Programs {
    pub pixy: Option<PathBuf>,
    /// An earlier version of Pixy, to compare `pixy` with.
    pub old: Option<PathBuf>,
    /// Builds of Pixy to compare; the first is the baseline.
    pub builds: Vec<(&'static str, PathBuf)>,
    pub nginx: Option<PathBuf>,
    pub haproxy: Option<PathBuf>,
    pub envoy: Option<PathBuf>,
    pub litellm: Option<PathBuf>,
}

/// How Pixy's account is linked.
#[derive(Clone, Copy)]
enum Login {
    /// With the API's key, which never expires.
    Key,
    /// With an authorization code; its access token expires within seconds.
    Code,
}

/// A path to the API.
pub struct Peer {
    pub name: &'static str,
    pub target: Target,
    program: Option<Program>,
    log: PathBuf,
}

struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

/// The directory for files, the API stand-in and its certificate authority.
pub struct Environment<'a> {
    pub directory: &'a Path,
    pub api: Api,
    pub ca: PathBuf,
    pub connector: TlsConnector,
}

impl Peer {
    /// The program's size in MiB without shared libraries.
    pub fn size(&self) -> Option<f64> {
        Some(std::fs::metadata(&self.program.as_ref()?.path).ok()?.len() as f64 / f64::from(1 << 20))
    }

    /// Starts it and returns the milliseconds until the first request was served. `None` for the direct connection.
    pub async fn start(&self) -> Result<Option<(Running, f64)>> {
        let Some(program) = &self.program else { return Ok(None) };
        let began = Instant::now();
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).envs(program.environment.iter().map(|(name, value)| (name, value)));
        let mut running = Running::start(&mut command, &self.log)?;
        let until = began + Duration::from_secs(if self.name == "litellm" { 120 } else { 15 });
        loop {
            let served = async { Client::connect(&self.target).await?.exchange("json", 500).await };
            match served.await {
                Ok(_) => return Ok(Some((running, began.elapsed().as_secs_f64() * 1e3))),
                Err(error) if Instant::now() > until || !running.is_running() => {
                    return Err(format!("{} does not serve ({error}); see {}", self.name, self.log.display()).into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

impl Environment<'_> {
    /// The direct connection, then all peers whose programs exist; with builds to compare, only those.
    pub async fn peers(&self, programs: Programs) -> Result<Vec<Peer>> {
        if !programs.builds.is_empty() {
            let mut builds = Vec::new();
            for (name, path) in programs.builds {
                builds.push(self.pixy(name, &path, self.api.http1, Login::Key).await?);
            }
            return Ok(builds);
        }
        let versions = self.versions(&programs, Login::Key).await?;
        let mut peers = vec![Peer {
            name: "direct",
            target: Target { address: self.api.http1, prefix: "/v1", key: REAL_KEY, tls: Some(self.connector.clone()) },
            program: None,
            log: self.directory.join("direct.log"),
        }];
        if let Some(path) = programs.nginx {
            peers.push(self.nginx(path)?);
        }
        if let Some(path) = programs.haproxy {
            peers.push(self.haproxy(path)?);
        }
        if let Some(path) = programs.envoy {
            peers.push(self.envoy(path)?);
        }
        peers.extend(versions);
        if let Some(path) = programs.litellm {
            peers.push(self.litellm(path)?);
        }
        Ok(peers)
    }

    /// Pixy and, where one is given, its earlier version, each over HTTP/1.1 and HTTP/2 to the API.
    async fn versions(&self, programs: &Programs, login: Login) -> Result<Vec<Peer>> {
        let versions = [("old", "old, h2", &programs.old), ("pixy", "pixy, h2", &programs.pixy)];
        let mut peers = Vec::new();
        for (http1, http2, path) in versions {
            let Some(path) = path else { continue };
            peers.push(self.pixy(http1, path, self.api.http1, login).await?);
            peers.push(self.pixy(http2, path, self.api.http2, login).await?);
        }
        Ok(peers)
    }

    /// As [`Self::versions`], with an account whose access token expires every few seconds.
    pub async fn refreshing(&self, programs: &Programs) -> Result<Vec<Peer>> {
        self.versions(programs, Login::Code).await
    }

    fn nginx(&self, path: PathBuf) -> Result<Peer> {
        let address = free()?;
        let (directory, api, ca) = (self.directory.display(), self.api.http1, self.ca.display());
        let text = format!(
            "daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;\n\
             worker_rlimit_nofile 20000; events {{ worker_connections 20000; }}\n\
             http {{\n  access_log {directory}/nginx.access.log; keepalive_requests 1000000; client_max_body_size 64m;\n\
             client_body_temp_path {directory}/n1; proxy_temp_path {directory}/n2; fastcgi_temp_path {directory}/n3;\n\
             uwsgi_temp_path {directory}/n4; scgi_temp_path {directory}/n5;\n\
             upstream api {{ server {api}; keepalive 64; keepalive_requests 1000000; }}\n\
             server {{ listen {address} backlog=1024; location / {{\n  proxy_pass https://api; proxy_http_version 1.1;\n\
             proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;\n\
             proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name localhost; proxy_ssl_server_name on;\n\
             proxy_set_header Connection ''; proxy_set_header Authorization 'Bearer {REAL_KEY}'; }}\n\
             location /v1/realtime {{\n  proxy_pass https://api; proxy_http_version 1.1;\n\
             proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name localhost; proxy_ssl_server_name on;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n\
             proxy_set_header Authorization 'Bearer {REAL_KEY}'; }} }} }}\n"
        );
        let file = self.write("nginx.conf", &text)?;
        Ok(self.peer("nginx", address, "/v1", path, ["-c", &file, "-p", &directory.to_string()]))
    }

    fn haproxy(&self, path: PathBuf) -> Result<Peer> {
        let address = free()?;
        let (api, ca) = (self.api.http1, self.ca.display());
        let text = format!(
            "global\n  maxconn 9000\n  nbthread 1\n  log stdout format raw local0\n\
             defaults\n  mode http\n  log global\n  option httplog\n  timeout connect 10s\n  timeout client 10m\n  timeout server 10m\n  \
             timeout tunnel 10m\n  http-reuse always\n  option http-no-delay\n\
             frontend agents\n  bind {address} backlog 1024\n  http-request set-header Authorization \"Bearer {REAL_KEY}\"\n  \
             default_backend api\n\
             backend api\n  server api {api} ssl verify required ca-file {ca} sni str(localhost) verifyhost localhost\n"
        );
        let file = self.write("haproxy.cfg", &text)?;
        Ok(self.peer("haproxy", address, "/v1", path, ["-db", "-f", &file]))
    }

    fn envoy(&self, path: PathBuf) -> Result<Peer> {
        let address = free()?;
        let (api, ca, directory) = (self.api.http1, self.ca.display(), self.directory.display());
        let limits = "{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }";
        let socket = |address: SocketAddr| {
            format!("{{ socket_address: {{ address: {}, port_value: {} }} }}", address.ip(), address.port())
        };
        let text = format!(
            "static_resources:\n  listeners:\n  - address: {listen}\n    tcp_backlog_size: 1024\n    filter_chains:\n    - filters:\n      \
             - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
             '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
             stat_prefix: agents\n          upgrade_configs: [{{ upgrade_type: websocket }}]\n          \
             access_log:\n          - name: file\n            typed_config: {{ '@type': \
             type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {directory}/envoy.access.log }}\n          \
             http_filters:\n          - name: envoy.filters.http.router\n            typed_config: {{ '@type': \
             type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}\n          \
             route_config:\n            virtual_hosts:\n            - name: all\n              domains: ['*']\n              \
             request_headers_to_add: [{{ header: {{ key: authorization, value: 'Bearer {REAL_KEY}' }}, append_action: \
             OVERWRITE_IF_EXISTS_OR_ADD }}]\n              \
             routes: [{{ match: {{ prefix: / }}, route: {{ cluster: api, timeout: 0s, idle_timeout: 0s }} }}]\n  \
             clusters:\n  - name: api\n    circuit_breakers: {{ thresholds: [{limits}] }}\n    \
             load_assignment: {{ cluster_name: api, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {upstream} }} }}] }}] }}\n    \
             transport_socket:\n      name: tls\n      typed_config:\n        \
             '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n        sni: localhost\n        \
             common_tls_context:\n          tls_params: {{ tls_maximum_protocol_version: TLSv1_3 }}\n          validation_context:\n            \
             trusted_ca: {{ filename: {ca} }}\n            \
             match_typed_subject_alt_names: [{{ san_type: DNS, matcher: {{ exact: localhost }} }}]\n",
            listen = socket(address),
            upstream = socket(api),
        );
        let file = self.write("envoy.yaml", &text)?;
        let arguments = ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "-l", "error"];
        Ok(self.peer("envoy", address, "/v1", path, arguments))
    }

    /// Pixy with an agent key and limits (`limits.memory` is [`MEMORY`]), and so with token counting: every guard is in force.
    async fn pixy(&self, name: &'static str, path: &Path, api: SocketAddr, login: Login) -> Result<Peer> {
        let (address, ops, ca, logins) = (free()?, free()?, self.ca.display(), self.api.logins);
        let (label, account) = match login {
            Login::Key => (
                name.replace(", ", "-"),
                format!(
                    "provider: openai-compatible\n    profile: {{ api: {{ base_url: https://{api}/v1, websocket: [/realtime] }} }}"
                ),
            ),
            Login::Code => (
                format!("{}-renewing", name.replace(", ", "-")),
                format!(
                    "provider: oauth\n    profile:\n      link: {{ authorize_url: https://{logins}/authorize, client_id: rig, \
                     scopes: [llm], redirect: {{ paste: {} }} }}\n      token: {{ url: https://{logins}/token }}\n      \
                     api: {{ base_url: https://{api}/v1, allow: [POST /chat/completions] }}",
                    self.redirect()
                ),
            ),
        };
        let home = self.directory.join(&label);
        std::fs::create_dir_all(&home)?;
        let key_file = home.join("agent-key");
        std::fs::write(&key_file, AGENT_KEY)?;
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600))?;
        let home = home.display();
        let text = format!(
            "agent:\n  listen: {address}\n  keys:\n    - name: bench\n      key_file: {home}/agent-key\n      accounts: [bench]\n      \
             limits: {{ concurrent: 100000, requests_per_minute: 4000000000, tokens_per_day: 1000000000000 }}\n\
             link: off\nops: {{ listen: {ops} }}\nstate_dir: {home}/state\nvault: {{ dir: {home}/vault, key_file: {home}/key }}\n\
             accounts:\n  bench:\n    {account}\nupstream: {{ extra_ca_file: {ca} }}\nlimits: {{ connections: 9000{memory} }}\n",
            memory = memory(path),
        );
        let file = self.write(&format!("{label}.yaml"), &text)?;
        let mut peer = self.peer(name, address, "/bench", path.to_owned(), ["--config", &file]);
        peer.log = self.directory.join(format!("{label}.log"));
        if let Some(program) = &mut peer.program {
            // A build for profiling (benches/train) writes its profile where Pixy may write.
            program.environment = vec![("LLVM_PROFILE_FILE", format!("{home}/state/%p.profraw"))];
        }
        self.link(path, &file, &peer.log, login).await?;
        Ok(peer)
    }

    /// Links the account by `pixy link`, with the real key or an authorization code.
    async fn link(&self, path: &Path, file: &str, log: &Path, login: Login) -> Result<()> {
        let mut pixy = Running::start(Command::new(path).args(["--config", file]), log)?;
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let mut command = Command::new(path);
            command.args(["--config", file, "link", "bench", "--yes", "--json"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut linking = command.spawn()?;
            let (mut input, mut output) = (linking.stdin.take(), linking.stdout.take().map(BufReader::new));
            let typed = match login {
                Login::Key => Some(REAL_KEY.to_owned()),
                Login::Code => {
                    let mut begun = String::new();
                    output.as_mut().map(|output| output.read_line(&mut begun)).transpose()?;
                    let asked = begun.split('"').find(|text| text.contains("code_challenge="));
                    asked.map(|asked| self.api.tokens.authorize(asked, &self.redirect())).transpose()?
                }
            };
            if let (Some(input), Some(typed)) = (&mut input, typed) {
                let _ = input.write_all(format!("{typed}\n").as_bytes()); // on failure the program reports the reason
            }
            drop(input);
            let ended = linking.wait_with_output()?;
            if ended.status.success() {
                return Ok(());
            }
            if Instant::now() > until || !pixy.is_running() {
                return Err(format!("pixy cannot be linked: {}", String::from_utf8_lossy(&ended.stderr)).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The redirect target of a login, which no browser opens.
    fn redirect(&self) -> String {
        format!("https://{}/pasted", self.api.logins)
    }

    fn litellm(&self, path: PathBuf) -> Result<Peer> {
        let address = free()?;
        let mut text = "model_list:\n".to_owned();
        for model in ["json", "upload", "open", "paced-*", "burst-*"] {
            write!(
                text,
                "  - model_name: '{model}'\n    litellm_params: {{ model: 'openai/{model}', api_base: 'https://localhost:{}/v1', \
                 api_key: '{REAL_KEY}' }}\n",
                self.api.http1.port()
            )?;
        }
        let file = self.write("litellm.yaml", &text)?;
        let port = address.port().to_string();
        let arguments = ["--config", &file, "--host", "127.0.0.1", "--port", &port, "--num_workers", "1"];
        let mut peer = self.peer("litellm", address, "/v1", path, arguments);
        if let Some(program) = &mut peer.program {
            let ca = self.ca.display().to_string();
            let yes = || "True".to_owned();
            program.environment = vec![
                ("SSL_CERT_FILE", ca),
                ("LITELLM_LOCAL_MODEL_COST_MAP", yes()),
                // Like nginx, HAProxy and Envoy, it checks no agent key.
                ("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", yes()),
            ];
        }
        Ok(peer)
    }

    fn peer<const N: usize>(
        &self,
        name: &'static str,
        address: SocketAddr,
        prefix: &'static str,
        path: PathBuf,
        arguments: [&str; N],
    ) -> Peer {
        let arguments = arguments.map(str::to_owned).to_vec();
        Peer {
            name,
            target: Target { address, prefix, key: AGENT_KEY, tls: None },
            program: Some(Program { path, arguments, environment: Vec::new() }),
            log: self.directory.join(format!("{}.log", name.replace(", ", "-"))),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.directory.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

/// A port that is free at the time of the call.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The rig opens thousands of connections; the default of `limits.memory` would not let them in. Programs before this setting refuse
/// the key.
fn memory(pixy: &Path) -> String {
    let schema = std::process::Command::new(pixy).arg("schema").output().map(|output| output.stdout).unwrap_or_default();
    let has_setting = String::from_utf8_lossy(&schema).contains("\"memory\"");
    if has_setting { format!(", memory: {MEMORY}") } else { String::new() }
}
