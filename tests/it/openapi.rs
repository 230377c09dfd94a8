//! `GET /api/openapi.json`: it contains every route, and a running Pixy conforms to it.

use std::collections::BTreeSet;

use http::Method;
use pixy::api::ROUTES;
use serde_json::{Value, json};

use crate::support::{Pixy, RawClient, TokenEndpoint, Upstream, oauth_account};

/// A running Pixy with the document that it serves.
struct Described {
    pixy: Pixy,
    document: Value,
}

impl Described {
    async fn new(pixy: Pixy) -> Self {
        let (status, document) = pixy.api(Method::GET, "/api/openapi.json", Value::Null).await;
        assert_eq!(status, 200);
        Self { pixy, document }
    }

    /// Makes a call whose path has this template, and checks the answer against its schema.
    async fn call(&self, method: Method, template: &str, value: &str, body: Value) -> (u16, Value) {
        let parameter = template.split_once('{').map_or("{}", |(_, rest)| rest.split('}').next().unwrap());
        let path = template.replace(&format!("{{{parameter}}}"), value);
        let operation = &self.document["paths"][template][method.as_str().to_ascii_lowercase()];
        assert!(operation.is_object(), "{method} {template}");
        if !body.is_null() {
            self.check(&operation["requestBody"]["content"]["application/json"]["schema"], &body);
        }
        let (status, answer) = self.pixy.api(method, &path, body).await;
        let schema = if status == 200 {
            &operation["responses"]["200"]["content"]["application/json"]["schema"]
        } else {
            &self.document["components"]["responses"]["Problem"]["content"]["application/problem+json"]["schema"]
        };
        self.check(schema, &answer);
        (status, answer)
    }

    fn check(&self, schema: &Value, instance: &Value) {
        let mut schema = schema.as_object().expect("there is a schema").clone();
        schema.insert("components".to_owned(), self.document["components"].clone());
        let validator = jsonschema::validator_for(&Value::Object(schema)).unwrap();
        let faults: Vec<_> = validator.iter_errors(instance).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:#?} in {instance:#}");
    }
}

#[test]
fn every_route_is_in_the_document() {
    let document = Value::Object(pixy::api::openapi::document());
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
            let content = operation["responses"]["200"]["content"].as_object().unwrap();
            assert!(content.values().all(|content| content["schema"].is_object()), "{method} {path}");
            described.insert(format!("{} {path}", method.to_ascii_uppercase()));
        }
    }
    let routes: BTreeSet<_> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(described, routes);
}

#[test]
fn every_reference_of_the_document_resolves() {
    let document = Value::Object(pixy::api::openapi::document());
    let text = document.to_string();
    let references: BTreeSet<_> =
        text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(references.len() > 10, "{references:?}");
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn answers_of_a_running_pixy_are_as_described() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let described = Described::new(Pixy::start(&json!({ "a": oauth_account(&endpoint, &upstream) })).await).await;
    let accounts = || described.call(Method::GET, "/api/accounts", "", Value::Null);
    assert_eq!(accounts().await.1[0]["state"], "unlinked");
    let (_, started) = described.call(Method::POST, "/api/accounts/{name}/attempts", "a", Value::Null).await;
    let id = started["attempt"].as_str().unwrap();
    assert_eq!(accounts().await.1[0]["attempt"]["stage"], "waiting");
    let (status, _) = described.call(Method::POST, "/api/attempts/{id}/paste", id, json!({ "text": "?" })).await;
    assert_eq!(status, 422);
    let consent = endpoint.consent(started["authorize_url"].as_str().unwrap());
    let text = json!({ "text": format!("{}#{}", consent.code, consent.state) });
    described.call(Method::POST, "/api/attempts/{id}/paste", id, text).await;
    assert_eq!(accounts().await.1[0]["attempt"]["stage"], "to_confirm");
    described.call(Method::POST, "/api/attempts/{id}/confirm", id, Value::Null).await;
    assert_eq!(described.pixy.get("/a/v1/models").await.status, 200);
    let (_, linked) = accounts().await;
    assert_eq!((&linked[0]["state"], linked[0]["usage"].is_object()), (&json!("linked"), true));
    described.call(Method::GET, "/api/accounts/{name}/env", "a", Value::Null).await;
    described.pixy.get("/a/v1/models?apikey=x").await;
    let (_, dropped) = described.call(Method::GET, "/api/accounts/{name}/dropped", "a", Value::Null).await;
    assert_eq!(dropped, json!({ "fields": [], "query_keys": ["apikey"] }));
    described.call(Method::POST, "/api/accounts/{name}/refresh", "a", Value::Null).await;
    described.call(Method::POST, "/api/accounts/{name}/moved", "a", Value::Null).await;
    described.call(Method::GET, "/api/configuration", "", Value::Null).await;
    described.call(Method::GET, "/api/openapi.json", "", Value::Null).await;
    described.call(Method::POST, "/api/setup", "", Value::Null).await;
    let passphrase = "correct horse battery";
    let (_, export) = described.call(Method::POST, "/api/vault/export", "", json!({ "passphrase": passphrase })).await;
    let import = json!({ "sealed": export["sealed"], "passphrase": passphrase, "replace": true });
    assert_eq!(described.call(Method::POST, "/api/vault/import", "", import).await.1, json!(["a"]));
    described.call(Method::POST, "/api/vault/rotate", "", Value::Null).await;
    let (_, second) = described.call(Method::POST, "/api/accounts/{name}/attempts", "a", Value::Null).await;
    described.call(Method::DELETE, "/api/attempts/{id}", second["attempt"].as_str().unwrap(), Value::Null).await;
    let (status, _) =
        described.call(Method::POST, "/api/accounts/{name}/key", "a", json!({ "key": "sk-test-key" })).await;
    assert_eq!(status, 409, "an account with a login takes no key");
    described.call(Method::DELETE, "/api/accounts/{name}", "a", Value::Null).await;
    let (status, _) = described.call(Method::POST, "/api/accounts/{name}/older-copy", "b", Value::Null).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_page_serves_the_document_in_a_session_alone() {
    let pixy = Pixy::start(&json!({})).await;
    let url = pixy.post("/api/setup", Value::Null).await["url"].as_str().unwrap().to_owned();
    let code = url.split_once('#').unwrap().1;
    let get = |credential: String| {
        let request =
            format!("GET /api/openapi.json HTTP/1.1\r\nHost: {}\r\n{credential}Connection: close\r\n\r\n", pixy.page());
        RawClient::once(pixy.page(), request)
    };
    assert_eq!(get(String::new()).await.unwrap().status, 401);
    let described = get(format!("Authorization: Bearer {code}\r\n")).await.unwrap();
    assert_eq!((described.status, &described.json()["info"]["title"]), (200, &json!("Pixy")));
}
