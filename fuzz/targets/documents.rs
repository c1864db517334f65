//! Task manifests, state manifests and archives: one spelling each, and no task that passes its checks
//! and cannot be worked on (P-3, P-4, P-34).
#![no_main]

use connito_protocol::assignment::assigned_group;
use connito_protocol::ids::{Block, Hotkey};
use connito_protocol::manifest::{CycleArchive, Document, StateManifest, TaskManifest};
use connito_protocol::schedule::Schedule;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(task) = TaskManifest::from_bytes(bytes) {
        assert_eq!(task.to_bytes(), bytes);
        if task.check().is_ok() {
            let schedule = Schedule::new(task.starts, task.rules.windows);
            assert!(schedule.at(task.starts).is_some());
            let _ = schedule.at(Block(u64::MAX));
            assert!(assigned_group(Hotkey([1; 32]), &task.tickets).is_some());
        }
    }
    if let Ok(state) = StateManifest::from_bytes(bytes) {
        assert_eq!(state.to_bytes(), bytes);
    }
    if let Ok(archive) = CycleArchive::from_bytes(bytes) {
        assert_eq!(archive.to_bytes(), bytes);
    }
});
