//! HTML pages, which work without scripts.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Asks for consent; the decision goes to `/decide`.
pub(crate) fn consent(ticket: &str, scope: &str) -> Markup {
    page(
        "Allow pixy?",
        &html! {
            h1 { "Allow " code { "pixy" } " to use your imaginary plan?" }
            p { "You are signed in as " b { (EMAIL) } " of " b { (ORGANIZATION) } ". None of it is real." }
            p { "It asks for:" }
            ul { @for scope in scope.split_whitespace() { li { code { (scope) } " " (meaning(scope)) } } }
            form method="post" action="/decide" {
                input type="hidden" name="ticket" value=(ticket);
                button.allow type="submit" name="decision" value="allow" { "Allow" }
                button type="submit" name="decision" value="deny" { "Deny" }
            }
        },
    )
}

/// Shows the code to paste: `code#state`.
pub(crate) fn code(code: &str, state: &str, nonce: &str) -> Markup {
    page(
        "Your code",
        &html! {
            h1 { "Copy this code into Pixy" }
            p { "It works once, and only for the Pixy that asked for it." }
            pre id="code" tabindex="0" { (code) "#" (state) }
            p { button.allow id="copy" type="button" hidden { "Copy" } }
            // Without script the button stays hidden, and a click selects the whole code (user-select: all).
            script nonce=(nonce) { (PreEscaped(COPY_SCRIPT)) }
        },
    )
}

/// A message or an error.
pub(crate) fn note(title: &str, text: &str) -> Markup {
    page(title, &html! { h1 { (title) } p { (text) } })
}

/// The user.
pub(crate) const EMAIL: &str = "ada@playground.example";
/// The user's organization.
pub(crate) const ORGANIZATION: &str = "Imaginary Plans";

fn page(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · playground" }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (content) footer { "The Pixy playground: an imaginary provider on your own machine." } } }
        }
    }
}

fn meaning(scope: &str) -> &'static str {
    match scope {
        "llm.invoke" => "talk to the model",
        "offline_access" => "stay signed in (a refresh token)",
        _ => "means nothing here",
    }
}

const COPY_SCRIPT: &str = "\
const button = document.getElementById('copy'), code = document.getElementById('code');
button.hidden = false;
button.onclick = async () => { await navigator.clipboard.writeText(code.textContent); button.textContent = 'Copied'; };";

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { margin: 0; font: 1.05rem/1.5 system-ui, sans-serif; }
main { max-width: 40rem; margin: 10vh auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; line-height: 1.3; }
pre { font-size: 1.25rem; padding: 1rem 1.25rem; border: 2px solid #7c5cff; border-radius: .6rem; white-space: pre-wrap;
  overflow-wrap: anywhere; user-select: all; -webkit-user-select: all; }
button { font: inherit; padding: .55rem 1.6rem; margin-right: .6rem; border: 1px solid #8888; border-radius: .5rem;
  background: transparent; color: inherit; cursor: pointer; }
button.allow { background: #5b3df5; border-color: #5b3df5; color: #fff; }
button:focus-visible, pre:focus-visible { outline: 3px solid #ffb84d; outline-offset: 2px; }
footer { margin-top: 3rem; font-size: .9rem; opacity: .7; }";
