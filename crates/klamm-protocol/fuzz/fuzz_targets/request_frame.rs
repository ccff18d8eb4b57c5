#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| klamm_protocol_fuzz::request_frame(data));
