//! The steps of `pixy::benching`: all of them timed, or one done so often, for `benches/micro` to count its instructions.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::process::ExitCode;
use std::time::Instant;

use pixy::benching;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut steps = benching::steps();
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
            step(); // what is made ready once does not count
            repeat(step, count);
        }
        _ => return ExitCode::from(64),
    }
    ExitCode::SUCCESS
}

/// What is counted.
#[inline(never)]
fn repeat(step: &mut benching::Step, count: u32) {
    (0..count).for_each(|_| step());
}
