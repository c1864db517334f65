//! The validator: takes uploads, scores, reports, merges, votes.
//!
//! ```text
//! Train    drawn for review? ──▶ Run(Score) on the state before   (reviewing.rs)
//! Reveal   uploads in; what others received is fetched by its revealed hash
//! Score    updates here? ──▶ Run(Score) ──▶ report on the chain   (scoring.rs)
//! Vote     bodies here? ──▶ attestation; verdicts ──▶ Run(Merge) ──▶ two manifests, gate ──▶ vote
//! ```
//!
//! Every step looks at the current window and at what is there already, so that a validator that was
//! away does what can still be done and abstains from the rest (A-84). Numbers come from the learner,
//! verdicts from the chain; this file only decides what to do next.

mod concluding;
mod reviewing;
mod scoring;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};

use crate::announcement::{Announcement, Vote};
use crate::event::{Effect, Effects, Event, Form, Milestone};
use crate::follow::{Follower, Identity, Reads};
use crate::ids::{BlobId, Block, Cycle, Hotkey, StateId};
use crate::job::{Candidate, Finding, Job, Outcome};
use crate::manifest::StateManifest;
use crate::miner::effects_of_restart;
use crate::report::Entry;
use crate::round::{Judgement, Round};
use crate::schedule::Window;

pub use uploads::{Admission, Uploads};

/// Blocks after which weights that have not shown are sent again.
const WEIGHTS_RETRY_BLOCKS: u64 = 10;

/// The validator's state.
#[derive(Debug, Clone)]
pub struct Validator {
    follower: Follower,
    running: Option<Job>,
    work: Work,
    /// Of the cycle before, in which a fork can end.
    past: Work,
    weights_sent: Option<Block>,
}

/// What a validator has done in the current cycle.
#[derive(Debug, Clone, Default)]
struct Work {
    cycle: Cycle,
    received: BTreeMap<Hotkey, BlobId>,
    /// The opened updates that this validator is to score, once that is known.
    assigned: Option<Vec<Candidate>>,
    /// Which updates are all here: those of before this cycle, with what is assigned, with what was judged.
    fetched: Option<(bool, bool)>,
    /// Whose revealed updates no server had when scoring began.
    absent: BTreeSet<Hotkey>,
    /// The updates that the score job was given, and what it found.
    scored: Option<BTreeMap<Hotkey, Finding>>,
    /// What this validator says, fixed when it is first said: two reports would void each other.
    report: Option<Announcement>,
    attestation: Option<Announcement>,
    /// The case of the docket that is being scored again, and by which job.
    reviewing: Option<(usize, Job)>,
    reviewed: BTreeMap<usize, Entry>,
    failed_scorings: u32,
    failed_merges: u32,
    receipts_issued: bool,
    vote: Option<Vote>,
}

impl Work {
    /// Blocks were taken back: what followed from them is to be done anew. What was received stays, and
    /// so does a report that was given, for it stands or waits on the chain and a second one would void
    /// both; what was measured for it is not measured again.
    fn step_back(&mut self, round: Option<&Round>) {
        (self.assigned, self.fetched, self.attestation) = (None, None, None);
        let judged = round.is_some_and(|round| round.judgement.is_some());
        if !judged {
            (self.vote, self.receipts_issued, self.failed_merges) = (None, false, 0);
        }
        let seeded = round.is_some_and(|round| round.seeded.is_some());
        if !seeded && self.report.is_none() {
            (self.scored, self.failed_scorings) = (None, 0);
            self.absent.clear();
        }
    }
}

/// Attempts at one kind of job in one cycle: a second one may succeed after a passing fault, a third
/// would only keep the machine busy.
const MAXIMUM_ATTEMPTS: u32 = 2;

impl Validator {
    /// A validator that knows nothing yet.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            follower: Follower::new(identity, Reads::Everything),
            running: None,
            work: Work::default(),
            past: Work::default(),
            weights_sent: None,
        }
    }

    /// Takes an event, gives what is to be done.
    pub fn handle(&mut self, event: &Event) -> Effects {
        let mut effects = Effects::default();
        self.follower.note(event, &mut effects);
        self.enter_cycle();
        match event {
            Event::Started => effects_of_restart(self.running.as_ref(), &mut effects),
            Event::Uploaded {
                ticket,
                hotkey,
                cycle,
                blob,
            } => {
                let answer = self.take_upload(*hotkey, *cycle, *blob);
                effects.push(Effect::Answer {
                    ticket: *ticket,
                    answer,
                });
            }
            Event::Finished { outcome, .. } => self.on_finished(outcome, &mut effects),
            Event::Block(_)
            | Event::Document { .. }
            | Event::Fetched { .. }
            | Event::FetchFailed { .. }
            | Event::Delivered { .. }
            | Event::Receipt { .. }
            | Event::TaskGiven { .. }
            | Event::ChainRefused { .. } => {}
        }
        if self.is_worth_acting_on(event) {
            self.act(&mut effects);
        }
        effects
    }

    /// Thousands of updates come in one by one, and none changes what is to be done but the last.
    fn is_worth_acting_on(&self, event: &Event) -> bool {
        match event {
            Event::Uploaded { .. } => false,
            Event::Fetched { .. } | Event::FetchFailed { .. } => {
                !self.follower.library.is_waiting()
            }
            _ => true,
        }
    }

    pub(crate) fn canonical(&self) -> Option<StateId> {
        self.follower.canonical()
    }

    /// Whether the role has a use for this blob: it holds it, or has asked for it.
    pub(crate) fn knows(&self, blob: BlobId) -> bool {
        self.follower.library.knows(blob)
    }

    fn enter_cycle(&mut self) {
        let stepped_back = self.follower.take_stepped_back();
        if let Some(round) = self.follower.round()
            && round.cycle != self.work.cycle
        {
            let past = std::mem::take(&mut self.past);
            if stepped_back && past.cycle == round.cycle {
                self.work = past;
            } else {
                let work = Work {
                    cycle: round.cycle,
                    ..Work::default()
                };
                self.past = std::mem::replace(&mut self.work, work);
            }
        }
        if stepped_back {
            self.work.step_back(self.follower.round());
        }
    }

    fn on_finished(&mut self, outcome: &Outcome, effects: &mut Effects) {
        let job = self.running.take();
        if self.take_review(outcome, job.as_ref(), effects) {
            return;
        }
        match (outcome, job) {
            (Outcome::Scored { cycle, findings }, Some(Job::Score(job)))
                if *cycle == self.work.cycle && job.updates.len() == findings.len() =>
            {
                let scored: Vec<_> = job
                    .updates
                    .iter()
                    .zip(findings)
                    .map(|(candidate, finding)| (candidate.hotkey, *finding))
                    .collect();
                effects.tell(Milestone::Measured {
                    cycle: *cycle,
                    findings: scored.clone(),
                });
                self.work.scored = Some(scored.into_iter().collect());
            }
            (Outcome::Merged(merged), Some(Job::Merge(job)))
                if merged.cycle == self.work.cycle
                    && job.accepted.len() == merged.update_bytes.len() =>
            {
                self.on_merged(merged, effects);
            }
            (Outcome::Advanced(advanced), Some(Job::Advance(_))) => {
                self.follower.advanced(advanced.to, &advanced.groups);
            }
            (Outcome::Failed { cycle, cause }, job) => {
                match job {
                    Some(Job::Advance(job)) => self.follower.advanced(job.to, &[]),
                    Some(Job::Score(_)) if *cycle == self.work.cycle => {
                        self.work.failed_scorings += 1
                    }
                    Some(Job::Merge(_)) if *cycle == self.work.cycle => {
                        self.work.failed_merges += 1
                    }
                    // Of a cycle that has passed, or of another process's life.
                    _ => {}
                }
                effects.tell(Milestone::JobFailed {
                    cycle: *cycle,
                    cause: cause.clone(),
                });
            }
            // A result for a cycle that has passed.
            (
                Outcome::Trained(_)
                | Outcome::Scored { .. }
                | Outcome::Merged(_)
                | Outcome::Advanced(_),
                _,
            ) => {}
        }
    }

    fn judgement(&self) -> Option<&Judgement> {
        self.follower.round()?.judgement.as_deref()
    }

    fn act(&mut self, effects: &mut Effects) {
        self.note_assignment();
        self.fetch(effects);
        self.issue_receipts(effects);
        let (Some((_, moment)), Some(next)) = (self.follower.live(), self.follower.next_moment())
        else {
            return;
        };
        if (moment.window, next.window) == (Window::Train, Window::Train) {
            self.review(effects);
        }
        // Not in the window's last block: what is found then could not be reported any more.
        if (moment.window, next.window) == (Window::Score, Window::Score) {
            self.score(effects);
        }
        if next.window == Window::Score && next.cycle == self.work.cycle {
            self.announce_report(effects);
        }
        if next.window == Window::Vote && next.cycle == self.work.cycle {
            self.attest(effects);
            self.vote(effects);
        }
        self.set_weights(effects);
    }

    /// The whole model, every pool, and the updates that are of use.
    fn fetch(&mut self, effects: &mut Effects) {
        let (Some(task), Some((_, base))) = (self.follower.task(), self.follower.base()) else {
            return;
        };
        let fixed: Vec<BlobId> = task.fixed_parts().into_iter().chain(task.pools()).collect();
        let blobs = fixed.iter().copied().chain(base.blobs());
        let complete = self.follower.library.has_all(blobs);
        let groups = task.groups.clone();
        self.follower.want(fixed, Form::Blob, effects);
        self.follower.want(self.of_successor(), Form::Blob, effects);
        if let Some(job) = self.follower.adopt(&groups, effects) {
            self.run(job, effects);
        }
        self.fetch_updates(effects);
        if complete {
            self.follower.tell_ready(effects);
        }
    }

    /// Thousands of updates, and most blocks add none: once all are here, they are not looked for again
    /// before there are others.
    fn fetch_updates(&mut self, effects: &mut Effects) {
        let known = (self.work.assigned.is_some(), self.judgement().is_some());
        if self.work.fetched == Some(known) {
            return;
        }
        let updates = self.updates_of_use();
        if self.follower.library.has_all(updates.iter().copied()) {
            self.work.fetched = Some(known);
        } else {
            self.follower.want(updates, Form::Update, effects);
        }
    }

    /// The updates that are to be scored, merged, reviewed or remembered.
    fn updates_of_use(&self) -> Vec<BlobId> {
        let assigned = self.work.assigned.iter().flatten().map(|c| c.update);
        let mut updates: Vec<BlobId> = assigned.collect();
        let accepted = self.judgement().into_iter().flat_map(Judgement::accepted);
        updates.extend(accepted.map(|(_, update)| update));
        updates.extend(self.follower.remembered().iter().map(|c| c.update));
        let docket = self.follower.docket().into_iter();
        updates.extend(docket.flat_map(|d| &d.cases).map(|case| case.update));
        updates
    }

    /// Everything that the next task needs, its first state included. A validator that holds all of it
    /// is ready for that task (P-39).
    fn of_successor(&self) -> Vec<BlobId> {
        let Some(next) = self.follower.successor() else {
            return Vec::new();
        };
        let first = self.follower.successor_state();
        let state = first.into_iter().flat_map(StateManifest::blobs);
        let blobs = next.fixed_parts().into_iter().chain(next.pools());
        blobs.chain(state).collect()
    }

    /// The task that the next cycle belongs to, as far as this validator is concerned.
    fn next_task(&self) -> Option<BlobId> {
        self.follower.task_to_vote_for(|next| {
            let state_is_here =
                next.manifest.first_state.is_none() || self.follower.successor_state().is_some();
            state_is_here && self.follower.library.has_all(self.of_successor())
        })
    }

    fn run(&mut self, job: Job, effects: &mut Effects) {
        if self.running.is_none() {
            self.running = Some(job.clone());
            effects.push(Effect::Run(job));
        }
    }
}
