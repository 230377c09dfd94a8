//! Provider profiles: a shipped one, with an account's changes merged into it.

use std::fmt::Display;
use std::sync::Arc;

use serde_json::{Value, json};

use super::deserialize::deserialize;
use super::diagnostics::{FaultSink, Scope};
use super::fault::SourceText;
use super::shipped;
use super::spanned_yaml::{Content, Node};
use crate::oauth::profile::{Expiry, Flow, Profile};

/// A shipped profile as a tree.
pub(super) fn shipped_node(provider: &str, sink: &FaultSink) -> Option<Node> {
    let text = shipped::profile_text(provider)?.to_owned();
    let source = Arc::new(SourceText { name: format!("config/providers/{provider}.yaml"), text });
    Node::parse(&source).map_err(|fault| sink.push(*fault)).ok()
}

/// Merges an account's `profile` into a shipped one.
pub(super) fn merge(shipped: &mut Node, changes: &Node) {
    // The two redirects exclude each other: one that is written replaces the shipped other.
    let redirect = |key: &str| ["link", "redirect", key].map(str::to_owned);
    let is_written = |key: &str| {
        changes.get_path(&redirect(key)).is_some_and(|node| !matches!(node.content, Content::Null | Content::Faulty))
    };
    let replaced = match (is_written("paste"), is_written("loopback")) {
        (true, false) => shipped.find_mut(&redirect("loopback")),
        (false, true) => shipped.find_mut(&redirect("paste")),
        _ => None,
    };
    if let Some(replaced) = replaced {
        replaced.content = Content::Null;
    }
    let mut changes = changes.clone();
    for key in ["pass_headers", "pass_query"] {
        let path = ["api", key].map(str::to_owned);
        let added = (shipped.get_path(&path).map(|node| &node.content), changes.find_mut(&path));
        if let (Some(Content::List(shipped)), Some(Node { content: Content::List(added), .. })) = added {
            // Behind the account's own, whose places in the file are reported by their number.
            added.extend(shipped.iter().cloned());
        }
    }
    shipped.merge(changes);
}

/// Whether an account's `profile` writes a URL that a login is bound to.
pub(super) fn writes_a_url(changes: &Node) -> bool {
    let urls: [&[&str]; 5] =
        [&["link", "issuer"], &["link", "device"], &["token", "url"], &["revoke"], &["api", "base_url"]];
    urls.iter().any(|path| changes.get_path(&path.iter().map(|&step| step.to_owned()).collect::<Vec<_>>()).is_some())
}

/// Builds a profile from its tree. `None` only after a fault was reported.
pub(super) fn build(node: &Node, provider: &str, here: &Scope) -> Option<Profile> {
    report_missing(here);
    let mut profile = deserialize::<Profile>(node, here)?;
    provider.clone_into(&mut profile.provider);
    // A static key comes without a response that could state its end.
    if profile.link.flow == Flow::ApiKey && here.at("token").at("expiry").given().is_none() {
        profile.token.expiry = Expiry::Never;
    }
    Some(profile)
}

/// Reports the keys that are absent but needed by every profile or by another key.
fn report_missing(profile: &Scope) {
    need(profile, "title", "say what a person calls this provider");
    need(profile, "terms.status", "write open, conditional or restricted");
    need(profile, "link.flow", "write authorization_code, device_code, client_credentials or api_key");
    if has(profile, "link.device.code_url") {
        need(profile, "link.device.code_redirect", "the code of code_url is exchanged with it");
    }
    if has(profile, "link.device.code_redirect") {
        need(profile, "link.device.code_url", "code_redirect is for its code");
    }
    report_missing_of_flow(profile);
    if has(profile, "revoke") {
        need(profile, "revoke.url", "revocation needs an endpoint; write `revoke: null` where there is none");
    }
    need(profile, "api.base_url", "write the URL that requests are sent to");
    let because = "say what an agent may call, like [\"POST /chat/completions\"]; everything else is refused";
    need(profile, "api.allow", because);
}

/// Reports the keys that are absent but needed by the flow.
fn report_missing_of_flow(profile: &Scope) {
    let Some(Content::Text(name)) = at(profile, "link.flow").given() else { return };
    let Some(flow) = Flow::parse(name).filter(|&flow| flow != Flow::ApiKey) else { return };
    let is_discovered = has(profile, "link.issuer") || at(profile, "link.issuer").has_fault_near();
    let need_endpoint = |path: &str| {
        if !is_discovered {
            need(profile, path, format!("the flow {name} needs it, or link.issuer to discover it"));
        }
    };
    if flow == Flow::AuthorizationCode && !has(profile, "link.authorize_url") && !is_discovered {
        let because = format!("the flow {name} needs link.issuer, or both link.authorize_url and token.url");
        need(profile, "link.issuer", because);
    } else {
        need_endpoint("token.url");
    }
    if flow == Flow::DeviceCode {
        need_endpoint("link.device.url");
    }
    if !at(profile, "link.authorize_params.client_id").is_null() {
        let because = format!("the flow {name} needs the id of a client that is registered with the provider");
        need(profile, "link.client_id", because);
    }
    let has_redirect = has(profile, "link.redirect.paste") || has(profile, "link.redirect.loopback");
    if flow == Flow::AuthorizationCode && !has_redirect {
        at(profile, "link.redirect")
            .missing(format!("the flow {name} needs `paste: URL` or `loopback: {{ host, ports, path }}`"));
    }
}

fn at<'a>(profile: &Scope<'a>, path: &str) -> Scope<'a> {
    path.split('.').fold(profile.clone(), |here, step| here.at(step))
}

fn has(profile: &Scope, path: &str) -> bool {
    at(profile, path).given().is_some()
}

fn need(profile: &Scope, path: &str, because: impl Display) {
    let is_empty = match at(profile, path).given() {
        Some(Content::List(items)) => items.is_empty(),
        Some(Content::Text(text)) => text.trim().is_empty(),
        given => given.is_none(),
    };
    if is_empty {
        at(profile, path).missing(because);
    }
}

/// Makes every key of a profile optional in the schema of a configuration: an account writes only what it changes, and null
/// removes what is shipped.
pub(super) fn make_optional(schema: &mut Value) {
    let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) else { return };
    let mut names = vec!["Profile".to_owned()];
    let mut next = 0;
    while let Some(definition) = names.get(next).and_then(|name| definitions.get_mut(name)) {
        next += 1;
        let Some(definition) = definition.as_object_mut() else { continue };
        definition.remove("required");
        let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        for property in properties.values_mut() {
            references(property, &mut names);
            make_nullable(property);
        }
    }
}

fn make_nullable(property: &mut Value) {
    let Some(property) = property.as_object_mut() else { return };
    if let Some(of_type) = property.get_mut("type") {
        if of_type.is_string() {
            *of_type = json!([of_type, "null"]);
        }
    } else if let Some(reference) = property.remove("$ref") {
        property.insert("anyOf".to_owned(), json!([{ "$ref": reference }, { "type": "null" }]));
    }
}

/// Adds the names of the definitions that a schema refers to.
fn references(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(members) => members.values().for_each(|member| references(member, names)),
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("#/$defs/")
                && !names.iter().any(|known| known == name)
            {
                names.push(name.to_owned());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        Node::parse(&Arc::new(SourceText { name: "t".to_owned(), text: text.to_owned() })).unwrap()
    }

    #[test]
    fn attack_85_former_origins_vouch_for_shipped_urls_alone() {
        for changed in [
            "api: { base_url: https://x }",
            "token: { url: https://x }",
            "revoke: { url: https://x }",
            "link: { issuer: https://x }",
            "link: { device: { url: https://x } }",
        ] {
            assert!(writes_a_url(&node(changed)), "{changed}");
        }
        for other in
            ["link: { client_id: x, scopes: [a] }", "api: { allow: [GET /x] }", "token: { body: json }", "title: t"]
        {
            assert!(!writes_a_url(&node(other)), "{other}");
        }
    }
}
