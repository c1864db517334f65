//! Metadata, as an endpoint may send it: refused, or a runtime that can be asked for anything.
#![no_main]

use connito_chain::runtime::{BUNDLED_VERSION, Runtime, as_version_14, used_items};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(runtime) = Runtime::from_metadata(bytes, BUNDLED_VERSION) else {
        return;
    };
    for item in used_items() {
        let _ = runtime.storage_value(item.pallet, item.name, Some(&[4; 40]));
        let _ = runtime.storage_value(item.pallet, item.name, None);
    }
    let _ = runtime.events(&[4; 40]);
    let _ = runtime.decode_call(&[4; 40]);
    let _ = runtime.constant("Aura", "SlotDuration");
    if let Ok(earlier) = as_version_14(bytes) {
        let earlier = Runtime::from_metadata(&earlier, BUNDLED_VERSION);
        earlier.expect("what version 15 says well, version 14 does");
    }
});
