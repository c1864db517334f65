//! A step from one state to the next, taken once more from what others merged (P-37).
//!
//! Inputs are both manifests, the shards and momenta before, and the updates that the manifest names.
//! What comes out must be what the decided manifest says: a group whose parts are missing, or come out
//! otherwise, is merely left to be fetched. Knows no gate and no losses: what is canonical has been
//! decided. Nothing is installed in the backend.

use connito_protocol::job::{AdvanceJob, Advanced, Outcome};
use connito_protocol::manifest::{GroupState, StateManifest};

use super::{JobError, StateLearner};
use crate::backend::Backend;
use crate::store::BlobStore;

impl<S: BlobStore, B: Backend> StateLearner<S, B> {
    pub(super) fn advance(&mut self, job: &AdvanceJob) -> Result<Outcome, JobError> {
        self.load_task(job.task)?;
        let (from, to) = (self.state_manifest(job.from)?, self.state_manifest(job.to)?);
        let (mut groups, mut absent) = (Vec::new(), Vec::new());
        for after in &to.groups {
            let before = from.group(after.group);
            if before == Some(after) {
                continue;
            }
            // What is missing for one group does not keep another one from being computed.
            let computed = before.map(|before| self.advance_group(before, &to));
            match computed {
                Some(Ok(computed)) if computed == *after => groups.push(computed),
                _ => absent.push(after.group),
            }
        }
        Ok(Outcome::Advanced(Advanced {
            cycle: job.cycle,
            to: job.to,
            groups,
            absent,
        }))
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
