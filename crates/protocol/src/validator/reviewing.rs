//! Scoring again what a committee scored in the cycle before (P-46).
//!
//! Decides when, and with what; each case is a job of its own, for what it may be a copy of differs
//! from case to case. Runs while miners train, when a validator has nothing else to compute. What a
//! review leads to is decided elsewhere (`review.rs`).

use super::Validator;
use crate::event::{Effects, Milestone};
use crate::job::{Candidate, Job, Outcome, ScoreJob};
use crate::reason::ReasonCode;
use crate::report::Entry;
use crate::review::Case;
use crate::schedule::Window;

impl Validator {
    /// Starts the next case whose update is here.
    pub(super) fn review(&mut self, effects: &mut Effects) {
        if self.running.is_some() {
            return;
        }
        let cases = self.follower.docket().into_iter().flat_map(|d| &d.cases);
        let mut due = cases
            .enumerate()
            .filter(|(place, _)| !self.work.reviewed.contains_key(place));
        let next = due.find_map(|(place, case)| Some((place, self.review_job(case)?)));
        if let Some((place, job)) = next {
            self.work.reviewing = Some((place, job.clone()));
            self.run(job, effects);
        }
    }

    fn review_job(&self, case: &Case) -> Option<Job> {
        let task = self.follower.task()?;
        let base = self.follower.manifest(case.base)?;
        let domains = task.manifest.domains.iter();
        let needed = base.blobs().chain(domains.map(|domain| domain.scoring));
        let library = &self.follower.library;
        if !library.has(case.update) || !library.has_all(needed) {
            return None;
        }
        let is_comparable =
            |other: &Candidate| other.group == case.group && library.has(other.update);
        let remembered = self.follower.remembered_before(case.cycle).into_iter();
        let earlier = remembered.chain(case.earlier.iter().cloned());
        Some(Job::Score(ScoreJob {
            cycle: case.cycle,
            task: task.id,
            state: case.base,
            seed: case.seed,
            updates: vec![Candidate {
                hotkey: case.hotkey,
                group: case.group,
                update: case.update,
            }],
            remembered: earlier.filter(is_comparable).collect(),
            stop_at: task.schedule.closes(self.work.cycle, Window::Train),
        }))
    }

    /// Takes the end of a review. False when the job was none.
    pub(super) fn take_review(
        &mut self,
        outcome: &Outcome,
        job: Option<&Job>,
        effects: &mut Effects,
    ) -> bool {
        let reviewing = self.work.reviewing.take();
        let Some((place, _)) = reviewing.filter(|(_, reviewing)| Some(reviewing) == job) else {
            return false;
        };
        let found = match outcome {
            Outcome::Scored { findings, .. } => findings.first().map(Entry::from),
            Outcome::Failed { cycle, cause } => {
                effects.tell(Milestone::JobFailed {
                    cycle: *cycle,
                    cause: cause.clone(),
                });
                None
            }
            Outcome::Trained(_) | Outcome::Merged(_) | Outcome::Advanced(_) => None,
        };
        let nothing = Entry::Refused(ReasonCode::Unscored);
        self.work.reviewed.insert(place, found.unwrap_or(nothing));
        true
    }

    /// One entry a case. What was not reviewed in time is nobody's fault.
    pub(super) fn reviews(&self) -> Vec<Entry> {
        let cases = self
            .follower
            .docket()
            .map_or(0, |docket| docket.cases.len());
        let nothing = Entry::Refused(ReasonCode::Unscored);
        let found = |place| self.work.reviewed.get(&place).copied();
        (0..cases)
            .map(|place| found(place).unwrap_or(nothing))
            .collect()
    }
}
