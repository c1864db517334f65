//! Journals' lines, without their checksums (P-60, P-62).
//!
//! Either a character, then steps: whatever reads is replayed by a machine, which must live through any
//! history, however unlikely. Or `[history,event]`, then events and numbers: the disturbance of a known
//! history, from one of its events on.
#![no_main]

use std::sync::LazyLock;

use connito_fuzz::history::{History, replay};

static HISTORIES: LazyLock<Vec<History>> = LazyLock::new(History::all);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(first) = lines.next() else { return };
    if let Ok((history, from)) = serde_json::from_slice::<(usize, usize)>(first) {
        HISTORIES[history % HISTORIES.len()].disturb(from, lines);
    } else if let Ok(character) = serde_json::from_slice(first) {
        replay(&character, lines);
    }
});
