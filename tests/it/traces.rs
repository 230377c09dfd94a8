//! W3C Trace Context: an agent's `traceparent` and `tracestate` are forwarded unchanged.

use crate::support::{Pixy, TokenEndpoint, Upstream, within};

#[tokio::test]
async fn trace_context_is_forwarded_unchanged() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    for (parent, state) in [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "a=b"),
        ("not valid", "at all"), // not validated
    ] {
        let request = format!(
            "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\ntraceparent: {parent}\r\nTraceState: {state}\r\n\
             baggage: k=v\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(within(pixy.send(&request)).await.status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(
            (seen.header("traceparent"), seen.header("tracestate"), seen.header("baggage")),
            (vec![parent], vec![state], vec!["k=v"])
        );
    }
}
