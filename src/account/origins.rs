//! The origins that a login may be sent to. They are sealed with it, so that no change of the configuration sends it elsewhere
//! before a person confirms. Pure: reads no clock and calls nothing.
//!
//! An origin is scheme, host and port (RFC 6454 §4). Endpoints that the issuer's metadata names are bound by the issuer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::oauth::profile::values::Endpoint;
use crate::oauth::profile::{BodyKind, Profile};

/// What a login is bound to; by default to nothing, and then it is sent nowhere. The serialized names are part of the sealed
/// record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    origins: Origins,
    /// The revocation endpoint that the login came with.
    revoke: Option<RevocationEndpoint>,
}

type Origins = BTreeMap<Role, String>;

/// The part that a configured URL has in the life of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Issuer,
    Token,
    Revoke,
    Device,
    Api,
}

/// A revocation endpoint and the format of its requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationEndpoint {
    /// Its URL.
    pub url: Url,
    /// How its body is encoded.
    pub body: BodyKind,
}

/// A configured origin that the login is not bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The origin that it is bound to.
    pub from: String,
    /// The configured one.
    pub to: String,
}

impl Bound {
    /// To what `profile` configures; `discovered` is the revocation endpoint of the issuer's metadata.
    pub fn to(profile: &Profile, discovered: Option<&Url>) -> Self {
        Self { origins: configured(profile), revoke: RevocationEndpoint::of(profile, discovered) }
    }

    /// The revocation endpoint that the login came with.
    pub(super) fn revocation_endpoint(&self) -> Option<&RevocationEndpoint> {
        self.revoke.as_ref()
    }

    /// The origins in `profile` that the login is not bound to, each once. `discovered` are endpoints of the login's own issuer.
    pub(super) fn moves(&self, profile: &Profile, discovered: &[&Url]) -> Vec<Move> {
        let mut moves = Vec::new();
        for (role, to) in configured(profile) {
            let accepted = match self.origins.get(&role) {
                Some(from) => *from == to || names(&profile.formerly, from),
                // Was not configured: a server that gets this login's refresh token anyway is not new to it.
                None => {
                    self.is_from_former(profile)
                        || self.server_origins().any(|known| *known == to)
                        || discovered.iter().any(|url| origin(url) == to)
                }
            };
            if !accepted {
                let from =
                    self.origins.get(&role).or_else(|| self.server_origins().next()).or(self.origins.get(&Role::Api));
                let found = Move { from: from.cloned().unwrap_or_default(), to };
                if !moves.contains(&found) {
                    moves.push(found);
                }
            }
        }
        moves
    }

    /// Whether the login is bound to a former origin of `profile`, and not as `profile` configures.
    pub(super) fn is_formerly_of(&self, profile: &Profile) -> bool {
        self.is_from_former(profile) && self.origins != configured(profile)
    }

    fn is_from_former(&self, profile: &Profile) -> bool {
        self.origins.values().any(|from| names(&profile.formerly, from))
    }

    /// Whether another server than that of `other` refreshes the login.
    pub(super) fn has_other_server(&self, other: &Self) -> bool {
        [Role::Issuer, Role::Token, Role::Revoke].iter().any(|role| self.origins.get(role) != other.origins.get(role))
    }

    fn server_origins(&self) -> impl Iterator<Item = &String> {
        [Role::Token, Role::Issuer, Role::Revoke].into_iter().filter_map(|role| self.origins.get(&role))
    }
}

impl RevocationEndpoint {
    /// The profile's, else the discovered one.
    pub(super) fn of(profile: &Profile, discovered: Option<&Url>) -> Option<Self> {
        match &profile.revoke {
            Some(revoke) => Some(Self { url: Url::clone(&revoke.url), body: revoke.body }),
            None => Some(Self { url: discovered?.clone(), body: BodyKind::Form }),
        }
    }
}

/// `The login was moved from https://a.example to https://b.example …`; `None` without a move.
pub(super) fn sentence(moves: &[Move]) -> Option<String> {
    let moves: Vec<_> = moves.iter().map(|Move { from, to }| format!("from {from} to {to}")).collect();
    (!moves.is_empty()).then(|| format!("The login was moved {} by the configuration.", moves.join(" and ")))
}

fn configured(profile: &Profile) -> Origins {
    let device = profile.link.device.as_ref();
    let urls = [
        (Role::Issuer, profile.link.issuer.as_deref()),
        (Role::Token, profile.token.url.as_deref()),
        (Role::Revoke, profile.revoke.as_ref().map(|revoke| &*revoke.url)),
        (Role::Device, device.and_then(|device| device.url.as_deref())),
        (Role::Api, Some(&*profile.api.base_url)),
    ];
    urls.into_iter().filter_map(|(role, url)| Some((role, origin(url?)))).collect()
}

fn names(formerly: &[Endpoint], from: &str) -> bool {
    formerly.iter().any(|url| origin(url) == from)
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
#[path = "origins_tests.rs"]
mod tests;
