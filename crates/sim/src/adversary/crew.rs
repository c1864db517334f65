//! Several hotkeys of one person: one update under many names, in parts, or as a choice (A-11, A-15,
//!

use std::collections::BTreeMap;

use connito_learning::shard::Shard;
use connito_protocol::announcement::Announcement;
use connito_protocol::event::Effect;
use connito_protocol::ids::{BlobId, Block, Cycle, Hotkey, Seed, StateId};
use connito_protocol::job::{Candidate, Finding, Job, Outcome, ScoreJob};

use super::copies::{OWN_DRAW, noise, untrained};
use super::{Policy, Scene};
use crate::workshop::Bench;

/// What the hotkeys of one person know of each other.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    members: Vec<Hotkey>,
    cycle: Cycle,
    base: Option<StateId>,
    /// The one update that was trained in this cycle.
    pub(super) trained: Option<BlobId>,
    /// What each member submits in this cycle.
    pub(super) submitted: BTreeMap<Hotkey, BlobId>,
}

impl Crew {
    /// Forgets what was of an earlier cycle.
    fn enter(&mut self, cycle: Cycle) {
        if self.cycle != cycle {
            self.cycle = cycle;
            self.trained = None;
            self.submitted.clear();
        }
    }

    pub(super) fn note_job(&mut self, job: &Job) {
        if let Job::Train(job) = job {
            self.enter(job.cycle);
            self.base = Some(job.state);
        }
    }

    /// How much each submitted update gains on a draw of text, by miner.
    pub(crate) fn measure(&self, seed: Seed, scene: &mut Scene<'_>) -> BTreeMap<Hotkey, f64> {
        let Some(base) = self.base else {
            return BTreeMap::new();
        };
        let updates: Vec<BlobId> = self.submitted.values().copied().collect();
        let gains = measured((base, self.cycle), &updates, seed, scene);
        self.submitted.keys().copied().zip(gains).collect()
    }
}

/// How much each of some updates gains on a draw of text, in their order; minus infinity for what is none,
/// or a copy of one before it.
pub(super) fn measured(
    (state, cycle): (StateId, Cycle),
    updates: &[BlobId],
    seed: Seed,
    scene: &mut Scene<'_>,
) -> Vec<f64> {
    let group = scene.group();
    let candidates = updates.iter().map(|update| Candidate {
        hotkey: scene.me,
        group,
        update: *update,
    });
    let job = ScoreJob {
        cycle,
        task: scene.setting.task,
        state,
        seed,
        updates: candidates.collect(),
        remembered: Vec::new(),
        stop_at: Block(u64::MAX),
    };
    let bench = Bench {
        class: 0,
        calls_allowed: u64::MAX,
    };
    match scene.workshop.run(&Job::Score(job), bench).outcome {
        Outcome::Scored { findings, .. } => {
            let gain = |finding: &Finding| match finding {
                Finding::Measured { measurement, .. } => f64::from(measurement.utility),
                Finding::Refused { .. } | Finding::Copy { .. } => f64::NEG_INFINITY,
            };
            findings.iter().map(gain).collect()
        }
        Outcome::Trained(_)
        | Outcome::Merged(_)
        | Outcome::Advanced(_)
        | Outcome::Failed { .. } => Vec::new(),
    }
}

/// All crews of a run.
#[derive(Debug, Default)]
pub(crate) struct Crews {
    crews: Vec<Crew>,
    /// Of those who work alone.
    alone: Crew,
}

impl Crews {
    pub(crate) fn new(members: Vec<Vec<Hotkey>>) -> Self {
        let crew = |members| Crew {
            members,
            ..Crew::default()
        };
        Self {
            crews: members.into_iter().map(crew).collect(),
            alone: Crew::default(),
        }
    }

    pub(crate) fn of(&mut self, crew: Option<usize>) -> &mut Crew {
        let crew = crew.and_then(|crew| self.crews.get_mut(crew));
        crew.unwrap_or(&mut self.alone)
    }
}

/// One update for all.
#[derive(Debug)]
pub(crate) struct Twins;

impl Policy for Twins {
    fn job(&mut self, job: Job, scene: &mut Scene<'_>) -> Job {
        scene.crew.note_job(&job);
        job
    }

    fn outcome(&mut self, mut outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Trained(trained) = &mut outcome {
            match scene.crew.trained {
                Some(update) => (trained.update, trained.steps) = (update, 0),
                None => scene.crew.trained = Some(trained.update),
            }
        }
        outcome
    }
}

/// One update, cut into as many parts as there are hotkeys.
#[derive(Debug)]
pub(crate) struct Splitter;

impl Policy for Splitter {
    fn job(&mut self, job: Job, scene: &mut Scene<'_>) -> Job {
        scene.crew.note_job(&job);
        job
    }

    fn outcome(&mut self, mut outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Trained(trained) = &mut outcome {
            let whole = match scene.crew.trained {
                Some(update) => {
                    trained.steps = 0;
                    update
                }
                None => trained.update,
            };
            scene.crew.trained = Some(whole);
            let part = scene
                .crew
                .members
                .iter()
                .position(|member| *member == scene.me);
            let parts = scene.crew.members.len();
            if let Some(mut update) = scene.workshop.read(scene.group(), whole) {
                keep_part(&mut update, part.unwrap_or(0), parts.max(1));
                trained.update = scene
                    .workshop
                    .write(scene.group(), &update)
                    .unwrap_or(whole);
            }
        }
        outcome
    }
}

/// Every `parts`-th value of each tensor; the rest is zero.
fn keep_part(update: &mut Shard, part: usize, parts: usize) {
    for tensor in update.0.values_mut() {
        for (place, value) in tensor.values.iter_mut().enumerate() {
            if place % parts != part {
                *value = 0.0;
            }
        }
    }
}

/// Several lottery tickets, of which only the one that looks best is opened.
#[derive(Debug, Default)]
pub(crate) struct OptionHolder;

impl Policy for OptionHolder {
    fn job(&mut self, job: Job, scene: &mut Scene<'_>) -> Job {
        scene.crew.note_job(&job);
        job
    }

    /// Luck and no work: noise as large as an honest update.
    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        let ticket = match &outcome {
            Outcome::Trained(trained) => noise(trained.update, 1.0, scene),
            Outcome::Scored { .. }
            | Outcome::Merged(_)
            | Outcome::Advanced(_)
            | Outcome::Failed { .. } => None,
        };
        scene
            .crew
            .submitted
            .extend(ticket.map(|ticket| (scene.me, ticket)));
        untrained(outcome, ticket, scene)
    }

    fn effect(&mut self, effect: Effect, scene: &mut Scene<'_>) -> Option<Effect> {
        let opens = matches!(
            effect,
            Effect::Announce {
                announcement: Announcement::Revealed { .. }
            }
        );
        if !opens {
            return Some(effect);
        }
        // The seed of the scoring is not known yet: it has to make do with one of its own.
        let crew = std::mem::take(scene.crew);
        let gains = crew.measure(OWN_DRAW, scene);
        *scene.crew = crew;
        let best = gains.iter().max_by(|a, b| a.1.total_cmp(b.1));
        best.is_none_or(|(hotkey, _)| *hotkey == scene.me)
            .then_some(effect)
    }
}
