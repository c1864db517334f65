//! Validators that lie, hide, copy, refuse or differ (A-78, A-80 to to
//! They act on outcomes and deeds, so that every form of a report is lied in alike.

use connito_protocol::announcement::{Announcement, Vote, task_digest};
use connito_protocol::event::Effect;
use connito_protocol::ids::{BlobId, Cycle, Hotkey};
use connito_protocol::job::{Candidate, Finding, Job, Outcome};
use connito_protocol::reason::ReasonCode;
use connito_protocol::report::{Entry, Measurement};
use connito_protocol::schedule::Window;

use super::{Policy, Scene, Service};

fn praise() -> Finding {
    Finding::Measured {
        measurement: Measurement {
            utility: 0.5,
            standard_error: 0.0,
        },
        loss_before: 1.0,
        loss_after: 0.5,
    }
}

/// Good is bad and bad is good.
#[derive(Debug)]
pub(crate) struct Liar;

impl Policy for Liar {
    fn outcome(&mut self, mut outcome: Outcome, _scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Scored { findings, .. } = &mut outcome {
            for finding in findings {
                match finding {
                    Finding::Measured { measurement, .. } => {
                        measurement.utility *= -3.0;
                        measurement.standard_error = 0.0;
                    }
                    Finding::Refused { .. } | Finding::Copy { .. } => *finding = praise(),
                }
            }
        }
        outcome
    }
}

/// Praises one miner.
#[derive(Debug)]
pub(crate) struct SelfDealer {
    pub(crate) friend: Option<Hotkey>,
    pub(crate) updates: Vec<Candidate>,
}

impl Policy for SelfDealer {
    fn job(&mut self, job: Job, _scene: &mut Scene<'_>) -> Job {
        if let Job::Score(job) = &job {
            self.updates.clone_from(&job.updates);
        }
        job
    }

    fn outcome(&mut self, mut outcome: Outcome, _scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Scored { findings, .. } = &mut outcome {
            for (finding, candidate) in findings.iter_mut().zip(&self.updates) {
                if Some(candidate.hotkey) == self.friend {
                    *finding = praise();
                }
            }
        }
        outcome
    }
}

/// Whether this puts a report on the chain, or the name of one.
fn is_report(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Announce {
            announcement: Announcement::Scored(_) | Announcement::Reported(_)
        }
    )
}

/// Waits until somebody else has reported, and says the same.
#[derive(Debug, Default)]
pub(crate) struct Parrot {
    /// The cycle in which it has reported.
    repeated: Option<Cycle>,
}

impl Policy for Parrot {
    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        (!is_report(&effect)).then_some(effect)
    }

    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<Effect> {
        let (Some(now), Some(moment)) = (scene.now, scene.moment()) else {
            return Vec::new();
        };
        if moment.window != Window::Score || self.repeated == Some(moment.cycle) {
            return Vec::new();
        }
        let of_cycle = |said: &Announcement| match said {
            Announcement::Scored(report) => report.cycle == moment.cycle,
            Announcement::Reported(mirrored) => mirrored.cycle == moment.cycle,
            _ => false,
        };
        let mut others = now.announcements().map(|(_, _, said)| said);
        let heard = others.find(of_cycle);
        self.repeated = heard.as_ref().map(|_| moment.cycle).or(self.repeated);
        let repeat = |announcement| Effect::Announce { announcement };
        heard.map(repeat).into_iter().collect()
    }
}

/// Overwrites its report, with another report or with something that is none, and its vote with the opposite.
#[derive(Debug, Default)]
pub(crate) struct TwoFaced {
    /// The cycle in which it has overwritten its report.
    turned: Option<Cycle>,
}

impl TwoFaced {
    /// Another report of the same cycle and submissions; nothing if it measured nothing.
    fn other_report(said: Announcement) -> Option<Announcement> {
        match said {
            Announcement::Scored(mut report) => {
                let mut measured = report.entries.iter_mut().filter_map(|entry| match entry {
                    Entry::Measured(measurement) => Some(measurement),
                    Entry::Refused(_) => None,
                });
                measured.next()?.utility += 1.0;
                Some(Announcement::Scored(report))
            }
            Announcement::Reported(mut mirrored) => {
                mirrored.body.0[0] ^= 1;
                Some(Announcement::Reported(mirrored))
            }
            _ => None,
        }
    }
}

impl Policy for TwoFaced {
    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<Effect> {
        let (Some(now), Some(moment)) = (scene.now, scene.moment()) else {
            return Vec::new();
        };
        let opens = scene.setting.schedule.opens(moment.cycle, Window::Score);
        let said = now.announcement(scene.me);
        let other = match (moment.window, said) {
            (Window::Vote, Some((_, Announcement::Voted(vote)))) => {
                let approves = !vote.approves;
                Some(Announcement::Voted(Vote { approves, ..vote }))
            }
            (Window::Score, Some((record, said)))
                if record.block >= opens && self.turned != Some(moment.cycle) =>
            {
                self.turned = Some(moment.cycle);
                match moment.cycle.0.is_multiple_of(2) {
                    true => Self::other_report(said),
                    false => Some(Announcement::Voted(Vote {
                        cycle: moment.cycle,
                        approves: true,
                        candidate: scene.setting.first_state,
                        fallback: scene.setting.first_state,
                        task: task_digest(scene.setting.task),
                    })),
                }
            }
            _ => None,
        };
        let announce = |announcement| Effect::Announce { announcement };
        other.into_iter().map(announce).collect()
    }
}

/// Takes nothing from anybody, and says that nothing came.
#[derive(Debug)]
pub(crate) struct Censor;

impl Policy for Censor {
    fn takes(&self, _from: Hotkey) -> bool {
        false
    }

    fn outcome(&mut self, mut outcome: Outcome, _scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Scored { findings, .. } = &mut outcome {
            findings.fill(Finding::Refused {
                code: ReasonCode::NotUploaded,
            });
        }
        outcome
    }
}

/// Serves wrong bytes, says that it has nothing, or keeps silent.
#[derive(Debug)]
pub(crate) struct BadMirror;

impl Policy for BadMirror {
    fn serves(&self, blob: BlobId) -> Service {
        match blob.0[0] % 3 {
            0 => Service::Wrong,
            1 => Service::Denied,
            _ => Service::Silent,
        }
    }
}

/// Measures and does not report; or reports, and lets nobody read what is not on the chain itself.
#[derive(Debug)]
pub(crate) struct Withholder;

impl Policy for Withholder {
    fn effect(&mut self, effect: Effect, scene: &mut Scene<'_>) -> Option<Effect> {
        (!is_report(&effect) || scene.cycle().0.is_multiple_of(2)).then_some(effect)
    }

    fn serves(&self, _blob: BlobId) -> Service {
        Service::Denied
    }
}

/// Finds every candidate worse.
#[derive(Debug)]
pub(crate) struct Vetoer;

impl Policy for Vetoer {
    fn outcome(&mut self, mut outcome: Outcome, _scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Merged(merged) = &mut outcome {
            merged.candidate_loss = None;
        }
        outcome
    }
}

/// Computes another state than everybody.
#[derive(Debug)]
pub(crate) struct Forker;

impl Policy for Forker {
    fn outcome(&mut self, mut outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Merged(merged) = &mut outcome {
            let mine = scene.workshop.write_bytes(&scene.me.0);
            for group in &mut merged.candidate {
                group.shard = mine.unwrap_or(group.shard);
            }
        }
        outcome
    }
}
