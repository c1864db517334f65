//! How a chain comes to stand where it stood: from its specification, its log and its snapshots.
//!
//! ```text
//! log, first pass:  every frame whole, every header the successor of the one before it
//! then:             the newest snapshot at least KEPT_BLOCKS old, or else block 0
//! log, second pass: every later block carried out again, and its header must be the recorded one
//! ```
//!
//! The second pass covers everything that can still be read, so that what the chain answers was computed and
//! not merely stored.

use std::collections::BTreeMap;
use std::path::Path;

use connito_protocol::ids::Block as Number;

use super::EmbeddedError;
use super::block::Sealed;
use super::execute::{self, Checked, Fate};
use super::extrinsic::Extrinsic;
use super::genesis::GenesisSpec;
use super::history::{History, KEPT_BLOCKS};
use super::log::{self, BlockLog, Logged};
use super::refusal::Refusal;
use super::snapshot::{self, Snapshot};
use crate::error::PoolError;

/// A chain that has only its first block.
pub(super) fn beginning(spec: &GenesisSpec, kept: usize) -> History {
    let (first, state) = execute::genesis(spec);
    History::new(Vec::new(), first, state, kept)
}

/// The chain in a folder, which is locked from here on, and its log.
pub(super) fn open(
    folder: &Path,
    spec: &GenesisSpec,
) -> Result<(History, BlockLog), EmbeddedError> {
    let mut history = beginning(spec, KEPT_BLOCKS);
    let genesis = history.head().hash;
    let mut scan = Scan::new(genesis);
    let log = BlockLog::open(folder, spec, &mut |logged, end| scan.visit(&logged, end))?;
    let mut from = None;
    if let Some((snapshot, end)) = scan.snapshot(folder) {
        history = resume(snapshot, scan.hashes, spec);
        from = Some(end);
    }
    log.replay(from, &mut |logged, _| {
        replay(&mut history, spec, genesis, logged)
    })?;
    Ok((history, log))
}

/// Everything a folder's log says, carried out from the first block on, up to the first that is damaged; and
/// that damage. Nothing is locked or written.
pub(super) fn recorded(folder: &Path, spec: &GenesisSpec) -> (History, Result<(), EmbeddedError>) {
    let mut history = beginning(spec, usize::MAX);
    let genesis = history.head().hash;
    let read = log::read(folder, &mut |logged, _| {
        replay(&mut history, spec, genesis, logged)
    });
    (history, read)
}

fn resume(snapshot: Snapshot, mut hashes: Vec<[u8; 32]>, spec: &GenesisSpec) -> History {
    let Snapshot { header, state } = snapshot;
    hashes.truncate(usize::try_from(header.number).unwrap_or(usize::MAX));
    let time = spec.time_of(Number(header.number));
    let first = Sealed {
        hash: header.hash(),
        header,
        time_ms: time,
        // Too old to be read by the time the log has been replayed.
        extrinsics: Vec::new(),
        dropped: Vec::new(),
    };
    History::new(hashes, first, state, KEPT_BLOCKS)
}

/// The first pass over a log.
struct Scan {
    hashes: Vec<[u8; 32]>,
    /// Where the frames of those blocks end of which there may be snapshots.
    ends: BTreeMap<u64, u64>,
}

impl Scan {
    fn new(genesis: [u8; 32]) -> Self {
        Self {
            hashes: vec![genesis],
            ends: BTreeMap::new(),
        }
    }

    fn visit(&mut self, Logged { header, .. }: &Logged, end: u64) -> Result<(), String> {
        let (number, parent) = (self.hashes.len() as u64, self.hashes.last());
        if header.number != number {
            return Err(format!(
                "block {} where block {number} belongs",
                header.number
            ));
        }
        if parent != Some(&header.parent) {
            return Err(format!("block {number} does not follow the one before it"));
        }
        self.hashes.push(header.hash());
        if number % snapshot::EVERY == 0 {
            self.ends.insert(number, end);
        }
        Ok(())
    }

    /// A snapshot old enough, and where the log goes on after it.
    fn snapshot(&self, folder: &Path) -> Option<(Snapshot, u64)> {
        let head = self.hashes.len() as u64 - 1;
        let newest = head.checked_sub(KEPT_BLOCKS as u64)?;
        let known = |number: u64| self.hashes.get(usize::try_from(number).ok()?).copied();
        let snapshot = snapshot::load(folder, newest, known)?;
        let end = *self.ends.get(&snapshot.header.number)?;
        Some((snapshot, end))
    }
}

/// Carries one logged block out again; anything but the very same block is a reason to stop.
fn replay(
    history: &mut History,
    spec: &GenesisSpec,
    genesis: [u8; 32],
    logged: Logged,
) -> Result<(), String> {
    let parent = history.head();
    let number = parent.header.number + 1;
    if logged.header.number != number {
        return Err(format!(
            "block {} where block {number} belongs",
            logged.header.number
        ));
    }
    let state = history.store().head();
    let check = |message: &Vec<u8>| {
        let extrinsic = Extrinsic::decode(message)?;
        let birth = Checked::birth(&extrinsic, parent, &state, genesis)?;
        Checked::new(extrinsic, birth, &genesis, number)
    };
    let offered = logged
        .signed
        .iter()
        .map(check)
        .collect::<Result<Vec<_>, Refusal>>()
        .map_err(|refusal| format!("block {number}: {}", PoolError::from(refusal)))?;
    let made = execute::next_block(history.store(), parent, spec, (genesis, &offered));
    let all_included = made.fates.iter().all(|fate| *fate == Fate::Included);
    if !all_included || made.block.header != logged.header {
        return Err(format!(
            "block {number} does not have its recorded hash when replayed"
        ));
    }
    history.push(made);
    Ok(())
}
