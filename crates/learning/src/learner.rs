//! The tensor work of every role: train (`learner/training.rs`), score, merge, follow by recomputing
//! (`learner/advance.rs`; P-17 to P-24, P-30 to P-32, P-37).
//!
//! Inputs are a job, which only names things, and the blob store, which holds them. Outputs are blobs
//! and numbers. A learner keeps the last state that it loaded, so that a cycle's jobs do not read it
//! again; shards of it that were displaced in the backend are put back when they are next needed, not
//! before: many updates of one group are scored without installing the base in between. It knows no
//! chain, no clock and no peer; "now" is a block that it is told.

mod advance;
mod training;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use connito_engine::data::documents::TokenDocuments;
use connito_protocol::ids::{BlobId, Block, GroupId, Seed, StateId};
use connito_protocol::job::{
    Candidate, Finding, Job, MergeJob, Merged, Outcome, ScoreJob, Weighted,
};
use connito_protocol::manifest::{Document, Domain, GroupState, StateManifest, TaskManifest};
use connito_protocol::reason::ReasonCode;
use connito_protocol::scoring::{self, SequenceLoss, Unmeasured, mean_loss};

use crate::backend::{Backend, BackendError, FixedParts};
use crate::copies::{Examined, Originals};
use crate::selection::SelectionError;
use crate::shard::{Layout, Shard};
use crate::store::{BlobStore, StoreError};
use crate::succession::{Succession, SuccessionError};
use crate::update;
use crate::wire::{self, Rejection};

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

    fn score(&mut self, job: &ScoreJob, head: &dyn Fn() -> Block) -> Result<Outcome, JobError> {
        self.load(job.task, job.state, None)?;
        let mut originals = Originals::default();
        for candidate in &job.remembered {
            // What cannot be read any more cannot be compared with; nobody is charged for that.
            if let Ok(Ok(update)) = self.read_update(candidate) {
                originals.remember(Examined::new(candidate, update));
            }
        }
        let mut before = BTreeMap::new();
        let mut findings = Vec::new();
        for candidate in &job.updates {
            if head() >= job.stop_at {
                // Too slow for this one; what has been measured is worth reporting.
                findings.push(Finding::Refused {
                    code: ReasonCode::Unscored,
                });
                continue;
            }
            findings.push(match self.examine(candidate, &originals)? {
                Err(code) => Finding::Refused { code },
                Ok(examined) => {
                    let finding = self.measure(&examined, &job.seed, &mut before)?;
                    originals.remember(examined);
                    finding
                }
            });
        }
        Ok(Outcome::Scored {
            cycle: job.cycle,
            findings,
        })
    }

    /// Everything that can be said of an update without running the model, cheapest first.
    fn examine(
        &self,
        candidate: &Candidate,
        originals: &Originals,
    ) -> Result<Result<Examined, ReasonCode>, JobError> {
        let rules = self.manifest().rules.scoring;
        if originals.have_bytes_of(candidate) {
            return Ok(Err(ReasonCode::Duplicate));
        }
        let examined = match self.read_update(candidate)? {
            Ok(update) => Examined::new(candidate, update),
            Err(rejection) => return Ok(Err(rejection.code)),
        };
        let states = self.state.iter().flat_map(|state| &state.manifest.groups);
        let mut reference = states
            .filter(|state| state.group == candidate.group)
            .filter_map(|state| state.reference_norm);
        let too_long = |reference: f64| examined.norm > rules.norm_bound * reference;
        if reference.any(too_long) {
            return Ok(Err(ReasonCode::NormExceeded));
        }
        Ok(if originals.resemble(&examined, rules.duplicate_cosine) {
            Err(ReasonCode::Duplicate)
        } else {
            Ok(examined)
        })
    }

    fn read_update(&self, candidate: &Candidate) -> Result<Result<Shard, Rejection>, JobError> {
        let layout = self.layout(candidate.group)?;
        let bytes = self.store.read(candidate.update)?;
        Ok(update::read(&bytes, layout))
    }

    fn measure(
        &mut self,
        Examined { group, update, .. }: &Examined,
        seed: &Seed,
        before: &mut BTreeMap<GroupId, Vec<SequenceLoss>>,
    ) -> Result<Finding, JobError> {
        let group = *group;
        let pools = self.scoring_pools(group);
        self.restore(|displaced| displaced != group)?;
        if let Entry::Vacant(unmeasured) = before.entry(group) {
            self.restore(|_| true)?;
            unmeasured.insert(self.losses_on(&pools, seed)?);
        }
        self.displaced.insert(group);
        let state = self.state.as_ref();
        let base = state.and_then(|state| state.shards.get(&group));
        let base = base.ok_or(JobError::UnknownGroup(group))?;
        self.backend.install_sum(base, update)?;
        let (before, after) = (&before[&group], self.losses_on(&pools, seed)?);
        match scoring::utility(before, &after) {
            Ok(measurement) => Ok(Finding::Measured {
                measurement,
                loss_before: mean_loss(before).unwrap_or(f64::MAX),
                loss_after: mean_loss(&after).unwrap_or(f64::MAX),
            }),
            Err(Unmeasured::NonFiniteLoss) => Ok(Finding::Refused {
                code: ReasonCode::NonFiniteLoss,
            }),
            Err(Unmeasured::NoBaseline) => Err(JobError::NoBaseline(self.state_id())),
        }
    }

    fn state_id(&self) -> StateId {
        self.state.as_ref().expect("load ran first").id
    }

    /// The scoring pools, with the number of sequences to draw from each: the group's own share is
    /// divided among its own domains, the rest among the others. At least two each, for a spread.
    fn scoring_pools(&self, group: GroupId) -> Vec<(BlobId, usize)> {
        let manifest = self.manifest();
        let is_own = |domain: &&Domain| domain.group == group;
        let own = manifest.domains.iter().filter(is_own).count();
        let others = manifest.domains.len() - own;
        let share = if others == 0 {
            1.0
        } else {
            manifest.rules.own_share
        };
        let sequences = f64::from(manifest.rules.scoring.sequences);
        let each = |share: f64, domains: usize| {
            let count = (sequences * share / domains.max(1) as f64).round() as usize;
            count.max(2)
        };
        let (of_own, of_others) = (each(share, own), each(1.0 - share, others));
        manifest
            .domains
            .iter()
            .map(|domain| {
                (
                    domain.scoring,
                    if is_own(&domain) { of_own } else { of_others },
                )
            })
            .collect()
    }

    /// Losses of sequences drawn by one seed, a different draw in each pool.
    fn losses_on(
        &mut self,
        pools: &[(BlobId, usize)],
        seed: &Seed,
    ) -> Result<Vec<SequenceLoss>, JobError> {
        let mut losses = Vec::new();
        for (pool, count) in pools {
            let mut hasher = blake3::Hasher::new_derive_key("connito/1 draw from a pool");
            hasher.update(&seed.0).update(&pool.0);
            let draw = hasher.finalize();
            let documents = self.documents(*pool)?;
            let picks = documents.sample(draw.as_bytes(), *count);
            let sequences: Vec<Vec<u32>> = documents
                .select(&picks)
                .into_iter()
                .map(<[u32]>::to_vec)
                .collect();
            let views: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
            losses.extend(self.backend.losses(&views)?);
        }
        Ok(losses)
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
