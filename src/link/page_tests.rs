use super::*;

fn facts() -> Facts {
    Facts {
        file: None,
        version: "1.2.3",
        agent_addresses: vec!["http://127.0.0.1:8700".into(), "unix:/run/pixy.sock".into()],
        store: "/home/<b>anna</b>/vault".into(),
        port: Some(8701),
    }
}

fn pages() -> Vec<String> {
    vec![
        index(&facts()),
        callback(&CallbackOutcome::Exchanged { title: "claude".into() }),
        callback(&CallbackOutcome::Failed { sentence: "<img src=x onerror=alert(1)>".into() }),
    ]
}

fn text_of(asset: &Asset) -> &'static str {
    std::str::from_utf8(asset.body).unwrap()
}

fn size_of(content_type: &str) -> usize {
    ASSETS.iter().filter(|asset| asset.content_type == content_type).map(|asset| asset.body.len()).sum()
}

#[test]
fn the_page_stays_small() {
    let kib = 1024;
    assert!(size_of(SCRIPT) < 21 * kib, "scripts: {} bytes", size_of(SCRIPT));
    assert!(size_of("text/css; charset=utf-8") < 10 * kib);
    let assets: usize = ASSETS.iter().map(|asset| asset.body.len()).sum();
    let whole = assets + index(&facts()).len();
    assert!(whole < 60 * kib, "in all: {whole} bytes");
}

#[test]
fn every_file_that_a_page_names_is_served() {
    let mut named = 0;
    for html in pages() {
        for address in quoted(&html, " src=\"").chain(quoted(&html, " href=\"")) {
            if address.starts_with("/assets/") {
                assert!(asset(address).is_some(), "{address}");
                named += 1;
            } else {
                assert!(address == "/" || address.starts_with("#i-"), "{address}");
            }
        }
    }
    assert!(named > 10);
    for script in ASSETS.iter().filter(|asset| asset.content_type == SCRIPT) {
        for module in quoted(text_of(script), "from \"./") {
            assert!(asset(&format!("/assets/{module}")).is_some(), "{} imports {module}", script.path);
        }
    }
    assert!(asset("/assets/../page.rs").is_none());
    assert!(asset("/assets/").is_none());
}

#[test]
fn every_icon_and_template_in_use_exists() {
    let html = index(&facts());
    for sign in quoted(&html, " href=\"#") {
        assert!(html.contains(&format!("<symbol id=\"{sign}\"")), "{sign}");
    }
    for script in ASSETS.iter().filter(|asset| asset.content_type == SCRIPT) {
        for call in [" part(\"", "(part(\"", " pick(\"", "(pick(\""] {
            for template in quoted(text_of(script), call) {
                assert!(html.contains(&format!("<template id=\"{template}\"")), "{}: {template}", script.path);
            }
        }
        for element in quoted(text_of(script), " at(\"") {
            assert!(html.contains(&format!("id=\"{element}\"")), "{}: {element}", script.path);
        }
    }
}

#[test]
fn attack_65_a_page_has_no_inline_script_or_style() {
    for html in pages() {
        assert!(!html.contains("<style") && !html.contains(" style="));
        for tag in html.split('<').skip(1).filter(|tag| tag.starts_with("script")) {
            assert_eq!(tag, "script type=\"module\" src=\"/assets/page.js\">");
        }
        for tag in html.split('<').map(|rest| rest.split('>').next().unwrap_or_default()) {
            let is_handler = |word: &str| word.starts_with("on") && word.contains('=');
            assert!(!tag.split_whitespace().any(is_handler), "{tag}");
        }
    }
}

#[test]
fn attack_65_nothing_is_loaded_from_elsewhere() {
    let named_for_people = ["http://www.w3.org/2000/svg"];
    let files = ASSETS.iter().map(|asset| text_of(asset).to_owned()).chain([PARTS.to_owned()]);
    for mut text in files {
        for known in named_for_people {
            text = text.replace(known, "");
        }
        assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
        assert!(!text.contains("@import") && !text.contains("url("));
    }
}

#[test]
fn scripts_never_turn_text_into_markup_or_code() {
    for script in ASSETS.iter().filter(|asset| asset.content_type == SCRIPT) {
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"] {
            assert!(!text_of(script).contains(sink), "{}: {sink}", script.path);
        }
        for jar in ["cookie", "localStorage", "indexedDB"] {
            let code = text_of(script).lines().filter(|line| !line.starts_with("//"));
            assert!(code.into_iter().all(|line| !line.contains(jar)), "{}: {jar}", script.path);
        }
    }
}

#[test]
fn facts_and_sentences_are_escaped() {
    let html = index(&facts());
    assert!(html.contains("/home/&lt;b&gt;anna&lt;/b&gt;/vault"));
    assert!(html.contains("1.2.3") && html.contains("http://127.0.0.1:8700") && html.contains("unix:/run/pixy.sock"));
    let refused = callback(&CallbackOutcome::Failed { sentence: "<img src=x onerror=alert(1)>".into() });
    assert!(!refused.contains("<img src=x") && refused.contains("&lt;img src=x"));
}

#[test]
fn a_failed_callback_says_what_happened_and_what_to_do() {
    let refused = callback(&CallbackOutcome::Failed { sentence: "The code is too old. Start again.".into() });
    assert!(refused.contains("<h1>The code is too old.</h1>"), "{refused}");
    assert!(refused.contains(">Start again. Nothing was stored. You can close this tab.</p>"), "{refused}");
    let refused = callback(&CallbackOutcome::Failed { sentence: "It was not allowed.".into() });
    assert!(refused.contains("<h1>It was not allowed.</h1>"), "{refused}");
}

#[test]
fn the_policy_has_no_exceptions() {
    let header = |name: &str| SECURITY_HEADERS.iter().find(|(known, _)| *known == name).unwrap().1;
    let policy = header("content-security-policy");
    for rule in policy.split("; ") {
        let (name, value) = rule.split_once(' ').unwrap();
        let is_strict =
            matches!(value, "'none'" | "'self'") || (name, value) == ("require-trusted-types-for", "'script'");
        assert!(is_strict, "{rule}");
    }
    for rule in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
        assert!(policy.contains(rule), "{rule}");
    }
    assert_eq!(header("cache-control"), "no-store");
    for (name, value) in SECURITY_HEADERS {
        assert!(http::HeaderName::from_lowercase(name.as_bytes()).is_ok(), "{name}");
        assert!(http::HeaderValue::from_str(value).is_ok() && !value.contains("  "), "{value}");
    }
}

/// Every text between `before` and the next quotation mark.
fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}
