//! What someone finds who was not there: everything as it was, or the first thing that was changed
//! (P-47).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use connito_learning::audit::{Auditor, Decision, Required};
use connito_learning::backend::{Backend, FixedParts};
use connito_learning::shard::Layout;
use connito_learning::store::{BlobSink, BlobStore, HashSink, MemoryStore, StoreError};
use connito_learning::toy::ToyBackend;
use connito_protocol::announcement::Announcement;
use connito_protocol::audit::{ArchiveError, Before, Fixed, ObserveError, Observed, Observer};
use connito_protocol::ids::{BlobId, Block, BlockHash, Cycle, GroupId, Netuid, StateId};
use connito_protocol::manifest::{CycleArchive, Document, StateManifest, TaskManifest};
use connito_protocol::report::Entry;
use connito_protocol::snapshot::Snapshot;
use connito_protocol::submission;

use crate::committees::{
    LIARS, committees_of_three, honest, short_cycles, with_a_befriended_vandal,
};
use crate::network::{Conduct, Network, Who};

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
    /// How many cycles have ended.
    cycles: u64,
    /// Which updates have to be there.
    required: Required,
    /// How many were not looked at.
    unseen: Cell<usize>,
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
    Remains::of(&network, 3)
}

impl Remains {
    /// What is left of a network of which so many cycles have ended.
    fn of(network: &Network, cycles: u64) -> Self {
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
            cycles,
            required: Required::Judged,
            unseen: Cell::new(0),
        }
    }

    fn at(&self, block: Block) -> Arc<Snapshot> {
        Arc::new(self.history[usize::try_from(block.0).unwrap()].clone())
    }

    fn blocks(&self, cycle: Cycle) -> Fixed<Arc<Snapshot>> {
        let blocks = self.observer.blocks(cycle);
        Fixed {
            begun: self.at(blocks.begun),
            sealed: self.at(blocks.sealed),
            revealed: self.at(blocks.revealed),
            seeded: self.at(blocks.seeded),
            scoring: blocks.scoring.iter().map(|block| self.at(*block)).collect(),
            scored: self.at(blocks.scored),
            attested: self.at(blocks.attested),
            voted: self.at(blocks.voted),
        }
    }

    /// A cycle that builds on `base`, after what the cycle before amounted to.
    fn observed(
        &self,
        (cycle, base): (Cycle, StateId),
        past: Option<&Observed>,
    ) -> Result<Observed, ObserveError> {
        let blocks = self.blocks(cycle);
        self.before((base, past), |before| {
            self.observer.from_chain((cycle, base), before, &blocks)
        })
    }

    /// What an audit that came as far as `base` knows.
    fn before<T>(
        &self,
        (base, past): (StateId, Option<&Observed>),
        then: impl FnOnce(&Before<'_>) -> T,
    ) -> T {
        let mut manifests = BTreeMap::new();
        let mut next = Some(base);
        while let Some(state) = next {
            let bytes = self.mirror.read(state.manifest_blob()).unwrap();
            let manifest = StateManifest::from_bytes(&bytes).unwrap();
            next = manifest.parent;
            manifests.insert(state, Arc::new(manifest));
        }
        let bytes = |update| {
            self.mirror
                .read(update)
                .map_or(0, |bytes| bytes.len() as u64)
        };
        then(&Before {
            manifests: &manifests,
            older: &[],
            past,
            bytes: &bytes,
            body: &|body| self.mirror.read(body).ok(),
        })
    }

    fn by_archive(
        &self,
        archive: &CycleArchive,
        past: Option<&Observed>,
    ) -> Result<Observed, ArchiveError> {
        self.before((archive.base, past), |before| {
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
        let mut past: Option<Observed> = None;
        for cycle in (0..self.cycles).map(Cycle) {
            let (id, base) = states.last().unwrap();
            let observed = self.observed((cycle, *id), past.as_ref());
            let observed = observed.map_err(|error| sentence(cycle, &error))?;
            let again = self.by_archive(&observed.archive, past.as_ref());
            let again = again.map_err(|error| sentence(cycle, &error))?;
            assert_eq!(again.verdicts, observed.verdicts, "by the archive, {cycle}");
            assert_eq!(again.excluded, observed.excluded, "by the archive, {cycle}");
            let in_cycle = |error| sentence(cycle, &error);
            let unseen = auditor.uploads(&observed, self.required);
            self.unseen
                .set(self.unseen.get() + unseen.map_err(in_cycle)?);
            let voted = self.at(self.observer.blocks(cycle).voted);
            let Some(tally) = self.observer.decided(cycle, &voted) else {
                past = None;
                continue;
            };
            let decision = Decision {
                next: tally.next,
                vote: Some(tally.vote),
            };
            let next = auditor.successor((*id, base), &observed, &decision);
            states.push((tally.next, next.map_err(in_cycle)?));
            past = Some(observed);
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
    let first = whole.observed((Cycle(0), states[0].0), None).unwrap();
    let verdicts = first.verdicts;
    let mut refused = verdicts.iter().filter(|verdict| verdict.weight == 0.0);
    let update = refused.find_map(|verdict| verdict.update).unwrap();
    let said = whole.after(|run| _ = run.mirror.removed.insert(update));
    assert!(said.starts_with("cycle 0: the update of"), "{said}");
}

/// A validator keeps what it scored and what was accepted, so no server has all of what was refused.
#[test]
fn from_a_server_the_accepted_updates_are_enough_and_the_others_are_counted() {
    let mut run = remains();
    let states = run.audit().unwrap();
    assert_eq!(run.unseen.get(), 0);
    let first = run.observed((Cycle(0), states[0].0), None).unwrap();
    let of = |accepted: bool| {
        let mut verdicts = first.verdicts.iter();
        let update = verdicts.find(|verdict| (verdict.weight > 0.0) == accepted);
        update.unwrap().update.unwrap()
    };
    run.required = Required::Accepted;
    run.mirror.removed.insert(of(false));
    assert_eq!(run.audit().unwrap().len(), states.len());
    assert!(run.unseen.get() > 0);
    run.mirror.removed.insert(of(true));
    let said = run.audit().unwrap_err();
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
            Arc::make_mut(&mut snapshot.records)
                .get_mut(&hotkey)
                .unwrap()
                .bytes = bytes.into();
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
                Arc::make_mut(&mut snapshot.records)
                    .get_mut(&hotkey)
                    .unwrap()
                    .bytes = bytes.into();
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
    let from_chain = run.observed((Cycle(1), states[1].0), None).unwrap();
    let archive = from_chain.archive.clone();
    let from_archive = run.by_archive(&archive, None).unwrap();
    assert_eq!(from_archive.accepted, from_chain.accepted);
    assert_eq!(from_archive.archive, archive);

    let mut late = archive.clone();
    late.sealed.number = late.sealed.number.next();
    let refused = run.by_archive(&late, None).unwrap_err();
    assert!(matches!(
        refused,
        ArchiveError::Block {
            window: "sealed",
            ..
        }
    ));
    for cycle in [Cycle(2), Cycle(u64::MAX)] {
        let refused = run.by_archive(
            &CycleArchive {
                cycle,
                ..archive.clone()
            },
            None,
        );
        assert!(matches!(refused, Err(ArchiveError::Block { .. })));
    }
    let mut padded = archive;
    let opens = Block(padded.sealed.number.0 - 10);
    Arc::make_mut(&mut padded.seals)
        .values_mut()
        .for_each(|record| record.block = opens);
    let refused = run.by_archive(&padded, None).unwrap_err();
    assert_eq!(refused, ArchiveError::Records("seals"));
}

/// Two different reports of one validator in one window: the last one alone would look sound, and the
/// archive keeps both.
#[test]
fn a_report_that_was_void_is_void_in_an_audit() {
    let groups = [Conduct::Honest(GroupId(0)), Conduct::Honest(GroupId(1))];
    let mut network = Network::new(&groups);
    let twofold = Who::Validator(2);
    network.run_cycle_with(|network, _| {
        if let Some(Announcement::Scored(mut report)) = network.said(twofold)
            && let Some(Entry::Measured(measured)) = report.entries.first_mut()
            && measured.utility < 100.0
        {
            measured.utility = 100.0;
            network.write(twofold, &Announcement::Scored(report));
        }
    });
    assert_eq!(network.archive().equivocations.len(), 1);
    let states = Remains::of(&network, 1).audit().unwrap();
    assert_eq!(states.len(), 2);
}

/// Committees are drawn, and what liars let through is reviewed: what the reviews led to, and who is
/// not drawn any more, is found again from the chain and from the archives.
#[test]
fn drawn_committees_and_reviews_are_as_recomputed() {
    let mut network = with_a_befriended_vandal();
    let vandal = network.hotkeys()[&Who::Miner(1)];
    let praised = LIARS.map(|liar| (liar, vandal));
    network.hostile.praise.extend(praised);
    (0..6).for_each(|_| network.run_cycle());
    assert!(!network.manifest().excluded.is_empty());
    let states = Remains::of(&network, 6).audit().unwrap();
    assert!(states.iter().any(|(_, state)| !state.excluded.is_empty()));

    let mut network = Network::with(&honest(10), committees_of_three());
    (0..3).for_each(|_| network.run_cycle());
    let remains = Remains::of(&network, 3);
    assert_eq!(remains.audit().unwrap().len(), 4);
}

/// Reports are blobs, and one of them is had by its author alone, so that it does not count.
#[test]
fn mirrored_reports_are_read_and_a_missing_one_is_named() {
    let mut network = Network::with(&honest(10), short_cycles());
    let alone = Who::Validator(3);
    let others = (0..3).map(Who::Validator).collect();
    network.hostile.withhold.insert(alone, others);
    (0..2).for_each(|_| network.run_cycle());
    let mut remains = Remains::of(&network, 2);
    let states = remains.audit().unwrap();
    assert_eq!(states.len(), 3);

    let body = {
        let scored = remains.observer.blocks(Cycle(0)).scored;
        let snapshot = remains.at(scored);
        let said = network.hotkeys()[&Who::Validator(0)];
        match snapshot.announcement(said) {
            Some((_, Announcement::Reported(mirrored))) => mirrored.body,
            said => panic!("no report is mirrored: {said:?}"),
        }
    };
    remains.mirror.removed.insert(body);
    let said = remains.audit().unwrap_err();
    assert!(said.starts_with("cycle 0: the report "), "{said}");
}
