//! Following a decided state by recomputing it (P-37).

use std::sync::Arc;

use connito_learning::learner::{Conduct as Treatment, Learner};
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::toy::{ToyBackend, ToyLearner};
use connito_protocol::ids::{BlobId, Cycle, GroupId, StateId};
use connito_protocol::job::{AdvanceJob, Job, Outcome};
use connito_protocol::manifest::{Document, GroupState, StateManifest, TaskManifest};

use crate::network::{Conduct, Network};

/// Two cycles with one miner a group: a task, the state after each, and everybody's blobs.
struct Run {
    task: BlobId,
    from: StateId,
    to: (StateId, StateManifest),
    stores: Vec<Arc<MemoryStore>>,
}

fn run() -> Run {
    let mut network = Network::new(&[Conduct::Honest(GroupId(0)), Conduct::Honest(GroupId(1))]);
    network.run_cycle();
    network.run_cycle();
    let to = network.canonical();
    let (task, _, stores) = network.left_behind();
    let manifest = StateManifest::from_bytes(&read(&stores, to.manifest_blob())).unwrap();
    Run {
        task,
        from: manifest.parent.unwrap(),
        to: (to, manifest),
        stores,
    }
}

fn read(stores: &[Arc<MemoryStore>], blob: BlobId) -> Vec<u8> {
    let holder = stores.iter().find(|store| store.has(blob)).unwrap();
    holder.read(blob).unwrap()
}

/// What a miner holds that followed to the state before, and fetched the merged updates but these.
fn miner(run: &Run, missing: &[BlobId]) -> ToyLearner<Arc<MemoryStore>> {
    let store = Arc::new(MemoryStore::default());
    let task = TaskManifest::from_bytes(&read(&run.stores, run.task)).unwrap();
    let from = StateManifest::from_bytes(&read(&run.stores, run.from.manifest_blob())).unwrap();
    let manifests = [run.from, run.to.0].map(StateId::manifest_blob);
    let updates = run.to.1.merged.iter().map(|merged| merged.update);
    let parts = [run.task, task.model.config, task.model.backbone];
    let wanted = parts
        .into_iter()
        .chain(manifests)
        .chain(from.blobs())
        .chain(updates);
    for blob in wanted.filter(|blob| !missing.contains(blob)) {
        store.write(&read(&run.stores, blob)).unwrap();
    }
    ToyLearner::new(store, ToyBackend::default(), Treatment::Honest)
}

fn blobs(group: &GroupState) -> impl Iterator<Item = BlobId> {
    std::iter::once(group.shard).chain(group.momentum)
}

fn advanced(run: &Run, missing: &[BlobId]) -> Vec<BlobId> {
    let job = Job::Advance(AdvanceJob {
        cycle: Cycle(2),
        task: run.task,
        from: run.from,
        to: run.to.0,
    });
    match miner(run, missing).run(&job, &Default::default) {
        Outcome::Advanced(advanced) if advanced.to == run.to.0 => {
            let absent = advanced.absent.len();
            assert_eq!(advanced.groups.len() + absent, run.to.1.groups.len());
            advanced.groups.iter().flat_map(blobs).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_recomputed_state_has_the_names_that_were_decided() {
    let run = run();
    let decided: Vec<BlobId> = run.to.1.blobs().collect();
    assert_eq!(advanced(&run, &[]), decided);
}

/// What should not happen: that a group whose update is not here keeps the other from being computed.
#[test]
fn a_group_whose_update_is_missing_is_left_to_be_fetched() {
    let run = run();
    let merged = &run.to.1.merged;
    let lost = merged
        .iter()
        .find(|merged| merged.group == GroupId(0))
        .unwrap();
    let kept = &run.to.1.groups[1];
    let expected: Vec<BlobId> = blobs(kept).collect();
    assert_eq!(advanced(&run, &[lost.update]), expected);
}

/// The state before is given without its momentum: nothing that comes out has a decided name.
#[test]
fn a_step_from_another_state_writes_nothing_that_was_decided() {
    let mut run = run();
    let mut other =
        StateManifest::from_bytes(&read(&run.stores, run.from.manifest_blob())).unwrap();
    other
        .groups
        .iter_mut()
        .for_each(|group| group.momentum = None);
    run.stores[0].write(&other.to_bytes()).unwrap();
    run.from = other.id();
    assert_eq!(advanced(&run, &[]), []);
}
