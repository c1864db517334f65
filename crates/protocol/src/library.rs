//! Which blobs a role has, wants and is waiting for.
//!
//! Asking twice is harmless, what failed and is still wanted is asked again with the next block, and
//! after a restart everything unanswered is asked again. Knows names only: whether bytes match their name is checked
//! where they arrive.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Effect, Effects, Event, Fetch, Form};
use crate::ids::{BlobId, Block};
use crate::manifest::MAXIMUM_DOCUMENT_BYTES;
use crate::snapshot::Endpoint;

/// Largest blob that is fetched, in bytes: the shard of the largest model in sight, in f32.
const MAXIMUM_BLOB_BYTES: u64 = 64 << 30;

/// A role's view of its blob store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Library {
    present: BTreeSet<BlobId>,
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

    /// Something that this role wrote, received or computed itself.
    pub(crate) fn add(&mut self, blob: BlobId) {
        self.pending.remove(&blob);
        self.present.insert(blob);
    }

    /// Whether every server, asked in block `since` or later, has said that it does not have the
    /// blob. Asked earlier, the answer may be out of date.
    pub(crate) fn is_absent(&self, blob: BlobId, since: Block) -> bool {
        let absent = self.pending.get(&blob).and_then(|pending| pending.absent);
        absent.is_some_and(|asked| asked >= since)
    }

    /// Whether a blob is neither here nor on its way, nor was asked for in vain in this very block.
    pub(crate) fn is_due(&self, blob: BlobId, now: Block) -> bool {
        match self.pending.get(&blob) {
            _ if self.has(blob) => false,
            Some(pending) => pending.failed.is_some_and(|failed| failed < now),
            None => true,
        }
    }

    /// Asks for a blob unless it is here or on its way.
    pub(crate) fn want(
        &mut self,
        blob: BlobId,
        form: Form,
        (now, sources): (Block, &[Endpoint]),
        effects: &mut Effects,
    ) {
        if !self.is_due(blob, now) || sources.is_empty() {
            return;
        }
        let fetch = Fetch {
            blob,
            form,
            maximum_bytes: match form {
                Form::Document => MAXIMUM_DOCUMENT_BYTES,
                Form::Blob | Form::Update => MAXIMUM_BLOB_BYTES,
            },
            sources: sources.to_vec(),
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
            Event::Document { blob, .. } | Event::Fetched { blob } => self.add(*blob),
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
            | Event::ChainRefused { .. } => {}
        }
    }
}
