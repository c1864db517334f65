//! Whole request bodies to the embedded chain: every body is answered, in JSON and within bounds.
#![no_main]

use std::sync::{Arc, LazyLock};

use connito_chain::embedded::{EmbeddedChain, Session};
use serde_json::Value;

/// What no answer is longer than, however much is asked for.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

static CHAIN: LazyLock<Arc<EmbeddedChain>> = LazyLock::new(connito_fuzz::chain::used);

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    check(&CHAIN.handle(body));
    // The same with what only a connection has: subscriptions.
    check(&Session::new(Arc::clone(&CHAIN)).handle(body));
});

fn check(answer: &[u8]) {
    assert!(answer.len() <= MAX_ANSWER_BYTES);
    if answer.is_empty() {
        return;
    }
    let answer: Value = serde_json::from_slice(answer).expect("an answer is JSON");
    let single = std::slice::from_ref(&answer);
    for answer in answer.as_array().map_or(single, Vec::as_slice) {
        assert_eq!(answer["jsonrpc"], "2.0");
        assert!(answer.get("result").is_some() != answer["error"]["code"].is_i64());
    }
}
