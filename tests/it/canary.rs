//! Every token of the fakes is a canary: none is found where an agent or a log reader could read it.

use http::Method;
use serde_json::Value;

use crate::support::{Pixy, RawClient, Reply, TokenEndpoint, Upstream};

#[tokio::test]
async fn attack_11_and_47_no_canary_is_found_outside_the_vault() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await;
    endpoint.until_requests(2).await;
    let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
    for path in ["/metrics", "/readyz", "/livez", "/x"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = RawClient::once(pixy.ops(), request).await.unwrap();
        seen.push((path.to_owned(), format!("{response:?}").into_bytes()));
    }
    upstream.answer(Reply::new(500).body("broken"));
    for path in ["/a/v1/models", "/a/v1/x", "/b", "/a/v1/models"] {
        seen.push((path.to_owned(), format!("{:?}", pixy.get(path).await).into_bytes()));
    }
    seen.push(("status".to_owned(), pixy.shown("a").await.to_string().into_bytes()));
    let page = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", pixy.page().port());
    seen.push(("page".to_owned(), RawClient::once(pixy.page(), page).await.unwrap().body));
    let files = pixy.scratch.files();
    assert!(files.iter().any(|file| file.ends_with("a.record")), "{files:?}");
    for file in files {
        seen.push((file.display().to_string(), std::fs::read(&file).unwrap_or_default()));
    }
    let marked = |bytes: &[u8]| bytes.windows(7).any(|window| window == b"marked-");
    assert!(marked(upstream.requests()[0].header("authorization")[0].as_bytes()), "the tokens have the mark");
    for (place, bytes) in seen {
        assert!(!marked(&bytes), "{place} holds a token");
    }
}
