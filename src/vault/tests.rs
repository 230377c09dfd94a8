//! Tests that need private items: rotation interrupted between its steps, and passphrases at a low cost.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use super::rotate::Step;
use super::seal::OPENED;
use super::*;

const LOW_COST: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

/// A vault in a temporary directory.
struct Fixture {
    root: tempfile::TempDir,
    key: KeySettings,
}

impl Fixture {
    fn with_key_file() -> Self {
        let root = tempfile::tempdir().unwrap();
        let key = KeySettings::File(root.path().join("config/key"));
        Self { root, key }
    }

    fn with_passphrase(passphrase: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let fixture = Self { key: KeySettings::Passphrase(root.path().join("passphrase")), root };
        fixture.set_passphrase(passphrase);
        fixture
    }

    fn set_passphrase(&self, text: &str) {
        file::write_durably(self.root.path(), "passphrase", text.as_bytes()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn open(&self) -> Result<Vault, VaultError> {
        let settings =
            VaultSettings { directory: self.path("vault"), key: self.key.clone(), state_dir: self.path("state") };
        Records::open(&settings, LOW_COST).map(|records| Vault(Arc::new(records)))
    }
}

fn name(text: &str) -> AccountName {
    AccountName::parse(text).unwrap()
}

#[test]
fn a_write_decrypts_the_replaced_record_once() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"x");
    let before = OPENED.get();
    put(&vault, "a", 2, b"y");
    assert_eq!(OPENED.get() - before, 1);
}

fn put(vault: &Vault, account: &str, generation: u64, plaintext: &[u8]) {
    vault.0.write(&name(account), "oauth", generation, plaintext).unwrap();
}

fn get(vault: &Vault, account: &str) -> Vec<u8> {
    vault.0.read(&name(account), "oauth").unwrap().unwrap().plaintext.to_vec()
}

fn empty_report() -> RotationReport {
    RotationReport { new_key: false, resealed: 0, untouched: Vec::new(), keys: 0 }
}

fn key_lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn attack_73_a_rotation_stopped_after_any_step_loses_nothing() {
    let steps = 5; // the new key, three records, the removal of the old key
    for stop in 0..=steps {
        for fixture in [Fixture::with_key_file(), Fixture::with_passphrase("horse")] {
            let vault = fixture.open().unwrap();
            for account in ["a", "b", "c"] {
                put(&vault, account, 1, account.as_bytes());
            }
            let mut report = empty_report();
            let mut to_do = VecDeque::from([Step::NewKey]);
            for _ in 0..stop {
                let step = to_do.pop_front().unwrap();
                to_do.extend(vault.0.rotate_by(step, &mut report).unwrap());
                for account in ["a", "b", "c"] {
                    assert_eq!(get(&vault, account), account.as_bytes(), "during the rotation");
                }
            }
            assert_eq!(to_do.is_empty(), stop == steps);
            drop(vault);

            let vault = fixture.open().unwrap();
            for account in ["a", "b", "c"] {
                assert_eq!(get(&vault, account), account.as_bytes(), "stopped after {stop}");
            }
            let report = vault.0.rotate().unwrap();
            assert_eq!(report, RotationReport { new_key: true, resealed: 3, untouched: vec![], keys: 1 });
            drop(vault);
            let vault = fixture.open().unwrap();
            assert_eq!(get(&vault, "c"), b"c");
        }
    }
}

#[test]
fn a_rotated_vault_does_not_open_with_the_old_key() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"x");
    let old = fs::read_to_string(fixture.path("config/key")).unwrap();
    vault.0.rotate().unwrap();
    drop(vault);
    assert_eq!(key_lines(&fixture.path("config/key")), 1);
    file::write_durably(&fixture.path("config"), "key", old.as_bytes()).unwrap();
    assert!(matches!(fixture.open(), Err(VaultError::WrongKey { .. })));
}

#[test]
fn attack_78_a_rotation_keeps_unopenable_records_and_their_key() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"x");
    put(&vault, "b", 1, b"y");
    let record = fixture.path("vault/b.record");
    let whole = fs::read(&record).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&record, &damaged).unwrap();
    let report = vault.0.rotate().unwrap();
    assert_eq!(report, RotationReport { new_key: true, resealed: 1, untouched: vec![name("b")], keys: 2 });
    assert_eq!(fs::read(&record).unwrap(), damaged);
    drop(vault);
    // A person restores an undamaged copy: its key was kept.
    fs::write(&record, whole).unwrap();
    assert_eq!(get(&fixture.open().unwrap(), "b"), b"y");
}

#[test]
fn the_first_listed_key_seals_and_older_ones_open() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"x");
    drop(vault);
    let old = fs::read_to_string(fixture.path("config/key")).unwrap();
    let both = format!("# new\n{}\n# old\n{old}", new_key().expose());
    file::write_durably(&fixture.path("config"), "key", both.as_bytes()).unwrap();
    let vault = fixture.open().unwrap();
    assert_eq!(get(&vault, "a"), b"x");
}

#[test]
fn a_read_only_key_file_rotates_to_its_first_key() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"x");
    drop(vault);
    let config = fixture.path("config");
    let old = fs::read_to_string(config.join("key")).unwrap();
    file::write_durably(&config, "key", format!("{}\n{old}", new_key().expose()).as_bytes()).unwrap();
    let vault = fixture.open().unwrap();
    // Renamed while the vault is open: writing fails for root too.
    fs::rename(&config, fixture.path("elsewhere")).unwrap();
    let report = vault.0.rotate().unwrap();
    assert_eq!(report, RotationReport { new_key: false, resealed: 1, untouched: vec![], keys: 2 });
    drop(vault);
    fs::rename(fixture.path("elsewhere"), &config).unwrap();
    let new = fs::read_to_string(config.join("key")).unwrap().replace(&old, "");
    file::write_durably(&config, "key", new.as_bytes()).unwrap();
    let vault = fixture.open().unwrap();
    assert_eq!(get(&vault, "a"), b"x", "the old key is still needed");
    fs::rename(&config, fixture.path("elsewhere")).unwrap();
    assert!(matches!(vault.0.rotate(), Err(VaultError::Io { .. })), "the only key cannot be replaced");
    assert_eq!(get(&vault, "a"), b"x");
}

#[test]
fn attack_78_a_wrong_passphrase_is_refused_before_sealing() {
    let fixture = Fixture::with_passphrase("horse");
    drop(fixture.open().unwrap());
    for wrong in ["Horse", "horse ", "hors"] {
        fixture.set_passphrase(wrong);
        assert!(matches!(fixture.open(), Err(VaultError::WrongKey { .. })), "{wrong}");
    }
    fixture.set_passphrase("\n");
    assert!(matches!(fixture.open(), Err(VaultError::InvalidFile { .. })));
}

#[test]
fn a_passphrase_is_changed_by_listing_and_rotating() {
    let fixture = Fixture::with_passphrase("horse\n");
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"x");
    drop(vault);
    fixture.set_passphrase("battery\nhorse\n");
    let vault = fixture.open().unwrap();
    assert_eq!(vault.0.rotate().unwrap().keys, 1);
    drop(vault);
    fixture.set_passphrase("battery\n");
    assert_eq!(get(&fixture.open().unwrap(), "a"), b"x");
}

#[test]
fn attack_78_damaged_key_parameters_are_refused_and_kept() {
    let fixture = Fixture::with_passphrase("horse");
    drop(fixture.open().unwrap());
    let kdf = fixture.path("vault/kdf");
    let whole = fs::read_to_string(&kdf).unwrap();
    assert!(whole.starts_with("argon2id m=64 t=1 p=1 salt="));
    for damage in ["", "argon2id", "m=1", &whole.replace("argon2id", "argon2i")] {
        fs::write(&kdf, damage).unwrap();
        assert!(matches!(fixture.open(), Err(VaultError::InvalidFile { .. })), "{damage}");
        assert_eq!(fs::read_to_string(&kdf).unwrap(), damage);
    }
    for costly in [whole.replace("m=64", "m=4194304"), whole.replace("t=1", "t=64"), whole.replace("p=1", "p=0")] {
        fs::write(&kdf, &costly).unwrap();
        let refused = fixture.open().unwrap_err();
        assert!(matches!(refused, VaultError::StretchTooCostly { .. }), "{refused}");
        assert!(refused.to_string().contains("vault/kdf would take "), "{refused}");
        assert_eq!(fs::read_to_string(&kdf).unwrap(), costly);
    }
    fs::write(&kdf, whole.replace("t=1", "t=2")).unwrap();
    assert!(matches!(fixture.open(), Err(VaultError::WrongKey { .. })));
}

#[test]
fn the_cost_of_a_passphrase_is_at_least_64_mib_and_three_passes() {
    const { assert!(Cost::STRONG.memory_kib >= 64 * 1024 && Cost::STRONG.passes >= 3) }
}

#[test]
fn an_export_keeps_generations() {
    let (old, new) = (Fixture::with_key_file(), Fixture::with_passphrase("horse"));
    let passphrase = Secret::new("moving".to_owned());
    let vault = old.open().unwrap();
    put(&vault, "a", 4, b"canary-one");
    put(&vault, "b", 7, b"canary-two");
    let bytes = vault.0.export(&passphrase).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"canary"));

    let vault = new.open().unwrap();
    assert_eq!(vault.0.import(&bytes, &passphrase, Existing::Refuse).unwrap(), [name("a"), name("b")]);
    assert_eq!(get(&vault, "b"), b"canary-two");
    assert_eq!(vault.0.read(&name("b"), "oauth").unwrap().unwrap().generation, 7);
}

#[test]
fn attack_78_a_damaged_export_does_not_open() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"x");
    let passphrase = Secret::new("moving".to_owned());
    let bytes = vault.0.export(&passphrase).unwrap();
    vault.0.remove(&name("a")).unwrap();

    let wrong = vault.0.import(&bytes, &Secret::new("movinG".to_owned()), Existing::Refuse);
    assert!(matches!(wrong, Err(VaultError::WrongPassphrase)));
    for length in 0..bytes.len() {
        assert!(vault.0.import(&bytes[..length], &passphrase, Existing::Refuse).is_err(), "{length}");
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(vault.0.import(&flipped, &passphrase, Existing::Refuse).is_err(), "{at}");
    }
    assert!(vault.0.store.list().unwrap().is_empty());
    assert!(matches!(vault.0.export(&Secret::new(String::new())), Err(VaultError::EmptyPassphrase)));
}

#[test]
fn attack_82_an_import_that_is_too_costly_is_refused() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"x");
    let passphrase = Secret::new("moving".to_owned());
    let bytes = vault.0.export(&passphrase).unwrap();
    // Memory, passes and lanes, 4 bytes each behind magic and version.
    for (at, number) in [(8, 4 * 1024 * 1024_u32), (8, 65_537), (8, u32::MAX), (12, 64), (12, u32::MAX), (16, 17)] {
        let mut costly = bytes.clone();
        costly[at..at + 4].copy_from_slice(&number.to_be_bytes());
        let began = std::time::Instant::now();
        let refused = vault.0.import(&costly, &passphrase, Existing::Replace).unwrap_err();
        assert!(matches!(refused, VaultError::StretchTooCostly { .. }), "{at} {number}: {refused}");
        assert!(began.elapsed() < std::time::Duration::from_millis(100), "nothing was computed");
    }
    assert_eq!(get(&vault, "a"), b"x");
}

#[test]
fn an_import_overwrites_only_with_replace() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"exported");
    let passphrase = Secret::new("moving".to_owned());
    let bytes = vault.0.export(&passphrase).unwrap();
    put(&vault, "a", 1, b"present");
    let refused = vault.0.import(&bytes, &passphrase, Existing::Refuse).unwrap_err();
    assert!(matches!(&refused, VaultError::AlreadyLinked { accounts } if *accounts == [name("a")]), "{refused}");
    assert_eq!(get(&vault, "a"), b"present");
    vault.0.import(&bytes, &passphrase, Existing::Replace).unwrap();
    assert_eq!(get(&vault, "a"), b"exported");
}

#[test]
fn an_import_that_fails_reports_the_accounts_it_stored() {
    let (old, new) = (Fixture::with_key_file(), Fixture::with_key_file());
    let passphrase = Secret::new("moving".to_owned());
    let vault = old.open().unwrap();
    put(&vault, "a", 4, b"first");
    put(&vault, "b", 7, b"second");
    let bytes = vault.0.export(&passphrase).unwrap();

    let vault = new.open().unwrap();
    // A directory as a record: no write can replace it, not even root's.
    fs::create_dir(new.path("vault/b.record")).unwrap();
    let error = vault.0.import(&bytes, &passphrase, Existing::Replace).unwrap_err();
    let VaultError::PartialImport { imported, source } = &error else { panic!("{error}") };
    assert_eq!(*imported, [name("a")]);
    assert!(matches!(**source, VaultError::Io { .. }), "{source}");
    assert_eq!(get(&vault, "a"), b"first");

    fs::remove_dir(new.path("vault/b.record")).unwrap();
    drop(vault);
    let vault = new.open().unwrap();
    assert!(vault.0.read(&name("b"), "oauth").unwrap().is_none(), "b was not stored");
    assert_eq!(vault.0.highest(&name("a")).unwrap(), 4);
    assert_eq!(vault.0.import(&bytes, &passphrase, Existing::Replace).unwrap(), [name("a"), name("b")]);
}

#[test]
fn attack_77_an_older_import_needs_confirmation() {
    let fixture = Fixture::with_key_file();
    let vault = fixture.open().unwrap();
    put(&vault, "a", 1, b"before");
    let passphrase = Secret::new("moving".to_owned());
    let bytes = vault.0.export(&passphrase).unwrap();
    put(&vault, "a", 2, b"after");
    vault.0.import(&bytes, &passphrase, Existing::Replace).unwrap();
    let refused = vault.0.read(&name("a"), "oauth").unwrap_err();
    assert!(matches!(refused, VaultError::RolledBack { stored: 1, seen: 2 }), "{refused}");
}
