//! Values of an update in `bf16`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    connito_fuzz::check_values(connito_protocol::rules::Codec::Bf16, bytes);
});
