//! What the vault refused, as a problem: the one table from [`VaultError`] to status, type and text.

use http::StatusCode;

use super::problem::Problem;
use crate::account::VaultError;
use crate::name::AccountName;

/// What an operation had done by the time the vault failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was stored, replaced or removed.
    NothingStored,
    /// The code was exchanged, and the attempt keeps the login to confirm.
    KeptInAttempt,
    /// The code was exchanged, but the attempt has ended: the login is revoked.
    LoginDiscarded,
    /// A key rotation stopped between two of its steps.
    KeyRotation,
}

impl Progress {
    fn sentence(self) -> &'static str {
        match self {
            Self::NothingStored => "Nothing was changed.",
            Self::KeptInAttempt => "The login is not stored yet. This attempt keeps it, so you can confirm again.",
            Self::LoginDiscarded => "The login was not stored, and Pixy revokes it: start again.",
            Self::KeyRotation => {
                "Some logins may be sealed with the new key already. All of them still open: rotate again."
            }
        }
    }
}

impl Problem {
    /// The problem of a vault error: what happened, what to do, and what has changed.
    pub fn vault(error: &VaultError, progress: Progress) -> Self {
        let (status, code) = kind(error);
        let remedy = error.remedy();
        let changed = match error {
            VaultError::NotRemoved { .. } => {
                "No agent gets this login now, but Pixy may use it again after a restart: unlink it again. \
                 The provider may have ended it."
                    .to_owned()
            }
            VaultError::PartialImport { imported, .. } => {
                format!("Stored were: {}. The other logins were not imported.", list(imported))
            }
            _ => progress.sentence().to_owned(),
        };
        let detail = if remedy.is_empty() { changed } else { format!("{remedy} {changed}") };
        Self::new(status, code, error.title(), detail)
    }
}

impl From<VaultError> for Problem {
    /// Of an operation that stored nothing.
    fn from(error: VaultError) -> Self {
        Self::vault(&error, Progress::NothingStored)
    }
}

/// The status, and the stable part of the problem type.
fn kind(error: &VaultError) -> (StatusCode, &'static str) {
    match error {
        VaultError::Io { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "not_stored"),
        VaultError::InUse { .. } => (StatusCode::SERVICE_UNAVAILABLE, "vault_in_use"),
        VaultError::NotPrivate { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "vault_not_private"),
        VaultError::WrongOwner { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "vault_wrong_owner"),
        VaultError::KeyMissing { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "vault_key_missing"),
        VaultError::InvalidFile { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "vault_file_invalid"),
        VaultError::WrongKey { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "vault_wrong_key"),
        VaultError::DamagedRecord { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "record_damaged"),
        VaultError::ForeignRecord { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "record_foreign"),
        VaultError::NewerRecord { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "record_newer"),
        VaultError::RolledBack { .. } => (StatusCode::CONFLICT, "record_rolled_back"),
        VaultError::StaleWrite { .. } => (StatusCode::CONFLICT, "stale_write"),
        VaultError::RecordTooLarge => (StatusCode::UNPROCESSABLE_ENTITY, "record_too_large"),
        VaultError::NotRemoved { source } => (kind(source).0, "not_removed"),
        VaultError::AlreadyLinked { .. } => (StatusCode::CONFLICT, "already_linked"),
        VaultError::PartialImport { source, .. } => (kind(source).0, "partial_import"),
        VaultError::WrongPassphrase => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_passphrase"),
        VaultError::DamagedExport => (StatusCode::UNPROCESSABLE_ENTITY, "export_damaged"),
        VaultError::NewerExport { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "export_newer"),
        VaultError::EmptyPassphrase => (StatusCode::UNPROCESSABLE_ENTITY, "passphrase_empty"),
        VaultError::PassphraseTooLong => (StatusCode::UNPROCESSABLE_ENTITY, "passphrase_too_long"),
        VaultError::StretchTooCostly { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "passphrase_too_costly"),
        VaultError::NoMemory { .. } => (StatusCode::SERVICE_UNAVAILABLE, "no_memory"),
        VaultError::NoAccounts => (StatusCode::CONFLICT, "no_accounts"),
        VaultError::NotConfigured => (StatusCode::NOT_FOUND, "no_account"),
        VaultError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
    }
}

fn list(accounts: &[AccountName]) -> String {
    accounts.iter().map(AccountName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;

    /// Makes one error of each variant; a variant that is missing here does not compile.
    macro_rules! every_variant {
        ($($pattern:pat => $error:expr),+ $(,)?) => {{
            let _is_complete = |error: &VaultError| match error { $($pattern => ()),+ };
            vec![$($error),+]
        }};
    }

    fn every_error() -> Vec<VaultError> {
        let path = || PathBuf::from("/vault/claude");
        let accounts = || vec![AccountName::parse("claude").unwrap(), AccountName::parse("codex").unwrap()];
        let full =
            || VaultError::Io { what: "write the record", path: path(), source: io::ErrorKind::StorageFull.into() };
        every_variant![
            VaultError::Io { .. } => full(),
            VaultError::InUse { .. } => VaultError::InUse { directory: path() },
            VaultError::NotPrivate { .. } => VaultError::NotPrivate { path: path(), mode: 0o644, wanted: 0o600 },
            VaultError::WrongOwner { .. } => VaultError::WrongOwner { path: path(), owner: 1, us: 2 },
            VaultError::KeyMissing { .. } => VaultError::KeyMissing { path: path(), directory: path() },
            VaultError::InvalidFile { .. } => VaultError::InvalidFile { path: path(), wanted: "a key" },
            VaultError::WrongKey { .. } => VaultError::WrongKey { path: path() },
            VaultError::DamagedRecord { .. } => VaultError::DamagedRecord { path: path() },
            VaultError::ForeignRecord { .. } => VaultError::ForeignRecord { path: path() },
            VaultError::NewerRecord { .. } => VaultError::NewerRecord { path: path(), version: 9 },
            VaultError::RolledBack { .. } => VaultError::RolledBack { stored: 3, seen: 5 },
            VaultError::StaleWrite { .. } => VaultError::StaleWrite { stored: 5, offered: 3 },
            VaultError::RecordTooLarge => VaultError::RecordTooLarge,
            VaultError::NotRemoved { .. } => VaultError::NotRemoved { source: Box::new(full()) },
            VaultError::AlreadyLinked { .. } => VaultError::AlreadyLinked { accounts: accounts() },
            VaultError::PartialImport { .. } =>
                VaultError::PartialImport { imported: accounts(), source: Box::new(VaultError::ShuttingDown) },
            VaultError::WrongPassphrase => VaultError::WrongPassphrase,
            VaultError::DamagedExport => VaultError::DamagedExport,
            VaultError::NewerExport { .. } => VaultError::NewerExport { version: 9 },
            VaultError::EmptyPassphrase => VaultError::EmptyPassphrase,
            VaultError::PassphraseTooLong => VaultError::PassphraseTooLong,
            VaultError::StretchTooCostly { .. } => VaultError::StretchTooCostly {
                place: "the export".to_owned(),
                cost: "4194304 KiB, 3 passes and 4 lanes, but Pixy spends at most 65536 KiB, 10 passes and 16 lanes".to_owned(),
            },
            VaultError::NoMemory { .. } => VaultError::NoMemory { bytes: 64 << 20 },
            VaultError::NoAccounts => VaultError::NoAccounts,
            VaultError::NotConfigured => VaultError::NotConfigured,
            VaultError::ShuttingDown => VaultError::ShuttingDown,
        ]
    }

    fn table(progress: Progress) -> String {
        let rows = every_error().into_iter().map(|error| {
            let Problem { kind, status, title, detail } = Problem::vault(&error, progress);
            format!("{status} {kind}\n    {title}\n    {detail}\n")
        });
        rows.collect()
    }

    #[test]
    fn every_vault_error_has_its_status_and_text() {
        insta::assert_snapshot!(table(Progress::NothingStored), @r"
        500 urn:pixy:problem:not_stored
            Pixy could not write the record (/vault/claude): no storage space.
            Free space on that disk. Nothing was changed.
        503 urn:pixy:problem:vault_in_use
            Another Pixy is using /vault/claude.
            Stop it, or give this one another directory. Nothing was changed.
        500 urn:pixy:problem:vault_not_private
            /vault/claude is open to other users of this machine (mode 0644).
            Run `chmod 600 /vault/claude`. Nothing was changed.
        500 urn:pixy:problem:vault_wrong_owner
            /vault/claude belongs to user id 1, but Pixy runs as 2.
            Run `chown 2 /vault/claude`, or run Pixy as its owner. Nothing was changed.
        500 urn:pixy:problem:vault_key_missing
            The vault's key is missing: /vault/claude.
            Restore it from a backup: a new one would not open the logins in /vault/claude. To start without logins, configure an empty directory. Nothing was changed.
        500 urn:pixy:problem:vault_file_invalid
            /vault/claude does not hold a key.
            Restore it from a backup. Nothing was changed.
        500 urn:pixy:problem:vault_wrong_key
            /vault/claude was sealed with another key than the one configured.
            Configure that key; without it the account must be linked again. Nothing was changed.
        500 urn:pixy:problem:record_damaged
            /vault/claude is damaged.
            Restore it from a backup of today, or link the account again: the damaged file is kept beside it. Nothing was changed.
        500 urn:pixy:problem:record_foreign
            /vault/claude was sealed for another account, provider or machine.
            Restore the right file, or link the account again. `pixy export` and `pixy import` move logins between machines. Nothing was changed.
        500 urn:pixy:problem:record_newer
            A newer Pixy wrote /vault/claude (record version 9).
            Run that version. Nothing was changed.
        409 urn:pixy:problem:record_rolled_back
            The stored login is an older copy (generation 3, but 5 was seen).
            Its refresh token was probably spent, and using it may sign the account out everywhere. Link the account again, or, if you restored the copy, run `pixy link NAME --older-copy`. Nothing was changed.
        409 urn:pixy:problem:stale_write
            The login was not stored: generation 3 is older than 5.
            This is a bug in Pixy; please report it. Nothing was changed.
        422 urn:pixy:problem:record_too_large
            The login is larger than 1 MiB.
            Nothing was changed.
        500 urn:pixy:problem:not_removed
            The login was not removed from the vault. Pixy could not write the record (/vault/claude): no storage space.
            Free space on that disk. No agent gets this login now, but Pixy may use it again after a restart: unlink it again. The provider may have ended it.
        409 urn:pixy:problem:already_linked
            These accounts are linked here already: claude, codex.
            Unlink them first, or import again and replace them. Nothing was changed.
        503 urn:pixy:problem:partial_import
            The import stopped. Pixy is shutting down.
            Try again once it runs. Then import again and replace. Stored were: claude, codex. The other logins were not imported.
        422 urn:pixy:problem:wrong_passphrase
            The passphrase does not open this export.
            Enter it again. Nothing was changed.
        422 urn:pixy:problem:export_damaged
            This is not an export of Pixy, or it is damaged.
            Export again on the other machine. Nothing was changed.
        422 urn:pixy:problem:export_newer
            A newer Pixy made this export (version 9).
            Import it with that version. Nothing was changed.
        422 urn:pixy:problem:passphrase_empty
            The passphrase is empty.
            Choose one. Nothing was changed.
        422 urn:pixy:problem:passphrase_too_long
            The passphrase is too long.
            Choose a shorter one. Nothing was changed.
        422 urn:pixy:problem:passphrase_too_costly
            Stretching the passphrase of the export would take 4194304 KiB, 3 passes and 4 lanes, but Pixy spends at most 65536 KiB, 10 passes and 16 lanes.
            The file was changed or damaged: restore it, or export again on the other machine. Nothing was changed.
        503 urn:pixy:problem:no_memory
            There are no 64 MiB of memory free to stretch the passphrase.
            Try again when fewer requests are under way, or raise `limits.memory`. Nothing was changed.
        409 urn:pixy:problem:no_accounts
            The configuration has no accounts, so there are no logins.
            Configure an account. Nothing was changed.
        404 urn:pixy:problem:no_account
            The account is no longer configured.
            Put it back into Pixy's configuration. Nothing was changed.
        503 urn:pixy:problem:shutting_down
            Pixy is shutting down.
            Try again once it runs. Nothing was changed.
        ");
    }

    #[test]
    fn every_vault_error_has_a_type_of_its_own() {
        let mut kinds: Vec<_> =
            every_error().iter().map(|error| Problem::vault(error, Progress::NothingStored).kind).collect();
        let all = kinds.len();
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds.len(), all);
    }

    #[test]
    fn nothing_was_changed_is_said_only_when_it_is_true() {
        for error in every_error() {
            let has_changed = matches!(error, VaultError::NotRemoved { .. } | VaultError::PartialImport { .. });
            let claims = |progress| Problem::vault(&error, progress).detail.contains("Nothing was changed");
            assert_eq!(claims(Progress::NothingStored), !has_changed, "{error:?}");
            for progress in [Progress::KeptInAttempt, Progress::LoginDiscarded, Progress::KeyRotation] {
                assert!(!claims(progress), "{error:?} {progress:?}");
            }
        }
    }

    #[test]
    fn a_partial_import_names_what_was_stored() {
        let [ref partial] = *every_error()
            .into_iter()
            .filter(|error| matches!(error, VaultError::PartialImport { .. }))
            .collect::<Vec<_>>()
        else {
            panic!()
        };
        let problem = Problem::vault(partial, Progress::NothingStored);
        assert_eq!(problem.status, 503, "as its cause: {}", problem.title);
        assert!(problem.detail.contains("Stored were: claude, codex."), "{}", problem.detail);
    }
}
