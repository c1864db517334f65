//! The tensor work of the whole network, done once: equal jobs have equal outcomes.
//!
//! A job names its inputs by hash, so what one validator computed is what every other would compute
//! from the same job; it is kept for a cycle and handed to whoever asks. What differs between machines
//! is added afterwards: how many calls of the clock a job survives before its window closes, and the
//! noise of a validator's kind of processor. Blobs lie in one store; who *has* which is the nodes'
//! affair.

use std::cell::Cell;
use std::sync::Arc;

use connito_learning::backend::{Backend, FixedParts};
use connito_learning::learner::Learner;
use connito_learning::shard::{Layout, Shard};
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::toy::{ToyBackend, ToyLearner};
use connito_learning::{Conduct, update, wire};
use connito_protocol::ids::{BlobId, Block, GroupId};
use connito_protocol::job::{Finding, Job, Merged, Outcome};
use connito_protocol::manifest::TaskManifest;
use connito_protocol::rules::Codec;

use crate::curve::{self, CurveLearner};
use crate::random::Random;

/// Outcomes kept for others with the same job: those of a cycle's scorings and merges, and a few that
/// differ because somebody lacked an update.
const KEPT_OUTCOMES: usize = 64;

/// A learner for everybody.
pub(crate) struct Workshop {
    learner: Box<dyn Learner>,
    store: Arc<MemoryStore>,
    craft: Craft,
    kept: Vec<Kept>,
    noise_nats: f64,
}

/// How updates are written.
enum Craft {
    /// As tensor files, each group in its layout.
    Tensors(Vec<Layout>, Codec),
    /// As points.
    Points,
}

struct Kept {
    job: Job,
    calls_allowed: u64,
    done: Done,
}

/// A finished job.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// How often it looked at the clock: once a step, once an update.
    pub(crate) calls: u64,
}

/// On which kind of machine, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench {
    /// The kind of processor; kind 0 is the reference.
    pub(crate) class: u32,
    /// Looks at the clock before the job's window closes.
    pub(crate) calls_allowed: u64,
}

impl Workshop {
    /// The learner of the real roles over the toy model.
    pub(crate) fn toy(store: Arc<MemoryStore>, task: &TaskManifest, noise_nats: f64) -> Self {
        let mut backend = ToyBackend::default();
        let parts = FixedParts {
            config: &[],
            backbone: &[],
            sequence_length: 1,
        };
        let opened = backend.open(&parts);
        let layouts = task.groups.iter().map(|mapping| backend.layout(mapping));
        Self {
            learner: Box::new(ToyLearner::new(
                Arc::clone(&store),
                ToyBackend::default(),
                Conduct::Honest,
            )),
            store,
            craft: match opened {
                Ok(()) => Craft::Tensors(
                    layouts.map(Result::unwrap_or_default).collect(),
                    task.rules.inner.codec,
                ),
                Err(_) => Craft::Tensors(Vec::new(), task.rules.inner.codec),
            },
            kept: Vec::new(),
            noise_nats,
        }
    }

    /// The learner for thousands.
    pub(crate) fn curve(store: Arc<MemoryStore>, task: &TaskManifest, noise_nats: f64) -> Self {
        Self {
            learner: Box::new(CurveLearner::new(Arc::clone(&store), task)),
            store,
            craft: Craft::Points,
            kept: Vec::new(),
            noise_nats,
        }
    }

    /// Does a job.
    pub(crate) fn run(&mut self, job: &Job, bench: Bench) -> Done {
        let mut done = match self.recall(job, bench.calls_allowed) {
            Some(done) => done,
            None => self.work(job, bench.calls_allowed),
        };
        if bench.class > 0 {
            self.disturb(&mut done.outcome, job, bench.class);
        }
        done
    }

    fn recall(&self, job: &Job, calls_allowed: u64) -> Option<Done> {
        let same = |kept: &&Kept| {
            // With time to spare, it does not matter how much.
            let as_long = kept.calls_allowed == calls_allowed
                || kept.calls_allowed.min(calls_allowed) > kept.done.calls;
            as_long && kept.job == *job
        };
        self.kept
            .iter()
            .rev()
            .find(same)
            .map(|kept| kept.done.clone())
    }

    fn work(&mut self, job: &Job, calls_allowed: u64) -> Done {
        let calls = Cell::new(0_u64);
        let head = || {
            calls.set(calls.get() + 1);
            match calls.get() > calls_allowed {
                true => Block(u64::MAX),
                false => Block(0),
            }
        };
        let outcome = self.learner.run(job, &head);
        let done = Done {
            outcome,
            calls: calls.get().min(calls_allowed),
        };
        let shared = match job {
            Job::Score(_) | Job::Merge(_) | Job::Advance(_) => true,
            // Seeded by the hotkey: nobody else has it.
            Job::Train(_) => false,
        };
        if shared {
            if self.kept.len() == KEPT_OUTCOMES {
                self.kept.remove(0);
            }
            self.kept
                .retain(|kept| kept.job.cycle().0 + 1 >= job.cycle().0);
            self.kept.push(Kept {
                job: job.clone(),
                calls_allowed,
                done: done.clone(),
            });
        }
        done
    }

    /// Changes measured losses by what another kind of processor would have measured.
    fn disturb(&self, outcome: &mut Outcome, job: &Job, class: u32) {
        match (outcome, job) {
            (Outcome::Scored { findings, .. }, Job::Score(job)) => {
                for (finding, candidate) in findings.iter_mut().zip(&job.updates) {
                    let noise = self.noise(&candidate.update.0, &job.seed.0, class);
                    disturb_finding(finding, noise);
                }
            }
            (Outcome::Merged(merged), Job::Merge(job)) => {
                let noise = |which: &[u8]| self.noise(which, &job.seed.0, class);
                let Merged {
                    incumbent_loss,
                    candidate_loss,
                    ..
                } = merged;
                *incumbent_loss += noise(b"incumbent");
                if let Some(loss) = candidate_loss {
                    *loss += noise(b"candidate");
                }
            }
            _ => {}
        }
    }

    fn noise(&self, what: &[u8], seed: &[u8], class: u32) -> f64 {
        let mut random = Random::of(&[what, seed, &class.to_le_bytes()].concat());
        random.normal() * self.noise_nats
    }

    /// The values of a stored update, if it is one of that group.
    pub(crate) fn read(&self, group: GroupId, update: BlobId) -> Option<Shard> {
        let bytes = self.store.read(update).ok()?;
        match &self.craft {
            Craft::Tensors(layouts, _) => {
                update::read(&bytes, layouts.get(usize::from(group.0))?).ok()
            }
            Craft::Points => {
                let (of, point) = curve::decode(&bytes).filter(|(of, _)| *of == group)?;
                let layout = [(of.to_string(), vec![point.len()])];
                let mut shard = Shard::zeros(&layout.into());
                let values = shard.0.values_mut().flat_map(|tensor| &mut tensor.values);
                values.zip(point).for_each(|(place, value)| *place = value);
                Some(shard)
            }
        }
    }

    /// Stores values as an update.
    pub(crate) fn write(&self, group: GroupId, update: &Shard) -> Option<BlobId> {
        let bytes = match &self.craft {
            Craft::Tensors(_, codec) => wire::encode(update, *codec),
            Craft::Points => {
                let values = update.0.values().flat_map(|tensor| &tensor.values);
                curve::encode(group, &values.copied().collect::<Vec<f32>>())
            }
        };
        self.store.write(&bytes).ok()
    }

    /// A stored update once more, as a sparse file; a point as it is.
    pub(crate) fn sparsely(&self, group: GroupId, update: BlobId) -> Option<BlobId> {
        match &self.craft {
            Craft::Tensors(..) => {
                let update = self.read(group, update)?;
                self.store.write(&wire::encode(&update, Codec::Sparse)).ok()
            }
            Craft::Points => Some(update),
        }
    }

    /// Stores any bytes.
    pub(crate) fn write_bytes(&self, bytes: &[u8]) -> Option<BlobId> {
        self.store.write(bytes).ok()
    }

    /// The bytes of a stored blob.
    pub(crate) fn bytes(&self, blob: BlobId) -> Option<Vec<u8>> {
        self.store.read(blob).ok()
    }
}

fn disturb_finding(finding: &mut Finding, noise: f64) {
    if let Finding::Measured {
        measurement,
        loss_after,
        ..
    } = finding
    {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a report carries f32, and the noise is far below its range"
        )]
        let noise_in_report = noise as f32;
        measurement.utility -= noise_in_report;
        *loss_after += noise;
    }
}
