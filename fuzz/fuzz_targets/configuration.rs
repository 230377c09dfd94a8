//! A configuration is valid, or is rejected with faults.
#![no_main]

mod linked_account;

use linked_account::env;
use pixy::{config, upstream};

libfuzzer_sys::fuzz_target!(|data: &[u8]| configuration(data));

fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text, Some("pixy.yaml".into()), &env()) {
        Ok(config) => {
            assert!(!config.agent_listeners.is_empty());
            let open = config.agent_keys.is_empty();
            let local = config.agent_listeners.iter().all(|listener| listener.address.is_local());
            assert!(!open || local, "an address that other machines reach needs keys");
            for account in &config.accounts {
                let base = &account.profile.api.base_url;
                let plain = base.scheme() == "http" && upstream::is_loopback_host(base.host_str().unwrap_or_default());
                assert!(base.scheme() == "https" || plain, "{}", base.as_str());
            }
        }
        Err(faults) => assert!(!faults.to_string().trim().is_empty()),
    }
}
