//! A fake provider for trying Pixy: everything that Pixy needs from one, on loopback and without an account.
//!
//! It starts two small servers on loopback:
//! - an **authorization server** that asks for consent on a page and shows a code to paste: authorization code + PKCE (S256
//!   only), access tokens of one minute, rotating refresh tokens, of which a reuse revokes the whole grant;
//! - an **LLM API** that requires one of those access tokens and streams a fixed sentence, word by word, in the dialects of
//!   the Anthropic SDK (`/v1/messages`) and of the OpenAI SDK (`/v1/chat/completions`, `/v1/responses`).
//!
//! # Try it
//! ```text
//! cargo run --example playground            # terminal 1: this program; writes a configuration and prints its path
//! cargo run -- --config …/pixy.yaml         # terminal 2: Pixy on that configuration (the line is printed, copy it)
//! cargo run -- --config …/pixy.yaml link play      # terminal 3: open the printed address, paste the code
//! curl -N http://127.0.0.1:8700/play/v1/messages -d '{"stream":true, …}'   # an agent without any credential
//! ```
//! Then kill Pixy with `kill -9` and start it again: it is still linked. Its configuration, vault and key live in
//! `target/playground`. The playground itself keeps grants in memory: after restarting *it*, link again.
//!
//! # Reading order
//! `main` starts both servers and prints instructions; `grants` has the authorization server's state and rules;
//! `authorization` and `pages` serve it over HTTP; `api` and `dialects` are the fake model; `setup` writes the
//! configuration.
#![allow(clippy::print_stdout, reason = "an example that prints what happens")]

mod api;
mod authorization;
mod dialects;
mod grants;
mod pages;
mod setup;
mod web;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;

use crate::grants::Grants;

/// A fake provider for trying Pixy: an authorization server and an LLM API on loopback.
#[derive(Parser)]
#[command(name = "playground")]
struct Options {
    /// Port of the authorization server; the LLM API takes the next one. 0 lets the system choose both.
    #[arg(long, default_value_t = 8790)]
    port_base: u16,
    /// Pixy's agent port in the written configuration; the link page and ops take the next two. 0 lets the system choose.
    #[arg(long, default_value_t = 8700)]
    pixy_port_base: u16,
    /// The lifetime of an access token.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    token_seconds: u64,
    /// The directory for the configuration and for Pixy's vault and key.
    #[arg(long, default_value = "target/playground")]
    directory: PathBuf,
    /// Gives consent without a form, for scripts.
    #[arg(long)]
    yes: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!(
                "The playground cannot start: {error}.\nAnother one may be running; `--port-base 0` picks free ports."
            );
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> io::Result<()> {
    let authorization = listen(options.port_base).await?;
    let api = listen(if options.port_base == 0 { 0 } else { options.port_base.saturating_add(1) }).await?;
    let setup = setup::Setup {
        authorization: format!("http://{}", authorization.local_addr()?),
        api: format!("http://{}", api.local_addr()?),
        pixy_port_base: options.pixy_port_base,
        token_seconds: options.token_seconds,
    };
    let configuration = setup.write(&options.directory)?;
    println!("{}", setup.instructions(&configuration));

    let grants = Arc::new(Mutex::new(Grants::new(Duration::from_secs(options.token_seconds))));
    let server =
        authorization::Server { origin: setup.authorization, grants: Arc::clone(&grants), consents: options.yes };
    tokio::select! {
        () = web::serve(authorization, server) => {}
        () = web::serve(api, api::Server { grants }) => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(())
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}
