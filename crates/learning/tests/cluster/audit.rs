//! What someone finds who was not there: everything as it was, or the first thing that was changed
//! (P-47).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use connito_learning::audit::{Auditor, Decision};
use connito_learning::backend::{Backend, FixedParts};
use connito_learning::shard::Layout;
use connito_learning::store::{BlobSink, BlobStore, HashSink, MemoryStore, StoreError};
use connito_learning::toy::ToyBackend;
use connito_protocol::announcement::Announcement;
use connito_protocol::audit::{ArchiveError, Before, Fixed, Observed, Observer};
use connito_protocol::ids::{BlobId, Block, BlockHash, Cycle, GroupId, Netuid, StateId};
use connito_protocol::manifest::{CycleArchive, Document, StateManifest, TaskManifest};
use connito_protocol::report::Entry;
use connito_protocol::snapshot::Snapshot;
use connito_protocol::submission;

use crate::network::{Conduct, Network};

/// Everybody's blobs, without some and with others changed.
#[derive(Default)]
struct Mirror {
    stores: Vec<Arc<MemoryStore>>,
    removed: BTreeSet<BlobId>,
    spoilt: BTreeSet<BlobId>,
}

impl BlobStore for Mirror {
    fn has(&self, id: BlobId) -> bool {
        !self.removed.contains(&id) && self.stores.iter().any(|store| store.has(id))
    }

    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        if self.spoilt.contains(&id) {
            return Err(StoreError(format!("blob {id} has other bytes")));
        }
        let holder = self.stores.iter().find(|store| store.has(id));
        let holder = holder.filter(|_| !self.removed.contains(&id));
        holder.map_or_else(
            || Err(StoreError(format!("blob {id} is not here"))),
            |store| store.read(id),
        )
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        Ok(BlobId::of(bytes))
    }

    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError> {
        Ok(Box::<HashSink>::default())
    }
}

/// A finished run as it was left behind, to be changed and audited.
struct Remains {
    mirror: Mirror,
    history: Vec<Snapshot>,
    task: TaskManifest,
    layouts: BTreeMap<GroupId, Layout>,
    observer: Observer,
}

/// Two honest miners in different groups, one that does damage, and one that copies; three cycles.
fn remains() -> Remains {
    let mut network = Network::new(&[
        Conduct::Honest(GroupId(0)),
        Conduct::Honest(GroupId(1)),
        Conduct::Damaging(GroupId(1)),
        Conduct::CopyingFirst,
    ]);
    (0..3).for_each(|_| network.run_cycle());
    let (task, history, stores) = network.left_behind();
    let mirror = Mirror {
        stores,
        ..Mirror::default()
    };
    let task = TaskManifest::from_bytes(&mirror.read(task).unwrap()).unwrap();
    let mut backend = ToyBackend::default();
    let parts = FixedParts {
        config: &[],
        backbone: &[],
        sequence_length: 16,
    };
    backend.open(&parts).unwrap();
    let layout = |mapping| backend.layout(mapping).unwrap();
    let groups = task.groups.iter();
    let layouts = groups
        .map(|mapping| (mapping.group_id, layout(mapping)))
        .collect();
    let network = submission::Network {
        genesis: BlockHash([7; 32]),
        netuid: Netuid(1),
    };
    Remains {
        observer: Observer::new(network, &task),
        history: history.to_vec(),
        mirror,
        task,
        layouts,
    }
}

impl Remains {
    fn at(&self, block: Block) -> Arc<Snapshot> {
        Arc::new(self.history[usize::try_from(block.0).unwrap()].clone())
    }

    fn blocks(&self, cycle: Cycle) -> Fixed<Arc<Snapshot>> {
        let blocks = self.observer.blocks(cycle);
        Fixed {
            sealed: self.at(blocks.sealed),
            revealed: self.at(blocks.revealed),
            seeded: self.at(blocks.seeded),
            scored: self.at(blocks.scored),
            voted: self.at(blocks.voted),
        }
    }

    fn observed(&self, cycle: Cycle, base: StateId) -> Observed {
        let blocks = self.blocks(cycle);
        let observed = |before: &Before<'_>| {
            let observer = &self.observer;
            observer.from_chain((cycle, base), before, &blocks)
        };
        self.before(base, observed).unwrap()
    }

    /// What an audit that came as far as `base` knows.
    fn before<T>(&self, base: StateId, then: impl FnOnce(&Before<'_>) -> T) -> T {
        let mut manifests = BTreeMap::new();
        let mut next = Some(base);
        while let Some(state) = next {
            let bytes = self.mirror.read(state.manifest_blob()).unwrap();
            let manifest = StateManifest::from_bytes(&bytes).unwrap();
            next = manifest.parent;
            manifests.insert(state, manifest);
        }
        let bytes = |update| {
            self.mirror
                .read(update)
                .map_or(0, |bytes| bytes.len() as u64)
        };
        then(&Before {
            manifests: &manifests,
            older: &[],
            bytes: &bytes,
        })
    }

    fn by_archive(&self, archive: &CycleArchive) -> Result<Observed, ArchiveError> {
        self.before(archive.base, |before| {
            self.observer.from_archive(archive, before)
        })
    }

    /// The states that were found as recomputed, or the first mismatch as one sentence.
    fn audit(&self) -> Result<Vec<(StateId, StateManifest)>, String> {
        let auditor = Auditor {
            store: &self.mirror,
            task: &self.task,
            layouts: &self.layouts,
        };
        let sentence = |cycle: Cycle, error: &dyn std::error::Error| {
            let cause = error
                .source()
                .map_or(String::new(), |cause| format!(": {cause}"));
            format!("cycle {cycle}: {error}{cause}")
        };
        let mut states = vec![
            auditor
                .begin()
                .map_err(|error| sentence(Cycle(0), &error))?
                .unwrap(),
        ];
        for cycle in (0..3).map(Cycle) {
            let (id, base) = states.last().unwrap();
            let observed = self.observed(cycle, *id);
            let in_cycle = |error| sentence(cycle, &error);
            auditor.uploads(&observed).map_err(in_cycle)?;
            let voted = self.at(self.observer.blocks(cycle).voted);
            let tally = self.observer.decided(cycle, &voted).unwrap();
            let decision = Decision {
                next: tally.next,
                vote: Some(tally.vote),
            };
            let next = auditor.successor((*id, base), &observed, &decision);
            states.push((tally.next, next.map_err(in_cycle)?));
        }
        Ok(states)
    }

    /// What an audit says after a change.
    fn after(&self, change: impl FnOnce(&mut Remains)) -> String {
        let mut changed = remains();
        change(&mut changed);
        changed.audit().expect_err("a change must be found")
    }
}

#[test]
fn an_untouched_run_is_as_recomputed_to_its_last_state() {
    let states = remains().audit().unwrap();
    assert_eq!(states.len(), 4);
    assert!(
        states
            .iter()
            .skip(1)
            .all(|(_, state)| !state.merged.is_empty())
    );
}

/// What should happen: the sentence names the cycle and the thing. What should not: that a change of
/// something old is found in a later cycle, or not at all.
#[test]
fn a_changed_or_missing_blob_is_named_with_the_cycle_that_it_belongs_to() {
    let whole = remains();
    let states = whole.audit().unwrap();
    let (id, state) = &states[2];
    let merged = state.merged[0].clone();
    let update = format!(
        "cycle 1: the update of {} for group {}",
        merged.hotkey, merged.group
    );
    let said = whole.after(|run| _ = run.mirror.removed.insert(merged.update));
    assert!(
        said.starts_with(&update) && said.ends_with("is not here"),
        "{said}"
    );
    let said = whole.after(|run| _ = run.mirror.spoilt.insert(merged.update));
    assert!(
        said.starts_with(&update) && said.ends_with("other bytes"),
        "{said}"
    );

    let shard = state.groups[0].shard;
    let said = whole.after(|run| _ = run.mirror.spoilt.insert(shard));
    assert!(said.starts_with("cycle 1: the shard of group 0"), "{said}");
    let said = whole.after(|run| _ = run.mirror.spoilt.insert(id.manifest_blob()));
    assert!(said.starts_with("cycle 1: state manifest"), "{said}");
    let archive = state.archive.unwrap();
    let said = whole.after(|run| _ = run.mirror.removed.insert(archive));
    assert!(
        said.starts_with("cycle 1: the archive of cycle 1"),
        "{said}"
    );
    let gate = whole.task.domains[1].gate;
    let said = whole.after(|run| _ = run.mirror.removed.insert(gate));
    assert!(
        said.starts_with("cycle 0: the gate text of second"),
        "{said}"
    );
}

/// The damaging miner's update has no weight, and was judged by its bytes all the same.
#[test]
fn an_update_that_was_refused_must_be_there_too() {
    let whole = remains();
    let states = whole.audit().unwrap();
    let verdicts = whole.observed(Cycle(0), states[0].0).verdicts;
    let mut refused = verdicts.iter().filter(|verdict| verdict.weight == 0.0);
    let update = refused.find_map(|verdict| verdict.update).unwrap();
    let said = whole.after(|run| _ = run.mirror.removed.insert(update));
    assert!(said.starts_with("cycle 0: the update of"), "{said}");
}

/// One validator's score of one update, as it stands on the chain, is a little larger; and a vote names
/// another fallback.
#[test]
fn a_changed_score_or_vote_is_found_in_its_cycle() {
    let whole = remains();
    let said = whole.after(|run| {
        let scored = run.observer.blocks(Cycle(1)).scored;
        let snapshot = &mut run.history[usize::try_from(scored.0).unwrap()];
        let reporters: Vec<_> = snapshot.voters().iter().map(|voter| voter.hotkey).collect();
        for hotkey in reporters {
            let Some((_, Announcement::Scored(mut report))) = snapshot.announcement(hotkey) else {
                continue;
            };
            if let Some(Entry::Measured(measured)) = report.entries.first_mut() {
                measured.utility *= 2.0;
            }
            let bytes = Announcement::Scored(report).encode();
            snapshot.records.get_mut(&hotkey).unwrap().bytes = bytes;
        }
    });
    assert!(
        said.starts_with("cycle 1: state ") && said.contains("another archive"),
        "{said}"
    );

    let said = whole.after(|run| {
        let voted = run.observer.blocks(Cycle(2)).voted;
        let snapshot = &mut run.history[usize::try_from(voted.0).unwrap()];
        let voters: Vec<_> = snapshot.voters().iter().map(|voter| voter.hotkey).collect();
        for hotkey in voters {
            if let Some((_, Announcement::Voted(mut vote))) = snapshot.announcement(hotkey) {
                vote.fallback = StateId([9; 32]);
                let bytes = Announcement::Voted(vote).encode();
                snapshot.records.get_mut(&hotkey).unwrap().bytes = bytes;
            }
        }
    });
    assert!(said.starts_with("cycle 2: the votes name 0909"), "{said}");
}

/// The chain has forgotten the cycle. What should happen: its archive amounts to the same. What should
/// not: that one is believed whose records were not made in time, or do not count.
#[test]
fn an_archive_tells_what_the_chain_told_and_a_changed_one_is_refused() {
    let run = remains();
    let states = run.audit().unwrap();
    let from_chain = run.observed(Cycle(1), states[1].0);
    let archive = from_chain.archive.clone();
    let from_archive = run.by_archive(&archive).unwrap();
    assert_eq!(from_archive.accepted, from_chain.accepted);
    assert_eq!(from_archive.archive, archive);

    let mut late = archive.clone();
    late.sealed.number = late.sealed.number.next();
    let refused = run.by_archive(&late).unwrap_err();
    assert!(matches!(
        refused,
        ArchiveError::Block {
            window: "sealed",
            ..
        }
    ));
    let mut padded = archive;
    let opens = Block(padded.sealed.number.0 - 10);
    padded
        .seals
        .values_mut()
        .for_each(|record| record.block = opens);
    let refused = run.by_archive(&padded).unwrap_err();
    assert_eq!(refused, ArchiveError::Records("seals"));
}
