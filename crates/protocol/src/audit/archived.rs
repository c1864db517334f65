//! The chain as far as an archive kept it (P-34, P-47).
//!
//! Input is the archive; output are snapshots that hold its records at the blocks where they were read.
//! What it does not keep decides nothing: an archive that left out something that does amounts, read
//! again, to another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ArchiveError, Fixed};
use crate::ids::{Block, BlockHash, Hotkey, Uid};
use crate::manifest::{BlockRef, CycleArchive};
use crate::snapshot::{Participant, Participants, Record, Snapshot};

/// Whether the facts are of the blocks at which they were fixed.
pub(super) fn check_blocks(
    archive: &CycleArchive,
    expected: &Fixed<Block>,
) -> Result<(), ArchiveError> {
    let named = [
        ("begun", archive.begun, expected.begun),
        ("sealed", Some(archive.sealed), expected.sealed),
        ("revealed", Some(archive.revealed), expected.revealed),
        ("seeded", Some(archive.seeded), expected.seeded),
        ("scored", Some(archive.scored), expected.scored),
        ("attested", archive.attested, expected.attested),
    ];
    for (window, found, expected) in named {
        if let Some(found) = found.filter(|found| found.number != expected) {
            return Err(ArchiveError::Block {
                window,
                found: found.number,
                expected,
            });
        }
    }
    Ok(())
}

/// The blocks of the cycle, with what is kept of them. A block that is not named decided nothing, and
/// has no hash here.
pub(super) fn snapshots(archive: &CycleArchive, expected: &Fixed<Block>) -> Fixed<Arc<Snapshot>> {
    let participants = participants(archive);
    let at = |block: BlockRef, records| snapshot(block, &participants, records);
    let unnamed = |number| BlockRef {
        number,
        hash: BlockHash([0; 32]),
    };
    let mut twofold = twofold(archive);
    let mut said_in = |block| twofold.remove(&block).unwrap_or_default();
    let begun = archive.begun.unwrap_or(unnamed(expected.begun));
    let attested = archive.attested.unwrap_or(unnamed(expected.attested));
    let seeded = at(archive.seeded, said_in(expected.seeded));
    let scoring = expected.scoring.iter();
    let scoring = scoring.map(|block| at(unnamed(*block), said_in(*block)));
    let scoring = scoring.collect();
    let mut reports = said_in(expected.scored);
    reports.extend(archive.reports.clone());
    let attested = at(attested, archive.attestations.clone());
    Fixed {
        begun: at(begun, BTreeMap::new()),
        sealed: at(archive.sealed, archive.seals.as_ref().clone()),
        revealed: at(archive.revealed, archive.reveals.as_ref().clone()),
        seeded,
        scoring,
        scored: at(archive.scored, reports),
        voted: Arc::clone(&attested),
        attested,
    }
}

/// Both records of those who reported twice, by the block that included each.
fn twofold(archive: &CycleArchive) -> BTreeMap<Block, BTreeMap<Hotkey, Record>> {
    let mut twofold: BTreeMap<Block, BTreeMap<Hotkey, Record>> = BTreeMap::new();
    for (hotkey, records) in &archive.equivocations {
        for record in records {
            let said = twofold.entry(record.block).or_default();
            said.insert(*hotkey, record.clone());
        }
    }
    twofold
}

/// Who was registered: of those that sealed who is not said not to have been, and the voters.
fn participants(archive: &CycleArchive) -> Participants {
    let sealed = archive.seals.keys();
    let sealed = sealed.filter(|hotkey| !archive.unregistered.contains(hotkey));
    let mut stakes: BTreeMap<Hotkey, u64> = sealed.map(|hotkey| (*hotkey, 0)).collect();
    let voters = archive.voters.iter();
    stakes.extend(voters.map(|voter| (voter.hotkey, voter.stake)));
    let stakes = stakes.into_iter();
    stakes
        .map(|(hotkey, stake)| Participant {
            uid: Uid(0),
            hotkey,
            stake,
            validator_permit: stake > 0,
            endpoint: None,
            weights_set: Block(0),
        })
        .collect()
}

fn snapshot(
    at: BlockRef,
    participants: &Participants,
    records: BTreeMap<Hotkey, Record>,
) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        block: at.number,
        hash: at.hash,
        head: at.number,
        owner: None,
        participants: participants.clone(),
        records: Arc::new(records),
        readings: Default::default(),
    })
}
