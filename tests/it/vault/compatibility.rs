//! Files that an earlier version wrote still open: a vault with a key file and one with a passphrase, their high-water marks, and
//! an export. The account `key` is a static key, `login` an OAuth login whose predecessor could not be revoked.
//! `key-file/key.record.older` is generation 1 of a record that the vault holds as generation 2.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pixy::name::AccountName;
use pixy::secret::Secret;
use pixy::vault::{Existing, KeySettings, Vault, VaultError, VaultSettings};
use serde_json::{Value, json};

use super::{Fixture, bytes};
use crate::support::{Fault, Pixy, Scratch, TokenEndpoint, Upstream, oauth_account, within};

#[tokio::test]
async fn a_vault_of_an_earlier_version_opens() {
    let fixture = earlier_vault("key-file");
    let vault = fixture.open();
    assert_eq!(vault.accounts().await.unwrap(), [name("key"), name("login")]);
    let (generation, key) = record(&vault, "key").await;
    assert_eq!((generation, &key["login"]["access_token"]), (2, &json!("fixture-key-2")));
    let (generation, login) = record(&vault, "login").await;
    assert_eq!((generation, &login["standing"]), (2, &json!("linked")));
    assert_eq!(login["login"]["renewal"], json!({ "kind": "refresh_token", "token": "fixture-refresh-token" }));
    assert_eq!(login["ended"].as_array().unwrap().len(), 1, "a revocation is pending");

    let stale = vault.write(&name("key"), "oauth", 1, bytes("older")).await;
    assert!(matches!(stale, Err(VaultError::StaleWrite { stored: 2, offered: 1 })));
    vault.write(&name("key"), "oauth", 3, bytes("newer")).await.unwrap();
}

#[tokio::test]
async fn an_older_copy_of_an_earlier_version_is_refused() {
    let fixture = earlier_vault("key-file");
    fs::copy(fixture.path("key.record.older"), fixture.path("vault/key.record")).unwrap();
    let vault = fixture.open();
    let refused = vault.read(&name("key"), "oauth").await;
    assert!(matches!(refused, Err(VaultError::RolledBack { stored: 1, seen: 2 })));
}

#[tokio::test]
async fn a_vault_of_an_earlier_version_opens_with_its_passphrase() {
    let fixture = earlier_vault("passphrase");
    let settings = VaultSettings { key: KeySettings::Passphrase(fixture.path("passphrase")), ..fixture.settings() };
    let vault = Vault::open(&settings).unwrap();
    assert_eq!(record(&vault, "key").await.1["login"]["access_token"], "fixture-key-3");
}

#[tokio::test]
async fn an_export_of_an_earlier_version_is_imported() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    let export = fs::read(data().join("export")).unwrap();
    let passphrase = Secret::new("fixture passphrase".to_owned());
    let imported = vault.import(&export, &passphrase, Existing::Refuse).await.unwrap();
    assert_eq!(imported, [name("key"), name("login")]);
    let (generation, key) = record(&vault, "key").await;
    assert_eq!((generation, &key["login"]["access_token"]), (2, &json!("fixture-key-2")));
}

#[tokio::test]
async fn logins_of_an_earlier_version_are_served_and_refreshed() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    endpoint.fail_always(Some(Fault::Unavailable));
    let scratch = Scratch::new();
    copy(&data().join("key-file"), &scratch.path(""));
    let login = oauth_account(&endpoint, &upstream);
    let mut key = login.clone();
    key["profile"]["link"] = json!({ "flow": "api_key" });
    let pixy = Pixy::at(scratch, &json!({ "key": key, "login": login }), &json!({})).await;
    assert_eq!(pixy.get("/key/v1/models").await.status, 200);
    assert_eq!(upstream.requests().last().unwrap().header("authorization"), ["Bearer fixture-key-2"]);
    within(endpoint.until_requests(1)).await; // its access token expired long ago
    assert!(endpoint.calls().iter().any(|call| call.field("refresh_token") == "fixture-refresh-token"));
    assert_ne!(pixy.shown("login").await["state"], "relink_required");
}

#[tokio::test]
async fn attack_85_an_earlier_login_is_bound_at_the_first_start() {
    let (endpoint, upstream, new) = (TokenEndpoint::start().await, Upstream::start().await, Upstream::start().await);
    let scratch = Scratch::new();
    copy(&data().join("key-file"), &scratch.path(""));
    let version = |scratch: &Scratch| fs::read(scratch.path("vault/key.record")).unwrap()[7];
    assert_eq!(version(&scratch), 1);
    let mut key = oauth_account(&endpoint, &upstream);
    key["profile"]["link"] = json!({ "flow": "api_key" });
    let pixy = Pixy::at(scratch, &json!({ "key": key }), &json!({})).await;
    assert_eq!(version(&pixy.scratch), 2, "an older Pixy refuses it: it would drop the origins");
    let (scratch, _) = pixy.dismantle().await;
    key["profile"]["api"]["base_url"] = json!(new.url());
    let pixy = Pixy::at(scratch, &json!({ "key": key }), &json!({})).await;
    assert_eq!(pixy.shown("key").await["error"]["reason"], "moved");
    assert_eq!(pixy.get("/key/v1/models").await.status, 401);
    assert_eq!((upstream.connections(), new.connections()), (0, 0));
}

/// A private copy of the fixture `name`.
fn earlier_vault(name: &str) -> Fixture {
    let fixture = Fixture::new();
    copy(&data().join(name), &fixture.path(""));
    fs::create_dir_all(fixture.path("config")).unwrap();
    fs::set_permissions(fixture.path("config"), Permissions::from_mode(0o700)).unwrap();
    if fixture.path("key").exists() {
        fs::rename(fixture.path("key"), fixture.path("config/key")).unwrap();
    }
    fixture
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vault-before")
}

/// Copies a directory with the modes that the vault requires, which a checkout does not keep.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        }
    }
}

async fn record(vault: &Vault, account: &str) -> (u64, Value) {
    let opened = vault.read(&name(account), "oauth").await.unwrap().expect("it is stored");
    (opened.generation, serde_json::from_slice(&opened.plaintext).unwrap())
}

fn name(text: &str) -> AccountName {
    AccountName::parse(text).unwrap()
}
