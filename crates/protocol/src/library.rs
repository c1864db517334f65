//! Which blobs a role has, wants and is waiting for.
//!
//! Asking twice is harmless, what failed and is still wanted is asked again with the next block, and
//! after a restart everything unanswered is asked again. A document is asked for even if it is in the
//! store: only then does the machine get to read it. Knows names only: whether bytes match their name
//! is checked where they arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::event::{Effect, Effects, Event, Fetch, Form};
use crate::ids::{BlobId, Block};
use crate::lookup::Lookup;
use crate::manifest::MAXIMUM_DOCUMENT_BYTES;
use crate::snapshot::Endpoint;

/// Largest blob that is fetched, in bytes: the shard of the largest model in sight, in f32.
const MAXIMUM_BLOB_BYTES: u64 = 64 << 30;

/// A blob that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) blob: BlobId,
    pub(crate) form: Form,
    maximum_bytes: u64,
}

impl Wanted {
    /// A blob of unknown length.
    pub(crate) fn any(blob: BlobId, form: Form) -> Self {
        let maximum_bytes = match form {
            Form::Document => MAXIMUM_DOCUMENT_BYTES,
            Form::Blob | Form::Update => MAXIMUM_BLOB_BYTES,
        };
        Self {
            blob,
            form,
            maximum_bytes,
        }
    }

    /// A blob whose length is known beforehand.
    pub(crate) fn of_length(blob: BlobId, bytes: u64) -> Self {
        Self {
            blob,
            form: Form::Blob,
            maximum_bytes: bytes.min(MAXIMUM_BLOB_BYTES),
        }
    }
}

/// A role's view of its blob store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Library {
    present: Lookup<BlobId, ()>,
    pending: BTreeMap<BlobId, Pending>,
}

#[derive(Debug, Clone)]
struct Pending {
    fetch: Fetch,
    /// The block in which the last attempt was made.
    asked: Block,
    /// The block in which it failed; `None` while it is under way.
    failed: Option<Block>,
    /// The block of the last attempt that every server answered with not having it.
    absent: Option<Block>,
}

impl Library {
    pub(crate) fn has(&self, blob: BlobId) -> bool {
        self.present.contains(&blob)
    }

    /// Whether the blob is here or was asked for.
    pub(crate) fn knows(&self, blob: BlobId) -> bool {
        self.has(blob) || self.pending.contains_key(&blob)
    }

    pub(crate) fn has_all(&self, blobs: impl IntoIterator<Item = BlobId>) -> bool {
        blobs.into_iter().all(|blob| self.has(blob))
    }

    /// Whether anything that was asked for is still under way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending
            .values()
            .any(|pending| pending.failed.is_none())
    }

    /// Whether a blob was asked for and there is no answer yet.
    pub(crate) fn is_under_way(&self, blob: BlobId) -> bool {
        let pending = self.pending.get(&blob);
        pending.is_some_and(|pending| pending.failed.is_none())
    }

    /// Something that this role wrote, received or computed itself.
    pub(crate) fn add(&mut self, blob: BlobId) {
        self.pending.remove(&blob);
        self.present.insert(blob, ());
    }

    /// Drops everything that is here and not among these, and says what that is.
    pub(crate) fn keep_only(&mut self, these: &BTreeSet<BlobId>) -> Vec<BlobId> {
        self.present.keep_only(these)
    }

    /// Whether every server, asked in block `since` or later, has said that it does not have the
    /// blob. Asked earlier, the answer may be out of date.
    pub(crate) fn is_absent(&self, blob: BlobId, since: Block) -> bool {
        let absent = self.pending.get(&blob).and_then(|pending| pending.absent);
        absent.is_some_and(|asked| asked >= since)
    }

    /// Whether a blob was asked for in block `since` or later, and could not be had.
    pub(crate) fn has_failed(&self, blob: BlobId, since: Block) -> bool {
        let pending = self.pending.get(&blob);
        pending.is_some_and(|pending| pending.failed.is_some_and(|failed| failed >= since))
    }

    /// Whether a blob is neither here nor on its way, nor was asked for in vain in this very block.
    pub(crate) fn is_due(&self, wanted: Wanted, now: Block) -> bool {
        match self.pending.get(&wanted.blob) {
            _ if wanted.form != Form::Document && self.has(wanted.blob) => false,
            Some(pending) => pending.failed.is_some_and(|failed| failed < now),
            None => true,
        }
    }

    /// Asks for a blob that is due, if there is anybody to ask.
    pub(crate) fn ask(
        &mut self,
        wanted: Wanted,
        (now, sources): (Block, Arc<[Endpoint]>),
        effects: &mut Effects,
    ) {
        let blob = wanted.blob;
        if sources.is_empty() {
            return;
        }
        let fetch = Fetch {
            blob,
            form: wanted.form,
            maximum_bytes: wanted.maximum_bytes,
            sources,
        };
        let absent = self.pending.get(&blob).and_then(|pending| pending.absent);
        effects.push(Effect::Fetch(fetch.clone()));
        self.pending.insert(
            blob,
            Pending {
                fetch,
                asked: now,
                failed: None,
                absent,
            },
        );
    }

    /// Notes what an event says of blobs. `now` is the last block seen.
    pub(crate) fn note(&mut self, event: &Event, now: Block, effects: &mut Effects) {
        match event {
            Event::Started => {
                for pending in self.pending.values_mut() {
                    pending.failed = None;
                    effects.push(Effect::Fetch(pending.fetch.clone()));
                }
            }
            Event::Document { blob, .. } | Event::Fetched { blob, .. } => self.add(*blob),
            Event::FetchFailed { blob, absent } => {
                if let Some(pending) = self.pending.get_mut(blob) {
                    pending.failed = Some(now);
                    if *absent {
                        pending.absent = Some(pending.asked);
                    }
                }
            }
            // Whether an upload stays is for the validator to say.
            Event::Uploaded { .. }
            | Event::Block(_)
            | Event::Delivered { .. }
            | Event::Finished { .. }
            | Event::Receipt { .. }
            | Event::TaskGiven { .. }
            | Event::ChainRefused { .. } => {}
        }
    }
}
