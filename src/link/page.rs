//! The page that a person links accounts with: what is served, and under which rules.
//!
//! Pure. The page itself reveals nothing: it names no account before its script has presented a session.

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

/// Facts about this Pixy, for the foot of the page and `pixy status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The configuration file; `None` for the built-in configuration.
    pub file: Option<String>,
    /// Pixy's version.
    pub version: &'static str,
    /// Where agents connect.
    pub agent_addresses: Vec<String>,
    /// The directory of the sealed logins.
    pub store: String,
    /// The page's own port, which also receives redirects.
    pub port: Option<u16>,
}

/// The outcome of a redirect, for the browser tab that it ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// The code was exchanged; the person is to confirm on the page.
    Exchanged {
        /// Which account it is for.
        title: String,
    },
    /// No code was exchanged.
    Failed {
        /// Why, and what to do.
        sentence: String,
    },
}

/// Headers of every response of the link surface. Scripts and styles come from Pixy alone, and none is inline, so no nonce is
/// needed.
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

/// The page, the same for every client: accounts arrive by the API, once there is a session.
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
                    p { "This page needs JavaScript. Without it, use the terminal: " code { "pixy link NAME" } "." }
                }
                (sign_in())
                div #cards data-port=[port] {}
            }
            footer {
                p #signout hidden { button type="button" { "Sign out" } }
                p #closable hidden {
                    "Every account is linked, so this page can be turned off: " code { "link: { listen: off }" }
                    ". The terminal still works."
                }
                p {
                    "Pixy " (version) " keeps logins sealed in " code { (store) }
                    @if !agent_addresses.is_empty() { " and serves agents at " (addresses(agent_addresses)) }
                    "."
                }
                details {
                    summary { "What Pixy does with a login" }
                    p {
                        "It encrypts the login with its own key and renews it before it expires. It sends it to the one provider that \
                         the account names, and nowhere else. No agent, log or page gets it, nor does this page. SECURITY.md, in \
                         Pixy's source, lists what that protects against and what it does not."
                    }
                }
            }
            (PreEscaped(PARTS))
        },
    )
}

/// The page at the end of a redirect.
pub fn callback(outcome: &CallbackOutcome) -> String {
    let (title, text) = match outcome {
        CallbackOutcome::Exchanged { title } => (
            format!("The provider has answered for {title}"),
            "You can close this tab and go back to Pixy, to confirm whose account it is. Nothing is stored before."
                .to_owned(),
        ),
        // What happened is the title; what to do is below.
        CallbackOutcome::Failed { sentence } => {
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

/// Shown while there is no session.
fn sign_in() -> Markup {
    html! {
        form #signin hidden {
            p { "Run " code { "pixy url" } " in a terminal, and open the link that it prints. It works once." }
            div class="line" {
                label for="setup" { "Or paste the link here:" }
                input #setup autocomplete="off" autocapitalize="none" spellcheck="false" required;
                button { "Open" }
            }
            details {
                summary { "Pixy runs in a container, or on another machine" }
                p { "Run it there. If you reach this page by another port than Pixy's own, paste the link here." }
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
#[path = "page_tests.rs"]
mod tests;
