//! Updates in disguise, on real neurons: another order, other factors, other places, and momentum.

use std::collections::BTreeMap;
use std::sync::Arc;

use connito_engine::parse_expert_name;
use connito_learning::learner::Conduct;
use connito_learning::shard::Shard;
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::task::{read_state, split};
use connito_learning::{update, wire};
use connito_protocol::ids::{BlobId, Cycle, Hotkey, StateId};
use connito_protocol::job::{Finding, Original};
use connito_protocol::manifest::{Document, StateManifest};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::{Codec, Rules};

use super::{base_of, merge, model, score, task, task_under, train};

/// The same function under other numbers: every neuron takes the place of the one before.
fn permuted(base: &Shard, update: &Shard) -> Shard {
    let mut after = base.plus(update);
    for (name, tensor) in &mut after.0 {
        let width = tensor.shape[1];
        if name.contains("down_proj") {
            let rows = tensor.values.chunks_mut(width);
            rows.for_each(|row| row.rotate_left(1));
        } else {
            tensor.values.rotate_left(width);
        }
    }
    after.difference(base)
}

/// The same function under other numbers: what is projected up is a tenth larger, and what is projected
/// down as much smaller.
fn rescaled(base: &Shard, update: &Shard) -> Shard {
    let mut after = base.plus(update);
    for (name, tensor) in &mut after.0 {
        let factor = match name {
            name if name.contains("up_proj") => 1.1,
            name if name.contains("down_proj") => 1.0 / 1.1,
            _ => 1.0,
        };
        tensor.values.iter_mut().for_each(|value| *value *= factor);
    }
    after.difference(base)
}

/// Other functions under the same numbers: every expert takes the place of the one before.
fn swapped(base: &Shard, update: &Shard) -> Shard {
    let mut after = base.plus(update);
    let place = |name: &str| {
        let (layer, expert) = parse_expert_name(name).expect("only experts");
        let part = name.split('.').rev().nth(1).expect("a projection");
        ((layer, part.to_owned()), expert)
    };
    let mut rows: BTreeMap<(usize, String), BTreeMap<usize, String>> = BTreeMap::new();
    for name in after.0.keys() {
        let (row, expert) = place(name);
        rows.entry(row).or_default().insert(expert, name.clone());
    }
    for names in rows.values() {
        let names: Vec<&String> = names.values().collect();
        let mut tensors: Vec<_> = names.iter().map(|name| after.0[*name].clone()).collect();
        tensors.rotate_left(1);
        for (name, tensor) in names.into_iter().zip(tensors) {
            after.0.insert(name.clone(), tensor);
        }
    }
    after.difference(base)
}

/// An honest update, and what it is in other numbers or other places.
struct Disguised {
    store: Arc<MemoryStore>,
    task: BlobId,
    first: StateId,
    honest: (BlobId, Shard),
    base: Shard,
}

impl Disguised {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let (task, manifest) = task_under(&store, |rules| rules.scoring.norm_bound = 1.0);
        let first = base_of(&manifest);
        let blob = train(&store, (task, first), Conduct::Honest);
        let base = split(&model(), &manifest.groups[0]);
        let bytes = store.read(blob).expect("written");
        let update = update::read(&bytes, &base.layout()).expect("an honest update");
        Self {
            store,
            task,
            first,
            honest: (blob, update),
            base,
        }
    }

    fn sent(&self, disguise: fn(&Shard, &Shard) -> Shard) -> (BlobId, Shard) {
        let update = disguise(&self.base, &self.honest.1);
        let bytes = wire::encode(&update, Codec::F32);
        (self.store.write(&bytes).expect("memory"), update)
    }

    fn score(&self, state: StateId, updates: &[BlobId]) -> Vec<Finding> {
        score(&self.store, (self.task, state), updates)
    }

    /// The same state in a group whose updates have been as long as the honest one.
    fn with_reference_norm(&self) -> StateId {
        let mut state = read_state(self.first, &self.store).expect("just written");
        state.groups[0].reference_norm = Some(self.honest.1.norm());
        self.store.write(&state.to_bytes()).expect("memory");
        state.id()
    }
}

/// What should happen: neurons in another order, and factors that cancel out, leave every loss as it is; such
/// a copy is too long where the norm of a group's updates is known, and found by its effect where it is not
/// . What should not: that its numbers tell, which are those of another update.
#[test]
fn the_same_function_in_other_numbers_is_too_long_or_found_by_its_effect() {
    let network = Disguised::new();
    let (honest, update) = &network.honest;
    let alone = |blob| match network.score(network.first, &[blob])[0] {
        Finding::Measured { loss_after, .. } => loss_after,
        ref other => panic!("{other:?}"),
    };
    for disguise in [permuted, rescaled] {
        let (copy, numbers) = network.sent(disguise);
        let apart = (alone(*honest) - alone(copy)).abs();
        assert!(
            apart < 1e-5,
            "{apart} nats between two forms of one function"
        );
        let cosine = update.product(&numbers) / update.norm() / numbers.norm();
        let bound = Rules::default().scoring.duplicate_cosine;
        assert!(cosine.abs() < bound, "its numbers tell: {cosine}");
        let of = Original::Update {
            hotkey: Hotkey([0; 32]),
            update: *honest,
        };
        let findings = network.score(network.first, &[*honest, copy]);
        assert_eq!(findings[1], Finding::Copy { of });
        let findings = network.score(network.with_reference_norm(), &[*honest, copy]);
        assert!(
            matches!(findings[0], Finding::Measured { .. }),
            "{findings:?}"
        );
        let code = ReasonCode::NormExceeded;
        assert_eq!(findings[1], Finding::Refused { code });
    }
}

/// What should happen: experts that have traded places, while the router sends them the same tokens as
/// before, are another function, and are worth what that is worth. What should not: that it is taken
/// for a copy, or is paid like the training in it.
#[test]
fn experts_that_trade_places_are_measured_as_what_they_are() {
    let network = Disguised::new();
    let honest = network.honest.0;
    let findings = network.score(network.first, &[honest, network.sent(swapped).0]);
    let [honest, swapped] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    match (honest, swapped) {
        (
            Finding::Measured {
                measurement: honest,
                ..
            },
            Finding::Measured {
                measurement: swapped,
                ..
            },
        ) => {
            assert!(swapped.utility < 0.5 * honest.utility, "{findings:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// What should happen: a copy with permuted neurons, as long as one may be, is found by what it does to the
/// losses; momentum sent as an update is found without a measurement; both name their original.
#[test]
fn permuted_copies_and_momentum_riders_are_found() {
    let store = Arc::new(MemoryStore::default());
    let (task, manifest) = task(&store);
    let first = manifest.first_state.expect("the first task has one");
    let honest = train(&store, (task, first), Conduct::Honest);
    let base = split(&model(), &manifest.groups[0]);
    let read = |blob| update::read(&store.read(blob).expect("written"), &base.layout());
    let copy = permuted(&base, &read(honest).expect("an honest update"));
    let copy = store
        .write(&wire::encode(&copy, Codec::Bf16))
        .expect("memory");
    let findings = score(&store, (task, first), &[honest, copy]);
    assert!(matches!(findings[0], Finding::Measured { .. }));
    let of = Original::Update {
        hotkey: Hotkey([0; 32]),
        update: honest,
    };
    assert_eq!(findings[1], Finding::Copy { of });

    let merged = merge(&store, (task, first), honest);
    let momentum = merged.candidate[0].momentum.expect("a step was taken");
    let state = StateManifest {
        format: StateManifest::FORMAT,
        cycle: Cycle(1),
        parent: Some(first),
        archive: None,
        groups: merged.candidate,
        merged: Vec::new(),
        excluded: BTreeMap::new(),
    };
    let bytes = state.to_bytes();
    store.write(&bytes).expect("memory");
    let findings = score(&store, (task, state.id()), &[momentum]);
    let of = Original::Momentum;
    assert_eq!(findings, [Finding::Copy { of }]);
}
