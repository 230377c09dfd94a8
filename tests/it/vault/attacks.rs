//! Files of the vault that were swapped, restored, damaged or made readable to others.
#![allow(clippy::print_stdout)] // reports why a test was skipped

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use pixy::vault::{Vault, VaultError, VaultSettings};

use super::{Fixture, bytes, chmod, claude, names, text, work};

#[tokio::test]
async fn attack_06_directories_and_files_are_private() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    let mode = |name: &str| fs::metadata(fixture.path(name)).unwrap().mode() & 0o7777;
    for directory in ["vault", "state", "config"] {
        assert_eq!(mode(directory), 0o700, "{directory}");
        for name in names(&fixture.path(directory)) {
            assert_eq!(mode(&format!("{directory}/{name}")), 0o600, "{directory}/{name}");
        }
    }
}

#[test]
fn attack_06_paths_open_to_others_are_refused_with_the_fix() {
    for (name, mode, fix) in
        [("vault", 0o755, "chmod 700"), ("vault", 0o750, "chmod 700"), ("config/key", 0o644, "chmod 600")]
    {
        let fixture = Fixture::new();
        drop(fixture.open());
        let path = fixture.path(name);
        chmod(&path, mode);
        let message = fixture.open_error().to_string();
        assert!(message.contains(&format!("Run `{fix} {}`", path.display())), "{message}");
        chmod(&path, if fix.ends_with("700") { 0o700 } else { 0o600 });
        fixture.open();
    }
}

#[test]
fn attack_06_a_directory_of_another_user_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.open());
    if std::os::unix::fs::chown(fixture.path("vault"), Some(4321), None).is_err() {
        println!("skipped: only root may change the owner of a directory");
        return;
    }
    let message = fixture.open_error().to_string();
    assert!(message.contains("belongs to user id 4321"), "{message}");
}

#[test]
fn attack_91_a_state_dir_open_to_others_is_refused() {
    for mode in [0o755, 0o777, 0o1777, 0o770, 0o750] {
        let fixture = Fixture::new();
        drop(fixture.open());
        let path = fixture.path("state");
        chmod(&path, mode);
        let message = fixture.open_error().to_string();
        assert!(message.contains(&format!("Run `chmod 700 {}`", path.display())), "{message}");
        chmod(&path, 0o700);
        fixture.open();
        if std::os::unix::fs::chown(&path, Some(4321), None).is_err() {
            println!("skipped: only root may change the owner of a directory");
            continue;
        }
        let message = fixture.open_error().to_string();
        assert!(message.contains("belongs to user id 4321") && message.contains("Run `chown "), "{message}");
    }
}

#[test]
fn attack_79_a_second_pixy_on_one_directory_is_refused() {
    let fixture = Fixture::new();
    let first = fixture.open();
    let refused = fixture.open_error();
    assert!(matches!(refused, VaultError::InUse { .. }));
    let message = refused.to_string();
    assert!(
        message.contains("Another Pixy is using") && message.contains(&fixture.path("vault").display().to_string())
    );

    // Two vaults with one state directory would overwrite each other's marks.
    let elsewhere = VaultSettings { directory: fixture.path("other"), ..fixture.settings() };
    assert!(matches!(Vault::open(&elsewhere), Err(VaultError::InUse { .. })));

    let clone = first.clone();
    drop(first);
    assert!(matches!(fixture.open_error(), VaultError::InUse { .. }), "a clone keeps the lock");
    drop(clone);
    fixture.open();
}

#[tokio::test]
async fn attack_76_a_record_swapped_between_accounts() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("of claude")).await.unwrap();
    vault.write(&work(), "oauth", 1, bytes("of work")).await.unwrap();
    fs::copy(fixture.path("vault/work.record"), fixture.path("vault/claude.record")).unwrap();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::ForeignRecord { .. })));
    assert_eq!(text(&vault, &work()).await, "of work");
}

#[tokio::test]
async fn attack_76_a_record_read_for_another_provider() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    assert!(matches!(vault.read(&claude(), "openai").await, Err(VaultError::ForeignRecord { .. })));
}

#[tokio::test]
async fn attack_76_a_record_from_another_machine() {
    let (here, there) = (Fixture::new(), Fixture::new());
    let (vault, other) = (here.open(), there.open());
    vault.write(&claude(), "oauth", 1, bytes("here")).await.unwrap();
    other.write(&claude(), "oauth", 1, bytes("there")).await.unwrap();
    fs::copy(there.path("vault/claude.record"), here.path("vault/claude.record")).unwrap();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::ForeignRecord { .. })));

    // Also when both machines have the same key.
    drop((vault, other));
    fs::copy(there.path("config/key"), here.path("config/key")).unwrap();
    let vault = here.open();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::ForeignRecord { .. })));
}

#[tokio::test]
async fn attack_77_an_older_copy_needs_confirmation() {
    let fixture = Fixture::new();
    let record = fixture.path("vault/claude.record");
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("old")).await.unwrap();
    let old = fs::read(&record).unwrap();
    vault.write(&claude(), "oauth", 2, bytes("new")).await.unwrap();
    drop(vault);

    fs::write(&record, &old).unwrap();
    let vault = fixture.open();
    let refused = vault.read(&claude(), "oauth").await.unwrap_err();
    assert!(matches!(refused, VaultError::RolledBack { stored: 1, seen: 2 }), "{refused}");
    let stale = vault.write(&claude(), "oauth", 1, bytes("spent")).await.unwrap_err();
    assert!(matches!(stale, VaultError::StaleWrite { stored: 2, offered: 1 }), "{stale}");
    assert_eq!(fs::read(&record).unwrap(), old, "nothing was changed");

    vault.accept_rollback(&claude()).await.unwrap();
    assert_eq!(text(&vault, &claude()).await, "old");
    drop(vault);
    assert_eq!(text(&fixture.open(), &claude()).await, "old", "the confirmation is permanent");
}

#[tokio::test]
async fn attack_77_a_restored_unlinked_login_needs_confirmation() {
    let fixture = Fixture::new();
    let record = fixture.path("vault/claude.record");
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 5, bytes("revoked")).await.unwrap();
    let old = fs::read(&record).unwrap();
    vault.remove(&claude()).await.unwrap();
    assert!(vault.read(&claude(), "oauth").await.unwrap().is_none());
    assert!(vault.accounts().await.unwrap().is_empty());
    vault.remove(&claude()).await.unwrap();

    fs::write(&record, &old).unwrap();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::RolledBack { stored: 5, .. })));
    let generation = vault.next_generation(&claude()).await.unwrap();
    assert!(generation > 5);
    vault.write(&claude(), "oauth", generation, bytes("anew")).await.unwrap();
    assert_eq!(text(&vault, &claude()).await, "anew");
}

#[tokio::test]
async fn attack_78_every_byte_of_the_file_flipped_is_refused() {
    let fixture = Fixture::new();
    let record = fixture.path("vault/claude.record");
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    let whole = fs::read(&record).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x55;
        fs::write(&record, &flipped).unwrap();
        let error = vault.read(&claude(), "oauth").await.unwrap_err();
        assert!(error.is_unopenable_record(), "byte {at}: {error}");
        assert!(!matches!(error, VaultError::WrongKey { .. }), "byte {at}: {error}");
    }
    for length in 0..whole.len() {
        fs::write(&record, &whole[..length]).unwrap();
        assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::DamagedRecord { .. })), "{length}");
    }
}

#[tokio::test]
async fn attack_78_relinking_keeps_the_damaged_record() {
    let fixture = Fixture::new();
    let record = fixture.path("vault/claude.record");
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 3, bytes("x")).await.unwrap();
    drop(vault);
    fs::write(&record, b"").unwrap();
    let vault = fixture.open();
    let error = vault.read(&claude(), "oauth").await.unwrap_err();
    assert!(matches!(error, VaultError::DamagedRecord { .. }), "{error}");
    assert_eq!(fs::read(&record).unwrap(), b"", "reading changes nothing");

    let stale = vault.write(&claude(), "oauth", 1, bytes("too low")).await;
    assert!(matches!(stale, Err(VaultError::StaleWrite { .. })), "the mark is still checked");
    let generation = vault.next_generation(&claude()).await.unwrap();
    vault.write(&claude(), "oauth", generation, bytes("anew")).await.unwrap();
    assert_eq!(text(&vault, &claude()).await, "anew");
    let kept: Vec<_> = names(&fixture.path("vault")).into_iter().filter(|name| name.contains(".damaged-")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].starts_with("claude.record.damaged-"));

    vault.remove(&claude()).await.unwrap();
    assert!(
        !names(&fixture.path("vault")).iter().any(|name| name.contains("claude")),
        "unlinking removes the copies too"
    );
}

#[tokio::test]
async fn attack_78_a_wrong_key_changes_nothing() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    drop(vault);
    let record = fs::read(fixture.path("vault/claude.record")).unwrap();
    let key = fs::read_to_string(fixture.path("config/key")).unwrap();

    fs::write(fixture.path("config/key"), pixy::vault::new_key().expose()).unwrap();
    let refused = fixture.open_error();
    assert!(matches!(refused, VaultError::WrongKey { .. }), "{refused}");
    assert!(refused.to_string().contains("another key"), "{refused}");

    fs::remove_file(fixture.path("config/key")).unwrap();
    let refused = fixture.open_error();
    assert!(matches!(refused, VaultError::KeyMissing { .. }), "{refused}");
    assert!(!fixture.path("config/key").exists(), "no new key is made while records need the old one");

    for damaged in ["", "not base64!", "c2hvcnQ=", &format!("{key}{}A", key.trim())] {
        fs::write(fixture.path("config/key"), damaged).unwrap();
        chmod(&fixture.path("config/key"), 0o600);
        assert!(matches!(fixture.open_error(), VaultError::InvalidFile { .. }), "{damaged}");
    }

    assert_eq!(fs::read(fixture.path("vault/claude.record")).unwrap(), record);
    fs::write(fixture.path("config/key"), key).unwrap();
    assert_eq!(text(&fixture.open(), &claude()).await, "x");
}

#[tokio::test]
async fn attack_78_relinking_keeps_a_record_of_another_key() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    let foreign = fs::read(fixture.path("vault/claude.record")).unwrap();
    vault.rotate_key().await.unwrap();
    vault.write(&work(), "oauth", 1, bytes("y")).await.unwrap();
    drop(vault);
    fs::write(fixture.path("vault/claude.record"), &foreign).unwrap();

    let vault = fixture.open();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::WrongKey { .. })));
    assert_eq!(text(&vault, &work()).await, "y");
    vault.write(&claude(), "oauth", 2, bytes("anew")).await.unwrap();
    let aside = names(&fixture.path("vault")).into_iter().find(|name| name.contains(".damaged-")).unwrap();
    assert_eq!(fs::read(fixture.path("vault").join(aside)).unwrap(), foreign);
}

#[tokio::test]
async fn attack_73_temporary_files_are_removed_at_start() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    drop(vault);
    let clean = names(&fixture.path("vault"));
    for directory in ["vault", "state", "config"] {
        fs::write(fixture.path(directory).join(".pixy-vault-Zz9.tmp"), "half a record").unwrap();
    }
    let vault = fixture.open();
    assert_eq!(names(&fixture.path("vault")), clean);
    assert_eq!(names(&fixture.path("config")), ["key"]);
    assert_eq!(text(&vault, &claude()).await, "x");
}
