//! Responses of token endpoints, observed or conceivable: one line each.
//!
//! The expected classification follows these rules; the first match wins:
//! 1. **ok**: status 200, a JSON object, `access_token` a non-empty string of printable ASCII (RFC 6749 §A.12), `token_type` absent or
//!    `bearer` in any case (RFC 6749 §5.1). The content type and other members do not matter: the server has rotated, so being
//!    strict here would lose the login. A `refresh_token` that is not a non-empty string, or is unchanged, means: keep the old one.
//! 2. **terminal**: a code of the profile's list (here `[invalid_grant]`), exactly spelled (RFC 6749 §1.1: values are
//!    case-sensitive), in any known member, with any status.
//! 3. **transient**: 429, 5xx, a code that says "later" (`server_error`, `temporarily_unavailable`, `slow_down`), or the reply did not arrive: refused, cut, reset, not HTTP, too late.
//! 4. **unknown**: anything else. Redirects are not followed, nothing is decompressed, a reply has a bound (1 MiB or less).

mod bodies;
mod serve;

use std::time::Duration;

pub(super) use self::serve::Issued;
use self::serve::Serve::{
    self, Bytes, Drip, Head, Html, Json, Made, Moved, Promise, Reset, Silence, Typed, Wait, With,
};
use self::serve::To::{Elsewhere, Here};
use super::reply::Reply;

/// The expected classification of a token reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sorting {
    /// A new access token.
    Ok(RefreshToken),
    /// The grant has ended: the account must be linked again.
    Terminal,
    /// Try again later with the same refresh token.
    Transient,
    /// Unclear: treated as transient three times.
    Unknown,
}

/// Which refresh token is valid after a good reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshToken {
    /// The reply's.
    New,
    /// The one that was sent.
    Kept,
}

/// What the server did to the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: the refresh token stays valid.
    Nothing,
    /// It issued an access token and kept the refresh token.
    Access,
    /// It rotated: the refresh token is invalid, and only this response contains the next one.
    Rotated,
}

macro_rules! faults {
    ($($fault:ident: $effect:expr, $sorting:expr, $serve:expr;)+) => {
        /// A response to a token request; see the table in the source.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Fault { $($fault),+ }

        impl Fault {
            pub(crate) const ALL: &[Self] = &[$(Self::$fault),+];

            /// Its name in the table.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$fault => stringify!($fault)),+ }
            }

            fn row(self) -> (Effect, Sorting, Serve) {
                match self { $(Self::$fault => ($effect, $sorting, $serve)),+ }
            }
        }
    };
}

impl Fault {
    /// The expected classification with terminal errors `[invalid_grant]`.
    pub(crate) fn expected(self) -> Sorting {
        self.row().1
    }

    /// What the server did to the grant.
    pub(crate) fn effect(self) -> Effect {
        self.row().0
    }

    /// Whether the sent refresh token is refused from now on (after the grace).
    pub(crate) fn spends(self) -> bool {
        self.effect() == Effect::Rotated
    }

    /// The reply on the wire.
    pub(super) fn reply(self, issued: &Issued) -> Reply {
        self.row().2.reply(issued)
    }

    /// The expected lifetime of the access token: 300 s if missing or not a number, at most ten years.
    pub(crate) fn lifetime(self) -> Duration {
        match self {
            Self::ExpiresInMissing | Self::ExpiresInWords | Self::ExpiresInNull | Self::ExpiresInTrue => FIVE_MINUTES,
            Self::ExpiresInZero | Self::ExpiresInNegative => Duration::ZERO,
            Self::ExpiresInEnormous | Self::ExpiresInBeyondU64 => TEN_YEARS,
            Self::ExpiresInFraction => Duration::from_secs(1),
            _ => Duration::from_hours(1),
        }
    }

    /// The expected pause of `Retry-After`, at most five minutes; `None` if it is missing or invalid. A date is relative to now.
    pub(crate) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::TooManySeconds | Self::UnavailableSeconds | Self::GatewayTimeoutSeconds => {
                Some(Duration::from_secs(7))
            }
            Self::InvalidGrantRetryAfter => Some(Duration::from_secs(7)),
            Self::TooManyDateAhead => Some(Duration::from_mins(1)),
            Self::TooManyDatePast => Some(Duration::ZERO),
            Self::TooManyHuge => Some(FIVE_MINUTES),
            _ => None,
        }
    }
}

const FIVE_MINUTES: Duration = Duration::from_mins(5);
const TEN_YEARS: Duration = Duration::from_hours(10 * 365 * 24);

const NOTHING: Effect = Effect::Nothing;
const ACCESS: Effect = Effect::Access;
const ROTATED: Effect = Effect::Rotated;
const NEW: Sorting = Sorting::Ok(RefreshToken::New);
const KEPT: Sorting = Sorting::Ok(RefreshToken::Kept);
const TERMINAL: Sorting = Sorting::Terminal;
const TRANSIENT: Sorting = Sorting::Transient;
const UNKNOWN: Sorting = Sorting::Unknown;

// In a text, `$OK` stands for the members of a good reply, `$A` and `$R` for the new tokens, `$P` for the token that was presented.
faults! {
    // Unusual, but good: a client that refuses one of these loses a login.
    Plain: ROTATED, NEW, Json(200, r"{$OK}");
    ContentTypeWithCharset: ROTATED, NEW, Typed(200, "application/json; charset=utf-8", r"{$OK}");
    ContentTypeText: ROTATED, NEW, Typed(200, "text/plain", r"{$OK}");
    ContentTypeMissing: ROTATED, NEW, With(200, &[], r"{$OK}");
    UnknownMembers: ROTATED, NEW, Json(200, r#"{"x":{"y":[1,null]},"access_tokens":7,$OK}"#);
    Whitespace: ROTATED, NEW, Json(200, "\r\n\t {$OK} \r\n\n");
    EscapedNames: ROTATED, NEW, Json(200, r#"{"\u0061ccess_token":"$A","refresh\u005ftoken":"$R","expires_in":3600}"#);
    ErrorNull: ROTATED, NEW, Json(200, r#"{"error":null,$OK}"#);
    ErrorBesideTokens: ROTATED, NEW, Json(200, r#"{"error":"invalid_grant",$OK}"#);
    DuplicateNames: ROTATED, NEW, Json(200, r#"{"access_token":"stale","refresh_token":"stale",$OK}"#);
    LongAccessToken: ROTATED, NEW, Made(bodies::long_access_token);
    TokenTypeMissing: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":3600}"#);
    TokenTypeLower: ROTATED, NEW, Json(200, r#"{"access_token":"$A","token_type":"bearer","refresh_token":"$R","expires_in":3600}"#);
    TokenTypeUpper: ROTATED, NEW, Json(200, r#"{"access_token":"$A","token_type":"BEARER","refresh_token":"$R","expires_in":3600}"#);
    ExpiresInMissing: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R"}"#);
    ExpiresInZero: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":0}"#);
    ExpiresInNegative: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":-3600}"#);
    ExpiresInEnormous: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":1e99}"#);
    ExpiresInBeyondU64: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":18446744073709551616}"#);
    ExpiresInDigits: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":"3600"}"#);
    ExpiresInWords: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":"soon"}"#);
    ExpiresInFraction: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":1.5}"#);
    ExpiresInNull: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":null}"#);
    ExpiresInTrue: ROTATED, NEW, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":true}"#);
    RefreshTokenMissing: ACCESS, KEPT, Json(200, r#"{"access_token":"$A","expires_in":3600}"#);
    RefreshTokenNull: ACCESS, KEPT, Json(200, r#"{"access_token":"$A","refresh_token":null,"expires_in":3600}"#);
    RefreshTokenEmpty: ACCESS, KEPT, Json(200, r#"{"access_token":"$A","refresh_token":"","expires_in":3600}"#);
    RefreshTokenSame: ACCESS, KEPT, Json(200, r#"{"access_token":"$A","refresh_token":"$P","expires_in":3600}"#);
    RefreshTokenNumber: ACCESS, KEPT, Json(200, r#"{"access_token":"$A","refresh_token":12345,"expires_in":3600}"#);
    Http10: ROTATED, NEW, Bytes("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{$OK}");
    UntilClosed: ROTATED, NEW, Bytes("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{$OK}");
    ChunkedWithTrailers: ROTATED, NEW, Made(bodies::chunked_with_trailers);
    LengthAndChunked: ROTATED, NEW, Made(bodies::length_and_chunked);
    EarlyHints: ROTATED, NEW, Bytes("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{$OK}");
    ResetAfterReply: ROTATED, NEW, Made(bodies::reset_after_reply);

    // Status 200 without a usable token.
    HtmlOk: NOTHING, UNKNOWN, Html(200);
    Empty: NOTHING, UNKNOWN, Json(200, "");
    OnlyWords: NOTHING, UNKNOWN, Typed(200, "text/plain", "OK");
    JsonArray: ROTATED, UNKNOWN, Json(200, "[{$OK}]");
    JsonText: NOTHING, UNKNOWN, Json(200, r#""$A""#);
    JsonNull: NOTHING, UNKNOWN, Json(200, "null");
    JsonWrapped: ROTATED, UNKNOWN, Json(200, r#"{"data":{$OK}}"#);
    FormEncoded: ROTATED, UNKNOWN, Typed(200, "application/x-www-form-urlencoded", "access_token=$A&refresh_token=$R&token_type=bearer");
    Truncated: ROTATED, UNKNOWN, Json(200, "{$OK");
    TruncatedUntilClosed: ROTATED, UNKNOWN, Bytes("HTTP/1.1 200 OK\r\n\r\n{$OK,\"x\":\"");
    TrailingGarbage: ROTATED, UNKNOWN, Json(200, "{$OK} <!-- cached -->");
    TwoDocuments: ROTATED, UNKNOWN, Json(200, "{$OK}{$OK}");
    TrailingComma: ROTATED, UNKNOWN, Json(200, "{$OK,}");
    SingleQuotes: ROTATED, UNKNOWN, Json(200, "{'access_token':'$A','refresh_token':'$R'}");
    NotANumber: ROTATED, UNKNOWN, Json(200, r#"{"access_token":"$A","refresh_token":"$R","expires_in":NaN}"#);
    ByteOrderMark: ROTATED, UNKNOWN, Json(200, "\u{feff}{$OK}");
    Utf16: ROTATED, UNKNOWN, Made(bodies::utf16);
    Latin1: ROTATED, UNKNOWN, Made(bodies::latin1);
    DeepNesting: NOTHING, UNKNOWN, Made(bodies::deep_nesting);
    ManyMembers: NOTHING, UNKNOWN, Made(bodies::many_members);
    TwoGigabytes: NOTHING, UNKNOWN, Made(bodies::two_gigabytes);
    TwoGigabytesChunked: NOTHING, UNKNOWN, Made(bodies::two_gigabytes_chunked);
    GzipBomb: NOTHING, UNKNOWN, Made(bodies::gzip_bomb);
    GzipUnasked: ROTATED, UNKNOWN, Made(bodies::gzip);
    Created: ROTATED, UNKNOWN, Json(201, "{$OK}");
    Accepted: ROTATED, UNKNOWN, Json(202, "{$OK}");
    NoContent: NOTHING, UNKNOWN, With(204, &[], "");
    ResetContent: NOTHING, UNKNOWN, With(205, &[], "");
    AccessTokenMissing: NOTHING, UNKNOWN, Json(200, r#"{"token_type":"Bearer","expires_in":3600}"#);
    AccessTokenEmpty: NOTHING, UNKNOWN, Json(200, r#"{"access_token":"","token_type":"Bearer"}"#);
    AccessTokenNull: NOTHING, UNKNOWN, Json(200, r#"{"access_token":null,"token_type":"Bearer"}"#);
    AccessTokenNumber: NOTHING, UNKNOWN, Json(200, r#"{"access_token":123456,"token_type":"Bearer"}"#);
    AccessTokenList: ROTATED, UNKNOWN, Json(200, r#"{"access_token":["$A"],"refresh_token":"$R"}"#);
    AccessTokenNewline: ROTATED, UNKNOWN, Json(200, r#"{"access_token":"$A\r\nx-evil: 1","refresh_token":"$R"}"#);
    AccessTokenNul: ROTATED, UNKNOWN, Json(200, r#"{"access_token":"$A\u0000","refresh_token":"$R"}"#);
    AccessTokenControl: ROTATED, UNKNOWN, Json(200, r#"{"access_token":"$A\u001b[2J\u007f","refresh_token":"$R"}"#);
    AccessTokenNotAscii: ROTATED, UNKNOWN, Json(200, r#"{"access_token":"$Aé","refresh_token":"$R"}"#);
    AccessTokenHuge: NOTHING, UNKNOWN, Made(bodies::huge_access_token);
    TokenTypeMac: ROTATED, UNKNOWN, Json(200, r#"{"access_token":"$A","refresh_token":"$R","token_type":"mac"}"#);
    TokenTypeNumber: ROTATED, UNKNOWN, Json(200, r#"{"access_token":"$A","refresh_token":"$R","token_type":1}"#);
    ErrorIn200: NOTHING, TRANSIENT, Json(200, r#"{"error":"server_error","error_description":"try again"}"#);
    SwitchingProtocols: NOTHING, UNKNOWN, Bytes("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n");

    // Redirects are never followed: the body contains the token.
    MovedElsewhere301: NOTHING, UNKNOWN, Moved(301, Elsewhere);
    MovedElsewhere302: NOTHING, UNKNOWN, Moved(302, Elsewhere);
    MovedElsewhere303: NOTHING, UNKNOWN, Moved(303, Elsewhere);
    MovedElsewhere307: NOTHING, UNKNOWN, Moved(307, Elsewhere);
    MovedElsewhere308: NOTHING, UNKNOWN, Moved(308, Elsewhere);
    MovedHere301: NOTHING, UNKNOWN, Moved(301, Here);
    MovedHere302: NOTHING, UNKNOWN, Moved(302, Here);
    MovedHere303: NOTHING, UNKNOWN, Moved(303, Here);
    MovedHere307: NOTHING, UNKNOWN, Moved(307, Here);
    MovedHere308: NOTHING, UNKNOWN, Moved(308, Here);
    MovedNowhere: NOTHING, UNKNOWN, With(302, &[], "");
    NotModified: NOTHING, UNKNOWN, With(304, &[], "");

    // Refused, but not because the grant is dead.
    TokensIn400: ROTATED, UNKNOWN, Json(400, "{$OK}");
    Empty400: NOTHING, UNKNOWN, With(400, &[], "");
    Html400: NOTHING, UNKNOWN, Html(400);
    Empty401: NOTHING, UNKNOWN, With(401, &[("www-authenticate", "Basic realm=\"proxy\"")], "");
    Html403: NOTHING, UNKNOWN, Html(403);
    Html404: NOTHING, UNKNOWN, Html(404);
    CodeUnknown: NOTHING, UNKNOWN, Json(400, r#"{"error":"moon_phase"}"#);
    CodeEmpty: NOTHING, UNKNOWN, Json(400, r#"{"error":""}"#);
    CodeNull: NOTHING, UNKNOWN, Json(400, r#"{"error":null}"#);
    CodeNumber: NOTHING, UNKNOWN, Json(400, r#"{"error":400}"#);
    CodeUpperCase: NOTHING, UNKNOWN, Json(400, r#"{"error":"INVALID_GRANT"}"#);
    CodeLonger: NOTHING, UNKNOWN, Json(400, r#"{"error":"invalid_grant_type"}"#);
    CodeInDescription: NOTHING, UNKNOWN, Json(400, r#"{"error":"invalid_request","error_description":"invalid_grant"}"#);
    CodeInHtml: NOTHING, UNKNOWN, Typed(400, "text/html", "<p>{\"error\":\"invalid_grant\"}</p>");
    InvalidRequest: NOTHING, UNKNOWN, Json(400, r#"{"error":"invalid_request"}"#);
    InvalidClient: NOTHING, UNKNOWN, Json(401, r#"{"error":"invalid_client"}"#);
    InvalidScope: NOTHING, UNKNOWN, Json(400, r#"{"error":"invalid_scope"}"#);
    UnauthorizedClient: NOTHING, UNKNOWN, Json(400, r#"{"error":"unauthorized_client"}"#);
    UnsupportedGrantType: NOTHING, UNKNOWN, Json(400, r#"{"error":"unsupported_grant_type"}"#);
    ServerErrorIn400: NOTHING, TRANSIENT, Json(400, r#"{"error":"server_error"}"#);
    TemporarilyUnavailableIn400: NOTHING, TRANSIENT, Json(400, r#"{"error":"temporarily_unavailable"}"#);
    SlowDownIn400: NOTHING, TRANSIENT, Json(400, r#"{"error":"slow_down"}"#);

    // The grant is dead; the code is in various members.
    InvalidGrant: NOTHING, TERMINAL, Json(400, r#"{"error":"invalid_grant"}"#);
    InvalidGrant401: NOTHING, TERMINAL, Json(401, r#"{"error":"invalid_grant"}"#);
    InvalidGrant403: NOTHING, TERMINAL, Json(403, r#"{"error":"invalid_grant"}"#);
    InvalidGrantIn200: NOTHING, TERMINAL, Json(200, r#"{"error":"invalid_grant"}"#);
    InvalidGrantIn500: NOTHING, TERMINAL, Json(500, r#"{"error":"invalid_grant"}"#);
    InvalidGrantAsText: NOTHING, TERMINAL, Typed(400, "text/html", r#"{"error":"invalid_grant"}"#);
    InvalidGrantRetryAfter: NOTHING, TERMINAL, With(400, &[("retry-after", "7")], r#"{"error":"invalid_grant"}"#);
    InvalidGrantInErrorCode: NOTHING, TERMINAL, Json(400, r#"{"error":{"code":"invalid_grant","message":"no"}}"#);
    InvalidGrantInErrorType: NOTHING, TERMINAL, Json(400, r#"{"type":"error","error":{"type":"invalid_grant","message":"no"}}"#);
    InvalidGrantInCode: NOTHING, TERMINAL, Json(400, r#"{"code":"invalid_grant","message":"no"}"#);
    InvalidGrantInErrors: NOTHING, TERMINAL, Json(400, r#"{"errors":[{"code":"invalid_grant"}]}"#);
    InvalidGrantInErrorError: NOTHING, TERMINAL, Json(400, r#"{"error":{"error":"invalid_grant"}}"#);
    InvalidGrantEchoesToken: NOTHING, TERMINAL, Json(400, r#"{"error":"invalid_grant","error_description":"$P is not known"}"#);

    // Try again later.
    TooMany: NOTHING, TRANSIENT, Json(429, r#"{"type":"error","error":{"type":"rate_limit_error"}}"#);
    TooManySeconds: NOTHING, TRANSIENT, With(429, &[("retry-after", "7")], "");
    TooManyDateAhead: NOTHING, TRANSIENT, Wait(429, 60);
    TooManyDatePast: NOTHING, TRANSIENT, Wait(429, -60);
    TooManyHuge: NOTHING, TRANSIENT, With(429, &[("retry-after", "99999999999999999999")], "");
    TooManyNegative: NOTHING, TRANSIENT, With(429, &[("retry-after", "-1")], "");
    TooManyGarbage: NOTHING, TRANSIENT, With(429, &[("retry-after", "after lunch")], "");
    TooManyEmpty: NOTHING, TRANSIENT, With(429, &[("retry-after", "")], "");
    InternalError: NOTHING, TRANSIENT, Json(500, r#"{"error":"server_error"}"#);
    InternalErrorHtml: NOTHING, TRANSIENT, Html(500);
    TokensIn500: ROTATED, TRANSIENT, Json(500, "{$OK}");
    NotImplemented: NOTHING, TRANSIENT, With(501, &[], "");
    BadGateway: NOTHING, TRANSIENT, Html(502);
    Unavailable: NOTHING, TRANSIENT, Json(503, r#"{"error":"temporarily_unavailable"}"#);
    UnavailableSeconds: NOTHING, TRANSIENT, With(503, &[("retry-after", "7")], "");
    GatewayTimeout: ROTATED, TRANSIENT, Html(504);
    GatewayTimeoutSeconds: NOTHING, TRANSIENT, With(504, &[("retry-after", "7")], "");
    Overloaded: NOTHING, TRANSIENT, Json(529, r#"{"type":"error","error":{"type":"overloaded_error"}}"#);

    // The reply does not arrive, or not whole, or is not HTTP.
    ResetBeforeSpending: NOTHING, TRANSIENT, Reset("");
    ResetAfterSpending: ROTATED, TRANSIENT, Reset("");
    ResetInHead: ROTATED, TRANSIENT, Reset("HTTP/1.1 200 OK\r\ncontent-ty");
    ResetAfterHead: ROTATED, TRANSIENT, Reset("HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n");
    ResetInBody: ROTATED, TRANSIENT, Reset("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{$OK}");
    ClosedBeforeSpending: NOTHING, TRANSIENT, Bytes("");
    ClosedAfterSpending: ROTATED, TRANSIENT, Bytes("");
    ClosedInBody: ROTATED, TRANSIENT, Bytes("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{$OK}");
    ClosedInChunks: ROTATED, TRANSIENT, Bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n");
    BadChunkSize: ROTATED, TRANSIENT, Bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n{$OK}\r\n0\r\n\r\n");
    TwoLengths: ROTATED, TRANSIENT, Bytes("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{$OK}");
    NegativeLength: ROTATED, TRANSIENT, Bytes("HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{$OK}");
    StatusLineGarbage: NOTHING, TRANSIENT, Bytes("HTTP/1.1 OK 200\r\n\r\n{$OK}");
    UnknownVersion: NOTHING, TRANSIENT, Bytes("HTTP/7.3 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    SomethingElse: NOTHING, TRANSIENT, Bytes("SSH-2.0-OpenSSH_9.9\r\n\r\n");
    HeaderBomb: NOTHING, TRANSIENT, Head(4 << 20);
    OneByteASecond: ROTATED, TRANSIENT, Drip;
    NeverAnswers: NOTHING, TRANSIENT, Silence("");
    NeverAnswersButSpends: ROTATED, TRANSIENT, Silence("");
    SilentAfterHead: ROTATED, TRANSIENT, Silence("HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n");
    LengthNeverReached: ROTATED, TRANSIENT, Promise;
}
