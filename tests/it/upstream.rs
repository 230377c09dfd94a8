//! Connections to providers and their streams, against servers that are at their limit, dead, shutting down or hostile.

mod attacks; // servers and networks that want more than they should get
mod request_mixup; // an answer and the one who asked for it
mod h2_frames; // HTTP/2 frames by hand, for servers that no library would be
mod timeouts; // how long a server keeps a connection
mod strict_responses; // responses that are malformed, ambiguous or cut
mod strict_http2; // the same over HTTP/2
mod relay; // a network that fails

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use pixy::upstream::{Body, Incoming, SendError, Tuning, Upstream as Client, UpstreamSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::relay::Relay;
use crate::support::{Authority, Chunks, Protocols, Reply, Scratch, Seen, Step, Upstream, within};

/// An HTTP client that trusts this authority.
fn client(authority: &Authority) -> Client {
    tuned(authority, &UpstreamSettings::default(), Tuning::default())
}

fn tuned(authority: &Authority, settings: &UpstreamSettings, tuning: Tuning) -> Client {
    let scratch = Scratch::new();
    let extra_ca_file = Some(scratch.write("ca.pem", authority.pem()));
    Client::tuned(&UpstreamSettings { extra_ca_file, ..settings.clone() }, tuning).unwrap()
}

fn get(url: impl AsRef<str>) -> Request<Body> {
    Request::get(url.as_ref()).body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap()
}

fn post(url: impl AsRef<str>, body: impl Into<Bytes>) -> Request<Body> {
    Request::post(url.as_ref()).body(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn next(body: &mut Incoming) -> Bytes {
    within(body.frame()).await.unwrap().unwrap().into_data().unwrap()
}

/// Streams whose first chunk is the requested path; they last until the vector is cleared.
fn long_streams() -> (Arc<Mutex<Vec<Chunks>>>, impl FnMut(&Seen) -> Reply + Send + 'static) {
    let open = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&open);
    let handler = move |seen: &Seen| {
        let (reply, chunks) = Reply::stream(200);
        chunks.send(seen.target.clone());
        kept.lock().unwrap().push(chunks);
        reply
    };
    (open, handler)
}

async fn three_hundred_streams(limit: u32, connections: usize) {
    let authority = Authority::new();
    let (open, handler) = long_streams();
    let upstream =
        Upstream::builder().tls(&authority, Protocols::Both).max_streams(limit).handler(handler).start().await;
    let client = client(&authority);
    let start = |number: usize| {
        let (client, path) = (client.clone(), format!("/{number}"));
        let request = get(format!("{}{path}", upstream.url()));
        async move {
            let mut body = within(client.send(request)).await.unwrap().into_body();
            assert_eq!(next(&mut body).await, path);
            body
        }
    };
    let bodies = future::join_all((0..300).map(start)).await;
    assert_eq!(upstream.connections(), connections);
    for connection in 0..connections {
        let streams = upstream.requests().iter().filter(|seen| seen.connection == connection).count();
        assert_eq!(streams, limit as usize, "on connection {connection}");
    }
    // A stream that ends frees capacity for the waiting request, without a new connection.
    let mut waiting = std::pin::pin!(start(300));
    let mut bodies = bodies.into_iter();
    drop(bodies.next());
    let last = within(&mut waiting).await;
    assert_eq!(upstream.connections(), connections);
    drop((last, bodies));
    open.lock().unwrap().clear();
}

#[tokio::test]
async fn streams_share_three_connections_of_a_hundred() {
    three_hundred_streams(100, 3).await;
}

#[tokio::test]
async fn streams_share_thirty_connections_of_ten() {
    three_hundred_streams(10, 30).await;
}

#[tokio::test]
async fn a_connection_carries_a_hundred_streams_at_most() {
    let authority = Authority::new();
    let (_open, handler) = long_streams();
    let upstream =
        Upstream::builder().tls(&authority, Protocols::Http2).max_streams(250).handler(handler).start().await;
    let client = client(&authority);
    let sent = (0..300).map(|number| client.send(get(format!("{}/{number}", upstream.url()))));
    let responses = within(future::join_all(sent)).await;
    assert!(responses.iter().all(Result::is_ok));
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn http1_connections_carry_one_request_and_are_reused() {
    let authority = Authority::new();
    let upstream = Upstream::builder().tls(&authority, Protocols::Http1).start().await;
    let client = client(&authority);
    for _ in 0..3 {
        let (replies, gates): (Vec<_>, Vec<_>) = (0..20).map(|_| Reply::new(200).body("fine").gated()).unzip();
        for reply in replies {
            upstream.answer(reply);
        }
        let before = upstream.requests().len();
        let sent = (0..20).map(|_| async { text(client.send(get(upstream.url() + "/")).await.unwrap()).await });
        let all_are_there = async {
            upstream.until_requests(before + 20).await;
            gates.into_iter().for_each(crate::support::Gate::open);
        };
        let (texts, ()) = within(future::join(future::join_all(sent), all_are_there)).await;
        assert!(texts.iter().all(|text| text == "fine"));
        assert_eq!(upstream.connections(), 20);
    }
}

#[tokio::test]
async fn a_dead_connection_is_dropped_and_replaced() {
    let authority = Authority::new();
    let (_open, handler) = long_streams();
    let upstream = Upstream::builder().tls(&authority, Protocols::Http2).handler(handler).start().await;
    let relay = Relay::to(upstream.address()).await;
    let (ping_interval, ping_timeout) = (Duration::from_millis(100), Duration::from_millis(300));
    let client =
        tuned(&authority, &UpstreamSettings::default(), Tuning { ping_interval, ping_timeout, ..Tuning::default() });
    let mut body = client.send(get(relay.url() + "/first")).await.unwrap().into_body();
    assert_eq!(next(&mut body).await, "/first");
    relay.freeze();
    assert!(within(body.frame()).await.unwrap().is_err(), "the stream on it does not hang");
    let mut body = within(client.send(get(relay.url() + "/second"))).await.unwrap().into_body();
    assert_eq!((next(&mut body).await, relay.connections()), (Bytes::from("/second"), 2));
}

#[tokio::test]
async fn goaway_lets_streams_end_and_opens_a_new_connection() {
    let authority = Authority::new();
    let upstream = Upstream::builder().tls(&authority, Protocols::Http2).start().await;
    let client = client(&authority);
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut body = client.send(get(upstream.url() + "/long")).await.unwrap().into_body();
    chunks.send("first");
    assert_eq!(next(&mut body).await, "first");
    upstream.go_away();
    // Every request gets a response, whether the GOAWAY has arrived or not.
    for round in 0.. {
        assert!(round < 1000, "the connection is still used");
        assert_eq!(text(client.send(get(upstream.url() + "/")).await.unwrap()).await, "upstream");
        if upstream.connections() == 2 {
            break;
        }
    }
    chunks.send("second");
    assert_eq!(next(&mut body).await, "second");
    chunks.finish();
    assert!(within(body.collect()).await.unwrap().to_bytes().is_empty(), "a clean end");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let authority = Authority::new();
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = Upstream::builder().tls(&authority, protocols).start().await;
        let relay = Relay::to(upstream.address()).await;
        let idle = Duration::from_millis(300);
        let client = tuned(&authority, &UpstreamSettings::default(), Tuning { idle, ..Tuning::default() });
        for connection in 1..=2 {
            for _ in 0..3 {
                assert_eq!(text(client.send(get(relay.url() + "/")).await.unwrap()).await, "upstream");
            }
            assert_eq!(relay.connections(), connection, "{protocols:?}");
            relay.until_closed(connection).await;
        }
        // A connection with an open stream is not idle, even without data.
        let (reply, chunks) = Reply::stream(200);
        upstream.answer(reply);
        let mut body = client.send(get(relay.url() + "/")).await.unwrap().into_body();
        tokio::time::sleep(idle * 3).await;
        chunks.send("still there");
        assert_eq!(next(&mut body).await, "still there", "{protocols:?}");
    }
}

#[tokio::test]
async fn a_disconnect_aborts_the_upstreams_stream_within_a_second() {
    let authority = Authority::new();
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = Upstream::builder().tls(&authority, protocols).start().await;
        let client = client(&authority);
        let (reply, _gate) = Reply::new(200).gated();
        upstream.answer(reply);
        let sent = tokio::spawn({
            let (client, request) = (client.clone(), get(upstream.url() + "/thinking"));
            async move { client.send(request).await.map(|_| ()) }
        });
        within(upstream.until_requests(1)).await;
        sent.abort();
        let soon = Duration::from_secs(1);
        tokio::time::timeout(soon, upstream.until_disconnects(1)).await.expect("while it thinks");

        let (reply, chunks) = Reply::stream(200);
        upstream.answer(reply);
        let mut body = client.send(get(upstream.url() + "/speaking")).await.unwrap().into_body();
        chunks.send("first");
        next(&mut body).await;
        drop(body);
        tokio::time::timeout(soon, chunks.closed()).await.expect("while it speaks");
        assert_eq!(text(client.send(get(upstream.url() + "/")).await.unwrap()).await, "upstream");
    }
}

/// An endless body, and how many bytes of it were read.
fn endless() -> (Request<Body>, Arc<AtomicUsize>) {
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pulled);
    let frames = stream::repeat(Bytes::from(vec![b'x'; 16 * 1024])).map(move |bytes| {
        count.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(Frame::data(bytes))
    });
    (Request::post("/").body(StreamBody::new(frames).boxed_unsync()).unwrap(), pulled)
}

#[tokio::test]
async fn an_upload_streams_with_backpressure() {
    let authority = Authority::new();
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = Upstream::builder().tls(&authority, protocols).start().await;
        let relay = Relay::to(upstream.address()).await;
        let client = client(&authority);
        let megabyte: Bytes = (0..1_048_576_u32).flat_map(u32::to_be_bytes).take(1_048_576).collect();
        assert_eq!(text(client.send(post(relay.url() + "/", megabyte.clone())).await.unwrap()).await, "upstream");
        assert!(upstream.requests()[0].body == megabyte, "{protocols:?}");

        relay.freeze();
        let (mut request, pulled) = endless();
        *request.uri_mut() = (relay.url() + "/").parse().unwrap();
        let sent = tokio::spawn(async move { client.send(request).await.map(|_| ()) });
        // Reading stops when all buffers are full.
        let rest = async {
            let mut before = usize::MAX;
            while before != pulled.load(Ordering::Relaxed) || before == 0 {
                before = pulled.load(Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            before
        };
        let pulled = within(rest).await;
        sent.abort();
        // HTTP/1.1 has no window: there the kernel's socket buffers, some megabytes, are filled.
        let limit = if matches!(protocols, Protocols::Http2) { 2 << 20 } else { 16 << 20 };
        assert!(pulled < limit, "{pulled} bytes over {protocols:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_sent_again_only_if_it_was_not_sent() {
    // Each response keeps the connection alive, and the server closes it.
    let bye = |_: &Seen| Reply::bytes("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let upstream = Upstream::answering(bye).await;
    let client = Client::new(&UpstreamSettings::default()).unwrap();
    let mut answered = 0;
    for number in 0..300 {
        let path = format!("/{number}");
        let sent = within(client.send(post(upstream.url() + &path, "once"))).await;
        // The server's close and the request may cross; then it is unknown whether the request was processed.
        let answer = match sent {
            Ok(response) => Some(text(response).await),
            Err(SendError::Broken(_)) => None,
            Err(other) => panic!("{other}"),
        };
        let times = upstream.requests().iter().filter(|seen| seen.target == path).count();
        assert!(times <= 1, "{path} arrived {times} times");
        if answer.is_some() {
            assert_eq!((answer.as_deref(), times), (Some("ok"), 1));
            answered += 1;
        }
    }
    assert!(answered > 150, "{answered} of 300");
}

#[tokio::test]
async fn a_request_without_a_response_is_not_sent_again() {
    let authority = Authority::new();
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = Upstream::builder().tls(&authority, protocols).start().await;
        let client = client(&authority);
        assert_eq!(text(client.send(get(upstream.url() + "/warm")).await.unwrap()).await, "upstream");
        upstream.answer(Reply::raw([Step::Reset]));
        let sent = within(client.send(post(upstream.url() + "/pay", "100"))).await;
        assert!(matches!(&sent, Err(error @ SendError::Broken(_)) if !error.nothing_was_sent()), "{protocols:?}");
        assert_eq!(text(client.send(get(upstream.url() + "/after")).await.unwrap()).await, "upstream");
        let paid = upstream.requests().iter().filter(|seen| seen.path() == "/pay").count();
        assert_eq!(paid, 1, "{protocols:?}");
    }
}

#[tokio::test]
async fn a_refused_connection_means_that_nothing_was_sent() {
    let gone = Upstream::start().await.url();
    let client = Client::new(&UpstreamSettings::default()).unwrap();
    // All waiters fail, and soon.
    let sent = (0..20).map(|_| client.send(get(gone.clone() + "/")));
    for sent in within(future::join_all(sent)).await {
        assert!(sent.is_err_and(|error| error.nothing_was_sent()));
    }
}

#[tokio::test]
async fn an_upgrade_has_its_own_http1_connection() {
    let authority = Authority::new();
    let upstream = Upstream::builder().tls(&authority, Protocols::Both).start().await;
    let client = client(&authority);
    assert_eq!(text(client.send(get(upstream.url() + "/")).await.unwrap()).await, "upstream");
    let ask = || {
        let mut request = get(upstream.url() + "/socket");
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        request
    };
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly ";
    upstream.answer(Reply::raw([Step::send(switch), Step::Echo]));
    let mut response = within(client.upgrade(ask())).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(within(hyper::upgrade::on(&mut response)).await.unwrap());
    drop(response);
    stream.write_all(b"and late").await.unwrap();
    stream.flush().await.unwrap();
    let mut read = vec![0; 14];
    within(stream.read_exact(&mut read)).await.unwrap();
    assert_eq!(read, b"early and late");

    upstream.answer(Reply::new(403).body("no"));
    let refused = within(client.upgrade(ask())).await.unwrap();
    assert_eq!((refused.status().as_u16(), text(refused).await), (403, "no".to_owned()));
    let seen = upstream.requests();
    let versions: Vec<_> = seen.iter().map(|seen| (seen.version.as_str(), seen.connection)).collect();
    assert_eq!(versions, [("HTTP/2.0", 0), ("HTTP/1.1", 1), ("HTTP/1.1", 2)]);
    assert_eq!(seen[1].header("upgrade"), ["websocket"]);
}
