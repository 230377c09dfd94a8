//! Loopback redirects: to the link port, to a fixed callback port, and to a port that Pixy cannot open.
#![allow(clippy::print_stdout, reason = "what was skipped goes to the log")]

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use url::Url;

use super::problem;
use crate::support::{Pixy, RawClient, RawResponse, TokenEndpoint, Upstream, oauth_account};

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn with_callback_ports(endpoint: &TokenEndpoint, upstream: &Upstream, host: &str, ports: &Value) -> Value {
    let mut account = oauth_account(endpoint, upstream);
    account["profile"]["link"]["redirect"] =
        json!({ "paste": null, "loopback": { "host": host, "ports": ports, "path": "/auth/callback" } });
    account
}

async fn open(address: &Url) -> RawResponse {
    let port = address.port().unwrap();
    let target = format!("{}?{}", address.path(), address.query().unwrap_or_default());
    let host = address.host_str().unwrap();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nSec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n"
    );
    RawClient::once(SocketAddr::from(([127, 0, 0, 1], port)), request).await.unwrap()
}

async fn until_closed(port: u16) {
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("port {port} stays open");
}

fn redirect_of(begun: &Value) -> Url {
    let url = Url::parse(begun["authorize_url"].as_str().unwrap()).unwrap();
    let given = url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    Url::parse(&given).unwrap()
}

#[tokio::test]
async fn a_fixed_callback_port_is_open_only_during_the_attempt() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let [first, second] = free_ports();
    let account = with_callback_ports(&endpoint, &upstream, "127.0.0.1", &json!([first, second]));
    let pixy = Pixy::start(&json!({ "a": account })).await;
    assert!(TcpStream::connect(("127.0.0.1", first)).await.is_err(), "nothing is open before");
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!((&begun["redirect"], &begun["notice"]), (&json!("loopback"), &Value::Null));
    assert_eq!(redirect_of(&begun).as_str(), format!("http://127.0.0.1:{first}/auth/callback"));
    assert!(TcpStream::connect(("127.0.0.1", second)).await.is_err(), "one port is enough");

    // Nothing else is served there.
    for path in ["/", "/api/accounts", "/api/session", "/auth/callback/x", "/assets/page.js?x"] {
        let served = open(&Url::parse(&format!("http://127.0.0.1:{first}{path}")).unwrap()).await;
        assert!(matches!(served.status, 403 | 404), "{path}: {}", served.status);
    }
    let rebound =
        format!("GET /auth/callback?code=a HTTP/1.1\r\nHost: evil.example:{first}\r\nConnection: close\r\n\r\n");
    assert_eq!(RawClient::once(SocketAddr::from(([127, 0, 0, 1], first)), rebound).await.unwrap().status, 421);

    let consent = endpoint.consent(begun["authorize_url"].as_str().unwrap());
    let shown = open(&Url::parse(&consent.redirected_to).unwrap()).await;
    assert_eq!(shown.status, 200);
    assert!(!shown.text().contains(&consent.code) && shown.text().contains("close this tab"), "{}", shown.text());
    assert!(shown.header("content-security-policy")[0].contains("default-src 'none'"));
    assert_eq!(shown.header("referrer-policy"), ["no-referrer"]);
    let attempt = pixy.shown("a").await["attempt"].clone();
    assert_eq!((&attempt["stage"], &attempt["redirect"]), (&json!("to_confirm"), &json!("loopback")));
    pixy.post(&format!("/api/attempts/{}/confirm", attempt["attempt"].as_str().unwrap()), Value::Null).await;
    until_closed(first).await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
}

#[tokio::test]
async fn attempts_share_a_callback_port_by_their_state() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let [port] = free_ports();
    let account = with_callback_ports(&endpoint, &upstream, "localhost", &json!([port]));
    let pixy = Pixy::start(&json!({ "a": account.clone(), "b": account })).await;
    let a = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let b = pixy.post("/api/accounts/b/attempts", Value::Null).await;
    assert_eq!((redirect_of(&a), &b["redirect"]), (redirect_of(&b), &json!("loopback")));
    let again = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!(again["redirect"], "loopback", "a second attempt finds its port open");
    let (stale, of_b) = (
        endpoint.consent(a["authorize_url"].as_str().unwrap()),
        endpoint.consent(b["authorize_url"].as_str().unwrap()),
    );
    let rejected = open(&Url::parse(&stale.redirected_to).unwrap()).await;
    assert!(rejected.text().contains("belongs to no open attempt"), "{}", rejected.text());
    assert!(open(&Url::parse(&of_b.redirected_to).unwrap()).await.text().contains("close this tab"));
    assert_eq!(pixy.shown("b").await["attempt"]["stage"], "to_confirm");
    assert_eq!(pixy.shown("a").await["attempt"]["stage"], "waiting");
    for account in ["a", "b"] {
        let id = pixy.shown(account).await["attempt"]["attempt"].as_str().unwrap().to_owned();
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok(), "open while one needs it");
        pixy.api(Method::DELETE, &format!("/api/attempts/{id}"), Value::Null).await;
    }
    until_closed(port).await;
    let reopened = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!(reopened["redirect"], "loopback", "the port opens again");
}

#[tokio::test]
async fn attack_04_a_callback_port_in_use_falls_back_to_pasting() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let [free] = free_ports();
    let fallback = with_callback_ports(&endpoint, &upstream, "127.0.0.1", &json!([taken, free]));
    let none = with_callback_ports(&endpoint, &upstream, "127.0.0.1", &json!([taken]));
    let pixy = Pixy::start(&json!({ "a": fallback, "b": none })).await;
    let second = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!((redirect_of(&second).port(), &second["redirect"]), (Some(free), &json!("loopback")));

    let begun = pixy.post("/api/accounts/b/attempts", Value::Null).await;
    assert_eq!((redirect_of(&begun).port(), &begun["redirect"]), (Some(taken), &json!("paste")));
    let notice = begun["notice"].as_str().unwrap();
    assert!(notice.contains(&format!("Port {taken}")) && notice.contains("paste it here"), "{notice}");
    assert_eq!(pixy.shown("b").await["attempt"]["notice"], begun["notice"]);
    holder.set_nonblocking(true).unwrap();
    assert!(holder.accept().is_err(), "Pixy did not connect to it either");
    let consent = endpoint.consent(begun["authorize_url"].as_str().unwrap());
    let id = begun["attempt"].as_str().unwrap();
    pixy.post(&format!("/api/attempts/{id}/paste"), json!({ "text": consent.redirected_to })).await;
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
    assert_eq!(pixy.get("/b/v1/models").await.status, 200);
}

#[tokio::test]
async fn attack_90_a_fixed_port_that_is_half_held_is_pasted_with_a_notice() {
    // A browser may take `localhost` for ::1 first.
    let Some(squatter) = squatter("[::1]:0") else { return };
    let port = squatter.local_addr().unwrap().port();
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy =
        Pixy::start(&json!({ "a": with_callback_ports(&endpoint, &upstream, "localhost", &json!([port])) })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!(begun["redirect"], "paste", "the code would be sent to the program that listens on [::1]:{port}");
    let notice = begun["notice"].as_str().unwrap();
    assert!(notice.contains(&format!("Port {port}")) && notice.contains("paste it here"), "{notice}");
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "the other address is closed again");
}

#[tokio::test]
async fn attack_90_a_squatter_on_the_pages_other_address_gets_no_code() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": with_callback_ports(&endpoint, &upstream, "localhost", &json!("any")) });
    let pixy = Pixy::start(&accounts).await; // its page is on 127.0.0.1 alone
    let page = pixy.page().port();
    let Some(squatter) = squatter(&format!("[::1]:{page}")) else { return };
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let port = redirect_of(&begun).port().unwrap();
    assert_ne!(port, page);
    let notice = begun["notice"].as_str().unwrap();
    assert!(notice.contains(&format!("Port {page}")) && notice.contains("paste it here"), "{notice}");
    let consent = endpoint.consent(begun["authorize_url"].as_str().unwrap());
    let back = Url::parse(&consent.redirected_to).unwrap();
    for address in [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))] {
        assert!(TcpStream::connect(address).await.is_ok(), "Pixy holds {address}");
    }
    assert_eq!(open(&back).await.status, 200);
    assert_eq!(pixy.shown("a").await["attempt"]["stage"], "to_confirm");
    squatter.set_nonblocking(true).unwrap();
    assert!(squatter.accept().is_err(), "no redirect leads there");
}

#[tokio::test]
async fn attack_90_the_pages_other_address_is_held_during_the_attempt() {
    if squatter("[::1]:0").is_none() {
        return;
    }
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": with_callback_ports(&endpoint, &upstream, "localhost", &json!("any")) });
    let pixy = Pixy::start(&accounts).await;
    let other = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, pixy.page().port()));
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!((redirect_of(&begun).port(), &begun["notice"]), (Some(other.port()), &Value::Null));
    assert!(TcpListener::bind(other).is_err(), "no other program can have it");
    let back = Url::parse(&endpoint.consent(begun["authorize_url"].as_str().unwrap()).redirected_to).unwrap();
    let request = format!(
        "GET {}?{} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n",
        back.path(),
        back.query().unwrap(),
        other.port()
    );
    assert_eq!(RawClient::once(other, request).await.unwrap().status, 200, "the browser chose ::1");
    let attempt = pixy.shown("a").await["attempt"].clone();
    assert_eq!(attempt["stage"], "to_confirm");
    pixy.post(&format!("/api/attempts/{}/confirm", attempt["attempt"].as_str().unwrap()), Value::Null).await;
    for _ in 0..200 {
        if TcpListener::bind(other).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{other} stays open");
}

/// Another program on this address; `None` where this machine has no IPv6.
fn squatter(address: &str) -> Option<TcpListener> {
    let bound = TcpListener::bind(address);
    if bound.is_err() {
        println!("skipped: this machine has no IPv6");
    }
    bound.ok()
}

#[tokio::test]
async fn without_a_page_the_system_chooses_the_callback_port() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": with_callback_ports(&endpoint, &upstream, "127.0.0.1", &json!("any")) });
    let pixy = Pixy::with(&accounts, &json!({ "link": "off" })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!(begun["redirect"], "loopback");
    let consent = endpoint.consent(begun["authorize_url"].as_str().unwrap());
    assert_eq!(open(&Url::parse(&consent.redirected_to).unwrap()).await.status, 200);
    assert_eq!(pixy.shown("a").await["attempt"]["stage"], "to_confirm");
}

#[tokio::test]
async fn a_denied_redirect_is_shown_on_the_page() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let [port] = free_ports();
    let pixy =
        Pixy::start(&json!({ "a": with_callback_ports(&endpoint, &upstream, "127.0.0.1", &json!([port])) })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let mut back = Url::parse(&endpoint.consent(begun["authorize_url"].as_str().unwrap()).redirected_to).unwrap();
    let state = back.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    back.query_pairs_mut().clear().append_pair("error", "access_denied").append_pair("state", &state);
    let shown = open(&back).await;
    assert!(shown.text().contains("Access was denied"), "{}", shown.text());
    let attempt = pixy.shown("a").await["attempt"].clone();
    assert_eq!((&attempt["stage"], &attempt["exchanged"]), (&json!("failed"), &json!(false)));
    assert_eq!(problem(&attempt["error"]), "consent_denied");
    let style = open(&Url::parse(&format!("http://127.0.0.1:{port}/assets/page.css")).unwrap()).await;
    assert_eq!(style.status, 403, "another site reaches only the callback path");
    let next = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!(pixy.shown("a").await["attempt"]["error"], Value::Null);
    assert_eq!(next["redirect"], "loopback");
}
