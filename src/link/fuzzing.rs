//! The invariants of the paste parser, for `crate::fuzzing`.
#![allow(
    clippy::missing_panics_doc,
    clippy::format_collect,
    reason = "a panic is how a target tells that a rule is broken"
)]

use url::Url;

use super::paste::{self, Client, Expected};
use crate::secret::Secret;

/// A code comes only out of a text that holds this attempt's state, and it is one.
pub fn pasted_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let state = Secret::new(STATE.to_owned());
    let redirect_uri = Url::parse("https://platform.example.com/oauth/code/callback").expect("it is one");
    let issuer = Url::parse("https://login.example.com").expect("it is one");
    for (issuer, sends_iss) in [(None, false), (Some(&issuer), false), (Some(&issuer), true)] {
        let expected = Expected { state: &state, redirect_uri: &redirect_uri, issuer, sends_iss, client: Client::Ours };
        match paste::read(&text, &expected) {
            Ok(pasted) => {
                let code = pasted.code.expose();
                assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_graphic()));
                let decoded: String = [text.to_string(), text.replace(['#', '?', '"', '\'', '`'], "&")]
                    .iter()
                    .flat_map(|text| url::form_urlencoded::parse(text.as_bytes()).into_owned().collect::<Vec<_>>())
                    .map(|(name, value)| format!("{name}\n{value}\n"))
                    .collect();
                assert!(text.contains(STATE) || decoded.contains(STATE), "the state stands in it");
                assert!(text.contains(code) || decoded.contains(code), "the code stands in it");
                let address = text.trim().trim_matches(['"', '\'', '`']).trim();
                if let Some(url) = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https")) {
                    assert_eq!(url.origin(), redirect_uri.origin());
                }
            }
            Err(not_it) => assert!(!not_it.code().is_empty()),
        }
    }
}

const STATE: &str = "stateofthisattempt";
