//! Miners that submit other people's work: a rival's update of the cycle before, treated or not, or the
//! network's own momentum. Only who copies some experts trains, the others.

use connito_learning::shard::Shard;
use connito_protocol::announcement::Announcement;
use connito_protocol::ids::{BlobId, Cycle, StateId};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::manifest::{Document, StateManifest};
use connito_protocol::schedule::Window;

use super::{Policy, Scene};

/// What is done to a stolen update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Nothing.
    None,
    /// A tenth of noise is added, and the sum scaled and turned around.
    Noise,
    /// Every fourth value has its sign turned around.
    Flip,
    /// Every other tensor is its own.
    Part,
    /// Two of them are averaged.
    Blend,
}

/// Submits what rivals of its group revealed the cycle before.
#[derive(Debug)]
pub(crate) struct Echo {
    treatment: Treatment,
    loot: (Cycle, Vec<BlobId>),
}

/// Noise in a treated copy, in multiples of the update's mean absolute value.
const NOISE: f32 = 0.1;

/// One in so many values of a copy has its sign turned around.
const FLIPPED: usize = 4;

impl Echo {
    pub(crate) fn new(treatment: Treatment) -> Self {
        Self {
            treatment,
            loot: (Cycle(0), Vec::new()),
        }
    }

    /// What it submits instead of `own`, what it trained or could have trained.
    fn steal(&self, own: BlobId, scene: &mut Scene<'_>) -> Option<BlobId> {
        let (group, loot) = (scene.group(), &self.loot.1);
        let pick = |scene: &mut Scene<'_>| loot.get(scene.random.place(loot.len())).copied();
        let first = pick(scene)?;
        match self.treatment {
            Treatment::None => Some(first),
            Treatment::Noise => {
                let mut update = scene.workshop.read(group, first)?;
                add_noise(&mut update, NOISE, scene);
                scale(&mut update, -0.5);
                scene.workshop.write(scene.group(), &update)
            }
            Treatment::Flip => {
                let mut update = scene.workshop.read(group, first)?;
                let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
                values.step_by(FLIPPED).for_each(|value| *value = -*value);
                scene.workshop.write(group, &update)
            }
            Treatment::Part => {
                let mut update = scene.workshop.read(group, own)?;
                let copied = scene.workshop.read(group, first)?;
                update.0.extend(copied.0.into_iter().step_by(2));
                scene.workshop.write(group, &update)
            }
            Treatment::Blend => {
                let second = pick(scene)?;
                let mut sum = scene.workshop.read(group, first)?;
                scale(&mut sum, 0.5);
                let mut other = scene.workshop.read(group, second)?;
                scale(&mut other, 0.5);
                scene.workshop.write(group, &sum.plus(&other))
            }
        }
    }
}

impl Policy for Echo {
    fn outcome(&mut self, mut outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        let Outcome::Trained(trained) = &mut outcome else {
            return outcome;
        };
        let stolen = self.steal(trained.update, scene);
        if self.treatment == Treatment::Part {
            // It really trained, and has its own update to fall back on.
            trained.update = stolen.unwrap_or(trained.update);
            return outcome;
        }
        untrained(outcome, stolen, scene)
    }

    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<connito_protocol::event::Effect> {
        let (Some(now), Some(moment)) = (scene.now, scene.moment()) else {
            return Vec::new();
        };
        if (moment.window, moment.closes_window) == (Window::Reveal, true) {
            let own = scene.group();
            let revealed = now
                .announcements()
                .filter_map(|(hotkey, _, said)| match said {
                    Announcement::Revealed {
                        cycle,
                        group,
                        update,
                        ..
                    } if (cycle, group) == (moment.cycle, own) && hotkey != scene.me => {
                        Some(update)
                    }
                    _ => None,
                });
            self.loot = (moment.cycle, revealed.collect());
        }
        Vec::new()
    }
}

/// Submits the momentum of its group, as long as updates usually are.
#[derive(Debug, Default)]
pub(crate) struct MomentumRider {
    base: Option<StateId>,
}

impl MomentumRider {
    fn momentum(&self, scene: &mut Scene<'_>) -> Option<BlobId> {
        let manifest = scene.workshop.bytes(self.base?.manifest_blob())?;
        let manifest = StateManifest::from_bytes(&manifest).ok()?;
        let group = scene.group();
        let state = manifest.groups.iter().find(|state| state.group == group)?;
        let mut update = scene.workshop.read(group, state.momentum?)?;
        #[expect(clippy::cast_possible_truncation, reason = "updates are f32")]
        let factor = (state.reference_norm? / update.norm().max(f64::MIN_POSITIVE)) as f32;
        scale(&mut update, factor);
        scene.workshop.write(scene.group(), &update)
    }
}

impl Policy for MomentumRider {
    fn job(&mut self, job: Job, _scene: &mut Scene<'_>) -> Job {
        if let Job::Train(job) = &job {
            self.base = Some(job.state);
        }
        job
    }

    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        let momentum = self.momentum(scene);
        untrained(outcome, momentum, scene)
    }
}

/// What came of training, by somebody who never trained: other work in its place, or where there is
/// none to take, a thousandth of noise.
pub(super) fn untrained(
    mut outcome: Outcome,
    instead: Option<BlobId>,
    scene: &mut Scene<'_>,
) -> Outcome {
    if let Outcome::Trained(trained) = &mut outcome {
        let update = instead.or_else(|| noise(trained.update, 1e-3, scene));
        (trained.update, trained.steps) = (update.unwrap_or(trained.update), 0);
    }
    outcome
}

/// Noise alone, of this size in multiples of an update's values.
pub(super) fn noise(update: BlobId, size: f32, scene: &mut Scene<'_>) -> Option<BlobId> {
    let update = scene.workshop.read(scene.group(), update)?;
    let mut noisy = update.clone();
    add_noise(&mut noisy, size, scene);
    let noise = noisy.difference(&update);
    scene.workshop.write(scene.group(), &noise)
}

/// Multiplies every value.
pub(super) fn scale(update: &mut Shard, factor: f32) {
    let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value *= factor);
}

/// Adds noise of this size, in multiples of the mean absolute value.
pub(super) fn add_noise(update: &mut Shard, size: f32, scene: &mut Scene<'_>) {
    let values = || update.0.values().flat_map(|tensor| &tensor.values);
    let sum: f32 = values().map(|value| value.abs()).sum();
    let mean = sum / values().count().max(1) as f32;
    for value in update.0.values_mut().flat_map(|tensor| &mut tensor.values) {
        #[expect(clippy::cast_possible_truncation, reason = "updates are f32")]
        let noise = scene.random.normal() as f32;
        *value += noise * mean * size;
    }
}
