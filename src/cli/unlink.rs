//! `pixy unlink NAME`.

use super::control_client::ControlClient;
use super::terminal::{print_json, print_line};
use super::{CommandError, runtime};
use crate::api::{self, Revocation};

pub(super) fn run(control: &ControlClient, name: &str, as_json: bool) -> Result<(), CommandError> {
    let answer = runtime()?.block_on(control.call::<api::UnlinkAccount>(name, &()))?;
    if as_json {
        print_json(&answer);
        return Ok(());
    }
    print_line(match answer.revoked {
        Revocation::Done(true) => "Unlinked: the provider has revoked the login, and Pixy has deleted it.",
        Revocation::Done(false) => {
            "Unlinked: Pixy has deleted the login. The provider has no way to revoke it from here; do that on its site."
        }
        Revocation::Pending(_) => {
            "Unlinked: no agent can use it any more. The provider was not reached; Pixy keeps trying to revoke the login."
        }
    });
    Ok(())
}
