//! The wire form of a fault.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::super::reply::{Reply, Step};

/// The values that a reply template may contain.
#[derive(Debug, Clone)]
pub(in super::super) struct Issued {
    /// The new access token.
    pub(in super::super) access: String,
    /// The new refresh token; the presented one if nothing rotated.
    pub(in super::super) refresh: String,
    /// The token or code that the client sent.
    pub(in super::super) presented: String,
    /// The token endpoint's own origin.
    pub(in super::super) here: String,
    /// An origin that must never get a request.
    pub(in super::super) elsewhere: String,
}

/// A kind of reply. Texts are templates, see [`Issued::fill`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Serve {
    /// A status and a JSON body.
    Json(u16, &'static str),
    /// A status and a body of this content type.
    Typed(u16, &'static str, &'static str),
    /// A status, these headers and no others, and a body.
    With(u16, &'static [(&'static str, &'static str)], &'static str),
    /// An HTML page.
    Html(u16),
    /// A redirect.
    Moved(u16, To),
    /// `Retry-After` as a date, so many seconds from now.
    Wait(u16, i64),
    /// Exactly these bytes, then the connection is closed.
    Bytes(&'static str),
    /// Exactly these bytes, then the connection is reset.
    Reset(&'static str),
    /// Exactly these bytes, then silence.
    Silence(&'static str),
    /// A good reply, long, one byte a second.
    Drip,
    /// A header section of about so many bytes.
    Head(usize),
    /// A good reply shorter than its Content-Length.
    Promise,
    /// Made by a function.
    Made(fn(&Issued) -> Reply),
}

/// Where a redirect leads.
#[derive(Debug, Clone, Copy)]
pub(super) enum To {
    /// Another path of the same origin.
    Here,
    /// Another origin.
    Elsewhere,
}

impl Serve {
    pub(super) fn reply(self, issued: &Issued) -> Reply {
        match self {
            Self::Json(status, body) => Self::Typed(status, "application/json", body).reply(issued),
            Self::Typed(status, kind, body) => Reply::new(status).header("content-type", kind).body(issued.fill(body)),
            Self::With(status, headers, body) => {
                let reply = Reply::new(status).body(issued.fill(body));
                headers.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
            }
            Self::Html(status) => Self::Typed(status, "text/html; charset=utf-8", PAGE).reply(issued),
            Self::Moved(status, to) => {
                let origin = match to {
                    To::Here => &issued.here,
                    To::Elsewhere => &issued.elsewhere,
                };
                Reply::new(status).header("location", &format!("{origin}/moved"))
            }
            Self::Wait(status, seconds) => {
                let date = Timestamp::now() + SignedDuration::from_secs(seconds);
                let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                Reply::new(status).header("retry-after", &date)
            }
            Self::Bytes(text) => Reply::bytes(issued.fill(text)),
            Self::Reset(text) => Reply::raw([Step::send(issued.fill(text)), Step::Reset]),
            Self::Silence(text) => Reply::raw([Step::send(issued.fill(text)), Step::Hang]),
            Self::Drip => {
                // Longer than any sensible timeout.
                let body = issued.fill(&format!("{{$OK}}{}", " ".repeat(100_000)));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                Reply::raw([Step::send(head), Step::Drip(body.into(), Duration::from_secs(1))])
            }
            Self::Head(size) => {
                let line = format!("x-bomb: {}\r\n", "b".repeat(1014));
                let lines = Step::Flood(line.into(), size as u64);
                Reply::raw([Step::send("HTTP/1.1 200 OK\r\n"), lines, Step::send("content-length: 2\r\n\r\n{}")])
            }
            Self::Promise => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
                Reply::raw([Step::send(head), Step::send(issued.fill("{$OK}")), Step::Hang])
            }
            Self::Made(make) => make(issued),
        }
    }
}

impl Issued {
    /// `$OK` becomes the members of a good reply, `$A` and `$R` the new tokens, `$P` the presented one.
    pub(super) fn fill(&self, template: &str) -> String {
        template
            .replace("$OK", r#""access_token":"$A","token_type":"Bearer","expires_in":3600,"refresh_token":"$R""#)
            .replace("$A", &self.access)
            .replace("$R", &self.refresh)
            .replace("$P", &self.presented)
    }
}

const PAGE: &str = "<!doctype html><title>Sign in to the network</title><p>Accept the terms to continue.</p>";
