//! Values of every type of the runtime: `type u16 ‖ SCALE`. Whatever is read is written so that it is read again.
//!
//! Storage values, events, calls and answers are all read by this one decoder.
#![no_main]

use connito_fuzz::chain::runtime;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((id, bytes)) = bytes.split_first_chunk() else {
        return;
    };
    let id = u32::from(u16::from_le_bytes(*id));
    let Ok(value) = runtime().decode_type(id, bytes) else {
        let _ = runtime().events(bytes);
        let _ = runtime().decode_call(bytes);
        return;
    };
    let written = runtime().encode_type(id, &value);
    let written = written.expect("what was read of a type is a value of it");
    assert_eq!(runtime().decode_type(id, &written).as_ref(), Ok(&value));
});
