#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pintle_fuzz::mixed_content(data));
