//! The vault as a whole: `key rotate`, `export`, `import`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::control::Control;
use super::link::Quiet;
use super::{Failure, is_terminal, runtime};
use crate::secret::Secret;

/// A shorter passphrase is guessed offline.
const SHORTEST: usize = 12;

pub(super) fn rotate(control: &Control) -> Result<(), Failure> {
    let answer = call(control, "rotate", &Value::Null)?;
    println!("Every login is sealed with the new key: {}.", answer["resealed"]);
    for name in names(&answer["untouched"]) {
        println!("  {name} does not open with any key and was left as it is.");
    }
    Ok(())
}

pub(super) fn export(control: &Control, file: &Path) -> Result<(), Failure> {
    let passphrase = passphrase("A passphrase to seal the logins with: ")?;
    if passphrase.expose().chars().count() < SHORTEST {
        return Err(Failure::Usage(format!(
            "pixy: a passphrase has at least {SHORTEST} characters; whoever gets the file can try as many as they like"
        )));
    }
    let answer = call(control, "export", &json!({ "passphrase": passphrase.expose() }))?;
    let sealed = URL_SAFE_NO_PAD.decode(answer["sealed"].as_str().unwrap_or_default());
    let sealed = sealed.map_err(|_| Failure::Runtime("the running Pixy is of another version".to_owned()))?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(&sealed).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::Runtime(format!("{} cannot be written ({error})", file.display())))?;
    println!(
        "Written to {}. Unlink the accounts here once they work there: two Pixys must not renew one login.",
        file.display()
    );
    Ok(())
}

pub(super) fn import(control: &Control, file: &Path, replace: bool) -> Result<(), Failure> {
    let sealed =
        fs::read(file).map_err(|error| Failure::Runtime(format!("{} cannot be read ({error})", file.display())))?;
    let passphrase = passphrase("The passphrase that it was sealed with: ")?;
    let body =
        json!({ "sealed": URL_SAFE_NO_PAD.encode(sealed), "passphrase": passphrase.expose(), "replace": replace });
    let answer = call(control, "import", &body)?;
    println!("Taken in: {}.", names(&answer).collect::<Vec<_>>().join(", "));
    Ok(())
}

fn call(control: &Control, what: &str, body: &Value) -> Result<Value, Failure> {
    Ok(runtime()?.block_on(control.call(Method::POST, &format!("/api/vault/{what}"), Some(body)))?)
}

fn names(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// From the terminal, where it is not shown, or the first line of a pipe.
fn passphrase(prompt: &str) -> Result<Secret, Failure> {
    if is_terminal() {
        eprint!("{prompt}");
    }
    let runtime = runtime()?;
    let line = runtime.block_on(async {
        let _quiet = Quiet::begin();
        BufReader::new(tokio::io::stdin()).lines().next_line().await
    });
    runtime.shutdown_background();
    if is_terminal() {
        eprintln!();
    }
    Ok(Secret::new(line.ok().flatten().unwrap_or_default()))
}
