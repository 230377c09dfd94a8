//! Responses over HTTP/2 that are malformed or cut; see `strict_responses`.

use serde_json::{Value, json};

use super::h2_frames::{self as frames, ByHand, Frames};
use super::strict_responses::{GET, assert_is_cut, assert_is_refusal};
use crate::support::{Authority, Pixy, RawClient, Scratch, TokenEndpoint, Upstream, oauth_account, within};

/// A Pixy whose account `a` is served by hand over HTTP/2.
async fn by_hand() -> (Pixy, TokenEndpoint, Upstream, ByHand) {
    let (authority, scratch) = (Authority::new(), Scratch::new());
    let (server, endpoint, upstream) =
        (ByHand::start(&authority).await, TokenEndpoint::start().await, Upstream::start().await);
    let ca = scratch.write("ca.pem", authority.pem());
    let mut account = oauth_account(&endpoint, &upstream);
    account["profile"]["api"]["base_url"] = Value::from(server.url().trim_end_matches('/'));
    let pixy = Pixy::with(&json!({ "a": account }), &json!({ "upstream": { "extra_ca_file": ca } })).await;
    pixy.link(&endpoint).await;
    (pixy, endpoint, upstream, server)
}

/// One frame of a response: type, flags, payload. RST_STREAM and DATA go to the stream of the request, GOAWAY to the connection.
type Frame = (u8, u8, Vec<u8>);

fn head(fields: &[u8]) -> Frame {
    (frames::HEADERS, frames::END_HEADERS, [frames::OK, fields].concat())
}

fn data(flags: u8, text: &str) -> Frame {
    (frames::DATA, flags, text.as_bytes().to_vec())
}

fn reset(code: u32) -> Frame {
    (frames::RST_STREAM, 0, code.to_be_bytes().to_vec())
}

fn goaway(last: u32, code: u32) -> Frame {
    (frames::GOAWAY, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// `content-length: 5`, a literal of the static table's name 28 (RFC 7541).
const LENGTH_5: &[u8] = &[0x0f, 13, 1, b'5'];

/// Sends the frames in response to one request, and then closes the connection, or waits for the client to.
async fn respond(server: &ByHand, response: &[Frame], closes: bool) -> Option<Frames> {
    let mut connection = server.accept().await;
    connection.write(frames::SETTINGS, 0, 0, &[]).await;
    let stream = connection.request().await.unwrap();
    for (kind, flags, payload) in response {
        let on = if *kind == frames::GOAWAY { 0 } else { stream };
        connection.write(*kind, *flags, on, payload).await;
    }
    (!closes).then_some(connection)
}

#[tokio::test]
async fn attack_97_an_http2_stream_that_is_cut_is_a_broken_stream() {
    let all = frames::END_HEADERS | frames::END_STREAM;
    let trailers = |flags| (frames::HEADERS, flags, vec![0x00, 1, b'x', 1, b'y']);
    let cases: Vec<(&str, Vec<Frame>, bool)> = vec![
        ("the connection closes", vec![head(&[]), data(0, "hello")], true),
        ("the connection closes before the length", vec![head(LENGTH_5), data(0, "hell")], true),
        ("GOAWAY NO_ERROR, then close", vec![head(&[]), data(0, "hello"), goaway(1, 0)], true),
        ("GOAWAY NO_ERROR that leaves the stream out", vec![head(&[]), data(0, "hello"), goaway(0, 0)], false),
        ("GOAWAY with an error, then close", vec![head(&[]), data(0, "hello"), goaway(1, 2)], true),
        ("RST_STREAM NO_ERROR", vec![head(&[]), data(0, "hello"), reset(0)], false),
        ("RST_STREAM NO_ERROR before the length", vec![head(LENGTH_5), data(0, "hell"), reset(0)], false),
        ("RST_STREAM NO_ERROR before any data", vec![head(&[]), reset(0)], false),
        ("RST_STREAM INTERNAL_ERROR", vec![head(&[]), data(0, "hello"), reset(2)], false),
        ("RST_STREAM CANCEL", vec![head(&[]), data(0, "hello"), reset(8)], false),
        ("too short", vec![head(LENGTH_5), data(frames::END_STREAM, "hell")], false),
        ("too long", vec![head(LENGTH_5), data(frames::END_STREAM, "hello!")], false),
        ("too short, with trailers", vec![head(LENGTH_5), data(0, "hell"), trailers(all)], false),
        ("trailers without an end", vec![head(&[]), data(0, "hello"), trailers(frames::END_HEADERS)], false),
    ];
    let (pixy, _endpoint, _upstream, server) = by_hand().await;
    for (case, response, closes) in cases {
        let asking = async {
            let mut agent = RawClient::connect(pixy.agents()).await;
            agent.send(GET).await;
            assert_is_cut(agent, "hello", case).await;
        };
        let (connection, ()) = within(async { tokio::join!(respond(&server, &response, closes), asking) }).await;
        drop(connection);
    }
}

#[tokio::test]
async fn attack_97_a_malformed_http2_head_is_a_502() {
    let all = frames::END_HEADERS | frames::END_STREAM;
    let cases: Vec<(&str, Vec<Frame>, bool)> = vec![
        ("a length and no body", vec![(frames::HEADERS, all, [frames::OK, LENGTH_5].concat())], false),
        ("two lengths", vec![head(&[LENGTH_5, LENGTH_5].concat()), data(frames::END_STREAM, "hello")], false),
        ("an interim response that ends the stream", vec![(frames::HEADERS, all, frames::EARLY_HINTS.to_vec())], false),
        ("no head before the reset", vec![reset(0)], false),
        ("no head before the end", vec![goaway(0, 0)], true),
        ("data before the head", vec![data(0, "hello"), head(&[])], false),
    ];
    let (pixy, _endpoint, _upstream, server) = by_hand().await;
    for (case, response, closes) in cases {
        let asking = async {
            let mut agent = RawClient::connect(pixy.agents()).await;
            agent.send(GET).await;
            assert_is_refusal(&agent.response().await.unwrap_or_else(|| panic!("no answer: {case}")), case);
        };
        let (connection, ()) = within(async { tokio::join!(respond(&server, &response, closes), asking) }).await;
        drop(connection);
    }
}

#[tokio::test]
async fn a_complete_http2_response_before_its_request_ended_passes() {
    // RFC 9113 §8.1: a server may answer early, and then reset the rest of the request with NO_ERROR.
    let (pixy, _endpoint, _upstream, server) = by_hand().await;
    let response = [head(LENGTH_5), data(frames::END_STREAM, "hello"), reset(0)];
    let asking = async {
        let mut agent = RawClient::connect(pixy.agents()).await;
        agent.send("POST /a/v1/messages HTTP/1.1\r\nHost: pixy\r\nContent-Length: 9\r\n\r\n1234").await;
        let response = agent.response().await.unwrap();
        assert_eq!((response.status, response.complete, response.text()), (200, true, "hello".to_owned()));
    };
    let (connection, ()) = within(async { tokio::join!(respond(&server, &response, false), asking) }).await;
    drop(connection);
}
