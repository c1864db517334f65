//! What a group becomes: its state before and the accepted updates give its state after (P-30, P-31,
//! P-33).
//!
//! Whoever merges, follows by recomputing (P-37) or audits does it here, so there is one way from a
//! state to the next. Inputs are names of blobs, read where they lie; the new shard and momentum are
//! written as streams and named by what was written. Knows no votes, no gate and no model.

use connito_protocol::ids::{BlobId, GroupId};
use connito_protocol::manifest::{GroupState, MergedUpdate};
use connito_protocol::rules::OuterRules;

use crate::aggregate::{self, Accepted, Group, Sinks};
use crate::shard::Layout;
use crate::store::{Blob, BlobSink, BlobStore, StoreError};
use crate::update;
use crate::wire::{self, Encoded, Rejection};

/// Bytes written between two times that the inputs' pages are given back: often enough that mapped
/// inputs do not add up, rarely enough to cost nothing.
const RELEASE_BYTES: usize = 16 << 20;

/// Why a group's next state could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// A blob cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob is not what it stands for.
    #[error("{what} {id} cannot be used")]
    Unusable {
        /// What it stands for.
        what: &'static str,
        /// Its name.
        id: BlobId,
        /// What is wrong with it.
        #[source]
        rejection: Rejection,
    },
}

/// Steps groups of one task. `store` holds the inputs and takes the results.
#[derive(Clone, Copy)]
pub struct Succession<'a> {
    /// The blobs.
    pub store: &'a dyn BlobStore,
    /// The group's tensors.
    pub layout: &'a Layout,
    /// The task's rules of the outer step.
    pub rules: &'a OuterRules,
}

impl std::fmt::Debug for Succession<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Succession").finish_non_exhaustive()
    }
}

impl Succession<'_> {
    /// The group after its accepted updates, given with their weights in the order of the submissions.
    /// Without any it stays as it is.
    ///
    /// # Errors
    /// A blob is missing or is not what it should be, or the results cannot be written.
    pub fn merged(
        &self,
        before: &GroupState,
        accepted: &[(BlobId, f64)],
    ) -> Result<GroupState, SuccessionError> {
        if accepted.is_empty() {
            return Ok(before.clone());
        }
        let mut blobs = vec![self.store.open(before.shard)?];
        for (update, _) in accepted {
            blobs.push(self.store.open(*update)?);
        }
        if let Some(momentum) = before.momentum {
            blobs.push(self.store.open(momentum)?);
        }
        let parameters = self.shard("shard", (before.shard, &blobs[0]))?;
        let mut updates = Vec::new();
        for ((id, weight), blob) in accepted.iter().zip(&blobs[1..]) {
            let update =
                update::open(blob, self.layout).map_err(unusable("accepted update", *id))?;
            updates.push((update, *weight));
        }
        let momentum = match (before.momentum, blobs.last()) {
            (Some(id), Some(blob)) => Some(self.shard("momentum", (id, blob))?),
            _ => None,
        };
        let accepted: Vec<_> = updates
            .iter()
            .map(|(update, weight)| Accepted {
                update,
                weight: *weight,
            })
            .collect();
        let group = Group {
            parameters: &parameters,
            momentum: momentum.as_ref(),
            reference_norm: before.reference_norm,
        };
        let mut shard = self.begin(&blobs)?;
        let mut momentum = self.begin(&blobs)?;
        let mut sinks = Sinks {
            parameters: &mut shard,
            momentum: &mut momentum,
        };
        let steps = (self.layout, self.rules);
        let reference_norm = aggregate::outer_step(&group, &accepted, steps, &mut sinks)?;
        Ok(GroupState {
            group: before.group,
            shard: shard.finish()?,
            bytes: before.bytes,
            momentum: Some(momentum.finish()?),
            reference_norm,
        })
    }

    /// The group after the gate refused its accepted updates: the same shard, its momentum halved.
    ///
    /// # Errors
    /// As for [`Self::merged`].
    pub fn damped(&self, before: &GroupState) -> Result<GroupState, SuccessionError> {
        let Some(id) = before.momentum else {
            return Ok(before.clone());
        };
        let blobs = [self.store.open(id)?];
        let momentum = self.shard("momentum", (id, &blobs[0]))?;
        let mut sink = self.begin(&blobs)?;
        aggregate::damped(&momentum, self.layout, &mut sink)?;
        Ok(GroupState {
            momentum: Some(sink.finish()?),
            ..before.clone()
        })
    }

    /// The group in a state that merged these updates, given that the group changed: after the merge of
    /// its own, or damped where it has none, for the state is then the one that the gate fell back to.
    ///
    /// # Errors
    /// As for [`Self::merged`].
    pub fn changed(
        &self,
        before: &GroupState,
        merged: &[MergedUpdate],
    ) -> Result<GroupState, SuccessionError> {
        let own = of_group(before.group, merged);
        if own.is_empty() {
            return self.damped(before);
        }
        self.merged(before, &own)
    }

    fn shard<'b>(
        &self,
        what: &'static str,
        (id, blob): (BlobId, &'b Blob),
    ) -> Result<Encoded<'b>, SuccessionError> {
        wire::open_shard(blob, self.layout).map_err(unusable(what, id))
    }

    /// A shard under way, its header written.
    fn begin<'b>(&'b self, inputs: &'b [Blob]) -> Result<Releasing<'b>, StoreError> {
        let mut sink = self.store.create()?;
        sink.write(&wire::shard_header(self.layout))?;
        Ok(Releasing {
            sink,
            inputs,
            written: 0,
        })
    }
}

/// The updates of one group with their weights, in their order.
#[must_use]
pub fn of_group(group: GroupId, merged: &[MergedUpdate]) -> Vec<(BlobId, f64)> {
    let own = merged.iter().filter(|merged| merged.group == group);
    own.map(|merged| (merged.update, merged.weight)).collect()
}

fn unusable(what: &'static str, id: BlobId) -> impl FnOnce(Rejection) -> SuccessionError {
    move |rejection| SuccessionError::Unusable {
        what,
        id,
        rejection,
    }
}

/// A sink that has the inputs' pages given back as the work goes on.
struct Releasing<'a> {
    sink: Box<dyn BlobSink + 'a>,
    inputs: &'a [Blob],
    written: usize,
}

impl Releasing<'_> {
    fn finish(self) -> Result<BlobId, StoreError> {
        self.sink.finish()
    }
}

impl BlobSink for Releasing<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.written += bytes.len();
        if self.written >= RELEASE_BYTES {
            self.written = 0;
            self.inputs.iter().for_each(Blob::release);
        }
        self.sink.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<BlobId, StoreError> {
        self.sink.finish()
    }
}
