//! The vault as a whole: `pixy key rotate`, `pixy export`, `pixy import`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::control_client::{CallError, ControlClient};
use super::terminal::{EchoOff, is_interactive, print_line, prompt};
use super::{CommandError, runtime};
use crate::api::{self, ExportRequest, ImportRequest, SecretText};
use crate::secret::Secret;

/// A shorter passphrase can be guessed offline.
const MIN_PASSPHRASE_CHARS: usize = 12;

pub(super) fn rotate(control: &ControlClient) -> Result<(), CommandError> {
    let rotation = runtime()?.block_on(control.call::<api::RotateVaultKey>("", &()))?;
    print_line(&format!("Every login is sealed with the new key: {}.", rotation.resealed));
    for name in &rotation.untouched {
        print_line(&format!("  {name} was not changed: no key opens it."));
    }
    Ok(())
}

pub(super) fn export(control: &ControlClient, file: &Path) -> Result<(), CommandError> {
    let passphrase = read_passphrase("A passphrase to seal the logins with: ")?;
    if passphrase.expose().chars().count() < MIN_PASSPHRASE_CHARS {
        return Err(CommandError::Usage(format!(
            "pixy: a passphrase has at least {MIN_PASSPHRASE_CHARS} characters: anyone with the file can guess without limit"
        )));
    }
    let request = ExportRequest { passphrase: SecretText(passphrase) };
    let export = runtime()?.block_on(control.call::<api::ExportVault>("", &request))?;
    let sealed = URL_SAFE_NO_PAD.decode(&export.sealed).map_err(|error| {
        CallError::OtherVersion(serde::de::Error::custom(error)) // the field is base64url by its description
    })?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(&sealed).and_then(|()| file.sync_all()));
    written.map_err(|error| CommandError::Runtime(format!("{} cannot be written ({error})", file.display())))?;
    print_line(&format!(
        "Written to {}. Unlink the accounts here once they work there: two Pixys must not renew one login.",
        file.display()
    ));
    Ok(())
}

pub(super) fn import(control: &ControlClient, file: &Path, replace: bool) -> Result<(), CommandError> {
    let sealed = fs::read(file)
        .map_err(|error| CommandError::Runtime(format!("{} cannot be read ({error})", file.display())))?;
    let passphrase = SecretText(read_passphrase("The passphrase of the export: ")?);
    let request = ImportRequest { sealed: URL_SAFE_NO_PAD.encode(sealed), passphrase, replace };
    let names = runtime()?.block_on(control.call::<api::ImportVault>("", &request))?;
    print_line(&format!("Imported: {}.", names.join(", ")));
    Ok(())
}

/// Reads a line from the terminal without echo, or the first line of a pipe.
fn read_passphrase(question: &str) -> Result<Secret, CommandError> {
    if is_interactive() {
        prompt(question);
    }
    let runtime = runtime()?;
    let line = runtime.block_on(async {
        let _echo_off = EchoOff::begin();
        BufReader::new(tokio::io::stdin()).lines().next_line().await
    });
    runtime.shutdown_background();
    if is_interactive() {
        prompt("\n");
    }
    Ok(Secret::new(line.ok().flatten().unwrap_or_default()))
}
