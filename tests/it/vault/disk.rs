//! A disk that is full or read-only.
#![allow(clippy::print_stdout)] // reports why it was skipped

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use pixy::vault::{Vault, VaultError};

use super::{Fixture, bytes, claude, names, settings, text};

/// Runs itself again in a mount namespace, where a tmpfs of 512 KiB becomes full and then read-only.
#[tokio::test]
async fn attack_75_the_probe_detects_a_full_or_read_only_disk() {
    const DISK: &str = "PIXY_TEST_SMALL_DISK";
    const NOT_PERMITTED: i32 = 77;
    if let Some(disk) = std::env::var_os(DISK) {
        return on_a_small_disk(Path::new(&disk)).await;
    }
    let fixture = Fixture::new();
    let script =
        format!(r#"mount -t tmpfs -o size=512k,mode=0700 none "${DISK}" || exit {NOT_PERMITTED}; exec "$0" "$@""#);
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "vault::disk::attack_75_the_probe_detects_a_full_or_read_only_disk", "--nocapture"])
        .env(DISK, fixture.0.path())
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) if we_are_root() && status.code() != Some(NOT_PERMITTED) => panic!("{status}"),
        _ => println!("skipped: a tmpfs needs the right to mount (root in a container that allows it)"),
    }
}

fn we_are_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

async fn on_a_small_disk(disk: &Path) {
    let vault = Vault::open(&settings(disk)).unwrap();
    vault.write(&claude(), "oauth", 1, bytes("x")).await.unwrap();
    vault.probe().await.unwrap();
    let kind = |result: Result<(), VaultError>| match result {
        Err(VaultError::Io { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    };

    let filler = disk.join("filler");
    assert!(fs::write(&filler, vec![1; 1024 * 1024]).is_err(), "fills what is left");
    assert_eq!(kind(vault.probe().await), std::io::ErrorKind::StorageFull);
    assert_eq!(
        kind(vault.write(&claude(), "oauth", 2, bytes(&"y".repeat(64 * 1024))).await),
        std::io::ErrorKind::StorageFull
    );
    assert_eq!(text(&vault, &claude()).await, "x", "the old login is kept");
    assert!(!names(&disk.join("vault")).iter().any(|name| name.contains(".pixy-vault-")));
    fs::remove_file(&filler).unwrap();
    vault.probe().await.unwrap();

    // A bind mount: the vault's open lock file prevents remounting the tmpfs itself.
    let read_only = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0""#;
    assert!(Command::new("sh").args(["-c", read_only]).arg(disk).status().unwrap().success());
    assert_eq!(kind(vault.probe().await), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(vault.write(&claude(), "oauth", 2, bytes("y")).await), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(text(&vault, &claude()).await, "x");
    println!("probed a full and a read-only disk");
}
