//! Reads a pasted authorization response. Pure and strict: text in, code out, or an error that says what the text was instead.

use std::fmt;

use url::Url;

use crate::oauth::discovery::is_issuer;
use crate::secret::Secret;

/// Longer texts are rejected unread.
const MAX_BYTES: usize = 16 * 1024;

/// What the response of an attempt must match.
pub struct Expected<'a> {
    /// The attempt's state.
    pub state: &'a Secret,
    /// The attempt's redirect URI.
    pub redirect_uri: &'a Url,
    /// The issuer, where it is known (RFC 9207).
    pub issuer: Option<&'a Url>,
    /// The server announces that every response has `iss`.
    pub sends_iss: bool,
    /// Whose client id the grant will belong to.
    pub client: Client<'a>,
}

/// Whose client id a grant belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Client<'a> {
    /// A configured one: a client id in the response is ignored.
    Ours,
    /// One that this response issues.
    Issued {
        /// The client id of the authorization request, which the response must not issue again.
        asked_with: Option<&'a str>,
    },
    /// One that was issued before: the response may repeat it, and name no other.
    Known(&'a str),
}

/// An authorization response (RFC 6749 §4.1.2) that belongs to the attempt.
#[derive(Debug)]
pub struct Pasted {
    /// The authorization code.
    pub code: Secret,
    /// The client id that the response issued.
    pub client_id: Option<String>,
}

/// Why a text is not the response. Only [`PasteError::Denied`] ends the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasteError {
    /// Empty, or only whitespace.
    Empty,
    /// Too long to be a response.
    TooLong,
    /// Not a code, an address or a query.
    Unrecognised,
    /// The address of another site.
    ForeignHost(String),
    /// A code without its state.
    NoState,
    /// The state of another attempt.
    OtherAttempt,
    /// A parameter is repeated.
    Repeated(&'static str),
    /// The response is from another server (RFC 9207 §2.4).
    OtherIssuer,
    /// The response issues no client id, but must.
    NoClientId,
    /// The response is for another client.
    OtherClient,
    /// An error response; with its code where RFC 6749 §4.1.2.1 or OpenID Connect defines it.
    Denied(Option<&'static str>),
}

/// Reads `code#state`, the whole address that the provider redirected to, or its query.
pub fn read(text: &str, expected: &Expected<'_>) -> Result<Pasted, PasteError> {
    let text = unquoted(text.trim());
    if text.is_empty() {
        return Err(PasteError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(PasteError::TooLong);
    }
    if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(PasteError::Unrecognised);
    }
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)) {
        let url = Url::parse(text).map_err(|_| PasteError::Unrecognised)?;
        let endpoint = |url: &Url| {
            (
                url.scheme().to_owned(),
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
                url.path().to_owned(),
            )
        };
        if endpoint(&url) != endpoint(expected.redirect_uri) {
            return Err(PasteError::ForeignHost(url.host_str().unwrap_or_default().to_owned()));
        }
        return response(url.query().unwrap_or_default(), expected);
    }
    match text.split_once('#') {
        Some((code, state)) if !code.contains(['=', '&', '?']) => {
            // The provider's page joins code and state; `iss` is not part of it.
            check_state(Some(state), expected.state)?;
            if let Client::Issued { .. } = expected.client {
                return Err(PasteError::NoClientId);
            }
            parse_code(code, None)
        }
        _ if text.contains('=') => response(text.trim_start_matches('?'), expected),
        _ if is_code(text) => Err(PasteError::NoState),
        _ => Err(PasteError::Unrecognised),
    }
}

/// Reads the query of an authorization response.
fn response(query: &str, expected: &Expected<'_>) -> Result<Pasted, PasteError> {
    let query = query.split('#').next().unwrap_or_default();
    let parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let single = |name: &'static str| -> Result<Option<&str>, PasteError> {
        let mut values = parameters.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() { Err(PasteError::Repeated(name)) } else { Ok(first) }
    };
    let (code, error) = (single("code")?, single("error")?);
    if code.is_none() && error.is_none() {
        return Err(PasteError::Unrecognised);
    }
    check_state(single("state")?, expected.state)?;
    match (single("iss")?, expected.issuer) {
        (Some(iss), Some(issuer)) if !is_issuer(iss, issuer) => return Err(PasteError::OtherIssuer),
        (None, Some(_)) if expected.sends_iss => return Err(PasteError::OtherIssuer),
        _ => {}
    }
    match (code, error) {
        (Some(code), None) => parse_code(code, issued_client_id(single("client_id")?, expected.client)?),
        (_, Some(error)) => Err(PasteError::Denied(ERRORS.iter().copied().find(|known| *known == error))),
        (None, None) => Err(PasteError::Unrecognised),
    }
}

/// RFC 6749 §4.1.2.1 and OpenID Connect Core §3.1.2.6.
const ERRORS: [&str; 10] = [
    "access_denied",
    "invalid_request",
    "unauthorized_client",
    "unsupported_response_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    "login_required",
    "consent_required",
    "interaction_required",
];

fn check_state(given: Option<&str>, expected: &Secret) -> Result<(), PasteError> {
    match given {
        None | Some("") => Err(PasteError::NoState),
        Some(given) if expected.matches(given) => Ok(()),
        Some(_) => Err(PasteError::OtherAttempt),
    }
}

fn parse_code(code: &str, client_id: Option<&str>) -> Result<Pasted, PasteError> {
    if is_code(code) {
        Ok(Pasted { code: Secret::new(code.to_owned()), client_id: client_id.map(str::to_owned) })
    } else {
        Err(PasteError::Unrecognised)
    }
}

/// The client id that the response issues, if any.
fn issued_client_id<'a>(named: Option<&'a str>, client: Client<'_>) -> Result<Option<&'a str>, PasteError> {
    let is_valid = |id: &str| !id.is_empty() && id.len() <= 512 && id.bytes().all(|byte| byte.is_ascii_graphic());
    match (client, named) {
        (Client::Ours, _) | (Client::Known(_), None) => Ok(None),
        (Client::Known(known), Some(named)) if named == known => Ok(None),
        (Client::Known(_), Some(_)) => Err(PasteError::OtherClient),
        (Client::Issued { asked_with }, Some(named)) if is_valid(named) && Some(named) != asked_with => Ok(Some(named)),
        (Client::Issued { .. }, _) => Err(PasteError::NoClientId),
    }
}

/// Visible ASCII (RFC 6749 Appendix A.11), without characters of markup.
fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 8192
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"'`\\".contains(&byte))
}

/// Removes quotes that were copied along.
fn unquoted(text: &str) -> &str {
    text.trim_matches(['"', '\'', '`']).trim()
}

impl PasteError {
    /// Whether the attempt has ended: the provider issues no code for it.
    pub fn ends_the_attempt(&self) -> bool {
        matches!(self, Self::Denied(_))
    }

    /// The stable part of the problem type.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "paste_empty",
            Self::TooLong | Self::Unrecognised => "paste_not_a_code",
            Self::ForeignHost(_) => "paste_foreign_host",
            Self::NoState => "paste_no_state",
            Self::OtherAttempt => "paste_other_attempt",
            Self::Repeated(_) => "paste_ambiguous",
            Self::OtherIssuer => "paste_other_issuer",
            Self::NoClientId => "paste_no_client_id",
            Self::OtherClient => "paste_other_client",
            Self::Denied(_) => "consent_denied",
        }
    }
}

impl fmt::Display for PasteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Nothing was pasted. Paste the code that the provider shows."),
            Self::TooLong | Self::Unrecognised => f.write_str(
                "That is neither a code nor the address that the provider redirected you to. Copy it again and paste all of it.",
            ),
            // A host that parsed as a URL holds no markup and no spaces.
            Self::ForeignHost(host) => write!(
                f,
                "That is an address of {host}, not the one that this provider redirects to. Nothing was sent anywhere."
            ),
            Self::NoState => f.write_str(
                "The code is there, but the part after it is missing. Paste all of what the provider shows, with everything after the '#'.",
            ),
            Self::OtherAttempt => {
                f.write_str("This code belongs to another attempt. Use the code of the page that you opened last.")
            }
            Self::Repeated(name) => write!(f, "That address has \"{name}\" twice, so it is not the provider's."),
            Self::OtherIssuer => f.write_str("This response is from another server than the one that was asked. It was not used."),
            Self::NoClientId => f.write_str(
                "The client id is missing, which Pixy needs. Paste the whole address that the browser shows.",
            ),
            Self::OtherClient => f.write_str("This response is for another client registration. It was not used."),
            Self::Denied(Some("access_denied")) => f.write_str("Access was denied at the provider."),
            Self::Denied(Some(code)) => write!(f, "The provider refused ({code})."),
            Self::Denied(None) => f.write_str("The provider refused."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_for(text: &str, redirect_uri: &str) -> Result<String, PasteError> {
        let expected = Expected {
            state: &Secret::new("st-ate".into()),
            redirect_uri: &Url::parse(redirect_uri).unwrap(),
            issuer: Some(&Url::parse("https://issuer.example").unwrap()),
            sends_iss: false,
            client: Client::Ours,
        };
        read(text, &expected).map(|pasted| pasted.code.expose().to_owned())
    }

    const PAGE: &str = "https://platform.example/oauth/callback";

    #[test]
    fn every_form_of_a_response_is_read() {
        for text in [
            "co-de#st-ate",
            "  co-de#st-ate \n",
            "\"co-de#st-ate\"",
            "`co-de#st-ate`",
            "code=co-de&state=st-ate",
            "?state=st-ate&code=co-de",
            "https://platform.example/oauth/callback?code=co-de&state=st-ate",
            "https://platform.example:443/oauth/callback?code=co-de&state=st-ate&scope=a+b#",
            "https://platform.example/oauth/callback?code=co-de&state=st-ate&iss=https%3A%2F%2Fissuer.example",
        ] {
            assert_eq!(read_for(text, PAGE).as_deref(), Ok("co-de"), "{text}");
        }
    }

    #[test]
    fn attack_62_a_wrong_paste_is_named() {
        for (text, problem) in [
            ("", PasteError::Empty),
            ("  \n", PasteError::Empty),
            ("hello world", PasteError::Unrecognised),
            ("<script>alert(1)</script>", PasteError::Unrecognised),
            ("💥", PasteError::Unrecognised),
            ("co-de", PasteError::NoState),
            ("co-de#", PasteError::NoState),
            ("#st-ate", PasteError::Unrecognised),
            ("co-de#other", PasteError::OtherAttempt),
            ("co-de#ST-ATE", PasteError::OtherAttempt),
            ("co-de#st-at", PasteError::OtherAttempt),
            ("code=co-de", PasteError::NoState),
            ("code=co-de&state=other", PasteError::OtherAttempt),
            ("code=a&code=b&state=st-ate", PasteError::Repeated("code")),
            ("code=a&state=st-ate&state=st-ate", PasteError::Repeated("state")),
            ("code=a&state=st-ate&iss=https://evil.example", PasteError::OtherIssuer),
            ("error=access_denied&state=st-ate", PasteError::Denied(Some("access_denied"))),
            ("error=%3Cscript%3E&state=st-ate", PasteError::Denied(None)),
            ("error=access_denied&state=other", PasteError::OtherAttempt),
            ("foo=bar", PasteError::Unrecognised),
            (
                "https://evil.example/oauth/callback?code=co-de&state=st-ate",
                PasteError::ForeignHost("evil.example".into()),
            ),
            ("'https://evil.example/?x=y&code=co-de&state=st-ate", PasteError::ForeignHost("evil.example".into())),
            ("HTTPS://evil.example/?x=y&code=co-de&state=st-ate", PasteError::ForeignHost("evil.example".into())),
            ("https:/evil.example/?x=y&code=co-de&state=st-ate", PasteError::ForeignHost("evil.example".into())),
            (
                "https://platform.example/other?code=co-de&state=st-ate",
                PasteError::ForeignHost("platform.example".into()),
            ),
            (
                "http://platform.example/oauth/callback?code=co-de&state=st-ate",
                PasteError::ForeignHost("platform.example".into()),
            ),
            ("https://", PasteError::Unrecognised),
        ] {
            assert_eq!(read_for(text, PAGE), Err(problem), "{text}");
        }
        assert_eq!(read_for(&"a".repeat(1 << 20), PAGE), Err(PasteError::TooLong));
    }

    #[test]
    fn attack_61_an_announced_iss_is_required() {
        let expected = Expected {
            state: &Secret::new("st-ate".into()),
            redirect_uri: &Url::parse(PAGE).unwrap(),
            issuer: Some(&Url::parse("https://issuer.example").unwrap()),
            sends_iss: true,
            client: Client::Ours,
        };
        assert_eq!(read("code=a&state=st-ate", &expected).unwrap_err(), PasteError::OtherIssuer);
        assert!(read("code=a&state=st-ate&iss=https://issuer.example", &expected).is_ok());
    }

    #[test]
    fn a_client_id_is_issued_once() {
        let read_as = |client, query: &str| {
            let expected = Expected {
                state: &Secret::new("st-ate".into()),
                redirect_uri: &Url::parse(PAGE).unwrap(),
                issuer: None,
                sends_iss: false,
                client,
            };
            read(&format!("code=a&state=st-ate{query}"), &expected).map(|pasted| pasted.client_id)
        };
        let issued = Client::Issued { asked_with: Some("dynamic") };
        assert_eq!(read_as(issued, "&client_id=app_1"), Ok(Some("app_1".to_owned())));
        assert_eq!(read_as(issued, ""), Err(PasteError::NoClientId));
        assert_eq!(read_as(issued, "&client_id="), Err(PasteError::NoClientId));
        assert_eq!(read_as(issued, "&client_id=dynamic"), Err(PasteError::NoClientId), "it was for the request only");
        assert_eq!(read_as(issued, "&client_id=a&client_id=b"), Err(PasteError::Repeated("client_id")));
        assert_eq!(read_as(issued, "&client_id=%00"), Err(PasteError::NoClientId));
        assert_eq!(read_as(Client::Known("app_1"), "&client_id=app_1"), Ok(None));
        assert_eq!(read_as(Client::Known("app_1"), ""), Ok(None));
        assert_eq!(read_as(Client::Known("app_1"), "&client_id=app_2"), Err(PasteError::OtherClient));
        assert_eq!(read_as(Client::Ours, "&client_id=app_2"), Ok(None));
    }

    proptest! {
        #[test]
        fn attack_58_no_text_without_the_state_is_a_code(text in "\\PC{0,200}") {
            prop_assume!(!text.contains("st-ate"));
            prop_assert!(read_for(&text, PAGE).is_err());
        }

        #[test]
        fn every_valid_code_is_read(code in "[!#$%&()*+,./0-9:;=?@A-Za-z_~-]{1,80}") {
            let encoded: String = url::form_urlencoded::byte_serialize(code.as_bytes()).collect();
            prop_assert_eq!(read_for(&format!("{PAGE}?code={encoded}&state=st-ate"), PAGE), Ok(code));
        }
    }
}
