//! The door for `benches/micro.rs`: the steps of a request's way and of the vault, one by one, to be counted. Compiled with the
//! feature `doors` alone, which no build that serves has.

mod request;

use std::sync::Arc;

use bytes::Bytes;

use crate::fuzzing::WORLD;
use crate::scrub::{Needles, Scrubber};
use crate::secret::Secret;
use crate::usage::TokenCounter;

/// A step to be done again and again.
pub type Step = Box<dyn FnMut()>;

/// Every step with its name.
pub fn steps() -> Vec<(&'static str, Step)> {
    let (account, bearer) = (&WORLD.account, &WORLD.bearer);
    let mut steps = crate::proxy::benching::steps(account, bearer);
    // Always the same one: how often an event looks like the beginning of a secret depends on the secret.
    let secret = Secret::new("sk-ant-oat01-Rm9yIGNvdW50aW5nIG9ubHksIG5vYm9keSdz".to_owned());
    let mut scrubber = Scrubber::new(Arc::new(Needles::new([&secret])));
    let event = Bytes::from_static(EVENT.as_bytes());
    let scrub = move || {
        std::hint::black_box(scrubber.feed(event.clone()));
    };
    steps.push(("scrub", Box::new(scrub)));
    let mut counter = TokenCounter::default();
    let usage = move || {
        counter.feed(EVENT.as_bytes());
        std::hint::black_box(counter.tokens());
    };
    steps.push(("usage", Box::new(usage)));
    steps.extend(crate::vault::benching::steps());
    steps.extend(request::steps());
    steps
}

/// One event of a stream, of a usual size.
const EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,\"model\":\"m\",\
                     \"choices\":[{\"index\":0,\"delta\":{\"content\":\" and so on\"},\"finish_reason\":null}]}\n\n";
