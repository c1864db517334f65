//! What a past cycle amounted to, for anyone who was not there (P-47).
//!
//! Inputs are the chain as of the five blocks at which a cycle's facts are fixed (P-14), or the archive
//! that a manifest names (P-34). The same [`Round`] that the roles hold reads both, so an auditor cannot
//! read the chain in another way than they do. Knows no blobs: whether the bytes follow is computed
//! elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consensus::{Tally, Verdict, tally};
use crate::follow::decided_task;
use crate::ids::{BlobId, Block, Cycle, GroupId, Hotkey, StateId, Uid};
use crate::manifest::{
    BlockRef, CycleArchive, Document, MergedUpdate, StateManifest, TaskManifest,
};
use crate::round::{Known, Round, votes};
use crate::schedule::{Schedule, Window};
use crate::snapshot::{Participant, Participants, Record, Snapshot};
use crate::submission::Network;

/// Reads cycles of one task.
#[derive(Debug, Clone)]
pub struct Observer {
    task: BlobId,
    network: Network,
    schedule: Schedule,
    groups: Vec<GroupId>,
    tickets: Vec<u16>,
    significance: f64,
    rebase_window: u64,
}

/// What was verified of the states before a cycle, and of the blobs that are there.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// Manifests of the states so far, the cycle's base among them.
    pub manifests: &'a BTreeMap<StateId, StateManifest>,
    /// States before the base, to tell a stale one from an unknown one.
    pub older: &'a [StateId],
    /// Of how many bytes an update is; no record tells.
    pub bytes: &'a dyn Fn(BlobId) -> u64,
}

impl std::fmt::Debug for Before<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Before").finish_non_exhaustive()
    }
}

/// Something for each block at which a cycle's facts are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed<T> {
    /// The last block of the seal window.
    pub sealed: T,
    /// The last block of the reveal window.
    pub revealed: T,
    /// The first block of the score window.
    pub seeded: T,
    /// The last block of the score window.
    pub scored: T,
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
}

/// Why an archive is none that a cycle could have left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
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
            tickets: task.tickets.clone(),
            significance: task.rules.scoring.significance,
            rebase_window: task.rules.scoring.rebase_window,
        }
    }

    /// The blocks that a cycle is read at.
    #[must_use]
    pub fn blocks(&self, cycle: Cycle) -> Fixed<Block> {
        Fixed {
            sealed: self.schedule.closes(cycle, Window::Seal),
            revealed: self.schedule.closes(cycle, Window::Reveal),
            seeded: self.schedule.opens(cycle, Window::Score),
            scored: self.schedule.closes(cycle, Window::Score),
            voted: self.schedule.closes(cycle, Window::Vote),
        }
    }

    /// What a cycle amounts to by the chain. `base` is the state it built on; nothing if the blocks are
    /// not the cycle's.
    #[must_use]
    pub fn from_chain(
        &self,
        (cycle, base): (Cycle, StateId),
        before: &Before<'_>,
        blocks: &Fixed<Arc<Snapshot>>,
    ) -> Option<Observed> {
        let known = Known {
            network: self.network,
            schedule: &self.schedule,
            groups: &self.groups,
            tickets: &self.tickets,
            manifests: before.manifests,
            rebase_window: self.rebase_window,
            older: before.older,
            significance: self.significance,
        };
        let mut round = Round::new(cycle, Some(base), &blocks.sealed);
        for snapshot in [
            &blocks.sealed,
            &blocks.revealed,
            &blocks.seeded,
            &blocks.scored,
        ] {
            round.observe(snapshot, &known);
        }
        let judgement = round.judgement?;
        Some(Observed {
            cycle,
            quorum: judgement.quorum,
            accepted: judgement.merged(before.bytes),
            verdicts: judgement.verdicts,
            archive: judgement.archive,
        })
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
        for (window, found, expected) in [
            ("sealed", archive.sealed, expected.sealed),
            ("revealed", archive.revealed, expected.revealed),
            ("seeded", archive.seeded, expected.seeded),
            ("scored", archive.scored, expected.scored),
        ] {
            if found.number != expected {
                return Err(ArchiveError::Block {
                    window,
                    found: found.number,
                    expected,
                });
            }
        }
        let registered = archive.seals.keys();
        let registered: Participants = registered
            .filter(|hotkey| !archive.unregistered.contains(hotkey))
            .map(|hotkey| participant(*hotkey, 0))
            .collect();
        let voters = archive.voters.iter();
        let voters: Participants = voters
            .map(|voter| participant(voter.hotkey, voter.stake))
            .collect();
        let scored = snapshot(archive.scored, &voters, &archive.reports);
        let blocks = Fixed {
            sealed: snapshot(archive.sealed, &registered, &archive.seals),
            revealed: snapshot(archive.revealed, &registered, &archive.reveals),
            seeded: snapshot(archive.seeded, &registered, &BTreeMap::new()),
            voted: Arc::clone(&scored),
            scored,
        };
        let observed = self.from_chain((archive.cycle, archive.base), before, &blocks);
        let observed = observed.ok_or(ArchiveError::Records("blocks"))?;
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
        ("sealed", one.sealed == other.sealed),
        ("revealed", one.revealed == other.revealed),
        ("seeded", one.seeded == other.seeded),
        ("scored", one.scored == other.scored),
        ("voters", one.voters == other.voters),
        ("seals", one.seals == other.seals),
        ("reveals", one.reveals == other.reveals),
        ("unregistered", one.unregistered == other.unregistered),
        ("reports", one.reports == other.reports),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}

/// As much of a participant as an archive keeps.
fn participant(hotkey: Hotkey, stake: u64) -> Participant {
    Participant {
        uid: Uid(0),
        hotkey,
        stake,
        validator_permit: stake > 0,
        endpoint: None,
        weights_set: Block(0),
    }
}

fn snapshot(
    at: BlockRef,
    participants: &Participants,
    records: &BTreeMap<Hotkey, Record>,
) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        block: at.number,
        hash: at.hash,
        head: at.number,
        owner: None,
        participants: participants.clone(),
        records: records.clone(),
    })
}
