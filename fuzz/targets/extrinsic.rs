//! Extrinsics as strangers send them: read, and refused or taken in.
#![no_main]

use std::sync::{Arc, LazyLock};

use connito_chain::embedded::EmbeddedChain;

static CHAIN: LazyLock<Arc<EmbeddedChain>> = LazyLock::new(connito_fuzz::chain::new);

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    let first = CHAIN.submit(message);
    // What waits already, is no extrinsic or does not verify is not taken in at the second attempt.
    assert!(CHAIN.submit(message).is_err());
    drop(first);
});
