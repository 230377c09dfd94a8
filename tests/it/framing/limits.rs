//! Requests that are too large, too slow or too many.
#![allow(clippy::print_stdout, reason = "says which test was skipped")]

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{complete, limited, linked};
use crate::support::{Pixy, Program, RawClient, Reply, Step, TokenEndpoint, Upstream, within};

const POST: &str = "POST /a/v1/messages HTTP/1.1\r\nHost: a\r\n";

#[tokio::test]
async fn attack_41_a_too_large_head_gets_414_or_431() {
    let (pixy, _endpoint, upstream) = linked().await;
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let long = "x".repeat(9000);
    let cases = [
        ("a long path", get(&format!("/a/v1/{long}"), ""), 414, "uri_too_long"),
        ("a long query", get(&format!("/a/v1/models?{long}"), ""), 414, "uri_too_long"),
        ("a request line without end", "GET /".to_owned() + &"x".repeat(1 << 20), 414, "uri_too_long"),
        (
            "a field without end",
            get("/", "").trim_end().to_owned() + "\r\nx: " + &"x".repeat(1 << 20),
            431,
            "header_too_large",
        ),
        ("a large field", get("/", &format!("x: {}\r\n", "x".repeat(70_000))), 431, "header_too_large"),
        ("101 fields", get("/", &"x: y\r\n".repeat(100)), 431, "header_too_large"),
        ("100,000 fields", get("/", &"x: y\r\n".repeat(100_000)), 431, "header_too_large"),
    ];
    for (name, bytes, status, code) in cases {
        let mut client = RawClient::connect(pixy.agents()).await;
        client.send(bytes).await;
        let response = client.response().await.unwrap_or_else(|| panic!("no answer to {name}"));
        assert_eq!((response.status, response.header("x-pixy-error")), (status, vec![code]), "{name}");
        assert!(response.closed, "{name}");
    }
    assert!(upstream.requests().is_empty());
    let most = "x: y\r\n".repeat(98) + "Connection: close\r\n";
    assert_eq!(pixy.send(&get("/a/v1/models", &most)).await.status, 200);
    let target = format!("/a/v1/models?{}", "x".repeat(8192 - "/a/v1/models?".len()));
    assert_eq!(pixy.send(&get(&target, "Connection: close\r\n")).await.status, 200);
    let large = format!("x: {}\r\nConnection: close\r\n", "x".repeat(65_000));
    assert_eq!(pixy.send(&get("/a/v1/models", &large)).await.status, 200);
}

#[tokio::test]
async fn attack_41_too_large_trailers_end_the_connection() {
    let (pixy, _endpoint, upstream) = linked().await;
    for trailers in ["x: y\r\n".repeat(101), format!("x: {}\r\n", "x".repeat(70_000))] {
        let mut client = RawClient::connect(pixy.agents()).await;
        client.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n")).await;
        assert_ne!(client.response().await.map(|response| response.status), Some(200));
        client.rest().await;
    }
    assert_eq!(complete(&upstream.requests()), []);
}

#[tokio::test]
async fn configured_limits_are_applied() {
    let limits = json!({ "header_bytes": 1024, "header_fields": 10, "uri_bytes": 64 });
    let (pixy, _endpoint, _upstream) = limited(&limits).await;
    for (fields, status) in
        [("x: y\r\n".repeat(8), 200), ("x: y\r\n".repeat(10), 431), (format!("x: {}\r\n", "x".repeat(1000)), 431)]
    {
        let request = format!("GET /a/v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
        assert_eq!(pixy.send(&request).await.status, status, "{}", fields.len());
    }
    assert_eq!(pixy.get(&format!("/a/v1/models?{}", "x".repeat(64))).await.status, 414);
    let more = limited(&json!({ "header_fields": 300 })).await;
    let request =
        format!("GET /a/v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", "x: y\r\n".repeat(298));
    assert_eq!(more.0.send(&request).await.status, 200, "also above hyper's own default");
}

/// The time until the server closes the connection.
async fn until_closed(client: &mut RawClient) -> Duration {
    let start = Instant::now();
    client.rest().await;
    start.elapsed()
}

#[tokio::test]
async fn attack_40_a_slow_head_times_out_and_delays_no_other_client() {
    let (pixy, _endpoint, upstream) = limited(&json!({ "header_time": "400ms", "idle_time": "1m" })).await;
    for beginning in ["", "G", "GET /a/v1/models HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = RawClient::connect(pixy.agents()).await;
        let start = Instant::now();
        let mut dripped = 0;
        client.send(beginning).await;
        // A byte now and then does not extend the time.
        let drip = b"x-field: 0123456789";
        while dripped < drip.len() && tokio::time::timeout(Duration::from_millis(50), client.rest()).await.is_err() {
            if beginning.ends_with("a\r\n") {
                client.send(&drip[dripped..=dripped]).await;
            }
            dripped += 1;
        }
        let taken = start.elapsed();
        assert!((300..2000).contains(&taken.as_millis()), "{beginning:?}: {taken:?}");
        assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    }
    // Also for the second request of a connection.
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send("GET /a/v1/models HTTP/1.1\r\nHost: a\r\n\r\nGET /a").await;
    assert_eq!(client.response().await.unwrap().status, 200);
    assert!(until_closed(&mut client).await < Duration::from_secs(2));
    assert_eq!(upstream.requests().len(), 4);
}

#[tokio::test]
async fn attack_40_a_stalled_body_times_out() {
    let (pixy, _endpoint, upstream) = limited(&json!({ "idle_time": "400ms" })).await;
    for framing in ["Content-Length: 100\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"] {
        let mut client = RawClient::connect(pixy.agents()).await;
        client.send(format!("{POST}{framing}")).await;
        let taken = until_closed(&mut client).await;
        assert!((300..3000).contains(&taken.as_millis()), "{framing:?}: {taken:?}");
    }
    within(upstream.until_disconnects(2)).await;
    assert_eq!(complete(&upstream.requests()), []);
}

#[tokio::test]
async fn attack_40_a_client_that_stops_reading_times_out() {
    let (pixy, _endpoint, upstream) = limited(&json!({ "idle_time": "400ms" })).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
    upstream.answer(Reply::raw([Step::send(head), Step::Flood(vec![b'x'; 1 << 16].into(), 1_000_000_000)]));
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send("GET /a/v1/models HTTP/1.1\r\nHost: a\r\n\r\n").await;
    within(upstream.until_disconnected()).await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    drop(client);
}

#[tokio::test]
async fn a_silent_response_outlives_the_idle_timeout() {
    let (pixy, _endpoint, upstream) = limited(&json!({ "idle_time": "300ms", "header_time": "200ms" })).await;
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send("GET /a/v1/models HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await.unwrap();
    // Three times the idle timeout of a client.
    tokio::time::sleep(Duration::from_secs(1)).await;
    chunks.send("late\n"); // a word at the end of a piece waits for the next one
    assert_eq!(client.bytes(10).await, b"5\r\nlate\n\r\n");
    chunks.finish();
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
    let taken = until_closed(&mut client).await;
    assert!((200..2000).contains(&taken.as_millis()), "{taken:?}");
}

#[tokio::test]
async fn attack_43_a_refresh_is_stored_when_descriptors_run_out() {
    if std::process::Command::new("prlimit").arg("--version").output().is_err() {
        println!("skipped: prlimit (util-linux) is missing");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
        return;
    }
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let (scratch, config) = Pixy::linked(&endpoint, &upstream).await.dismantle().await;
    let program = Program::start_by(&["prlimit", "--nofile=256:256"], &scratch, &config).await;
    assert_eq!(program.get("/a/v1/models").await.status, 200);
    // Connections that Pixy does not accept wait in the kernel's accept queue, or for room in it.
    let mut clients = JoinSet::new();
    for number in 0..1000 {
        let agents = program.agents();
        clients.spawn(async move {
            let mut client = RawClient::connect(agents).await;
            // Half of them send nothing; the others begin a request.
            if number % 2 == 0 {
                client.send(format!("{POST}Content-Length: 5\r\n\r\n")).await;
            }
            std::future::pending::<()>().await;
        });
    }
    let open = || std::fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap().count();
    let used_up = async {
        while open() < 96 + 30 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(used_up).await;
    let record = || {
        let files = scratch.files().into_iter().filter(|file| file.starts_with(scratch.path("vault")));
        files.map(|file| std::fs::read(file).unwrap_or_default()).collect::<Vec<_>>()
    };
    let (before, refreshes) = (record(), endpoint.refreshes());
    within(program.api(Method::POST, "/api/accounts/a/refresh")).await.expect("the control socket answers");
    let stored = async {
        while endpoint.refreshes() == refreshes || program.shown().await["state"] != "linked" || record() == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(stored).await;
    assert_eq!(program.shown().await["error"], Value::Null);
    assert!(open() <= 256 - 16, "{} descriptors are in use", open());
    clients.shutdown().await;
    assert_eq!(within(program.get("/a/v1/models")).await.status, 200, "other clients are served afterwards");
}
