//! The API stand-in: it accepts the real key, or a valid access token; the requested model chooses the
//! response. It includes a token endpoint ([`crate::tokens`]).
//!
//! | model | response |
//! |---|---|
//! | `json` | a chat completion of 1 KiB |
//! | `paced-N` | N server-sent events, one every 5 ms |
//! | `burst-N` | N server-sent events at once |
//! | `open` | one event; the stream stays open until the client disconnects |
//!
//! Every event carries its send time ([`crate::now`]).

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Method, Request, Response, StatusCode, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_rustls::TlsAcceptor;

use crate::tokens::Tokens;
use crate::{Result, now, tls::Authority};

/// The key that the API accepts, by which the peers must replace the agent's key.
pub const REAL_KEY: &str = "sk-real-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ";

/// The addresses of the stand-in.
#[derive(Clone)]
pub struct Api {
    /// Speaks HTTP/1.1.
    pub http1: SocketAddr,
    /// Speaks HTTP/2.
    pub http2: SocketAddr,
    /// The address of the token endpoint. One connection per call: in production, calls are hours apart.
    pub logins: SocketAddr,
    /// The issued tokens.
    pub tokens: Arc<Tokens>,
}

/// Starts the stand-in on two threads, until the process exits.
pub fn start(authority: &Authority) -> Result<Api> {
    let bound = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = [bound()?, bound()?, bound()?];
    let [http1, http2, logins] = [listeners[0].local_addr()?, listeners[1].local_addr()?, listeners[2].local_addr()?];
    let tokens = Arc::<Tokens>::default();
    let api = Api { http1, http2, logins, tokens: Arc::clone(&tokens) };
    let [first, second, third] = listeners;
    let (http1, http2) = (authority.acceptor(b"http/1.1")?, authority.acceptor(b"h2")?);
    serve_on_thread(vec![(http1.clone(), first, true), (http2, second, true)], &tokens)?;
    // On a separate thread, because the token endpoint must not delay the API.
    serve_on_thread(vec![(http1, third, false)], &tokens)?;
    Ok(api)
}

/// Serves on a new thread until the process exits; `false` disables keep-alive.
fn serve_on_thread(servers: Vec<(TlsAcceptor, std::net::TcpListener, bool)>, tokens: &Arc<Tokens>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tokens = Arc::clone(tokens);
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let serving = servers
                .into_iter()
                .map(|(acceptor, listener, keep_alive)| serve(acceptor, listener, keep_alive, Arc::clone(&tokens)));
            for result in futures_util::future::join_all(serving).await {
                eprintln!("the API stand-in ended: {result:?}");
            }
        });
    });
    Ok(())
}

async fn serve(
    acceptor: TlsAcceptor,
    listener: std::net::TcpListener,
    keep_alive: bool,
    tokens: Arc<Tokens>,
) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true)?;
        let (acceptor, tokens) = (acceptor.clone(), Arc::clone(&tokens));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http2().max_concurrent_streams(100); // as real servers
            server.http1().keep_alive(keep_alive);
            let service = service_fn(move |request| {
                let tokens = Arc::clone(&tokens);
                async move { Ok::<_, Infallible>(answer(request, &tokens).await) }
            });
            let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await; // the client disconnected
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(mut request: Request<Incoming>, tokens: &Tokens) -> Response<Body> {
    if request.method() == Method::POST && request.uri().path() == "/token" {
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let (status, text) = tokens.grant(&body).await;
        return whole(StatusCode::from_u16(status).expect("it is valid"), text);
    }
    let mut keys = request.headers().get_all(AUTHORIZATION).iter();
    let key = keys.next().and_then(|key| key.to_str().ok()?.strip_prefix("Bearer ")).unwrap_or_default();
    if keys.next().is_some() || (key != REAL_KEY && !tokens.accepts(key)) {
        return whole(
            StatusCode::UNAUTHORIZED,
            "{\"error\":{\"message\":\"exactly one real key is required\"}}".into(),
        );
    }
    if request.headers().contains_key(UPGRADE) {
        return echo(&mut request);
    }
    let Ok(body) = request.into_body().collect().await.map(http_body_util::Collected::to_bytes) else {
        return whole(StatusCode::BAD_REQUEST, String::new());
    };
    let (model, count) = model(&body[..body.len().min(200)]);
    match model.as_str() {
        "json" => whole(StatusCode::OK, completion(600)),
        "upload" => whole(StatusCode::OK, completion(10)),
        "burst" => events(stream::iter(0..count).map(|_| event()).boxed()),
        "open" => events(stream::iter(0..1).map(|_| event()).chain(stream::pending()).boxed()),
        "paced" => {
            let every = Duration::from_millis(5);
            let mut ticks = interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let paced = stream::unfold((ticks, count), |(mut ticks, left)| async move {
                let left = left.checked_sub(1)?;
                ticks.tick().await;
                Some((event(), (ticks, left)))
            });
            events(paced.boxed())
        }
        _ => whole(StatusCode::NOT_FOUND, "{\"error\":{\"message\":\"there is no such model\"}}".into()),
    }
}

/// `"model":"paced-400"` is `paced`, 400.
fn model(body: &[u8]) -> (String, usize) {
    let text = String::from_utf8_lossy(body);
    let after = text.split("\"model\"").nth(1).unwrap_or_default();
    let name = after.split('"').nth(1).unwrap_or_default();
    let (name, count) = name.split_once('-').unwrap_or((name, "1"));
    (name.to_owned(), count.parse().unwrap_or(1))
}

fn whole(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("it is valid"));
    response
}

fn completion(length: usize) -> String {
    format!(
        "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1795000000,\"model\":\"json\",\"choices\":[{{\"index\":0,\
         \"message\":{{\"role\":\"assistant\",\"content\":\"{}\",\"refusal\":null}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\
         \"usage\":{{\"prompt_tokens\":120,\"completion_tokens\":80,\"total_tokens\":200,\"prompt_tokens_details\":{{\
         \"cached_tokens\":0}},\"completion_tokens_details\":{{\"reasoning_tokens\":0}}}},\"system_fingerprint\":\"fp_1\"}}",
        "words ".repeat(length / 6)
    )
}

/// One event of a typical size, with its send time.
fn event() -> Bytes {
    Bytes::from(format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,\"model\":\"paced\",\
         \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"sent={} \"}},\"finish_reason\":null}}]}}\n\n",
        now()
    ))
}

fn events(events: stream::BoxStream<'static, Bytes>) -> Response<Body> {
    let body = StreamBody::new(events.map(|event| Ok(Frame::data(event))));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().expect("it is valid"));
    response
}

/// A WebSocket (RFC 6455) that echoes messages of up to 125 bytes.
fn echo(request: &mut Request<Incoming>) -> Response<Body> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().to_vec()).unwrap_or_default();
    let salted = [&key[..], b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &salted);
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgraded.await?);
        let mut frame = [0; 6 + 125];
        while stream.read_exact(&mut frame[..6]).await.is_ok() {
            let length = usize::from(frame[1] & 0x7f).min(125);
            stream.read_exact(&mut frame[6..6 + length]).await?;
            let mask = [frame[2], frame[3], frame[4], frame[5]];
            let unmasked: Vec<u8> =
                frame[6..6 + length].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            stream.write_all(&[&[frame[0], frame[1] & 0x7f], &unmasked[..]].concat()).await?;
            stream.flush().await?;
        }
        Result::Ok(())
    });
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [(CONNECTION, "upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_ACCEPT, &accept)] {
        response.headers_mut().insert(name, value.parse().expect("it is valid"));
    }
    response
}
