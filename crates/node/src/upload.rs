//! The vocabulary of an upload, shared by the server, the client and the driver.
//!
//! ```text
//! miner ── PUT /v1/uploads/{cycle}/{blob} ──▶ server: checks, streams, hashes, stores
//!                                                │ Uploaded (bounded channel)
//!                                                ▼
//!                                             driver: journals, then replies
//! miner ◀── 201 Received, or a refusal ──────────┘
//! ```
//!
//! The driver publishes an [`Admission`] whenever a block changes it; the server decides by it alone
//! and knows nothing of schedules. A miner that reads `Received` knows that its update survives a
//! crash of the validator (A-139).

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::ids::{BlobId, Block, Cycle, Hotkey};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::refusal::Refusal;

/// The lower-case hexadecimal SHA-256 of the body. `btauth/1` signs this hash without sending it;
/// stated in a header, it lets the signature be checked before the body is read.
pub const BODY_HASH_HEADER: &str = "x-connito-body-sha256";

/// Who may upload what, as of the last block that the driver has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The cycle that uploads are for.
    pub cycle: Cycle,
    /// Whether they are taken now.
    pub window: UploadWindow,
    /// The most that one upload may measure.
    pub max_bytes: u64,
    /// Registered miners.
    pub miners: BTreeSet<Hotkey>,
    /// Uploads of this cycle that the driver has journalled.
    pub received: BTreeMap<Hotkey, BlobId>,
}

/// Whether uploads are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadWindow {
    /// Not yet: the sealed window has not closed, so an upload could still be copied (A-1, A-22).
    Early {
        /// The block with which uploads begin.
        opens_at: Block,
    },
    /// Now.
    Open,
    /// Not any more: the block that seeds the evaluation was seen.
    Closed,
}

/// An update that is stored durably and waits for the driver.
#[derive(Debug)]
pub struct Uploaded {
    /// Who sent it: the signature verified.
    pub hotkey: Hotkey,
    /// For which cycle.
    pub cycle: Cycle,
    /// What it is: the body hashed to this.
    pub blob: BlobId,
    /// Its length.
    pub bytes: u64,
    /// Takes the driver's decision, sent after it is journalled. Dropped, it means `busy`.
    pub reply: oneshot::Sender<Decision>,
}

/// What the driver says to a stored update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It counts, and stands in the journal.
    Accepted,
    /// It does not count, and its bytes were stored for nothing.
    Refused(Refusal),
    /// It does not count, and its bytes are needed all the same: they are another's update, or a part
    /// of the state.
    RefusedButKept(Refusal),
}

/// What a miner is told when its upload counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// For which cycle.
    pub cycle: Cycle,
    /// Whose upload.
    pub hotkey: Hotkey,
    /// Which update.
    pub blob: BlobId,
}

/// What came of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadAnswer {
    /// It counts, and survives a crash of the receiver.
    Received(Received),
    /// It does not count.
    Refused(Refusal),
}
