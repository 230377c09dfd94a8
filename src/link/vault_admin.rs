//! Calls for the vault as a whole: a new key, and moving house.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{LinkApi, no_call, read};
use super::problem::Problem;
use crate::account::VaultError;
use crate::name::AccountName;
use crate::secret::{Secret, base64_url};

impl LinkApi {
    /// The vault as a whole: for the terminal alone, as the page has no business with passphrases.
    pub(super) async fn vault(&self, call: &str, request: Request<Incoming>) -> Result<Value, Problem> {
        let book = self.parts().linker.book();
        let failed = |error: VaultError| Problem::not_stored(&error.to_string());
        match call {
            "rotate" => {
                let report = book.rotate_key().await.map_err(failed)?;
                let untouched: Vec<&str> = report.untouched.iter().map(AccountName::as_str).collect();
                Ok(json!({ "new_key": report.new_key, "resealed": report.resealed, "untouched": untouched }))
            }
            "export" => {
                let body: Passphrase = read(request).await?;
                let sealed = book.export(&Secret::new(body.passphrase)).await.map_err(failed)?;
                Ok(json!({ "sealed": base64_url(&sealed) }))
            }
            "import" => {
                let body: Import = read(request).await?;
                let sealed =
                    URL_SAFE_NO_PAD.decode(&body.sealed).map_err(|_| Problem::bad_body("That is no export."))?;
                let names = book.import(&sealed, &Secret::new(body.passphrase), body.replace).await.map_err(failed)?;
                Ok(json!(names.iter().map(AccountName::as_str).collect::<Vec<_>>()))
            }
            _ => Err(no_call()),
        }
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
