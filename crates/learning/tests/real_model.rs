//! The learner on the real engine: taking a model apart, training one group, scoring, merging, and
//! putting the result together again.

use std::collections::BTreeMap;
use std::sync::Arc;

use connito_engine::data::documents::TokenDocuments;
use connito_engine::routing::ExpertMap;
use connito_engine::{Model, ModelConfig, parse_expert_name};
use connito_learning::learner::{Conduct, Learner};
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::task::{DomainText, TaskPlan, join, publish, read_state, read_task, split};
use connito_learning::{EngineBackend, StateLearner, wire};
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Hotkey, Netuid, Seed, StateId};
use connito_protocol::job::{
    Candidate, Finding, Job, MergeJob, Merged, Original, Outcome, ScoreJob, TrainJob, Weighted,
};
use connito_protocol::manifest::{StateManifest, TaskManifest};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::{Codec, Rules, SelectionTop, TrainingRouting};

#[path = "real_model/disguises.rs"]
mod disguises;

/// Documents of one pool: short runs of neighbouring tokens, which a model learns in a few steps.
fn documents(from: u32) -> TokenDocuments {
    let sequence = |start: u32| {
        (0..12)
            .map(|step| (start + step) % 64)
            .collect::<Vec<u32>>()
    };
    TokenDocuments::from_sequences((from..from + 24).map(sequence)).expect("long enough")
}

fn model() -> Model {
    let config = ModelConfig {
        num_hidden_layers: 2,
        ..ModelConfig::tiny(64)
    };
    Model::random(&config, 7)
}

fn task(store: &MemoryStore) -> (BlobId, TaskManifest) {
    task_under(store, |_| {})
}

fn task_under(store: &MemoryStore, change: impl FnOnce(&mut Rules)) -> (BlobId, TaskManifest) {
    let mut rules = Rules::default();
    rules.inner.steps = 12;
    rules.inner.learning_rate = 5e-3;
    change(&mut rules);
    let domain = |name: &str, group: u16| DomainText {
        name: name.to_owned(),
        group: GroupId(group),
        training: documents(u32::from(group) * 30),
        scoring: documents(u32::from(group) * 30 + 7),
        gate: documents(u32::from(group) * 30 + 13),
    };
    let plan = TaskPlan {
        name: "test".to_owned(),
        netuid: Netuid(1),
        starts: Block(1),
        rules,
        model: &model(),
        tokenizer: b"{}",
        groups: 2,
        tickets: None,
        domains: vec![domain("first", 0), domain("second", 1)],
    };
    let id = publish(&plan, store).expect("a sound plan");
    let manifest = read_task(id, store).expect("just written");
    (id, manifest)
}

fn base_of(manifest: &TaskManifest) -> StateId {
    manifest.first_state.expect("a first task has one")
}

fn learner(
    store: &Arc<MemoryStore>,
    conduct: Conduct,
) -> StateLearner<Arc<MemoryStore>, EngineBackend> {
    StateLearner::new(store.clone(), EngineBackend::new(1), conduct)
}

fn train(store: &Arc<MemoryStore>, (task, state): (BlobId, StateId), conduct: Conduct) -> BlobId {
    let job = Job::Train(TrainJob {
        cycle: Cycle(0),
        task,
        state,
        group: GroupId(0),
        seed: Seed([1; 32]),
        stop_at: Block(9),
        residual: None,
    });
    match learner(store, conduct).run(&job, &|| Block(1)) {
        Outcome::Trained(trained) => {
            assert_eq!(trained.steps, 12);
            trained.update
        }
        other => panic!("{other:?}"),
    }
}

fn score(
    store: &Arc<MemoryStore>,
    (task, state): (BlobId, StateId),
    updates: &[BlobId],
) -> Vec<Finding> {
    let candidate = |(number, update): (u8, &BlobId)| Candidate {
        hotkey: Hotkey([number; 32]),
        group: GroupId(0),
        update: *update,
    };
    let job = Job::Score(ScoreJob {
        cycle: Cycle(0),
        task,
        state,
        seed: Seed([2; 32]),
        updates: (0..).zip(updates).map(candidate).collect(),
        remembered: Vec::new(),
        stop_at: Block(9),
    });
    match learner(store, Conduct::Honest).run(&job, &|| Block(1)) {
        Outcome::Scored { findings, .. } => findings,
        other => panic!("{other:?}"),
    }
}

fn merge(store: &Arc<MemoryStore>, (task, state): (BlobId, StateId), update: BlobId) -> Merged {
    let job = Job::Merge(MergeJob {
        cycle: Cycle(0),
        task,
        state,
        seed: Seed([3; 32]),
        accepted: vec![Weighted {
            group: GroupId(0),
            update,
            weight: 0.5,
        }],
    });
    match learner(store, Conduct::Honest).run(&job, &|| Block(1)) {
        Outcome::Merged(merged) => merged,
        other => panic!("{other:?}"),
    }
}

#[test]
fn joining_after_splitting_gives_the_same_model_bit_for_bit() {
    let store = MemoryStore::default();
    let (_, manifest) = task(&store);
    let state = read_state(base_of(&manifest), &store).expect("just written");
    let joined = join(&manifest, &state, &store).expect("all parts are here");
    let original = model();
    assert!(joined.names().eq(original.names()));
    for name in original.names() {
        assert_eq!(joined.tensor(name), original.tensor(name), "{name}");
    }
}

/// The experts that an update lists, by layer.
fn listed(store: &MemoryStore, update: BlobId) -> ExpertMap {
    let bytes = store.read(update).expect("just written");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut experts = ExpertMap::new();
    for name in file.names() {
        let (layer, expert) = parse_expert_name(name).expect("only experts are sent");
        experts.entry(layer).or_default().push(expert);
    }
    for listed in experts.values_mut() {
        listed.sort_unstable();
        listed.dedup();
    }
    experts
}

/// What should happen: under every routing, the best expert of each layer is trained and sent. What should
/// not: that another one is sent, or that the choice depends on a group that it is not made from.
#[test]
fn only_the_selected_experts_are_trained_and_sent() {
    for routing in [
        TrainingRouting::Classic,
        TrainingRouting::Masked,
        TrainingRouting::FrozenKept,
        TrainingRouting::Fallback,
    ] {
        let store = Arc::new(MemoryStore::default());
        let (task, manifest) = task_under(&store, |rules| {
            rules.inner.routing = routing;
            rules.inner.kept = 2;
            rules.selection.top = SelectionTop::K(1);
        });
        let update = train(&store, (task, base_of(&manifest)), Conduct::Honest);
        let experts = listed(&store, update);
        let own = &manifest.groups[0];
        assert!(
            experts
                .keys()
                .copied()
                .eq(own.layer_indices.iter().copied()),
            "{routing:?}: {experts:?}"
        );
        for (layer, listed) in &experts {
            assert_eq!(listed.len(), 1, "{routing:?}, layer {layer}: {listed:?}");
            assert!(own.expert_indices.contains(&listed[0]), "{routing:?}");
        }
        let findings = score(&store, (task, base_of(&manifest)), &[update]);
        assert!(
            matches!(findings[0], Finding::Measured { .. }),
            "{routing:?}: {findings:?}"
        );
    }
}

/// Ten experts of a group of four cannot be trained; better said before a task begins.
#[test]
fn a_task_that_selects_more_experts_than_a_group_has_is_refused() {
    let store = MemoryStore::default();
    let (_, mut manifest) = task(&store);
    let size = manifest.groups[0].expert_indices.len();
    manifest.rules.selection.top = SelectionTop::K(size as u32);
    manifest.check().expect("all of them");
    manifest.rules.selection.top = SelectionTop::K(size as u32 + 1);
    let refused = manifest.check().expect_err("one more than there are");
    assert_eq!(
        refused.to_string(),
        format!(
            "rule selection.top takes {} experts, group 0 has {size}",
            size + 1
        )
    );
}

/// What should happen: the selected experts of the trained group move, the loss falls, the gate passes.
/// What should not: that any other tensor changes a single bit.
#[test]
fn an_honest_update_is_worth_something_and_moves_only_its_own_group() {
    let store = Arc::new(MemoryStore::default());
    let (task, manifest) = task(&store);
    let at = (task, base_of(&manifest));
    let update = train(&store, at, Conduct::Honest);
    let findings = score(&store, at, &[update]);
    let Finding::Measured {
        measurement,
        loss_before,
        loss_after,
    } = findings[0]
    else {
        panic!("{findings:?}");
    };
    assert!(
        measurement.utility > measurement.standard_error,
        "{measurement:?}"
    );
    assert!(loss_after < loss_before);

    let merged = merge(&store, at, update);
    assert!(merged.passes(), "{merged:?}");
    let state = StateManifest {
        format: StateManifest::FORMAT,
        cycle: Cycle(1),
        parent: Some(base_of(&manifest)),
        archive: None,
        groups: merged.candidate,
        merged: Vec::new(),
        excluded: BTreeMap::new(),
    };
    let after = join(&manifest, &state, &store).expect("all parts are here");
    let selected = listed(&store, update);
    let before = model();
    for name in before.names() {
        let trained = parse_expert_name(name)
            .is_some_and(|(layer, expert)| selected[&layer].contains(&expert));
        let changed = after.tensor(name) != before.tensor(name);
        assert_eq!(changed, trained, "{name}");
    }
}

#[test]
fn merging_the_same_updates_twice_gives_the_same_bytes() {
    let store = Arc::new(MemoryStore::default());
    let (task, manifest) = task(&store);
    let at = (task, base_of(&manifest));
    let update = train(&store, at, Conduct::Honest);
    assert_eq!(
        update,
        train(&store, at, Conduct::Honest),
        "training is a function of its seed"
    );
    assert_eq!(merge(&store, at, update), merge(&store, at, update));
}

/// A damaging update is measured as such; a copy is refused without running the model; bytes of
/// another kind have their own reason, and none of it is charged to the validator.
#[test]
fn damage_copies_and_rubbish_are_told_apart() {
    let store = Arc::new(MemoryStore::default());
    let (task, manifest) = task(&store);
    let at = (task, base_of(&manifest));
    let honest = train(&store, at, Conduct::Honest);
    let rubbish = store.write(b"\x80\x04\x95pickle").expect("memory");
    let findings = score(&store, at, &[honest, honest, rubbish]);
    let refused = |code| Finding::Refused { code };
    let of = Original::Update {
        hotkey: Hotkey([0; 32]),
        update: honest,
    };
    assert_eq!(findings[1], Finding::Copy { of });
    assert_eq!(
        findings[2],
        refused(ReasonCode::TooLarge),
        "its length field is a huge number"
    );

    let damaging = train(&store, at, Conduct::Damaging);
    let findings = score(&store, at, &[damaging]);
    let Finding::Measured { measurement, .. } = findings[0] else {
        panic!("{findings:?}");
    };
    assert!(
        measurement.utility < -measurement.standard_error,
        "{measurement:?}"
    );
    let reversed = score(&store, at, &[honest, damaging]);
    assert_eq!(
        reversed[1],
        Finding::Copy { of },
        "a reversed copy is a copy (A-4)"
    );
}

/// What should happen: training, scoring and merging leave nothing behind that a later job could see,
/// also where updates of several groups take turns. What should not: that a result depends on who asked
/// for what before.
#[test]
fn a_job_has_the_same_outcome_on_a_fresh_learner_and_on_a_busy_one() {
    let store = Arc::new(MemoryStore::default());
    let (task, manifest) = task(&store);
    let state = base_of(&manifest);
    let train = |group, seed| {
        Job::Train(TrainJob {
            cycle: Cycle(0),
            task,
            state,
            group: GroupId(group),
            seed: Seed([seed; 32]),
            stop_at: Block(9),
            residual: None,
        })
    };
    let mut busy = learner(&store, Conduct::Honest);
    let mut candidates = Vec::new();
    for (number, group) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let outcome = busy.run(&train(group, number), &|| Block(1));
        let Outcome::Trained(trained) = &outcome else {
            panic!("{outcome:?}");
        };
        candidates.push(Candidate {
            hotkey: Hotkey([number; 32]),
            group: GroupId(group),
            update: trained.update,
        });
    }
    let accepted = candidates.iter().map(|candidate| Weighted {
        group: candidate.group,
        update: candidate.update,
        weight: 0.25,
    });
    let merge = Job::Merge(MergeJob {
        cycle: Cycle(0),
        task,
        state,
        seed: Seed([3; 32]),
        accepted: accepted.collect(),
    });
    let score = Job::Score(ScoreJob {
        cycle: Cycle(0),
        task,
        state,
        seed: Seed([2; 32]),
        updates: candidates,
        remembered: Vec::new(),
        stop_at: Block(9),
    });
    for job in [&score, &merge, &score, &train(1, 4), &merge] {
        let fresh = learner(&store, Conduct::Honest).run(job, &|| Block(1));
        assert!(!matches!(fresh, Outcome::Failed { .. }), "{fresh:?}");
        assert_eq!(busy.run(job, &|| Block(1)), fresh);
    }
}

/// What should happen: training goes on from the base plus what is owed, and the learner's next job sees
/// the base again. What should not: that what is owed is learnt a second time.
#[test]
fn training_starts_where_all_that_was_learnt_would_have_led() {
    let store = Arc::new(MemoryStore::default());
    let (task, manifest) = task_under(&store, |rules| {
        rules.inner = rules.inner.with_codec(Codec::Sparse);
    });
    let mut learner = learner(&store, Conduct::Honest);
    let mut train = |residual| {
        let job = Job::Train(TrainJob {
            cycle: Cycle(0),
            task,
            state: manifest.first_state.expect("the first task has one"),
            group: GroupId(0),
            seed: Seed([1; 32]),
            stop_at: Block(9),
            residual,
        });
        match learner.run(&job, &|| Block(1)) {
            Outcome::Trained(trained) => trained,
            other => panic!("{other:?}"),
        }
    };
    let first = train(None);
    let second = train(first.residual);
    assert!(second.loss_first < first.loss_first, "the same sequences");
    assert_eq!(train(None), first, "nothing of it is left behind");
}

/// A window that closes before the first step leaves no update, and blames nobody.
#[test]
fn a_job_whose_window_has_closed_fails_without_a_result() {
    let store = Arc::new(MemoryStore::default());
    let (task, manifest) = task(&store);
    let job = Job::Train(TrainJob {
        cycle: Cycle(0),
        task,
        state: base_of(&manifest),
        group: GroupId(0),
        seed: Seed([1; 32]),
        stop_at: Block(5),
        residual: None,
    });
    let outcome = learner(&store, Conduct::Honest).run(&job, &|| Block(5));
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
}

/// A value that nobody could read back must not become canonical, even where no gate text passes
/// through it.
#[test]
fn a_candidate_that_could_not_be_read_back_does_not_pass_the_gate() {
    let store = Arc::new(MemoryStore::default());
    let (task, manifest) = task(&store);
    let mut huge = split(&model(), &manifest.groups[0]);
    huge.0
        .values_mut()
        .for_each(|tensor| tensor.values.fill(0.0));
    let first = huge.0.values_mut().next().expect("a group has tensors");
    first.values[0] = f32::MAX;
    let update = store
        .write(&wire::encode(&huge, Codec::F32))
        .expect("memory");
    let merged = merge(&store, (task, base_of(&manifest)), update);
    assert!(!merged.passes(), "{merged:?}");
}
