//! The page that a person links accounts with: what is served, and under which rules.
//!
//! Everything here is pure. The page itself tells nothing: no account is named before the script has shown a session.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// A file of the page, embedded in the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// The path at which it is served.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

/// What a person is told of this Pixy: by the page's foot, and by `pixy status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The configuration's file; `None`: it is the one that is built in.
    pub file: Option<String>,
    /// Pixy's version.
    pub version: &'static str,
    /// Where agents connect.
    pub agent_addresses: Vec<String>,
    /// Where the sealed logins are.
    pub store: String,
    /// The page's own port, to which providers send browsers back.
    pub port: Option<u16>,
}

/// How a loopback redirect ended, for the tab that the provider sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// The code was exchanged; the person confirms on the page.
    Exchanged {
        /// Which account it is for.
        title: String,
    },
    /// Nothing came of it.
    Refused {
        /// Why, and what to do.
        sentence: String,
    },
}

/// Headers of every response of the link surface. Scripts and styles come from Pixy alone, and none stands in the page
/// itself, so there is no nonce to guess.
pub const SECURITY_HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "clipboard-read=(self), clipboard-write=(self), accelerometer=(), autoplay=(), camera=(), \
         display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), hid=(), \
         identity-credentials-get=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), \
         picture-in-picture=(), publickey-credentials-create=(), publickey-credentials-get=(), screen-wake-lock=(), \
         serial=(), usb=(), xr-spatial-tracking=()",
    ),
    ("cache-control", "no-store"),
];

/// The file at a path.
pub fn asset(path: &str) -> Option<Asset> {
    ASSETS.iter().find(|asset| asset.path == path).copied()
}

/// The page, the same for everybody: accounts come by the API, once there is a session.
pub fn index(facts: &Facts) -> String {
    let Facts { version, agent_addresses, store, port, .. } = facts;
    document(
        "Pixy",
        &html! {
            script type="module" src="/assets/page.js" {}
            @for asset in ASSETS.iter().filter(|asset| asset.content_type == SCRIPT && asset.path != "/assets/page.js") {
                link rel="modulepreload" href=(asset.path);
            }
        },
        &html! {
            header {
                (brand())
                div role="status" {
                    h1 #sentence { "One moment…" }
                    p #more {}
                }
                div #remedy {}
            }
            main {
                noscript {
                    p { "This page needs JavaScript. The terminal does the same without it: " code { "pixy link NAME" } "." }
                }
                (door())
                div #cards data-port=[port] {}
            }
            footer {
                p #closable hidden {
                    "Nothing is left to link, so this page can be turned off: " code { "link: { listen: off }" }
                    ". The terminal goes on working."
                }
                p {
                    "Pixy " (version) " keeps logins sealed in " code { (store) }
                    @if !agent_addresses.is_empty() { " and serves agents at " (addresses(agent_addresses)) }
                    "."
                }
                details {
                    summary { "What Pixy does with a login" }
                    p {
                        "It seals the login with its own key and renews it before it ends. It sends it to the one provider that the \
                         account names, and to nobody else. No agent, log or page ever sees it, this one neither. SECURITY.md, in \
                         Pixy's source, says what that protects from and what it does not."
                    }
                }
            }
            (PreEscaped(PARTS))
        },
    )
}

/// What the browser shows after a provider sent it back to Pixy.
pub fn callback(outcome: &CallbackOutcome) -> String {
    let (title, text) = match outcome {
        CallbackOutcome::Exchanged { title } => (
            format!("The provider has answered for {title}"),
            "You can close this tab and go back to Pixy, to say whether that is you. Nothing is stored before."
                .to_owned(),
        ),
        // What happened is the title; what to do about it stands below.
        CallbackOutcome::Refused { sentence } => {
            let (what, rest) = sentence.split_once(". ").unwrap_or((sentence.trim_end_matches('.'), ""));
            (format!("{what}."), format!("{rest} Nothing was stored. You can close this tab."))
        }
    };
    document(
        &title,
        &html! {},
        &html! {
            header {
                (brand())
                div role="status" {
                    h1 { (title) }
                    p #more { (text) }
                }
            }
            main {
                p { a class="button" href="/" { "Open Pixy here" } }
            }
        },
    )
}

fn document(title: &str, head: &Markup, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/page.css";
                (head)
            }
            body { (body) }
        }
    }
    .into_string()
}

fn brand() -> Markup {
    html! { p class="brand" { img src="/assets/icon.svg" alt="" width="20" height="20"; "Pixy" } }
}

/// What stands here as long as there is no session.
fn door() -> Markup {
    html! {
        form #door hidden {
            p { "Run " code { "pixy url" } " in a terminal, and open what it prints. It works once, for you alone." }
            div class="line" {
                label for="setup" { "Or paste it here:" }
                input #setup autocomplete="off" autocapitalize="none" spellcheck="false" required;
                button { "Open" }
            }
            details {
                summary { "Pixy runs in a container, or on another machine" }
                p { "Ask it there. Where you reach this page by another port than Pixy's own, paste here what it prints." }
                pre class="block" {
                    "docker compose exec pixy pixy url\n\
                     kubectl exec POD -c pixy -- pixy url\n\
                     ssh HOST pixy url"
                }
            }
        }
    }
}

fn addresses(list: &[String]) -> Markup {
    html! {
        @for (place, address) in list.iter().enumerate() {
            @if place > 0 { ", " }
            code { (address) }
        }
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const PARTS: &str = include_str!("assets/parts.html");

macro_rules! file {
    ($name:literal, $content_type:expr) => {
        Asset {
            path: concat!("/assets/", $name),
            content_type: $content_type,
            body: include_bytes!(concat!("assets/", $name)),
        }
    };
}

const ASSETS: &[Asset] = &[
    file!("page.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("page.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("card.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("flow.js", SCRIPT),
    file!("look.js", SCRIPT),
    file!("state.js", SCRIPT),
    file!("words.js", SCRIPT),
];

#[cfg(test)]
mod tests {
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
            callback(&CallbackOutcome::Refused { sentence: "<img src=x onerror=alert(1)>".into() }),
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
        assert!(size_of(SCRIPT) < 20 * kib, "scripts: {} bytes", size_of(SCRIPT));
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
    fn every_sign_and_every_template_that_is_used_exists() {
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
    fn attack_65_no_script_style_or_handler_stands_in_a_page() {
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
    fn attack_65_nothing_comes_from_elsewhere() {
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
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"]
            {
                assert!(!text_of(script).contains(sink), "{}: {sink}", script.path);
            }
            for jar in ["cookie", "localStorage", "indexedDB"] {
                let code = text_of(script).lines().filter(|line| !line.starts_with("//"));
                assert!(code.into_iter().all(|line| !line.contains(jar)), "{}: {jar}", script.path);
            }
        }
    }

    #[test]
    fn what_is_told_is_escaped() {
        let html = index(&facts());
        assert!(html.contains("/home/&lt;b&gt;anna&lt;/b&gt;/vault"));
        assert!(
            html.contains("1.2.3") && html.contains("http://127.0.0.1:8700") && html.contains("unix:/run/pixy.sock")
        );
        let refused = callback(&CallbackOutcome::Refused { sentence: "<img src=x onerror=alert(1)>".into() });
        assert!(!refused.contains("<img src=x") && refused.contains("&lt;img src=x"));
    }

    #[test]
    fn a_refused_callback_says_what_happened_and_then_what_to_do() {
        let refused = callback(&CallbackOutcome::Refused { sentence: "The code is too old. Start again.".into() });
        assert!(refused.contains("<h1>The code is too old.</h1>"), "{refused}");
        assert!(refused.contains(">Start again. Nothing was stored. You can close this tab.</p>"), "{refused}");
        let refused = callback(&CallbackOutcome::Refused { sentence: "It was not allowed.".into() });
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

    /// What stands between `before` and the next quotation mark, at each place.
    fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
    }
}
