//! Grants are ended only at the URL that they came with.

use serde_json::{Value, json};

use super::moved;
use crate::support::{Pixy, Reply, TokenEndpoint, Upstream, oauth_account, within};

/// A configuration that names `new` for everything.
fn at(new: &TokenEndpoint, upstream: &Upstream) -> Value {
    json!({ "a": oauth_account(new, upstream) })
}

#[tokio::test]
async fn attack_85_a_replaced_login_is_revoked_where_it_came_from() {
    let (old, new, upstream) = (TokenEndpoint::start().await, TokenEndpoint::start().await, Upstream::start().await);
    let mut pixy = Pixy::linked(&old, &upstream).await;
    let token = old.calls().len();
    assert_eq!(token, 1);
    pixy.reload(&at(&new, &upstream), &json!({})).await.unwrap();
    pixy.link(&new).await;
    assert_eq!((old.revoked().len(), new.revoked().len()), (1, 0));
    assert!(old.revoked()[0].starts_with("marked-refresh"), "{:?}", old.revoked());
    assert_eq!(new.calls().len(), 1, "its own code alone");
}

#[tokio::test]
async fn attack_85_an_unlinked_login_is_revoked_where_it_came_from() {
    let (old, new, upstream) = (TokenEndpoint::start().await, TokenEndpoint::start().await, Upstream::start().await);
    let mut pixy = Pixy::linked(&old, &upstream).await;
    pixy.reload(&at(&new, &upstream), &json!({})).await.unwrap();
    let (_, answer) = pixy.api(http::Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!(answer["revoked"], true);
    assert_eq!((old.revoked().len(), new.requests().len()), (1, 0));
}

/// The provider is down when the login is replaced, and the configuration changes before it is back.
#[tokio::test]
async fn attack_85_a_pending_revocation_keeps_its_url() {
    let (endpoint, upstream, new) = (TokenEndpoint::start().await, Upstream::start().await, Upstream::start().await);
    let old = Upstream::answering(|_| Reply::new(503)).await;
    let revoked_at_old = moved(&oauth_account(&endpoint, &upstream), "/profile/revoke/url", &old.url());
    let pixy = Pixy::start(&json!({ "a": revoked_at_old })).await;
    pixy.link(&endpoint).await;
    pixy.link(&endpoint).await; // replaces it
    within(old.until_requests(1)).await;
    let (scratch, _) = pixy.dismantle().await;
    let asked = old.requests().len();
    let changed = moved(&revoked_at_old, "/profile/revoke/url", &new.url());
    let pixy = Pixy::at(scratch, &json!({ "a": changed }), &json!({})).await;
    within(old.until_requests(asked + 1)).await;
    pixy.post("/api/accounts/a/moved", Value::Null).await;
    let pixy = pixy.restart().await;
    within(old.until_requests(asked + 2)).await;
    assert_eq!(new.connections(), 0, "not even after the login itself may go there");
    let (_, answer) = pixy.api(http::Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!(answer["revoked"], true);
    assert_eq!(new.requests().len(), 1, "the login that a person moved is revoked at its new place");
}

#[tokio::test]
async fn attack_85_a_login_that_is_not_confirmed_is_revoked_where_it_came_from() {
    let (old, new, upstream) = (TokenEndpoint::start().await, TokenEndpoint::start().await, Upstream::start().await);
    let mut pixy = Pixy::start(&json!({ "a": oauth_account(&old, &upstream) })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let consent = old.consent(begun["authorize_url"].as_str().unwrap());
    let id = begun["attempt"].as_str().unwrap();
    pixy.post(&format!("/api/attempts/{id}/paste"), json!({ "text": format!("{}#{}", consent.code, consent.state) }))
        .await;
    pixy.reload(&at(&new, &upstream), &json!({})).await.unwrap();
    pixy.api(http::Method::DELETE, &format!("/api/attempts/{id}"), Value::Null).await;
    within(async {
        while old.revoked().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(new.requests().len(), 0);
}
