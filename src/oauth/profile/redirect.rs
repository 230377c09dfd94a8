//! Where a provider sends the authorization code.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{CallbackPath, Endpoint, InvalidValue};

/// Where the provider sends the authorization code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "RedirectKeys")]
pub enum Redirect {
    /// A page of the provider's that shows the code for pasting.
    Paste(Endpoint),
    /// The person's own machine (RFC 8252 §7.3).
    Loopback(Loopback),
    /// The flow has no redirect.
    #[default]
    None,
}

/// Where the provider sends the code: one of the two.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redirect")]
struct RedirectKeys {
    /// A page of the provider's that shows the code for pasting.
    paste: Option<Endpoint>,
    /// The person's own machine (RFC 8252 §7.3).
    loopback: Option<Loopback>,
}

/// A redirect to the person's own machine, exactly as it is registered at the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Loopback {
    /// 127.0.0.1, localhost or `[::1]`. Default: 127.0.0.1
    pub host: LoopbackHost,
    /// The ports that the provider accepts: any, or a list. Default: any
    pub ports: Ports,
    /// Default: /callback
    pub path: CallbackPath,
}

/// A name of this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LoopbackHost {
    #[default]
    #[serde(rename = "127.0.0.1")]
    Ipv4,
    #[serde(rename = "localhost")]
    Localhost,
    #[serde(rename = "[::1]")]
    Ipv6,
}

/// Ports that a provider accepts in a loopback redirect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "PortKeys")]
pub enum Ports {
    /// Any port (RFC 8252 §7.3).
    #[default]
    Any,
    /// Only these, in order of preference.
    Only(Vec<u16>),
}

/// Ports that the provider accepts.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Ports")]
enum PortKeys {
    /// Every port (RFC 8252 §7.3).
    Any(AnyPort),
    /// Only these, the preferred one first.
    Only(Vec<u16>),
}

/// The word `any`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AnyPort {
    Any,
}

impl LoopbackHost {
    /// As it is written in a profile and in a redirect URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "127.0.0.1",
            Self::Localhost => "localhost",
            Self::Ipv6 => "[::1]",
        }
    }
}

impl TryFrom<RedirectKeys> for Redirect {
    type Error = InvalidValue;

    fn try_from(keys: RedirectKeys) -> Result<Self, InvalidValue> {
        match (keys.paste, keys.loopback) {
            (Some(_), Some(_)) => Err("contains both paste and loopback; keep one of them".into()),
            (Some(page), None) => Ok(Self::Paste(page)),
            (None, Some(loopback)) => Ok(Self::Loopback(loopback)),
            (None, None) => Ok(Self::None),
        }
    }
}

impl TryFrom<PortKeys> for Ports {
    type Error = InvalidValue;

    fn try_from(keys: PortKeys) -> Result<Self, InvalidValue> {
        match keys {
            PortKeys::Any(AnyPort::Any) => Ok(Self::Any),
            PortKeys::Only(ports) if ports.is_empty() || ports.contains(&0) => {
                Err("must name ports from 1 to 65535, or be the word any".into())
            }
            PortKeys::Only(ports) => Ok(Self::Only(ports)),
        }
    }
}
