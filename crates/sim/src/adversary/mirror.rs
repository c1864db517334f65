//! Several hotkeys of one person, one trained update, each time in other numbers that compute the same
//!
//!
//! A real expert is the same function with its neurons in another order, or with one of its matrices
//! multiplied by what the next one is divided by. A toy expert has no neurons, but the toy's loss sees of
//! a group's tables no more than their sum and the sum of their squares, place by place. It therefore does
//! not change when the tables trade places (the order of neurons), nor when they are reflected in any
//! plane that holds the sum (a family with as many members as one likes, as the factors of a rescaling
//! are). Knows no rule that finds it: by its numbers such an update is another one.

use connito_learning::shard::Shard;
use connito_protocol::ids::{BlobId, StateId};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::manifest::{Document, StateManifest};

use super::{Policy, Scene};
use crate::random::Random;

/// How one function is written in other numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disguise {
    /// The tables trade places.
    Permuted,
    /// The tables are reflected in a plane drawn at random.
    Rescaled,
}

impl Disguise {
    fn put_on(self, tables: &mut Shard, random: &mut Random) {
        match self {
            Self::Permuted => permute(tables),
            Self::Rescaled => {
                let normal: Vec<f64> = tables.0.keys().map(|_| random.normal()).collect();
                reflect(tables, &normal);
            }
        }
    }
}

/// Every table takes the place of the one before.
fn permute(tables: &mut Shard) {
    let taken = tables.0.values_mut();
    let mut values: Vec<Vec<f32>> = taken
        .map(|tensor| std::mem::take(&mut tensor.values))
        .collect();
    if !values.is_empty() {
        values.rotate_left(1);
    }
    let places = tables.0.values_mut().zip(values);
    places.for_each(|(tensor, values)| tensor.values = values);
}

/// Reflects the tables, at every place of theirs alike, in the plane that stands upright on the part of
/// `normal` that sums to zero.
fn reflect(tables: &mut Shard, normal: &[f64]) {
    let mean = normal.iter().sum::<f64>() / normal.len().max(1) as f64;
    let normal: Vec<f64> = normal.iter().map(|part| part - mean).collect();
    let square: f64 = normal.iter().map(|part| part * part).sum();
    if square <= 0.0 {
        return;
    }
    let places = tables.0.values().map(|tensor| tensor.values.len()).min();
    for place in 0..places.unwrap_or(0) {
        let numbers = tables
            .0
            .values()
            .map(|tensor| f64::from(tensor.values[place]));
        let product: f64 = numbers
            .zip(&normal)
            .map(|(number, part)| number * part)
            .sum();
        for (tensor, part) in tables.0.values_mut().zip(&normal) {
            #[expect(clippy::cast_possible_truncation, reason = "updates are f32")]
            let change = (2.0 * product / square * part) as f32;
            tensor.values[place] -= change;
        }
    }
}

/// The first of a crew submits what it trained, all others the same function in other numbers.
#[derive(Debug)]
pub(crate) struct Mirror {
    disguise: Disguise,
    base: Option<StateId>,
}

impl Mirror {
    pub(crate) fn new(disguise: Disguise) -> Self {
        Self {
            disguise,
            base: None,
        }
    }

    fn disguised(&self, update: BlobId, scene: &mut Scene<'_>) -> Option<BlobId> {
        let group = scene.group();
        let manifest = scene.workshop.bytes(self.base?.manifest_blob())?;
        let manifest = StateManifest::from_bytes(&manifest).ok()?;
        let base = scene.workshop.read(group, manifest.shard(group)?)?;
        let mut after = base.plus(&scene.workshop.read(group, update)?);
        self.disguise.put_on(&mut after, scene.random);
        scene.workshop.write(group, &after.difference(&base))
    }
}

impl Policy for Mirror {
    fn job(&mut self, job: Job, scene: &mut Scene<'_>) -> Job {
        scene.crew.note_job(&job);
        if let Job::Train(job) = &job {
            self.base = Some(job.state);
        }
        job
    }

    fn outcome(&mut self, mut outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Trained(trained) = &mut outcome {
            match scene.crew.trained {
                Some(update) => {
                    let disguised = self.disguised(update, scene);
                    (trained.update, trained.steps) = (disguised.unwrap_or(update), 0);
                }
                None => scene.crew.trained = Some(trained.update),
            }
        }
        outcome
    }
}
