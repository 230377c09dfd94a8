//! Calls for the vault as a whole: a new key, export and import. On the control socket alone: the page handles no passphrase.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::Problem;
use super::vault_problem::Progress;
use crate::account::Accounts;
use crate::api::{ExportRequest, ImportRequest, KeyRotation, SealedExport};
use crate::name::AccountName;
use crate::secret::base64_url;

pub(super) async fn rotate_key(accounts: &Accounts) -> Result<KeyRotation, Problem> {
    let rotated = accounts.rotate_key().await;
    let report = rotated.map_err(|error| Problem::vault(&error, Progress::KeyRotation))?;
    let untouched = names(&report.untouched);
    Ok(KeyRotation { new_key: report.new_key, resealed: report.resealed, untouched })
}

pub(super) async fn export(accounts: &Accounts, request: &ExportRequest) -> Result<SealedExport, Problem> {
    let sealed = accounts.export(&request.passphrase.0).await?;
    Ok(SealedExport { sealed: base64_url(&sealed) })
}

pub(super) async fn import(accounts: &Accounts, request: &ImportRequest) -> Result<Vec<String>, Problem> {
    let sealed = URL_SAFE_NO_PAD.decode(&request.sealed);
    let sealed = sealed.map_err(|_| Problem::bad_body("That is not an export of Pixy."))?;
    Ok(names(&accounts.import(&sealed, &request.passphrase.0, request.replace).await?))
}

fn names(names: &[AccountName]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}
