//! The public interface of the vault; `attacks` changes its files. The number in a test's name is its row in SECURITY.md.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pixy::name::AccountName;
use pixy::secret::Secret;
use pixy::vault::{Existing, KeySettings, Vault, VaultError, VaultSettings};
use zeroize::Zeroizing;

mod attacks;
mod compatibility;
mod disk;

/// A vault in a temporary directory.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn settings(&self) -> VaultSettings {
        settings(self.0.path())
    }

    fn open(&self) -> Vault {
        Vault::open(&self.settings()).unwrap()
    }

    fn open_error(&self) -> VaultError {
        Vault::open(&self.settings()).unwrap_err()
    }
}

fn settings(root: &Path) -> VaultSettings {
    VaultSettings {
        directory: root.join("vault"),
        key: KeySettings::File(root.join("config/key")),
        state_dir: root.join("state"),
    }
}

fn claude() -> AccountName {
    AccountName::parse("claude").unwrap()
}

fn work() -> AccountName {
    AccountName::parse("work").unwrap()
}

fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

async fn text(vault: &Vault, account: &AccountName) -> String {
    let opened = vault.read(account, "oauth").await.unwrap().unwrap();
    String::from_utf8(opened.plaintext.to_vec()).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_login_survives_a_restart() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    assert!(vault.read(&claude(), "oauth").await.unwrap().is_none());
    vault.write(&claude(), "oauth", 1, bytes("first")).await.unwrap();
    vault.write(&claude(), "oauth", 2, bytes("second")).await.unwrap();
    drop(vault);
    let vault = fixture.open();
    let opened = vault.read(&claude(), "oauth").await.unwrap().unwrap();
    assert_eq!((opened.generation, opened.plaintext.as_slice()), (2, b"second".as_slice()));
    assert_eq!(vault.accounts().await.unwrap(), [claude()]);
    assert_eq!(format!("{opened:?}"), "Opened { generation: 2, .. }");
}

#[tokio::test]
async fn attack_54_no_file_holds_plaintext() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    for generation in 1..4 {
        vault.write(&claude(), "oauth", generation, bytes("canary-7f3a")).await.unwrap();
    }
    vault.rotate_key().await.unwrap();
    for directory in ["vault", "state", "config"] {
        for name in names(&fixture.path(directory)) {
            let content = fs::read(fixture.path(directory).join(&name)).unwrap();
            assert!(!content.windows(6).any(|window| window == b"canary"), "{directory}/{name}");
        }
    }
}

#[tokio::test]
async fn lost_marks_start_from_what_is_stored() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 6, bytes("x")).await.unwrap();
    drop(vault);
    fs::remove_dir_all(fixture.path("state")).unwrap();
    let vault = fixture.open();
    assert_eq!(text(&vault, &claude()).await, "x");
    assert_eq!(vault.next_generation(&claude()).await.unwrap(), 7);
    let marks = fs::read_to_string(fixture.path("state/high-water.json")).unwrap();
    assert!(marks.contains("\"claude\": 6"), "{marks}");
}

#[tokio::test]
async fn a_vault_without_its_id_is_refused() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    drop(vault);
    let id = fixture.path("vault/store");
    let whole = fs::read(&id).unwrap();
    fs::write(&id, "?").unwrap();
    assert!(matches!(fixture.open_error(), VaultError::InvalidFile { .. }));
    fs::remove_file(&id).unwrap();
    assert!(matches!(fixture.open_error(), VaultError::KeyMissing { .. }));
    fs::write(&id, whole).unwrap();
    chmod(&id, 0o600);
    assert_eq!(text(&fixture.open(), &claude()).await, "x");
}

#[tokio::test]
async fn attack_44_a_write_completes_after_its_caller_is_dropped() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    let account = claude();
    // Polled once, so that the write has begun; then its future is dropped.
    tokio::select! {
        biased;
        _ = vault.write(&account, "oauth", 1, bytes("x")) => panic!("the write ended at the first poll"),
        () = std::future::ready(()) => {}
    }
    while vault.read(&account, "oauth").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn reads_and_writes_continue_during_a_rotation() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&work(), "oauth", 1, bytes("steady")).await.unwrap();
    let rotating = tokio::spawn({
        let vault = vault.clone();
        async move { vault.rotate_key().await }
    });
    for generation in 1..20 {
        vault.write(&claude(), "oauth", generation, bytes("moving")).await.unwrap();
        assert_eq!(text(&vault, &work()).await, "steady");
    }
    let report = rotating.await.unwrap().unwrap();
    assert!(report.new_key && report.keys == 1, "{report:?}");
    drop(vault);
    assert_eq!(text(&fixture.open(), &claude()).await, "moving");
}

#[tokio::test]
async fn an_export_is_imported_at_the_full_cost() {
    let (old, new) = (Fixture::new(), Fixture::new());
    let passphrase = Secret::new("correct horse".to_owned());
    let vault = old.open();
    vault.write(&claude(), "oauth", 4, bytes("x")).await.unwrap();
    let export = vault.export(&passphrase).await.unwrap();
    let vault = new.open();
    let wrong = vault.import(&export, &Secret::new("correct house".to_owned()), Existing::Refuse).await;
    assert!(matches!(wrong, Err(VaultError::WrongPassphrase)));
    assert_eq!(vault.import(&export, &passphrase, Existing::Refuse).await.unwrap(), [claude()]);
    assert_eq!(text(&vault, &claude()).await, "x");
}
