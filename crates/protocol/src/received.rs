//! A document as it came in: its bytes and, once somebody has asked, what they say as a state.
//!
//! A manifest names thousands of updates, and a process may hold thousands of roles that follow the
//! same state (the simulator does). The bytes are one for all of them, and so is the reading. Knows
//! nothing of what a role expects the document to be.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::manifest::{Document, StateManifest};
use crate::snapshot::hex_bytes;

/// The bytes of a document that was asked for.
#[derive(Debug, Clone, Default)]
pub struct ReceivedDocument {
    bytes: Vec<u8>,
    state: OnceLock<Option<Arc<StateManifest>>>,
}

impl ReceivedDocument {
    /// Bytes that match the name under which they were asked for.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            state: OnceLock::new(),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What they say, if they are a state's manifest.
    pub(crate) fn state(&self) -> Option<Arc<StateManifest>> {
        let read = || StateManifest::from_bytes(&self.bytes).ok().map(Arc::new);
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
