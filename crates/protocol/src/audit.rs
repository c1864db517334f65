//! What a past cycle amounted to, for anyone who was not there (P-47).
//!
//! Inputs are the chain as of the blocks at which a cycle's facts are fixed (P-14), or the archive that a
//! manifest names (P-34), and what the cycle before amounted to, of which some is reviewed (P-46). The
//! same [`Round`] that the roles hold reads both, so an auditor cannot read the chain in another way than
//! they do. Of blobs it reads the bodies of reports only: whether the states' bytes follow is computed
//! elsewhere.

mod archived;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::assignment::Assignment;
use crate::consensus::{Tally, Verdict, tally};
use crate::follow::decided_task;
use crate::ids::{BlobId, Block, Cycle, GroupId, Hotkey, StateId};
use crate::manifest::{CycleArchive, Document, MergedUpdate, StateManifest, TaskManifest};
use crate::review::Docket;
use crate::round::{Known, Round, attests, votes};
use crate::rules::Rules;
use crate::schedule::{Schedule, Window};
use crate::snapshot::Snapshot;
use crate::submission::Network;

/// Reads cycles of one task.
#[derive(Debug, Clone)]
pub struct Observer {
    task: BlobId,
    network: Network,
    schedule: Schedule,
    groups: Vec<GroupId>,
    assignment: Assignment,
    rules: Rules,
    first_cycle: Cycle,
}

/// What was verified of the states before a cycle, and of the blobs that are there.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// Manifests of the states so far, the cycle's base among them.
    pub manifests: &'a BTreeMap<StateId, Arc<StateManifest>>,
    /// States before the base, to tell a stale one from an unknown one.
    pub older: &'a [StateId],
    /// What the cycle before amounted to, if it decided a state: some of it may be reviewed.
    pub past: Option<&'a Observed>,
    /// Of how many bytes an update is; no record tells.
    pub bytes: &'a dyn Fn(BlobId) -> u64,
    /// The bytes of a report that is kept as a blob, if they are there.
    pub body: &'a dyn Fn(BlobId) -> Option<Vec<u8>>,
}

impl std::fmt::Debug for Before<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Before").finish_non_exhaustive()
    }
}

/// Something for each block at which a cycle's facts are fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed<T> {
    /// The cycle's first block.
    pub begun: T,
    /// The last block of the seal window.
    pub sealed: T,
    /// The last block of the reveal window.
    pub revealed: T,
    /// The first block of the score window.
    pub seeded: T,
    /// The blocks between the first and the last one of the score window: what is said in one and
    /// unsaid in the next counts against whoever said it (P-45).
    pub scoring: Vec<T>,
    /// The last block of the score window.
    pub scored: T,
    /// The block as of which attestations count (P-44).
    pub attested: T,
    /// The last block of the vote window.
    pub voted: T,
}

/// What a cycle's submissions and reports amount to.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The cycle.
    pub cycle: Cycle,
    /// Whether enough stake reported; without it nothing is accepted.
    pub quorum: bool,
    /// The verdict on every submission, in their order.
    pub verdicts: Vec<Verdict>,
    /// What has weight, as the state that follows must list it.
    pub accepted: Vec<MergedUpdate>,
    /// The archive that the state that follows must name.
    pub archive: CycleArchive,
    /// Who is not drawn from the next cycle on, and until when, as the state that follows must say.
    pub excluded: BTreeMap<Hotkey, Cycle>,
    round: Round,
}

/// Why a cycle cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    /// The state that the cycle builds on is not among those before it.
    #[error("state {0}, on which the cycle builds, was not verified")]
    Base(StateId),
    /// A report that counts is a blob, and that is not there.
    #[error("the report {0}, which voters attested, cannot be read")]
    Body(BlobId),
    /// The blocks are not those that the schedule names.
    #[error("its blocks are not those of the schedule")]
    Blocks,
}

/// Why an archive is none that a cycle could have left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// What it says cannot be judged.
    #[error("its records cannot be judged")]
    Unjudged(#[source] ObserveError),
    /// A fact is said to be of a block at which it was not fixed.
    #[error("its {window} block is {found}, by the schedule {expected}")]
    Block {
        /// Which one.
        window: &'static str,
        /// The block's number.
        found: Block,
        /// What it has to be.
        expected: Block,
    },
    /// Read again, the records do not amount to the archive: some do not count, or stakes are not in
    /// order.
    #[error("its {0} are not those that count")]
    Records(&'static str),
}

impl Observer {
    /// An observer of a task on a network.
    #[must_use]
    pub fn new(network: Network, task: &TaskManifest) -> Self {
        Self {
            task: BlobId::of(&task.to_bytes()),
            network,
            schedule: task.schedule(),
            groups: task.group_ids(),
            assignment: Assignment::new(task.tickets.clone()),
            rules: task.rules.clone(),
            first_cycle: task.first_cycle,
        }
    }

    /// The blocks that a cycle is read at.
    #[must_use]
    pub fn blocks(&self, cycle: Cycle) -> Fixed<Block> {
        let seeded = self.schedule.opens(cycle, Window::Score);
        let scored = self.schedule.closes(cycle, Window::Score);
        Fixed {
            begun: self.schedule.opens(cycle, Window::Distribute),
            sealed: self.schedule.closes(cycle, Window::Seal),
            revealed: self.schedule.closes(cycle, Window::Reveal),
            seeded,
            scoring: (seeded.next().0..scored.0).map(Block).collect(),
            scored,
            attested: attests(&self.schedule, &self.rules, cycle),
            voted: self.schedule.closes(cycle, Window::Vote),
        }
    }

    /// What a cycle amounts to by the chain. `base` is the state it built on.
    ///
    /// # Errors
    /// Something that it takes is not there.
    pub fn from_chain(
        &self,
        (cycle, base): (Cycle, StateId),
        before: &Before<'_>,
        blocks: &Fixed<Arc<Snapshot>>,
    ) -> Result<Observed, ObserveError> {
        let manifest = before.manifests.get(&base);
        let excluded = &manifest.ok_or(ObserveError::Base(base))?.excluded;
        let docket = self.docket((cycle, base), before.past, &blocks.begun);
        let known = Known {
            network: self.network,
            task: self.task,
            schedule: &self.schedule,
            groups: &self.groups,
            assignment: &self.assignment,
            manifests: before.manifests,
            older: before.older,
            rules: &self.rules,
            excluded: Some(excluded),
            docket: docket.as_ref(),
        };
        let mut round = Round::new(cycle, Some(base), &blocks.begun);
        let early = [&blocks.sealed, &blocks.revealed, &blocks.seeded];
        let late = [&blocks.scored, &blocks.attested];
        for snapshot in early.into_iter().chain(&blocks.scoring).chain(late) {
            round.observe(snapshot, &known);
        }
        let mut archived = round.settle(&known);
        if archived.is_none() {
            let named: Vec<BlobId> = round.reporting.wanted().collect();
            for body in named {
                if let Some(bytes) = (before.body)(body) {
                    round.reporting.take_body(body, &bytes);
                }
            }
            archived = round.settle(&known);
        }
        let lacks = round.lacks(&known);
        let judged = round.judgement.as_ref().zip(archived);
        let (judgement, archived) = judged.ok_or(match lacks {
            Some(body) => ObserveError::Body(body),
            None => ObserveError::Blocks,
        })?;
        let exclusion = self.rules.scoring.exclusion;
        let excluded = judgement.excluded(excluded, (cycle.next(), exclusion));
        Ok(Observed {
            cycle,
            quorum: judgement.quorum,
            accepted: judgement.merged(before.bytes),
            verdicts: judgement.verdicts.clone(),
            archive: archived.archive.clone(),
            excluded: excluded.ok_or(ObserveError::Blocks)?,
            round,
        })
    }

    /// What of the cycle before is reviewed in this one. Nothing across a change of the task, and
    /// nothing of a cycle that decided no state.
    fn docket(
        &self,
        (cycle, base): (Cycle, StateId),
        past: Option<&Observed>,
        begun: &Snapshot,
    ) -> Option<Arc<Docket>> {
        let past = past.filter(|past| {
            cycle != self.first_cycle && past.cycle.next() == cycle && past.round.base != Some(base)
        });
        match past {
            None => Some(Arc::default()),
            Some(past) => past.round.docket(begun.hash, &self.rules),
        }
    }

    /// What a cycle amounts to by the records that its archive kept.
    ///
    /// # Errors
    /// The archive is none that the cycle could have left.
    pub fn from_archive(
        &self,
        archive: &CycleArchive,
        before: &Before<'_>,
    ) -> Result<Observed, ArchiveError> {
        let expected = self.blocks(archive.cycle);
        archived::check_blocks(archive, &expected)?;
        let blocks = archived::snapshots(archive, &expected);
        let observed = self.from_chain((archive.cycle, archive.base), before, &blocks);
        let observed = observed.map_err(ArchiveError::Unjudged)?;
        match difference(archive, &observed.archive) {
            Some(field) => Err(ArchiveError::Records(field)),
            None => Ok(observed),
        }
    }

    /// What the votes decided, as of the last block of the vote window.
    #[must_use]
    pub fn decided(&self, cycle: Cycle, voted: &Snapshot) -> Option<Tally> {
        tally(&votes(voted, &self.schedule, cycle), voted.voters())
    }

    /// The task that takes this one's place by these votes (P-39).
    #[must_use]
    pub fn succeeded(&self, cycle: Cycle, voted: &Snapshot) -> Option<BlobId> {
        decided_task(self.task, &votes(voted, &self.schedule, cycle), voted)
    }
}

/// The first field in which two archives differ.
#[must_use]
pub fn difference(one: &CycleArchive, other: &CycleArchive) -> Option<&'static str> {
    [
        ("cycle", one.cycle == other.cycle),
        ("base", one.base == other.base),
        ("begun", one.begun == other.begun),
        ("sealed", one.sealed == other.sealed),
        ("revealed", one.revealed == other.revealed),
        ("seeded", one.seeded == other.seeded),
        ("scored", one.scored == other.scored),
        ("attested", one.attested == other.attested),
        ("voters", one.voters == other.voters),
        ("seals", one.seals == other.seals),
        ("reveals", one.reveals == other.reveals),
        ("unregistered", one.unregistered == other.unregistered),
        ("reports", one.reports == other.reports),
        ("attestations", one.attestations == other.attestations),
        ("equivocations", one.equivocations == other.equivocations),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}
