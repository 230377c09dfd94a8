//! A code is read only from a text that contains this attempt's state, and the code is part of that text.
#![no_main]

use pixy::internals::{Client, Expected, read_pasted};
use pixy::secret::Secret;
use url::Url;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pasted_text(data));

fn pasted_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let state = Secret::new(STATE.to_owned());
    let redirect_uri = Url::parse("https://platform.example.com/oauth/code/callback").expect("a valid URL");
    let issuer = Url::parse("https://login.example.com").expect("a valid URL");
    for (issuer, sends_iss) in [(None, false), (Some(&issuer), false), (Some(&issuer), true)] {
        let expected = Expected { state: &state, redirect_uri: &redirect_uri, issuer, sends_iss, client: Client::Ours };
        match read_pasted(&text, &expected) {
            Ok(pasted) => {
                let code = pasted.code.expose();
                assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_graphic()));
                let decoded: String = [text.to_string(), text.replace(['#', '?', '"', '\'', '`'], "&")]
                    .iter()
                    .flat_map(|text| url::form_urlencoded::parse(text.as_bytes()).into_owned().collect::<Vec<_>>())
                    .map(|(name, value)| format!("{name}\n{value}\n"))
                    .collect();
                assert!(text.contains(STATE) || decoded.contains(STATE), "the text holds the state");
                assert!(text.contains(code) || decoded.contains(code), "the text holds the code");
                let address = text.trim().trim_matches(['"', '\'', '`']).trim();
                if let Some(url) = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https")) {
                    assert_eq!(url.origin(), redirect_uri.origin());
                }
            }
            Err(error) => assert!(!error.code().is_empty()),
        }
    }
}

const STATE: &str = "stateofthisattempt";
