//! The steps of every request: times all of them, or repeats one, whose instructions `benches/micro` counts.
#![allow(clippy::print_stdout, reason = "the results go to stdout")]
#![allow(missing_docs, reason = "nothing here is used elsewhere")]

#[path = "../fuzz/fuzz_targets/linked_account.rs"]
mod linked_account;
mod request;
mod steps;

use std::process::ExitCode;
use std::time::Instant;

/// A step that can be repeated.
type Step = Box<dyn FnMut()>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut steps: Vec<(&str, Step)> =
        [steps::proxy(), steps::stream(), steps::vault(), request::steps()].into_iter().flatten().collect();
    match arguments.as_slice() {
        [] => {
            for (name, step) in &mut steps {
                (0..1000).for_each(|_| step());
                let (began, count) = (Instant::now(), 20_000_u32);
                (0..count).for_each(|_| step());
                println!("{name:8} {:>8} ns", (began.elapsed() / count).as_nanos());
            }
        }
        [list] if list == "list" => steps.iter().for_each(|(name, _)| println!("{name}")),
        [name, count] => {
            let found = steps.iter_mut().find(|(known, _)| known == name);
            let (Some((_, step)), Ok(count)) = (found, count.parse::<u32>()) else { return ExitCode::from(64) };
            step(); // initialisation is not counted
            repeat(step, count);
        }
        _ => return ExitCode::from(64),
    }
    ExitCode::SUCCESS
}

/// `benches/micro` counts the instructions of this function.
#[inline(never)]
fn repeat(step: &mut Step, count: u32) {
    (0..count).for_each(|_| step());
}
