//! A step from one state to the next, taken once more from what others merged (P-37).
//!
//! Inputs are both manifests, the shards and momenta before, and the updates that the manifest names.
//! What comes out must have the name that the decided manifest gives it: a group whose parts are missing,
//! or come out otherwise, is merely left to be fetched. Knows no gate and no losses: what is canonical has
//! been decided. Nothing is installed in the backend.

use connito_protocol::ids::BlobId;
use connito_protocol::job::{AdvanceJob, Outcome};
use connito_protocol::manifest::{GroupState, StateManifest};

use super::{JobError, StateLearner};
use crate::backend::Backend;
use crate::store::BlobStore;

impl<S: BlobStore, B: Backend> StateLearner<S, B> {
    pub(super) fn advance(&mut self, job: &AdvanceJob) -> Result<Outcome, JobError> {
        self.load_task(job.task)?;
        let (from, to) = (self.state_manifest(job.from)?, self.state_manifest(job.to)?);
        let mut written = Vec::new();
        for after in &to.groups {
            let before = from.groups.iter().find(|group| group.group == after.group);
            let Some(before) = before.filter(|before| *before != after) else {
                continue;
            };
            // What is missing for one group does not keep another one from being computed.
            if let Ok(computed) = self.advance_group(before, &to) {
                written.extend(of_both(&computed, after));
            }
        }
        Ok(Outcome::Advanced {
            cycle: job.cycle,
            to: job.to,
            written,
        })
    }

    fn advance_group(
        &self,
        before: &GroupState,
        to: &StateManifest,
    ) -> Result<GroupState, JobError> {
        let succession = self.succession(before.group)?;
        Ok(succession.changed(before, &to.merged)?)
    }
}

/// The blobs that the group was computed to have and should have.
fn of_both(computed: &GroupState, named: &GroupState) -> Vec<BlobId> {
    let blobs = |group: &GroupState| [Some(group.shard), group.momentum];
    let pairs = blobs(computed).into_iter().zip(blobs(named));
    let same = pairs.filter(|(computed, named)| computed == named);
    same.filter_map(|(blob, _)| blob).collect()
}
