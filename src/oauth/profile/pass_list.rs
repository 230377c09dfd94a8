//! What of an agent's request may reach the provider: the fields and query keys that pass for every profile, the lists of a profile,
//! and what never passes.
//!
//! The base lists hold what SDKs and command-line clients of several vendors send to whatever base URL they are given; they come from
//! the vendors' API references, the SDKs' sources and recordings. What only one provider understands is in its profile.

use std::borrow::Cow;

use schemars::JsonSchema;

/// A list of names and of their tests: a match compiles to comparisons of lengths first, and every field of every request is tested.
macro_rules! names {
    ($($(#[$doc:meta])* $list:ident $test:ident: $($name:literal)+;)*) => {$(
        $(#[$doc])*
        pub const $list: &[&str] = &[$($name),+];

        fn $test(name: &str) -> bool {
            matches!(name, $($name)|+)
        }
    )*};
}

names! {
    /// Fields that pass for every profile, in exactly this spelling and in lower case.
    BASE_FIELDS is_base_field:
        "accept" "accept-language" "content-type" "content-encoding" "user-agent"
        "traceparent" "tracestate" "baggage"
        "idempotency-key" "x-request-id" "x-client-request-id"
        "session-id" "session_id" "thread-id" "conversation_id" "x-session-id" "x-session-affinity"
        "anthropic-version" "anthropic-beta" "anthropic-dangerous-direct-browser-access"
        "x-app" "x-anthropic-additional-protection"
        "openai-beta" "originator" "x-openai-subagent" "x-openai-memgen-request" "x-openai-internal-codex-responses-lite"
        "x-responsesapi-include-timing-metrics"
        "x-goog-api-client";

    /// Query keys that pass for every profile, in exactly this spelling once decoded.
    BASE_QUERY is_base_query_key:
        "limit" "after" "before" "order" "after_id" "before_id" "page"
        "beta" "api-version" "client_version" "model"
        "include" "include[]" "include_obfuscation" "starting_after" "stream";

    /// Hop-by-hop fields (RFC 9110 §7.6.1) and those of the message's framing. `http2-settings` belongs to an obsolete upgrade to
    /// HTTP/2 (RFC 9113 §3.1), which some servers still support.
    CONNECTION_FIELDS is_connection_field:
        "host" "content-length" "connection" "keep-alive" "proxy-connection" "te" "trailer" "transfer-encoding" "upgrade"
        "proxy-authenticate" "http2-settings" "expect" "max-forwards";

    /// Credentials that may be the agent's key to Pixy.
    KEYS is_key: "authorization" "x-api-key" "api-key" "x-goog-api-key";

    /// Other credentials.
    CREDENTIALS is_other_credential:
        "proxy-authorization" "cookie" "set-cookie" "x-auth-token" "x-access-token" "x-authorization" "private-token"
        "xi-api-key" "dpop" "ocp-apim-subscription-key" "x-amz-security-token" "x-goog-iam-authorization-token";

    /// Fields that reveal a request's origin, or that override its method or path.
    MISLEADING is_misleading:
        "forwarded" "via" "origin" "referer" "x-real-ip" "true-client-ip" "cf-connecting-ip" "x-original-url" "x-original-uri"
        "x-original-method" "x-rewrite-url" "x-override-url" "x-http-method" "x-http-method-override" "x-method-override";

    /// Fields that choose a representation of the response that cannot be searched for secrets: a part of it (RFC 9110 §14), a
    /// difference (RFC 3229), another charset, its digest (RFC 9530) or a compressed one. Pixy sets `accept-encoding`.
    REPRESENTATION is_representation:
        "accept-encoding" "accept-charset" "range" "if-range" "request-range" "a-im" "im";
}

/// As `names`, for the beginnings of names.
macro_rules! prefixes {
    ($($(#[$doc:meta])* $list:ident $test:ident: $($prefix:literal)+;)*) => {$(
        $(#[$doc])*
        pub const $list: &[&str] = &[$($prefix),+];

        fn $test(name: &str) -> bool {
            $(name.starts_with($prefix))||+
        }
    )*};
}

prefixes! {
    /// Beginnings of fields that pass for every profile.
    BASE_PREFIXES has_base_prefix: "x-stainless-" "x-codex-" "x-claude-code-";

    /// Beginnings of fields that never pass.
    REFUSED_PREFIXES has_refused_prefix: "sec-" "proxy-" "x-forwarded-" "x-pixy-" "grpc-" "want-";
}

/// Query keys that carry credentials, compared without case. Their values may be the agent's key to Pixy.
pub const KEY_PARAMETERS: [&str; 4] = ["key", "api_key", "access_token", "token"];

/// The names that a profile adds to a base list. A `*` at the end of a name stands for any end.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "Vec<String>", inline)]
pub struct PassList {
    exact: Vec<String>,
    prefixes: Vec<String>,
}

impl PassList {
    /// A list of names and patterns.
    pub(super) fn new(written: Vec<String>) -> Self {
        let mut list = Self::default();
        for name in written {
            match name.strip_suffix('*') {
                Some(prefix) => list.prefixes.push(prefix.to_owned()),
                None => list.exact.push(name),
            }
        }
        list
    }

    /// Whether a name is listed.
    pub fn contains(&self, name: &str) -> bool {
        self.exact.iter().any(|listed| listed == name) || self.prefixes.iter().any(|prefix| name.starts_with(&**prefix))
    }

    /// The names and patterns as they are written.
    pub fn iter(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let prefixes = self.prefixes.iter().map(|prefix| Cow::Owned(format!("{prefix}*")));
        self.exact.iter().map(|name| Cow::Borrowed(name.as_str())).chain(prefixes)
    }
}

/// Whether a field passes for every profile. The name is in lower case.
pub fn passes_always(name: &str) -> bool {
    is_base_field(name) || has_base_prefix(name)
}

/// Whether a query key passes for every profile.
pub fn query_key_passes_always(key: &str) -> bool {
    is_base_query_key(key)
}

/// Whether a field may carry the agent's key to Pixy. The name is folded.
pub fn carries_key(folded: &str) -> bool {
    is_key(folded)
}

/// Whether a field belongs to the connection, the framing or a WebSocket's handshake: Pixy writes its own. The name is folded.
pub fn is_of_connection(folded: &str) -> bool {
    is_connection_field(folded) || folded == "accept-encoding" || folded.starts_with("sec-websocket-")
}

/// Whether no list lets a field pass. The name is folded.
pub fn never_passes(folded: &str) -> bool {
    is_connection_field(folded)
        || is_key(folded)
        || is_other_credential(folded)
        || is_misleading(folded)
        || is_representation(folded)
        || has_refused_prefix(folded)
}

/// A field's name as some servers read it: `_` as `-`, and neither at its ends. The name is in lower case.
pub fn fold(name: &str) -> Cow<'_, str> {
    let dashed =
        if name.bytes().any(|byte| byte == b'_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) };
    if dashed.starts_with('-') || dashed.ends_with('-') {
        return Cow::Owned(dashed.trim_matches('-').to_owned());
    }
    dashed
}

/// Whether a configured name, in lower case, is this one once folded. Compares the lengths first.
pub fn folds_to(name: &str, folded: &str) -> bool {
    if name.len() == folded.len() {
        let same = |(one, other): (u8, u8)| one == other || one == b'_' && other == b'-';
        return name.bytes().zip(folded.bytes()).all(same);
    }
    name.len() > folded.len() && name.starts_with(['-', '_']) | name.ends_with(['-', '_']) && fold(name) == folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_86_no_base_list_holds_what_never_passes() {
        for field in BASE_FIELDS {
            assert!(passes_always(field) && !never_passes(&fold(field)), "{field}");
        }
        for key in BASE_QUERY {
            assert!(query_key_passes_always(key) && !KEY_PARAMETERS.contains(key), "{key}");
        }
        for list in [CONNECTION_FIELDS, KEYS, CREDENTIALS, MISLEADING, REPRESENTATION] {
            assert!(list.iter().all(|name| never_passes(name) && !passes_always(name)), "{list:?}");
        }
    }

    #[test]
    fn names_are_compared_in_folded_form() {
        for (name, folded) in [
            ("x-tenant", "x-tenant"),
            ("x_tenant", "x-tenant"),
            ("_x-tenant-", "x-tenant"),
            ("--", ""),
            ("chatgpt_account_id", "chatgpt-account-id"),
        ] {
            assert_eq!(fold(name), folded);
            assert!(folds_to(name, folded), "{name}");
        }
        assert!(!folds_to("x-tenants", "x-tenant") && !folds_to("x-tenant", "x-tenants"));
    }

    #[test]
    fn a_pattern_stands_for_any_end() {
        let list = PassList::new(vec!["x-a".to_owned(), "x-vendor-*".to_owned()]);
        assert!(list.contains("x-a") && list.contains("x-vendor-thing"));
        assert!(!list.contains("x-ab") && !list.contains("x-vendor") && !list.contains("my-x-a"));
        assert_eq!(list.iter().collect::<Vec<_>>(), ["x-a", "x-vendor-*"]);
    }
}
