//! Reads what a person pasted. Pure and strict: text in, code out, or a sentence that says what it was instead.

use std::fmt;

use url::Url;

use crate::oauth::discovery::is_issuer;
use crate::secret::Secret;

/// Longer texts are not looked at.
const LONGEST: usize = 16 * 1024;

/// What this attempt expects to come back.
pub struct Expected<'a> {
    /// The attempt's state.
    pub state: &'a Secret,
    /// Where the provider was told to send the code.
    pub redirect_uri: &'a Url,
    /// The issuer, where it is known (RFC 9207).
    pub issuer: Option<&'a Url>,
    /// The server promised to send `iss` in every response.
    pub sends_iss: bool,
    /// Whose client id the grant will belong to.
    pub client: Client<'a>,
}

/// Whose client id a grant belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Client<'a> {
    /// Ours: what the response says of it does not matter.
    Ours,
    /// One that this response issues; the one that it was asked for with is for nothing else.
    Issued {
        /// It must not be issued again.
        asked_with: Option<&'a str>,
    },
    /// One that was issued before: the response may name it, and no other.
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

/// What the text was instead. All but [`PasteError::Denied`] leave the attempt as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasteError {
    /// Nothing, or only spaces.
    Empty,
    /// Too long to be one.
    TooLong,
    /// Not a code, an address or a query.
    Rubbish,
    /// The address of another site.
    ForeignHost(String),
    /// A code without the state that must come with it.
    NoState,
    /// The state of another attempt.
    OtherAttempt,
    /// A parameter that must be there once stands there more often.
    Twice(&'static str),
    /// The response is another server's (RFC 9207 §2.4).
    OtherIssuer,
    /// The response should issue a client id, and does not.
    NoClientId,
    /// The response names another client than the one that asked.
    OtherClient,
    /// The person or the provider said no; the code is RFC 6749 §4.1.2.1's, if it is one of them.
    Denied(Option<&'static str>),
}

/// Reads `code#state`, the whole address that the provider redirected to, or its query.
pub fn read(text: &str, expected: &Expected<'_>) -> Result<Pasted, PasteError> {
    let text = unquoted(text.trim());
    if text.is_empty() {
        return Err(PasteError::Empty);
    }
    if text.len() > LONGEST {
        return Err(PasteError::TooLong);
    }
    if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(PasteError::Rubbish);
    }
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)) {
        let url = Url::parse(text).map_err(|_| PasteError::Rubbish)?;
        let place = |url: &Url| {
            (
                url.scheme().to_owned(),
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
                url.path().to_owned(),
            )
        };
        if place(&url) != place(expected.redirect_uri) {
            return Err(PasteError::ForeignHost(url.host_str().unwrap_or_default().to_owned()));
        }
        return response(url.query().unwrap_or_default(), expected);
    }
    match text.split_once('#') {
        Some((code, state)) if !code.contains(['=', '&', '?']) => {
            // The provider's own page put these two together; it has no place for `iss`.
            checked_state(Some(state), expected.state)?;
            if let Client::Issued { .. } = expected.client {
                return Err(PasteError::NoClientId);
            }
            code_of(code, None)
        }
        _ if text.contains('=') => response(text.trim_start_matches('?'), expected),
        _ if is_code(text) => Err(PasteError::NoState),
        _ => Err(PasteError::Rubbish),
    }
}

/// Reads the query of an authorization response.
fn response(query: &str, expected: &Expected<'_>) -> Result<Pasted, PasteError> {
    let query = query.split('#').next().unwrap_or_default();
    let parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let one = |name: &'static str| -> Result<Option<&str>, PasteError> {
        let mut values = parameters.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() { Err(PasteError::Twice(name)) } else { Ok(first) }
    };
    let (code, error) = (one("code")?, one("error")?);
    if code.is_none() && error.is_none() {
        return Err(PasteError::Rubbish);
    }
    checked_state(one("state")?, expected.state)?;
    match (one("iss")?, expected.issuer) {
        (Some(iss), Some(issuer)) if !is_issuer(iss, issuer) => return Err(PasteError::OtherIssuer),
        (None, Some(_)) if expected.sends_iss => return Err(PasteError::OtherIssuer),
        _ => {}
    }
    match (code, error) {
        (Some(code), None) => code_of(code, client_id(one("client_id")?, expected.client)?),
        (_, Some(error)) => Err(PasteError::Denied(ERRORS.iter().copied().find(|known| *known == error))),
        (None, None) => Err(PasteError::Rubbish),
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

fn checked_state(given: Option<&str>, expected: &Secret) -> Result<(), PasteError> {
    match given {
        None | Some("") => Err(PasteError::NoState),
        Some(given) if expected.matches(given) => Ok(()),
        Some(_) => Err(PasteError::OtherAttempt),
    }
}

fn code_of(code: &str, client_id: Option<&str>) -> Result<Pasted, PasteError> {
    if is_code(code) {
        Ok(Pasted { code: Secret::new(code.to_owned()), client_id: client_id.map(str::to_owned) })
    } else {
        Err(PasteError::Rubbish)
    }
}

/// The client id that the grant belongs to from here on, if it is not ours.
fn client_id<'a>(named: Option<&'a str>, client: Client<'_>) -> Result<Option<&'a str>, PasteError> {
    let is_one = |id: &str| !id.is_empty() && id.len() <= 512 && id.bytes().all(|byte| byte.is_ascii_graphic());
    match (client, named) {
        (Client::Ours, _) | (Client::Known(_), None) => Ok(None),
        (Client::Known(known), Some(named)) if named == known => Ok(None),
        (Client::Known(_), Some(_)) => Err(PasteError::OtherClient),
        (Client::Issued { asked_with }, Some(named)) if is_one(named) && Some(named) != asked_with => Ok(Some(named)),
        (Client::Issued { .. }, _) => Err(PasteError::NoClientId),
    }
}

/// Visible ASCII (RFC 6749 Appendix A.11), and nothing that only markup has.
fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 8192
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"'`\\".contains(&byte))
}

/// People copy quotes along, or one of them.
fn unquoted(text: &str) -> &str {
    text.trim_matches(['"', '\'', '`']).trim()
}

impl PasteError {
    /// The attempt is over: the provider will give no code for it.
    pub fn ends_the_attempt(&self) -> bool {
        matches!(self, Self::Denied(_))
    }

    /// For the stable `type` of a problem.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "paste_empty",
            Self::TooLong | Self::Rubbish => "paste_not_a_code",
            Self::ForeignHost(_) => "paste_foreign_host",
            Self::NoState => "paste_no_state",
            Self::OtherAttempt => "paste_other_attempt",
            Self::Twice(_) => "paste_ambiguous",
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
            Self::TooLong | Self::Rubbish => f.write_str(
                "That is neither a code nor the address that the provider sent you to. Copy it again and paste all of it.",
            ),
            // A host that parsed as a URL holds no markup and no spaces.
            Self::ForeignHost(host) => write!(
                f,
                "That is an address of {host}, not the one that this provider sends you to. Nothing was sent anywhere."
            ),
            Self::NoState => f.write_str(
                "The code is there, but the part after it is missing. Paste all of what the provider shows, with everything after the '#'.",
            ),
            Self::OtherAttempt => {
                f.write_str("This code belongs to another attempt. Use the code of the page that was opened last.")
            }
            Self::Twice(name) => write!(f, "That address holds \"{name}\" twice, so it is not the provider's."),
            Self::OtherIssuer => f.write_str("This answer is from another server than the one that was asked. It was not used."),
            Self::NoClientId => f.write_str(
                "That is not all of it: the address also holds a client id, which Pixy needs. Paste the whole address that the browser shows.",
            ),
            Self::OtherClient => f.write_str("This answer is for another registration than the one that asked. It was not used."),
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
    fn all_that_people_paste_is_read() {
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
    fn attack_62_what_is_not_the_answer_is_named() {
        for (text, problem) in [
            ("", PasteError::Empty),
            ("  \n", PasteError::Empty),
            ("hello world", PasteError::Rubbish),
            ("<script>alert(1)</script>", PasteError::Rubbish),
            ("💥", PasteError::Rubbish),
            ("co-de", PasteError::NoState),
            ("co-de#", PasteError::NoState),
            ("#st-ate", PasteError::Rubbish),
            ("co-de#other", PasteError::OtherAttempt),
            ("co-de#ST-ATE", PasteError::OtherAttempt),
            ("co-de#st-at", PasteError::OtherAttempt),
            ("code=co-de", PasteError::NoState),
            ("code=co-de&state=other", PasteError::OtherAttempt),
            ("code=a&code=b&state=st-ate", PasteError::Twice("code")),
            ("code=a&state=st-ate&state=st-ate", PasteError::Twice("state")),
            ("code=a&state=st-ate&iss=https://evil.example", PasteError::OtherIssuer),
            ("error=access_denied&state=st-ate", PasteError::Denied(Some("access_denied"))),
            ("error=%3Cscript%3E&state=st-ate", PasteError::Denied(None)),
            ("error=access_denied&state=other", PasteError::OtherAttempt),
            ("foo=bar", PasteError::Rubbish),
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
            ("https://", PasteError::Rubbish),
        ] {
            assert_eq!(read_for(text, PAGE), Err(problem), "{text}");
        }
        assert_eq!(read_for(&"a".repeat(1 << 20), PAGE), Err(PasteError::TooLong));
    }

    #[test]
    fn attack_61_a_promised_iss_must_be_there() {
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
    fn a_client_id_is_issued_once_and_then_stays() {
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
        assert_eq!(read_as(issued, "&client_id=dynamic"), Err(PasteError::NoClientId), "it is for asking alone");
        assert_eq!(read_as(issued, "&client_id=a&client_id=b"), Err(PasteError::Twice("client_id")));
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
        fn every_code_that_a_provider_may_give_is_read(code in "[!#$%&()*+,./0-9:;=?@A-Za-z_~-]{1,80}") {
            let encoded: String = url::form_urlencoded::byte_serialize(code.as_bytes()).collect();
            prop_assert_eq!(read_for(&format!("{PAGE}?code={encoded}&state=st-ate"), PAGE), Ok(code));
        }
    }
}
