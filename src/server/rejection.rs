//! Why a request is rejected before a surface sees it: it is malformed, ambiguous or too large.

use http::StatusCode;

/// Why a request is rejected. [`Surface::reject`](super::Surface::reject) makes the response, in the surface's own format; the
/// connection closes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It is malformed, or has two readings.
    BadRequest(&'static str),
    /// CONNECT or TRACE, which only a forward proxy needs (RFC 9110 §9.3.6, §9.3.8).
    MethodNotAllowed,
    /// The request target is too long.
    TargetTooLong,
    /// An `Expect` other than 100-continue (RFC 9110 §10.1.1).
    ExpectationFailed,
    /// The head is too large, or has too many fields.
    HeadTooLarge,
    /// `Host` is no name of this Pixy; the text names the setting.
    UnknownHost(&'static str),
    /// No memory is free for its head.
    Overloaded,
}

impl Rejection {
    /// The value of `Allow` in a 405: the methods that any path could allow.
    pub const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

    /// The message where no memory is free (`limits.memory`).
    pub const OVERLOADED: &str = "too many clients use Pixy at the moment; its memory is limited (`limits.memory`)";

    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The stable code of the answer.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TargetTooLong => "uri_too_long",
            Self::ExpectationFailed => "expectation_failed",
            Self::HeadTooLarge => "header_too_large",
            Self::UnknownHost(_) => "unknown_host",
            Self::Overloaded => "overloaded",
        }
    }

    /// What is wrong, without a final full stop.
    pub fn message(self) -> &'static str {
        match self {
            Self::BadRequest(reason) | Self::UnknownHost(reason) => reason,
            Self::MethodNotAllowed => "this method is never allowed",
            Self::TargetTooLong => "the request target is too long (`limits.uri_bytes`)",
            Self::ExpectationFailed => "the only supported expectation is 100-continue",
            Self::HeadTooLarge => {
                "the header fields are too many or too large (`limits.header_fields`, `limits.header_bytes`)"
            }
            Self::Overloaded => Self::OVERLOADED,
        }
    }
}
