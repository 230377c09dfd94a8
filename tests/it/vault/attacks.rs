//! What others do to the files: swap, restore, damage, open them to the world.
#![allow(clippy::print_stdout)] // says why a test was skipped

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use pixy::vault::{Settings, Vault, VaultError};

use super::{House, bytes, chmod, claude, names, text, work};

#[tokio::test]
async fn attack_06_directories_and_files_are_private() {
    let house = House::new();
    let vault = house.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    let mode = |name: &str| fs::metadata(house.path(name)).unwrap().mode() & 0o7777;
    for directory in ["vault", "state", "config"] {
        assert_eq!(mode(directory), 0o700, "{directory}");
        for name in names(&house.path(directory)) {
            assert_eq!(mode(&format!("{directory}/{name}")), 0o600, "{directory}/{name}");
        }
    }
}

#[test]
fn attack_06_paths_open_to_others_are_refused_with_the_fix() {
    for (name, mode, mend) in
        [("vault", 0o755, "chmod 700"), ("vault", 0o750, "chmod 700"), ("config/key", 0o644, "chmod 600")]
    {
        let house = House::new();
        drop(house.open());
        let path = house.path(name);
        chmod(&path, mode);
        let sentence = house.refused().to_string();
        assert!(sentence.contains(&format!("run `{mend} {}`", path.display())), "{sentence}");
        chmod(&path, if mend.ends_with("700") { 0o700 } else { 0o600 });
        house.open();
    }
}

#[test]
fn attack_06_a_directory_of_another_user_is_refused() {
    let house = House::new();
    drop(house.open());
    if std::os::unix::fs::chown(house.path("vault"), Some(4321), None).is_err() {
        println!("skipped: only root may give a directory away");
        return;
    }
    let sentence = house.refused().to_string();
    assert!(sentence.contains("belongs to user id 4321"), "{sentence}");
}

#[test]
fn attack_79_a_second_pixy_on_one_directory_is_refused() {
    let house = House::new();
    let first = house.open();
    let refused = house.refused();
    assert!(matches!(refused, VaultError::InUse { .. }));
    let sentence = refused.to_string();
    assert!(
        sentence.contains("another Pixy is using") && sentence.contains(&house.path("vault").display().to_string())
    );

    // Another vault with the same state directory would mix up the marks.
    let elsewhere = Settings { directory: house.path("other"), ..house.settings() };
    assert!(matches!(Vault::open(&elsewhere), Err(VaultError::InUse { .. })));

    let clone = first.clone();
    drop(first);
    assert!(matches!(house.refused(), VaultError::InUse { .. }), "a clone still holds it");
    drop(clone);
    house.open();
}

#[tokio::test]
async fn attack_76_a_record_swapped_between_accounts() {
    let house = House::new();
    let vault = house.open();
    vault.write(&claude(), "oauth", 1, bytes("of claude")).await.unwrap();
    vault.write(&work(), "oauth", 1, bytes("of work")).await.unwrap();
    fs::copy(house.path("vault/work.record"), house.path("vault/claude.record")).unwrap();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::ForeignRecord { .. })));
    assert_eq!(text(&vault, &work()).await, "of work");
}

#[tokio::test]
async fn attack_76_a_record_read_for_another_provider() {
    let house = House::new();
    let vault = house.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    assert!(matches!(vault.read(&claude(), "openai").await, Err(VaultError::ForeignRecord { .. })));
}

#[tokio::test]
async fn attack_76_a_record_from_another_machine() {
    let (here, there) = (House::new(), House::new());
    let (vault, other) = (here.open(), there.open());
    vault.write(&claude(), "oauth", 1, bytes("here")).await.unwrap();
    other.write(&claude(), "oauth", 1, bytes("there")).await.unwrap();
    fs::copy(there.path("vault/claude.record"), here.path("vault/claude.record")).unwrap();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::ForeignRecord { .. })));

    // Also when both machines were given one key.
    drop((vault, other));
    fs::copy(there.path("config/key"), here.path("config/key")).unwrap();
    let vault = here.open();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::ForeignRecord { .. })));
}

#[tokio::test]
async fn attack_77_an_older_copy_needs_confirmation() {
    let house = House::new();
    let record = house.path("vault/claude.record");
    let vault = house.open();
    vault.write(&claude(), "oauth", 1, bytes("old")).await.unwrap();
    let old = fs::read(&record).unwrap();
    vault.write(&claude(), "oauth", 2, bytes("new")).await.unwrap();
    drop(vault);

    fs::write(&record, &old).unwrap();
    let vault = house.open();
    let refused = vault.read(&claude(), "oauth").await.unwrap_err();
    assert!(matches!(refused, VaultError::RolledBack { stored: 1, seen: 2 }), "{refused}");
    let stale = vault.write(&claude(), "oauth", 1, bytes("spent")).await.unwrap_err();
    assert!(matches!(stale, VaultError::StaleWrite { stored: 2, offered: 1 }), "{stale}");
    assert_eq!(fs::read(&record).unwrap(), old, "nothing was changed");

    vault.accept_rollback(&claude()).await.unwrap();
    assert_eq!(text(&vault, &claude()).await, "old");
    drop(vault);
    assert_eq!(text(&house.open(), &claude()).await, "old", "it was said once and for all");
}

#[tokio::test]
async fn attack_77_a_restored_unlinked_login_needs_confirmation() {
    let house = House::new();
    let record = house.path("vault/claude.record");
    let vault = house.open();
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
    let house = House::new();
    let record = house.path("vault/claude.record");
    let vault = house.open();
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
    let house = House::new();
    let record = house.path("vault/claude.record");
    let vault = house.open();
    vault.write(&claude(), "oauth", 3, bytes("x")).await.unwrap();
    drop(vault);
    fs::write(&record, b"").unwrap();
    let vault = house.open();
    let error = vault.read(&claude(), "oauth").await.unwrap_err();
    assert!(matches!(error, VaultError::DamagedRecord { .. }), "{error}");
    assert_eq!(fs::read(&record).unwrap(), b"", "reading changes nothing");

    let stale = vault.write(&claude(), "oauth", 1, bytes("too low")).await;
    assert!(matches!(stale, Err(VaultError::StaleWrite { .. })), "the mark still counts");
    let generation = vault.next_generation(&claude()).await.unwrap();
    vault.write(&claude(), "oauth", generation, bytes("anew")).await.unwrap();
    assert_eq!(text(&vault, &claude()).await, "anew");
    let kept: Vec<_> = names(&house.path("vault")).into_iter().filter(|name| name.contains(".damaged-")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].starts_with("claude.record.damaged-"));

    vault.remove(&claude()).await.unwrap();
    assert!(!names(&house.path("vault")).iter().any(|name| name.contains("claude")), "forgotten is forgotten");
}

#[tokio::test]
async fn attack_78_a_wrong_key_changes_nothing() {
    let house = House::new();
    let vault = house.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    drop(vault);
    let record = fs::read(house.path("vault/claude.record")).unwrap();
    let key = fs::read_to_string(house.path("config/key")).unwrap();

    fs::write(house.path("config/key"), pixy::vault::new_key().expose()).unwrap();
    let refused = house.refused();
    assert!(matches!(refused, VaultError::WrongKey { .. }), "{refused}");
    assert!(refused.to_string().contains("another key"), "{refused}");

    fs::remove_file(house.path("config/key")).unwrap();
    let refused = house.refused();
    assert!(matches!(refused, VaultError::KeyMissing { .. }), "{refused}");
    assert!(!house.path("config/key").exists(), "no new key is made where logins wait for the old one");

    for damaged in ["", "not base64!", "c2hvcnQ=", &format!("{key}{}A", key.trim())] {
        fs::write(house.path("config/key"), damaged).unwrap();
        chmod(&house.path("config/key"), 0o600);
        assert!(matches!(house.refused(), VaultError::InvalidFile { .. }), "{damaged}");
    }

    assert_eq!(fs::read(house.path("vault/claude.record")).unwrap(), record);
    fs::write(house.path("config/key"), key).unwrap();
    assert_eq!(text(&house.open(), &claude()).await, "x");
}

#[tokio::test]
async fn attack_78_relinking_keeps_a_record_of_another_key() {
    let house = House::new();
    let vault = house.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    let foreign = fs::read(house.path("vault/claude.record")).unwrap();
    vault.rotate_key().await.unwrap();
    vault.write(&work(), "oauth", 1, bytes("y")).await.unwrap();
    drop(vault);
    fs::write(house.path("vault/claude.record"), &foreign).unwrap();

    let vault = house.open();
    assert!(matches!(vault.read(&claude(), "oauth").await, Err(VaultError::WrongKey { .. })));
    assert_eq!(text(&vault, &work()).await, "y");
    vault.write(&claude(), "oauth", 2, bytes("anew")).await.unwrap();
    let aside = names(&house.path("vault")).into_iter().find(|name| name.contains(".damaged-")).unwrap();
    assert_eq!(fs::read(house.path("vault").join(aside)).unwrap(), foreign);
}

#[tokio::test]
async fn attack_73_temporary_files_are_removed_at_start() {
    let house = House::new();
    let vault = house.open();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    drop(vault);
    let clean = names(&house.path("vault"));
    for directory in ["vault", "state", "config"] {
        fs::write(house.path(directory).join(".pixy-vault-Zz9.tmp"), "half a record").unwrap();
    }
    let vault = house.open();
    assert_eq!(names(&house.path("vault")), clean);
    assert_eq!(names(&house.path("config")), ["key"]);
    assert_eq!(text(&vault, &claude()).await, "x");
}
