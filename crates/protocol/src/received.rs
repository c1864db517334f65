//! A document as it came in: its bytes and, once somebody has asked, what they say as a state or a task.
//!
//! A manifest names thousands of updates, and a process may hold thousands of roles that follow the
//! same state (the simulator does). The bytes are one for all of them, and so is the reading. Knows
//! nothing of what a role expects the document to be.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::manifest::{Document, StateManifest, TaskManifest};
use crate::merged::Merged;
use crate::snapshot::hex_bytes;

/// The bytes of a document that was asked for.
#[derive(Debug, Clone, Default)]
pub struct ReceivedDocument {
    bytes: Vec<u8>,
    state: OnceLock<Option<ReadState>>,
    task: OnceLock<Result<Arc<TaskManifest>, String>>,
}

/// A state's manifest, with what it lists.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadState {
    pub(crate) manifest: Arc<StateManifest>,
    pub(crate) merged: Arc<Merged>,
}

impl ReadState {
    pub(crate) fn new(manifest: StateManifest) -> Self {
        Self {
            merged: Arc::new(Merged::of(&manifest)),
            manifest: Arc::new(manifest),
        }
    }
}

impl ReceivedDocument {
    /// Bytes that match the name under which they were asked for.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            state: OnceLock::new(),
            task: OnceLock::new(),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What they say, if they are a task's manifest; otherwise what is wrong with them.
    pub(crate) fn task(&self) -> Result<Arc<TaskManifest>, String> {
        let read = || match TaskManifest::from_bytes(&self.bytes) {
            Ok(manifest) => Ok(Arc::new(manifest)),
            Err(error) => Err(error.to_string()),
        };
        self.task.get_or_init(read).clone()
    }

    /// What they say, if they are a state's manifest.
    pub(crate) fn state(&self) -> Option<ReadState> {
        let read = || {
            StateManifest::from_bytes(&self.bytes)
                .ok()
                .map(ReadState::new)
        };
        self.state.get_or_init(read).clone()
    }
}

impl PartialEq for ReceivedDocument {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Serialize for ReceivedDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex_bytes::serialize(&self.bytes, serializer)
    }
}

impl<'de> Deserialize<'de> for ReceivedDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex_bytes::deserialize(deserializer).map(Self::new)
    }
}
