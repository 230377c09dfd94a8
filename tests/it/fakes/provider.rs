//! The fake token endpoint: its rules, and a reference client that classifies every fault.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::{
    Effect, Fault, RawClient, RefreshToken, Refused, Rotation, Sorting, Standing, TokenEndpoint, Upstream,
    oauth_account,
};

#[test]
fn a_refresh_token_works_once() {
    let mut rotation = Rotation::new(HOUR, Duration::ZERO);
    let linked = rotation.link(at(0));
    let other = rotation.link(at(0));
    let second = rotation.refresh(&linked.refresh, at(1)).unwrap();
    assert_ne!(second, linked);
    assert!(rotation.lets_in(&linked.access, at(1)) && rotation.lets_in(&second.access, at(1)));
    assert_eq!(rotation.standing(&linked.refresh), Standing::Spent);

    assert_eq!(rotation.refresh(&linked.refresh, at(1)), Err(Refused::Reused));
    assert_eq!(rotation.refresh(&second.refresh, at(1)), Err(Refused::Ended));
    assert_eq!(rotation.refresh("made up", at(1)), Err(Refused::Unknown));
    assert!(!rotation.lets_in(&second.access, at(1)));
    // Another grant is not affected; its access token expires.
    assert_eq!(rotation.standing(&other.refresh), Standing::Fresh);
    assert!(rotation.lets_in(&other.access, at(3599)) && !rotation.lets_in(&other.access, at(3600)));
}

#[test]
fn a_grace_forgives_for_a_while() {
    let mut rotation = Rotation::new(HOUR, Duration::from_secs(5));
    rotation.kills_old_access = true;
    let linked = rotation.link(at(0));
    let second = rotation.refresh(&linked.refresh, at(10)).unwrap();
    assert!(!rotation.lets_in(&linked.access, at(10)), "revoked by the rotation");
    let again = rotation.refresh(&linked.refresh, at(14)).unwrap();
    assert_ne!(second.refresh, again.refresh);
    assert_eq!(rotation.saved_by_grace(), 1);
    assert_eq!(rotation.refresh(&linked.refresh, at(15)), Err(Refused::Reused));
    assert_eq!(rotation.standing(&again.refresh), Standing::Ended);

    let linked = rotation.link(at(20));
    assert!(rotation.revoke(&linked.access) && !rotation.revoke(&linked.refresh) && !rotation.revoke("made up"));
    assert_eq!(rotation.refresh(&linked.refresh, at(20)), Err(Refused::Ended));
}

#[tokio::test]
async fn a_code_is_bound_to_its_verifier_and_works_once() {
    let endpoint = TokenEndpoint::start().await;
    // The pair of RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let authorize = format!(
        "{}?redirect_uri=http://127.0.0.1/cb&state=a%20b&code_challenge={challenge}&code_challenge_method=S256",
        endpoint.authorize_url()
    );
    let ask = |code: String, verifier: &str| {
        let uri = "redirect_uri=http%3A%2F%2F127.0.0.1%2Fcb";
        format!("grant_type=authorization_code&code={code}&code_verifier={verifier}&{uri}")
    };
    let consent = endpoint.consent(&authorize);
    assert_eq!(consent.state, "a b");
    assert_eq!(consent.redirected_to, format!("http://127.0.0.1/cb?code={}&state=a+b", consent.code));
    let reply = post(&endpoint, &ask(consent.code.clone(), verifier)).await;
    assert_eq!(reply["account"]["email_address"], "ada@example.com");
    assert!(endpoint.lets_in(reply["access_token"].as_str().unwrap()));
    assert_eq!(post(&endpoint, &ask(consent.code, verifier)).await["error"], "invalid_grant");
    let consent = endpoint.consent(&authorize);
    assert_eq!(post(&endpoint, &ask(consent.code, "wrong")).await["error"], "invalid_grant");
    assert_eq!(endpoint.calls().iter().map(|call| call.issued).collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test]
async fn the_token_endpoint_counts_delays_and_revokes() {
    let endpoint = TokenEndpoint::start().await;
    let first = endpoint.grant();
    let gate = endpoint.hold_next();
    let held = async {
        let reply = post(&endpoint, &refresh(&first.refresh)).await;
        reply["refresh_token"].as_str().unwrap().to_owned()
    };
    let look = async {
        endpoint.until_requests(1).await;
        assert_eq!(endpoint.standing(&first.refresh), Standing::Spent, "spent before the reply is sent");
        gate.open();
    };
    let (second, ()) = tokio::join!(held, look);
    assert_eq!((endpoint.refreshes(), endpoint.standing(&second)), (1, Standing::Fresh));

    endpoint.stop_rotating();
    let reply = post(&endpoint, &format!(r#"{{"grant_type":"refresh_token","refresh_token":"{second}"}}"#)).await;
    assert!(reply["access_token"].is_string() && reply["refresh_token"].is_null(), "{reply}");
    assert_eq!(endpoint.standing(&second), Standing::Fresh);

    let url = endpoint.revoke_url();
    let revoked = send(Request::post(url), &format!("token={second}")).await.unwrap();
    assert_eq!((revoked.status(), endpoint.revoked()), (StatusCode::OK, vec![second.clone()]));
    assert_eq!(post(&endpoint, &refresh(&second)).await["error"], "invalid_grant");
    assert!(endpoint.strays().is_empty());
    send(Request::get(endpoint.authorize_url()), "").await.unwrap();
    assert_eq!(endpoint.strays().len(), 1);
}

#[tokio::test]
async fn faults_occur_in_order_and_the_last_one_stays() {
    let endpoint = TokenEndpoint::start().await;
    let refresh_token = endpoint.grant().refresh;
    endpoint.fail_next(Fault::BadGateway);
    endpoint.fail_next(Fault::CodeUnknown);
    endpoint.fail_always(Some(Fault::SlowDownIn400));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let request = Request::post(endpoint.url());
        statuses.push(send(request, &refresh(&refresh_token)).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [502, 400, 400, 400]);
    endpoint.fail_always(None);
    assert!(post(&endpoint, &refresh(&refresh_token)).await["access_token"].is_string());
    assert_eq!(endpoint.calls()[0].fault, Some(Fault::BadGateway));
    assert_eq!(endpoint.calls()[4].fault, None);
}

/// Time is paused: the client's timeout takes no real time.
#[tokio::test(start_paused = true)]
async fn a_reference_client_classifies_every_fault() {
    for fault in Fault::ALL.iter().copied() {
        let endpoint = TokenEndpoint::start().await;
        let before = endpoint.grant();
        endpoint.fail_next(fault);
        let sorted = sort(&before.refresh, send(Request::post(endpoint.url()), &refresh(&before.refresh)).await);
        assert_eq!(sorted, fault.expected(), "{}", fault.name());
        let standing = if fault.spends() { Standing::Spent } else { Standing::Fresh };
        assert_eq!(endpoint.standing(&before.refresh), standing, "{}", fault.name());
        assert_eq!(endpoint.calls().len(), 1, "{}", fault.name());
        assert!(endpoint.strays().is_empty(), "{}", fault.name());
    }
}

#[test]
fn the_table_is_sound() {
    let names: HashSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    assert_eq!(names.len(), Fault::ALL.len());
    assert!(names.len() > 150, "{}", names.len());
    for fault in Fault::ALL.iter().copied() {
        let effect = match fault.expected() {
            Sorting::Ok(RefreshToken::New) => Effect::Rotated,
            Sorting::Ok(RefreshToken::Kept) => Effect::Access,
            Sorting::Terminal => Effect::Nothing,
            Sorting::Transient | Sorting::Unknown => continue,
        };
        assert_eq!(fault.effect(), effect, "{}", fault.name());
    }
}

#[tokio::test]
async fn a_test_account_uses_its_fakes() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let account = oauth_account(&endpoint, &upstream);
    assert_eq!(account["profile"]["token"]["url"], endpoint.url());
    assert_eq!(account["profile"]["api"]["base_url"], upstream.url());
    let address = upstream.address();
    assert_eq!(RawClient::once(address, "GET / HTTP/1.1\r\n\r\n").await.unwrap().status, 200);
}

/// Why there is no reply.
#[derive(Debug)]
enum Lost {
    /// Cut, reset, not HTTP, too late.
    Network,
    /// Larger than the limit.
    TooLarge,
}

/// The rules at the top of the fault table, implemented independently.
fn sort(sent: &str, reply: Result<Response<Bytes>, Lost>) -> Sorting {
    let reply = match reply {
        Err(Lost::Network) => return Sorting::Transient,
        Err(Lost::TooLarge) => return Sorting::Unknown,
        Ok(reply) => reply,
    };
    let json: Value = serde_json::from_slice(reply.body()).unwrap_or_default();
    let token = json["access_token"].as_str().unwrap_or_default();
    let kind = json.get("token_type").map_or(Some("bearer"), Value::as_str);
    let usable = !token.is_empty() && token.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if reply.status() == StatusCode::OK && usable && kind.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        let new = json["refresh_token"].as_str().is_some_and(|token| !token.is_empty() && token != sent);
        return Sorting::Ok(if new { RefreshToken::New } else { RefreshToken::Kept });
    }
    let places = ["/error", "/code", "/error/code", "/error/type", "/error/error", "/errors/0/code"];
    if places.iter().any(|place| json.pointer(place).and_then(Value::as_str) == Some("invalid_grant")) {
        return Sorting::Terminal;
    }
    let says_later = matches!(json["error"].as_str(), Some("server_error" | "temporarily_unavailable" | "slow_down"));
    let later = says_later || reply.status() == StatusCode::TOO_MANY_REQUESTS || reply.status().is_server_error();
    if later { Sorting::Transient } else { Sorting::Unknown }
}

async fn post(endpoint: &TokenEndpoint, body: &str) -> Value {
    let reply = send(Request::post(endpoint.url()), body).await.expect("a reply");
    serde_json::from_slice(reply.body()).expect("JSON")
}

/// One request on a connection of its own, with a timeout and a size limit.
async fn send(request: hyper::http::request::Builder, body: &str) -> Result<Response<Bytes>, Lost> {
    let mut request = request.body(Full::<Bytes>::from(body.to_owned())).expect("a good request");
    // At this level hyper sends the target as it is, and a server expects the origin form (RFC 9112 §3.2.1).
    let authority = request.uri().authority().expect("an absolute address").as_str().to_owned();
    *request.uri_mut() = request.uri().path().parse().expect("a path");
    let exchange = async {
        let stream = TcpStream::connect(authority).await.map_err(|_| Lost::Network)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Lost::Network)?;
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.map_err(|_| Lost::Network)?.into_parts();
        let body = Limited::new(body, 1 << 20)
            .collect()
            .await
            .map_err(|error| if error.is::<LengthLimitError>() { Lost::TooLarge } else { Lost::Network })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    tokio::time::timeout(Duration::from_secs(30), exchange).await.map_err(|_| Lost::Network)?
}

fn refresh(token: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={token}")
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const HOUR: Duration = Duration::from_hours(1);
