//! Calls for the vault as a whole: a new key, and moving house.

use ::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{RequestBody, read};
use super::problem::Problem;
use crate::account::{Accounts, VaultError};
use crate::name::AccountName;
use crate::secret::{Secret, base64_url};

/// Answers a call about the whole vault. On the control socket alone: the page has no use for passphrases.
pub(super) async fn handle(accounts: &Accounts, call: &str, request: Request<RequestBody>) -> Result<Value, Problem> {
    let failed = |error: VaultError| Problem::not_stored(&error.to_string());
    match call {
        "rotate" => {
            let report = accounts.rotate_key().await.map_err(failed)?;
            let untouched: Vec<&str> = report.untouched.iter().map(AccountName::as_str).collect();
            Ok(json!({ "new_key": report.new_key, "resealed": report.resealed, "untouched": untouched }))
        }
        "export" => {
            let body: Passphrase = read(request).await?;
            let sealed = accounts.export(&Secret::new(body.passphrase)).await.map_err(failed)?;
            Ok(json!({ "sealed": base64_url(&sealed) }))
        }
        "import" => {
            let body: Import = read(request).await?;
            let sealed = URL_SAFE_NO_PAD.decode(&body.sealed).map_err(|_| Problem::bad_body("That is no export."))?;
            let names = accounts.import(&sealed, &Secret::new(body.passphrase), body.replace).await.map_err(failed)?;
            Ok(json!(names.iter().map(AccountName::as_str).collect::<Vec<_>>()))
        }
        _ => Err(Problem::no_call()),
    }
}

#[derive(Deserialize)]
struct Passphrase {
    passphrase: String,
}

#[derive(Deserialize)]
struct Import {
    sealed: String,
    passphrase: String,
    replace: bool,
}
