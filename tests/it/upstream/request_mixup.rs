//! A response must never reach another request, whenever clients disconnect.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use http_body_util::{BodyExt as _, StreamBody};
use pixy::upstream::{Body, Upstream as Client, UpstreamSettings};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

use super::h2_frames::{self, ByHand};
use super::{client, get, next, text};
use crate::support::{Authority, Protocols, Reply, Seen, Step, Upstream, within};

/// Pseudorandom numbers with a fixed seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn said(id: &str) -> String {
    let times = id.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % 300;
    format!("{id}\n").repeat(usize::try_from(times).unwrap() + 1)
}

/// Responds with the request's id many times over, and sometimes with a fault.
fn moody(protocols: Protocols) -> impl FnMut(&Seen) -> Reply + Send + 'static {
    let mut dice = Dice(38);
    move |seen| {
        let id = seen.path().trim_start_matches('/').to_owned();
        let body = said(&id);
        let http1 = matches!(protocols, Protocols::Http1);
        let whole = || format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        match dice.roll(40) {
            0 if http1 => Reply::bytes(whole()[..40].to_owned()),
            1 if http1 => Reply::bytes(whole() + "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
            2 if http1 => Reply::bytes(whole()),
            3 => Reply::raw([Step::Reset]),
            4 => {
                let (reply, chunks) = Reply::stream(200);
                chunks.send(body[..body.len() / 2].to_owned());
                reply // cut in the middle
            }
            5..=12 => {
                let (reply, chunks) = Reply::stream(200);
                body.as_bytes().chunks(500).for_each(|piece| chunks.send(piece.to_vec()));
                chunks.finish();
                reply
            }
            _ => Reply::new(200).body(body),
        }
    }
}

/// One request; disconnects at some point, or reads to the end. Returns whether it did the latter.
async fn ask(client: Client, url: String, number: u64) -> bool {
    let id = format!("id-{number}");
    let mut dice = Dice(number);
    dice.roll(2);
    let request = get(format!("{url}/{id}"));
    let timeout = if dice.roll(8) == 0 { Duration::from_micros(dice.roll(800)) } else { Duration::from_secs(20) };
    let Ok(sent) = tokio::time::timeout(timeout, client.send(request)).await else { return false };
    let Ok(response) = sent else { return false };
    let mut body = response.into_body();
    let (mut read, expected) = (Vec::new(), said(&id));
    let hang_up_after = if dice.roll(6) == 0 { dice.roll(2_000) } else { u64::MAX };
    loop {
        if read.len() as u64 >= hang_up_after {
            return false;
        }
        match within(body.frame()).await {
            Some(Ok(frame)) => read.extend(frame.into_data().unwrap_or_default()),
            Some(Err(_)) => break,
            None => {
                assert_eq!(String::from_utf8(read).unwrap(), expected, "mixed up");
                return true;
            }
        }
    }
    assert!(expected.as_bytes().starts_with(&read), "mixed up: {}", String::from_utf8_lossy(&read));
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_38_responses_are_never_mixed_up() {
    let authority = Authority::new();
    let plain = Upstream::answering(moody(Protocols::Http1)).await;
    let secure = Upstream::builder().tls(&authority, Protocols::Http2).handler(moody(Protocols::Http2)).start().await;
    let client = client(&authority);
    let begun = std::time::Instant::now();
    let mut asked = 0;
    let mut numbers = 0..10_000_u64;
    let whole: usize = stream::iter(std::iter::from_fn(|| {
        // A slow machine sends fewer; a fast one sends all of them in a few seconds.
        let number = numbers.next().filter(|_| begun.elapsed() < Duration::from_secs(20))?;
        asked += 1;
        let url = if number % 2 == 0 { plain.url() } else { secure.url() };
        Some(tokio::spawn(ask(client.clone(), url, number)))
    }))
    .buffer_unordered(48)
    .map(|answered| usize::from(answered.expect("none has crossed")))
    .fold(0, |sum, one| future::ready(sum + one))
    .await;
    assert!(asked >= 2_000 && whole > asked / 2, "{whole} of {asked} in {:?}", begun.elapsed());
    let (plain, secure) = (plain.connections(), secure.connections());
    assert!(plain < asked / 4 && secure < 50, "connections are reused: {plain} and {secure} were opened");
}

#[tokio::test]
async fn attack_38_an_early_response_frees_no_connection() {
    // A connection whose request is still being written cannot carry the next.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (upload, request) = upload(&url);
    let client = Client::new(&UpstreamSettings::default()).unwrap();
    upload.send("begun".into()).unwrap();
    let serving = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut first, _) = listener.accept().await.unwrap();
        let mut read = vec![0; 4096];
        let _ = first.read(&mut read).await.unwrap();
        first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        let _ = second.read(&mut read).await.unwrap();
        second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext").await.unwrap();
        (first, second)
    };
    let asking = async {
        let mut response = client.send(request).await.unwrap();
        assert_eq!(next(response.body_mut()).await, "early");
        assert!(within(response.body_mut().frame()).await.is_none());
        assert_eq!(text(client.send(get(&url)).await.unwrap()).await, "next");
    };
    within(future::join(serving, asking)).await;
    drop(upload);
}

#[tokio::test]
async fn a_stream_counts_until_its_request_has_ended() {
    // Otherwise h2 would queue the next request behind it.
    let authority = Authority::new();
    let (server, client) = (ByHand::start(&authority).await, client(&authority));
    let (upload, request) = upload(&server.url());
    upload.send("begun".into()).unwrap();
    let ends = h2_frames::END_HEADERS | h2_frames::END_STREAM;
    let serving = async {
        let mut first = server.accept().await;
        first.write(h2_frames::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]).await;
        let stream = first.request().await.unwrap();
        first.write(h2_frames::HEADERS, ends, stream, h2_frames::OK).await;
        let mut second = server.accept().await;
        second.write(h2_frames::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]).await;
        let stream = second.request().await.unwrap();
        second.write(h2_frames::HEADERS, ends, stream, h2_frames::OK).await;
        (first, second)
    };
    let asking = async {
        let early = within(client.send(request)).await.unwrap();
        assert_eq!(text(early).await, "");
        assert_eq!(within(client.send(get(server.url()))).await.unwrap().status(), 200);
    };
    Box::pin(within(future::join(serving, asking))).await;
    drop(upload);
}

/// A request whose body the test writes.
fn upload(url: &str) -> (UnboundedSender<Bytes>, http::Request<Body>) {
    let (sender, body) = tokio::sync::mpsc::unbounded_channel();
    let frames =
        stream::unfold(body, |mut body| async { Some((Ok(hyper::body::Frame::data(body.recv().await?)), body)) });
    (sender, http::Request::post(url).body(StreamBody::new(frames).boxed_unsync()).unwrap())
}
