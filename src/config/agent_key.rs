//! Reads an agent's key and keeps only its digest.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::diagnostics::Scope;
use super::env::Env;
use super::{raw, value_parsers};
use crate::name::{AccountName, AgentName, GRAMMAR};
use crate::oauth::profile::values::InvalidValue;
use crate::proxy::agent::AgentKey;

/// `None` only after a fault was reported.
pub(super) fn agent_key(
    raw: raw::AgentKey,
    here: &Scope,
    env: &Env,
    known: &impl Fn(&str, &Scope) -> Option<AccountName>,
) -> Option<AgentKey> {
    let name = raw.name.and_then(|name| {
        here.at("name")
            .read(&name, |name| AgentName::parse(name).map_err(|_| format!("is not a name: {GRAMMAR}").into()))
    });
    let key = match (raw.key_file, raw.sha256) {
        (Some(_), Some(_)) => {
            here.wrong("contains both key_file and sha256; keep one of them");
            None
        }
        (None, None) => {
            if !here.at("key_file").has_fault_near() && !here.at("sha256").has_fault_near() {
                here.wrong("has no key; set key_file or sha256");
            }
            None
        }
        (None, Some(digest)) => here.at("sha256").read(&digest, value_parsers::sha256).map(|digest| (digest, None)),
        (Some(file), None) => {
            let here = here.at("key_file");
            let file: Option<PathBuf> = here.read(&file, |text| value_parsers::path(text, env.home()));
            file.and_then(|file| {
                let digest = digest_of(&file).map_err(|invalid| here.wrong(invalid)).ok()?;
                Some((digest, Some(file)))
            })
        }
    };
    let accounts_here = here.at("accounts");
    let accounts = raw.accounts.and_then(|accounts| {
        if accounts.is_empty() && !accounts_here.has_fault_near() {
            accounts_here.wrong("is empty, so this agent may use no account; name its accounts");
        }
        let parsed: Vec<_> =
            accounts.iter().enumerate().map(|(index, name)| known(name, &accounts_here.at(index))).collect();
        parsed.into_iter().collect::<Option<Vec<_>>>()
    });
    let (sha256, key_file) = key?;
    Some(AgentKey { name: name?, sha256, key_file, accounts: accounts?, limits: raw.limits.unwrap_or_default() })
}

/// The digest of a key file's trimmed content. An error never contains any part of the content.
fn digest_of(file: &Path) -> Result<[u8; 32], InvalidValue> {
    let cannot =
        |error: std::io::Error| InvalidValue::from(format!("cannot be read ({}: {})", file.display(), error.kind()));
    // Checked before opening: opening a named pipe waits for its writer.
    let known = std::fs::metadata(file).map_err(cannot)?;
    if !known.is_file() {
        return Err(format!("is not a file ({})", file.display()).into());
    }
    let opened = std::fs::File::open(file).map_err(cannot)?;
    if opened.metadata().map_err(cannot)?.permissions().mode() & 0o007 != 0 {
        return Err(format!("is readable by every user of this machine; run: chmod o= {}", file.display()).into());
    }
    let mut content = Zeroizing::new(Vec::new());
    opened.take(LONGEST + 1).read_to_end(&mut content).map_err(cannot)?;
    let key = content.trim_ascii();
    match key.len() {
        0 => Err("is an empty file; `pixy key new` makes a key".into()),
        length if length < SHORTEST => {
            Err(format!("contains a key of {length} characters; at least {SHORTEST} are needed").into())
        }
        _ if u64::try_from(content.len()).is_ok_and(|length| length > LONGEST) => {
            Err("is too long for a key; the limit is 4096 bytes".into())
        }
        _ => Ok(Sha256::digest(key).into()),
    }
}

const SHORTEST: usize = 16;
const LONGEST: u64 = 4096;
