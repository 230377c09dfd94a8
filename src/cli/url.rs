//! `pixy url`.

use super::control_client::ControlClient;
use super::terminal::{print_json, print_line};
use super::{CommandError, runtime};
use crate::api;

pub(super) fn print(control: &ControlClient, as_json: bool) -> Result<(), CommandError> {
    let page = runtime()?.block_on(control.call::<api::SetupUrl>("", &()))?;
    if as_json {
        print_json(&page);
    } else {
        print_line(page.url.0.expose());
    }
    Ok(())
}
