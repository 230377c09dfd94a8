//! Agent keys: the accounts they grant, and their limits.

use serde_json::json;

use crate::support::{Pixy, RawClient, Reply, TokenEndpoint, Upstream, oauth_account};

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8700\r\n{fields}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn agent_keys_grant_only_their_accounts() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let scratch = crate::support::Scratch::new();
    let key = scratch.write("coder", "0123456789abcdef-coder\n");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream), "b": oauth_account(&endpoint, &upstream) });
    let keys = json!([{ "name": "coder", "key_file": key, "accounts": ["a"], "limits": { "requests_per_minute": 3 } }]);
    let pixy = Pixy::with(&accounts, &json!({ "agent": { "listen": "127.0.0.1:0", "keys": keys } })).await;
    pixy.link(&endpoint).await;
    let ask = async |path: &str, fields: &str| {
        let response = pixy.send(&get(path, fields)).await;
        (response.status, response.header("x-pixy-error").first().copied().unwrap_or("").to_owned())
    };
    let valid = "X-Api-Key: 0123456789abcdef-coder\r\n";
    assert_eq!(ask("/a/v1/models", "").await, (401, "agent_key_missing".into()));
    assert_eq!(ask("/a/v1/models", "Authorization: Bearer wrong\r\n").await, (401, "agent_key_wrong".into()));
    assert_eq!(ask("/b/v1/models", valid).await, (403, "account_not_granted".into()));
    assert_eq!(ask("/a/v1/models", valid).await, (200, String::new()));
    assert_eq!(ask("/a/v1/models", "Authorization: Bearer 0123456789abcdef-coder\r\n").await.0, 200);
    assert_eq!(ask("/a/v1/models?key=0123456789abcdef-coder", "").await.0, 200);
    assert_eq!(ask("/a/v1/models", valid).await, (429, "limit_reached".into()));
    let requests = upstream.requests();
    assert!(
        requests.iter().all(|seen| !format!("{seen:?}").contains("0123456789abcdef")),
        "the agent's key was forwarded"
    );
}

#[tokio::test]
async fn tokens_per_day_limits_an_agent() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let digest = "85dbe15d75ef9308c7ae0f33c7a324cc6f4bf519a2ed2f3027bd33c140a4f9aa"; // of `secret-key`
    let keys = json!([{ "name": "coder", "sha256": digest, "accounts": ["a"], "limits": { "tokens_per_day": 100 } }]);
    let pixy = Pixy::with(&accounts, &json!({ "agent": { "listen": "127.0.0.1:0", "keys": keys } })).await;
    pixy.link(&endpoint).await;
    for (used, status) in [(60, 200), (60, 200), (1, 429)] {
        upstream.answer(Reply::json(200, &json!({ "usage": { "input_tokens": used, "output_tokens": 0 } })));
        let response = pixy.send(&get("/a/v1/models", "X-Api-Key: secret-key\r\nAccept-Encoding: gzip\r\n")).await;
        assert_eq!(response.status, status);
    }
    assert_eq!(
        upstream.requests()[0].header("accept-encoding"),
        ["identity"],
        "tokens in compressed responses cannot be counted"
    );
}

#[tokio::test]
async fn attack_83_an_agent_beyond_its_share_leaves_room_for_others() {
    const CONNECTIONS: usize = 8;
    let upstream = Upstream::answering(|seen| match seen.path() {
        "/v1/models/slow" => Reply::raw([crate::support::Step::Hang]),
        _ => Reply::new(200),
    })
    .await;
    let endpoint = TokenEndpoint::start().await;
    let digests = [
        ("greedy", "85dbe15d75ef9308c7ae0f33c7a324cc6f4bf519a2ed2f3027bd33c140a4f9aa"), // of `secret-key`
        ("modest", "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"), // of `secret`
    ];
    let keys = digests.map(|(name, sha256)| json!({ "name": name, "sha256": sha256, "accounts": ["a"] }));
    let more = json!({
        "agent": { "listen": "127.0.0.1:0", "keys": keys }, "limits": { "connections": CONNECTIONS },
    });
    let pixy = Pixy::with(&json!({ "a": oauth_account(&endpoint, &upstream) }), &more).await;
    pixy.link(&endpoint).await;
    // Half of the connections is free for all, and a quarter is the share of each.
    let mut held = Vec::new();
    for number in 0..CONNECTIONS * 3 / 4 {
        let mut client = RawClient::connect(pixy.agents()).await;
        client.send(get("/a/v1/models/slow", "X-Api-Key: secret-key\r\n")).await;
        upstream.until_requests(number + 1).await;
        held.push(client);
    }
    let refused = pixy.send(&get("/a/v1/models", "X-Api-Key: secret-key\r\n")).await;
    assert_eq!((refused.status, refused.header("x-pixy-error")), (429, vec!["limit_reached"]));
    assert_eq!(refused.header("retry-after"), ["1"]);
    assert!(refused.text().contains("its share of `limits.connections`"), "{}", refused.text());
    assert_eq!(pixy.send(&get("/a/v1/models", "X-Api-Key: secret\r\n")).await.status, 200);
    drop(held);
    upstream.until_disconnects(1).await;
    assert_eq!(pixy.send(&get("/a/v1/models", "X-Api-Key: secret-key\r\n")).await.status, 200);
}
