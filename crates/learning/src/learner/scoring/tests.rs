//! A score job over the toy model, in a store that says what was read.

use std::sync::{Arc, Mutex};

use connito_protocol::ids::{Cycle, Hotkey};
use connito_protocol::job::Job;
use connito_protocol::manifest::Document;
use connito_protocol::partition::ExpertMapping;
use connito_protocol::rules::Rules;

use super::*;
use crate::backend::{BackendError, FixedParts, TrainedShard, TrainingPlan, Visited};
use crate::learner::{Conduct, Learner};
use crate::selection::{Score, Scores};
use crate::shard::Layout;
use crate::store::{Blob, BlobSink, MemoryStore, StoreError};
use crate::toy::ToyBackend;
use crate::toy::task::ToyTask;

/// A parameter above this makes every loss infinite.
const OVERFLOWING: f32 = 100.0;

/// The toy, but for a loss that can overflow as a real model's can.
#[derive(Debug, Default)]
struct Overflowing {
    toy: ToyBackend,
    overflows: bool,
}

impl Backend for Overflowing {
    fn open(&mut self, parts: &FixedParts<'_>) -> Result<(), BackendError> {
        self.toy.open(parts)
    }

    fn layout(&self, mapping: &ExpertMapping) -> Result<Layout, BackendError> {
        self.toy.layout(mapping)
    }

    fn experts(
        &self,
        mapping: &ExpertMapping,
    ) -> Result<connito_engine::routing::ExpertMap, BackendError> {
        self.toy.experts(mapping)
    }

    fn install(&mut self, shard: &Shard) -> Result<(), BackendError> {
        let mut values = shard.0.values().flat_map(|tensor| &tensor.values);
        self.overflows = values.any(|value| *value > OVERFLOWING);
        self.toy.install(shard)
    }

    fn read_documents(
        &self,
        bytes: &[u8],
    ) -> Result<connito_engine::data::documents::TokenDocuments, BackendError> {
        self.toy.read_documents(bytes)
    }

    fn losses(&mut self, sequences: &[&[u32]]) -> Result<Vec<SequenceLoss>, BackendError> {
        let mut losses = self.toy.losses(sequences)?;
        if self.overflows {
            losses.iter_mut().for_each(|loss| loss.sum = f64::INFINITY);
        }
        Ok(losses)
    }

    fn scores(
        &mut self,
        sequences: &[&[u32]],
        visited: Visited<'_>,
        score: Score,
    ) -> Result<Scores, BackendError> {
        self.toy.scores(sequences, visited, score)
    }

    fn train(
        &mut self,
        plan: &TrainingPlan<'_>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<TrainedShard, BackendError> {
        self.toy.train(plan, go_on)
    }
}

/// A store that remembers of which blobs the bytes were asked for.
#[derive(Default)]
struct Watched {
    store: MemoryStore,
    read: Mutex<Vec<BlobId>>,
}

impl Watched {
    fn was_read(&self, id: BlobId) -> bool {
        self.read.lock().unwrap().contains(&id)
    }
}

impl BlobStore for Watched {
    fn has(&self, id: BlobId) -> bool {
        self.store.has(id)
    }

    fn len(&self, id: BlobId) -> Result<u64, StoreError> {
        self.store.len(id)
    }

    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        self.read.lock().unwrap().push(id);
        self.store.read(id)
    }

    fn open(&self, id: BlobId) -> Result<Blob, StoreError> {
        self.read.lock().unwrap().push(id);
        self.store.open(id)
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        self.store.write(bytes)
    }

    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError> {
        self.store.create()
    }
}

/// A published task of two groups, and what is sent for its first.
struct Scene {
    store: Arc<Watched>,
    task: BlobId,
    state: StateId,
    layout: Layout,
}

impl Scene {
    fn new() -> Self {
        let store = Arc::new(Watched::default());
        let task = ToyTask {
            starts: Block(1),
            groups: 2,
            documents: 20,
            rules: Rules::for_fast_blocks(),
        };
        let task = task.publish(&store).unwrap();
        let bytes = store.read(task).unwrap();
        let manifest = connito_protocol::manifest::TaskManifest::from_bytes(&bytes).unwrap();
        let layout = ToyBackend::default().layout(&manifest.groups[0]).unwrap();
        Self {
            store,
            task,
            state: manifest.first_state.unwrap(),
            layout,
        }
    }

    /// An update whose values are all the same.
    fn update(&self, value: f32) -> BlobId {
        let mut update = Shard::zeros(&self.layout);
        let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
        values.for_each(|slot| *slot = value);
        self.store
            .write(&wire::encode(&update, Codec::F32))
            .unwrap()
    }

    /// What a validator says of updates that were sealed in this order.
    fn findings(&self, updates: &[BlobId]) -> Vec<Finding> {
        let candidate = |(number, update): (u8, &BlobId)| Candidate {
            hotkey: Hotkey([number; 32]),
            group: GroupId(0),
            update: *update,
        };
        let job = Job::Score(ScoreJob {
            cycle: Cycle(0),
            task: self.task,
            state: self.state,
            seed: Seed([2; 32]),
            updates: (1..).zip(updates).map(candidate).collect(),
            remembered: Vec::new(),
            stop_at: Block(9),
        });
        let backend = Overflowing::default();
        let mut learner = StateLearner::new(Arc::clone(&self.store), backend, Conduct::Honest);
        match learner.run(&job, &|| Block(1)) {
            Outcome::Scored { findings, .. } => findings,
            other => panic!("{other:?}"),
        }
    }
}

/// What should not happen: that naming something that everybody holds makes a validator read all of it.
#[test]
fn a_blob_longer_than_every_shard_is_refused_by_its_length_and_not_read() {
    let scene = Scene::new();
    let longest = wire::encoded_bytes(&scene.layout, Codec::F32) as usize;
    let (above, at_most) = (vec![1; longest + 1], vec![1; longest]);
    let [above, at_most] = [above, at_most].map(|bytes| scene.store.write(&bytes).unwrap());
    let findings = scene.findings(&[above, at_most, scene.update(0.5)]);
    let code = ReasonCode::TooLarge;
    assert_eq!(findings[0], Finding::Refused { code });
    assert!(!scene.store.was_read(above));
    assert!(scene.store.was_read(at_most));
    assert!(
        matches!(findings[2], Finding::Measured { .. }),
        "{findings:?}"
    );
}

/// What should not happen: that somebody seals an update without any use first, so that what resembles it
/// counts as its copy.
#[test]
fn an_update_without_finite_losses_is_no_original() {
    let scene = Scene::new();
    let findings = scene.findings(&[scene.update(2.0 * OVERFLOWING), scene.update(0.5)]);
    let code = ReasonCode::NonFiniteLoss;
    assert_eq!(findings[0], Finding::Refused { code });
    assert!(
        matches!(findings[1], Finding::Measured { .. }),
        "{findings:?}"
    );
}
