#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pixy::fuzzing::token_reply(data));
