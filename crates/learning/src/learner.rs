//! The tensor work of every role: train (`learner/training.rs`), score (`learner/scoring.rs`), merge,
//! follow by recomputing (`learner/advance.rs`; P-17 to P-24, P-30 to P-32, P-37).
//!
//! Inputs are a job, which only names things, and the blob store, which holds them. Outputs are blobs
//! and numbers. A learner keeps the last state that it loaded, so that a cycle's jobs do not read it
//! again; shards of it that were displaced in the backend are put back when they are next needed, not
//! before: many updates of one group are scored without installing the base in between. It knows no
//! chain, no clock and no peer; "now" is a block that it is told.

mod advance;
mod scoring;
mod training;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use connito_engine::data::documents::TokenDocuments;
use connito_protocol::ids::{BlobId, Block, GroupId, StateId};
use connito_protocol::job::{Job, MergeJob, Merged, Outcome, Weighted};
use connito_protocol::manifest::{Document, GroupState, StateManifest, TaskManifest};
use connito_protocol::scoring::{SequenceLoss, mean_loss};

use crate::backend::{Backend, BackendError, FixedParts};
use crate::selection::SelectionError;
use crate::shard::{Layout, Shard};
use crate::store::{BlobStore, StoreError};
use crate::succession::{Succession, SuccessionError};
use crate::wire;

/// Does jobs, one after the other.
pub trait Learner: Send {
    /// Does one job. `head` gives the newest block, for jobs that must end by one.
    ///
    /// Never fails: what goes wrong is an [`Outcome::Failed`] and charged to nobody.
    fn run(&mut self, job: &Job, head: &dyn Fn() -> Block) -> Outcome;
}

/// How a learner treats what it trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conduct {
    /// As it is.
    #[default]
    Honest,
    /// Reversed and enlarged: a rehearsal of a damaging miner.
    Damaging,
}

/// A learner over any blob store and any backend.
#[derive(Debug)]
pub struct StateLearner<S, B> {
    store: S,
    backend: B,
    conduct: Conduct,
    task: Option<Task>,
    state: Option<State>,
    /// Groups of which the backend holds something else than the loaded state.
    displaced: BTreeSet<GroupId>,
}

#[derive(Debug)]
struct Task {
    id: BlobId,
    manifest: TaskManifest,
    layouts: BTreeMap<GroupId, Layout>,
    documents: BTreeMap<BlobId, TokenDocuments>,
}

#[derive(Debug)]
struct State {
    id: StateId,
    manifest: StateManifest,
    shards: BTreeMap<GroupId, Shard>,
}

impl From<SuccessionError> for JobError {
    fn from(error: SuccessionError) -> Self {
        match error {
            SuccessionError::Store(error) => Self::Store(error),
            SuccessionError::Unusable {
                what,
                id,
                rejection,
            } => unusable(what, id, &rejection),
        }
    }
}

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("{what} {id} cannot be used: {detail}")]
    Unusable {
        what: &'static str,
        id: BlobId,
        detail: String,
    },
    #[error("group {0} is not part of the task")]
    UnknownGroup(GroupId),
    #[error("the window closed at block {0} before the work was done")]
    OutOfTime(Block),
    #[error("the sample of training text visits no expert of group {0}")]
    NothingSelected(GroupId),
    #[error("experts cannot be selected")]
    Selection(#[from] SelectionError),
    #[error("the loss of state {0} is not finite, so nothing can be compared with it")]
    NoBaseline(StateId),
}

impl<S: BlobStore, B: Backend> Learner for StateLearner<S, B> {
    fn run(&mut self, job: &Job, head: &dyn Fn() -> Block) -> Outcome {
        let result = match job {
            Job::Train(job) => self.train(job, head),
            Job::Score(job) => self.score(job, head),
            Job::Merge(job) => self.merge(job),
            Job::Advance(job) => self.advance(job),
        };
        result.unwrap_or_else(|error| Outcome::Failed {
            cycle: job.cycle(),
            cause: error.to_string(),
        })
    }
}

impl<S: BlobStore, B: Backend> StateLearner<S, B> {
    /// A learner that has loaded nothing yet.
    pub fn new(store: S, backend: B, conduct: Conduct) -> Self {
        Self {
            store,
            backend,
            conduct,
            task: None,
            state: None,
            displaced: BTreeSet::new(),
        }
    }

    /// Mean loss of a state over all predicted tokens of the given sequences.
    ///
    /// # Errors
    /// A part of the state is missing or does not fit, or the loss is not finite.
    pub fn heldout_loss(
        &mut self,
        task: BlobId,
        state: StateId,
        sequences: &[&[u32]],
    ) -> Result<Vec<SequenceLoss>, BackendError> {
        let told = |error: JobError| BackendError(error.to_string());
        self.load(task, state, None).map_err(told)?;
        self.backend.losses(sequences)
    }

    /// Puts a state into the backend. With `only`, just that group's shard is needed.
    fn load(
        &mut self,
        task: BlobId,
        state: StateId,
        only: Option<GroupId>,
    ) -> Result<(), JobError> {
        self.load_task(task)?;
        let complete = |loaded: &State| {
            loaded.id == state
                && only.map_or(
                    loaded.shards.len() == loaded.manifest.groups.len(),
                    |group| loaded.shards.contains_key(&group),
                )
        };
        if self.state.as_ref().is_some_and(complete) {
            return self.restore(|_| true);
        }
        let manifest = self.state_manifest(state)?;
        // Until all of it is installed, the backend holds parts of two states.
        self.state = None;
        self.displaced.clear();
        let mut shards = BTreeMap::new();
        for group in &manifest.groups {
            if only.is_none_or(|only| only == group.group) {
                let shard = self.read_shard(group.group, group.shard)?;
                self.backend.install(&shard)?;
                shards.insert(group.group, shard);
            }
        }
        self.state = Some(State {
            id: state,
            manifest,
            shards,
        });
        Ok(())
    }

    fn state_manifest(&self, state: StateId) -> Result<StateManifest, JobError> {
        let id = state.manifest_blob();
        StateManifest::from_bytes(&self.store.read(id)?)
            .map_err(|error| unusable("state manifest", id, &error))
    }

    fn load_task(&mut self, id: BlobId) -> Result<(), JobError> {
        if self.task.as_ref().is_some_and(|task| task.id == id) {
            return Ok(());
        }
        let manifest = TaskManifest::from_bytes(&self.store.read(id)?)
            .map_err(|error| unusable("task manifest", id, &error))?;
        (self.task, self.state) = (None, None);
        self.backend.open(&FixedParts {
            config: &self.store.read(manifest.model.config)?,
            backbone: &self.store.read(manifest.model.backbone)?,
            sequence_length: manifest.rules.scoring.sequence_length as usize,
        })?;
        let mut layouts = BTreeMap::new();
        for mapping in &manifest.groups {
            layouts.insert(mapping.group_id, self.backend.layout(mapping)?);
        }
        self.task = Some(Task {
            id,
            manifest,
            layouts,
            documents: BTreeMap::new(),
        });
        Ok(())
    }

    fn read_shard(&self, group: GroupId, blob: BlobId) -> Result<Shard, JobError> {
        let bytes = self.store.read(blob)?;
        wire::decode_shard(&bytes, self.layout(group)?)
            .map_err(|error| unusable("shard", blob, &error))
    }

    fn layout(&self, group: GroupId) -> Result<&Layout, JobError> {
        let task = self.task.as_ref();
        task.and_then(|task| task.layouts.get(&group))
            .ok_or(JobError::UnknownGroup(group))
    }

    fn manifest(&self) -> &TaskManifest {
        &self.task.as_ref().expect("load_task ran first").manifest
    }

    fn base(&self, group: GroupId) -> Result<&Shard, JobError> {
        let state = self.state.as_ref();
        state
            .and_then(|state| state.shards.get(&group))
            .ok_or(JobError::UnknownGroup(group))
    }

    fn documents(&mut self, blob: BlobId) -> Result<&TokenDocuments, JobError> {
        let task = self.task.as_mut().expect("load_task ran first");
        match task.documents.entry(blob) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let documents = self.backend.read_documents(&self.store.read(blob)?)?;
                Ok(unknown.insert(documents))
            }
        }
    }

    fn merge(&mut self, job: &MergeJob) -> Result<Outcome, JobError> {
        self.load(job.task, job.state, None)?;
        let gate = self.manifest().rules.scoring.gate_sequences as usize;
        let pools: Vec<_> = self
            .manifest()
            .domains
            .iter()
            .map(|d| (d.gate, gate))
            .collect();
        let incumbent = mean_loss(&self.losses_on(&pools, &job.seed)?)
            .ok_or(JobError::NoBaseline(job.state))?;

        let groups = self
            .state
            .as_ref()
            .map(|s| s.manifest.groups.clone())
            .unwrap_or_default();
        let mut update_bytes = Vec::new();
        for accepted in &job.accepted {
            update_bytes.push(self.store.len(accepted.update)?);
        }
        let (mut candidate, mut fallback) = (Vec::new(), Vec::new());
        for group in groups {
            let (after, kept) = self.merge_group(&group, &job.accepted)?;
            candidate.push(after);
            fallback.push(kept);
        }
        let measured = self.losses_on(&pools, &job.seed)?;
        let mut finite = true;
        for group in &candidate {
            finite &= self.reads_back(group)?;
        }
        Ok(Outcome::Merged(Merged {
            cycle: job.cycle,
            candidate,
            fallback,
            update_bytes,
            incumbent_loss: incumbent,
            // A value that is not finite may lie where no gate sequence passes, and could not be read back.
            candidate_loss: mean_loss(&measured).filter(|_| finite),
        }))
    }

    /// Takes the outer step of one group and leaves the result installed.
    fn merge_group(
        &mut self,
        group: &GroupState,
        accepted: &[Weighted],
    ) -> Result<(GroupState, GroupState), JobError> {
        let own: Vec<(BlobId, f64)> = accepted
            .iter()
            .filter(|accepted| accepted.group == group.group)
            .map(|accepted| (accepted.update, accepted.weight))
            .collect();
        if own.is_empty() {
            return Ok((group.clone(), group.clone()));
        }
        let succession = self.succession(group.group)?;
        let candidate = succession.merged(group, &own)?;
        let fallback = succession.damped(group)?;
        let shard = self.read_shard(group.group, candidate.shard);
        self.displaced.insert(group.group);
        // What does not read back is not installed, and fails the gate.
        if let Ok(shard) = shard {
            self.backend.install(&shard)?;
        }
        Ok((candidate, fallback))
    }

    fn succession(&self, group: GroupId) -> Result<Succession<'_>, JobError> {
        Ok(Succession {
            store: &self.store,
            layout: self.layout(group)?,
            rules: &self.manifest().rules.outer,
        })
    }

    /// Whether everybody will be able to read a group's new bytes.
    fn reads_back(&self, group: &GroupState) -> Result<bool, JobError> {
        let layout = self.layout(group.group)?;
        for id in std::iter::once(group.shard).chain(group.momentum) {
            if wire::open_shard(&self.store.open(id)?, layout).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts back the loaded state's shards of the displaced groups that are `wanted`.
    fn restore(&mut self, wanted: impl Fn(GroupId) -> bool) -> Result<(), JobError> {
        let displaced = self.displaced.clone();
        for group in displaced.into_iter().filter(|group| wanted(*group)) {
            let shards = self.state.as_ref().map(|state| &state.shards);
            let shard = shards.and_then(|shards| shards.get(&group));
            self.backend
                .install(shard.ok_or(JobError::UnknownGroup(group))?)?;
            self.displaced.remove(&group);
        }
        Ok(())
    }
}

fn unusable(what: &'static str, id: BlobId, error: &dyn std::error::Error) -> JobError {
    JobError::Unusable {
        what,
        id,
        detail: error.to_string(),
    }
}
