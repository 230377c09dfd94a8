#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pixy::fuzzing::scrubber(data));
