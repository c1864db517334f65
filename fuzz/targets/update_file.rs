//! A whole update, header and all, in any codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| connito_fuzz::check_file(bytes));
