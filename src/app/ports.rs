//! The TCP ports that a configuration needs.

use std::collections::BTreeSet;

use url::Url;

use crate::config::Config;
use crate::hardening::AllowedPorts;
use crate::link::loopback::SPARE_PORT;
use crate::oauth::profile::{Flow, Ports, Profile, Redirect};
use crate::server::Address;

/// The ports that Pixy connects to and listens on with this configuration.
///
/// Connections are not limited where an endpoint is discovered, because the authorization server chooses its port; listening is not
/// where the system chooses the port of a redirect.
pub fn allowed_ports(config: &Config) -> AllowedPorts {
    let mut connect = Some(BTreeSet::from(ALWAYS));
    let mut bind = Some(BTreeSet::new());
    let listeners = config.agent_listeners.iter().map(|listener| &listener.address);
    for address in listeners.chain(&config.link_listen).chain([&config.ops_listen]) {
        if let (Address::Tcp(address), Some(bind)) = (address, &mut bind) {
            bind.insert(address.port());
        }
    }
    let page_is_tcp = matches!(config.link_listen, Some(Address::Tcp(_)));
    for account in &config.accounts {
        let profile = &account.profile;
        if profile.link.issuer.is_some() && profile.link.flow != Flow::ApiKey {
            connect = None;
        } else if let Some(connect) = &mut connect {
            connect.extend(urls(profile).filter_map(Url::port_or_known_default));
        }
        match &profile.link.redirect {
            Redirect::Loopback(loopback) => match &loopback.ports {
                Ports::Any if page_is_tcp => bind.iter_mut().for_each(|bind| bind.extend([SPARE_PORT])),
                Ports::Any => bind = None,
                Ports::Only(ports) => {
                    if let Some(bind) = &mut bind {
                        bind.extend(ports);
                    }
                }
            },
            Redirect::Paste(_) | Redirect::None => {}
        }
    }
    AllowedPorts { connect, bind }
}

/// The URLs that Pixy itself sends requests to.
fn urls(profile: &Profile) -> impl Iterator<Item = &Url> {
    let endpoints = [
        profile.link.jwks_url.as_ref(),
        profile.link.device.as_ref().and_then(|device| device.url.as_ref()),
        profile.link.device.as_ref().and_then(|device| device.code_url.as_ref()),
        profile.token.url.as_ref(),
        profile.revoke.as_ref().map(|revoke| &revoke.url),
    ];
    let base: &Url = &profile.api.base_url;
    endpoints.into_iter().flatten().map(|endpoint| -> &Url { endpoint }).chain([base])
}

/// HTTPS, and DNS over TCP.
const ALWAYS: [u16; 2] = [443, 53];
