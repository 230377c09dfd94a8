//! Coalescing: a burst of events takes few writes, and a lone event is not delayed.

use bytes::Bytes;
use serde_json::json;

use crate::support::{
    Authority, Pixy, Protocols, RawClient, Reply, Scratch, Step, TokenEndpoint, Upstream, oauth_account,
};

const EVENTS: usize = 2000;

/// The chunk sizes of a body. A chunk is one write at most: a writer of two chunks had both before it wrote.
fn chunk_sizes(mut body: &[u8]) -> Vec<usize> {
    let mut sizes = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a chunk has a size");
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        body = &body[end + 2..];
        if size == 0 {
            return sizes;
        }
        sizes.push(size);
        body = &body[size + 2..];
    }
}

fn event(number: usize) -> String {
    format!("data: {{\"index\":{number},\"delta\":\"{}\"}}\n\n", "x".repeat(150))
}

#[tokio::test]
async fn a_burst_of_events_takes_few_writes() {
    let authority = Authority::new();
    let endpoint = TokenEndpoint::start().await;
    for protocols in [None, Some(Protocols::Http1), Some(Protocols::Http2)] {
        let builder = Upstream::builder();
        let upstream = match protocols {
            None => builder.start().await,
            Some(protocols) => builder.tls(&authority, protocols).start().await,
        };
        let scratch = Scratch::new();
        let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
        let more = json!({ "upstream": { "extra_ca_file": scratch.write("ca.pem", authority.pem()) } });
        let pixy = Pixy::with(&accounts, &more).await;
        pixy.link(&endpoint).await;
        let expected: String = (0..EVENTS).map(event).collect();
        if let Some(Protocols::Http2) = protocols {
            let (reply, chunks) = Reply::stream(200);
            upstream.answer(reply);
            (0..EVENTS).for_each(|number| chunks.send(event(number)));
            chunks.finish();
        } else {
            let chunks = (0..EVENTS).map(event).map(|event| format!("{:x}\r\n{event}\r\n", event.len()));
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            let burst: String = std::iter::once(head).chain(chunks).chain(["0\r\n\r\n".to_owned()]).collect();
            upstream.answer(Reply::raw([Step::Send(Bytes::from(burst)), Step::Hang]));
        }
        let mut client = RawClient::connect(pixy.agents()).await;
        client.send("GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status, 200);
        let body = client.rest().await;
        let sizes = chunk_sizes(&body);
        assert_eq!(sizes.iter().sum::<usize>(), expected.len(), "complete");
        assert!(sizes.len() <= EVENTS / 16, "{} writes over {protocols:?}: {sizes:?}", sizes.len());
    }
}

#[tokio::test]
async fn a_lone_event_is_written_at_once() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send("GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n").await;
    client.head().await.unwrap();
    for number in 0..20 {
        chunks.send(event(number));
        let chunk = format!("{:X}\r\n{}\r\n", event(number).len(), event(number));
        // The next event is not sent yet.
        assert_eq!(client.bytes(chunk.len()).await, chunk.as_bytes());
    }
    chunks.finish();
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
}
