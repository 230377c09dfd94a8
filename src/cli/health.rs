//! `pixy health`: the health check of a container. It calls the running Pixy itself, so that the image needs no HTTP client.

use std::time::Duration;

use super::control_client::ControlClient;
use super::terminal::print_line;
use super::{CommandError, runtime};
use crate::api::{self, AccountState};

/// Less than our image's health check waits: not every container engine ends a check that hangs.
const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) fn check(control: &ControlClient) -> Result<(), CommandError> {
    let answer = runtime()?
        .block_on(async { tokio::time::timeout(TIMEOUT, control.call::<api::ListAccounts>("", &())).await })
        .map_err(|_| CommandError::Runtime(format!("no answer within {} s", TIMEOUT.as_secs())))?;
    let accounts = answer?;
    let dead = accounts.iter().filter(|account| account.state == AccountState::RelinkRequired);
    let dead: Vec<_> = dead.map(|account| account.name.as_str()).collect();
    if dead.is_empty() {
        print_line("alive");
        return Ok(());
    }
    Err(CommandError::Runtime(format!("these accounts must be linked again: {}", dead.join(", "))))
}
