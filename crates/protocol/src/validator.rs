//! The validator: takes uploads, scores, reports, merges, votes.
//!
//! ```text
//! Reveal   uploads in; what others received is fetched by its revealed hash
//! Score    updates here? ──▶ Run(Score) ──▶ report on the chain
//! Vote     verdicts ──▶ Run(Merge) ──▶ two manifests, gate ──▶ vote on the chain
//! ```
//!
//! Every step looks at the current window and at what is there already, so that a validator that was
//! away does what can still be done and abstains from the rest (A-84). Numbers come from the learner,
//! verdicts from the chain; this file only decides what to do next.

use std::collections::{BTreeMap, BTreeSet};

use crate::announcement::{Announcement, Vote};
use crate::event::{Effect, Effects, Event, Form, Milestone, UploadAnswer};
use crate::follow::{Follower, Identity};
use crate::ids::{BlobId, Block, Cycle, Hotkey, StateId, Uid};
use crate::job::{Candidate, Finding, Job, MergeJob, Merged, Outcome, ScoreJob, Weighted};
use crate::manifest::{BlockRef, Document, MergedUpdate, StateManifest};
use crate::miner::effects_of_restart;
use crate::reason::ReasonCode;
use crate::receipt::Receipt;
use crate::report::{Entry, ScoreReport};
use crate::round::Judgement;
use crate::schedule::Window;
use crate::seed::{Draw, seed};
use crate::submission;

/// Blocks after which weights that have not shown are sent again.
const WEIGHTS_RETRY_BLOCKS: u64 = 10;

/// The validator's state.
#[derive(Debug, Clone)]
pub struct Validator {
    follower: Follower,
    running: Option<Job>,
    work: Work,
    weights_sent: Option<Block>,
}

/// What a validator has done in the current cycle.
#[derive(Debug, Clone, Default)]
struct Work {
    cycle: Cycle,
    received: BTreeMap<Hotkey, BlobId>,
    /// Whose revealed updates no server had when scoring began.
    absent: BTreeSet<Hotkey>,
    /// The updates that the score job was given, and what it found.
    scored: Option<Vec<(Hotkey, Finding)>>,
    failed_scorings: u32,
    failed_merges: u32,
    receipts_issued: bool,
    vote: Option<Vote>,
}

/// Attempts at one kind of job in one cycle: a second one may succeed after a passing fault, a third
/// would only keep the machine busy.
const MAXIMUM_ATTEMPTS: u32 = 2;

/// What the upload server may take at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The current cycle.
    pub cycle: Cycle,
    /// Whether uploads are taken.
    pub uploads: Uploads,
    /// Who is listened to: while uploads are open, whoever has sealed; otherwise everyone who is
    /// registered, to be told when they open.
    pub eligible: Vec<Hotkey>,
    /// What was taken already.
    pub received: BTreeMap<Hotkey, BlobId>,
}

/// Whether uploads are taken (P-16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploads {
    /// Not before this block, or they could be copied while seals are still taken.
    NotBefore(Block),
    /// Now.
    Open,
    /// Not any more in this cycle.
    Over,
}

impl Validator {
    /// A validator that knows nothing yet.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            follower: Follower::new(identity),
            running: None,
            work: Work::default(),
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
            | Event::ChainRefused { .. } => {}
        }
        self.act(&mut effects);
        effects
    }

    pub(crate) fn canonical(&self) -> Option<StateId> {
        self.follower.canonical()
    }

    /// What the upload server may take; `None` before the task begins.
    #[must_use]
    pub fn admission(&self) -> Option<Admission> {
        let (now, moment) = self.follower.live()?;
        let task = self.follower.task()?;
        let uploads = match moment.window {
            Window::Distribute | Window::Train | Window::Seal => {
                Uploads::NotBefore(task.schedule.opens(moment.cycle, Window::Reveal))
            }
            Window::Reveal => Uploads::Open,
            Window::Score | Window::Vote => Uploads::Over,
        };
        let everyone = now.participants.iter().map(|p| p.hotkey);
        Some(Admission {
            cycle: moment.cycle,
            uploads,
            eligible: everyone
                .filter(|hotkey| uploads != Uploads::Open || self.has_sealed(*hotkey, moment.cycle))
                .collect(),
            received: self.work.received.clone(),
        })
    }

    fn enter_cycle(&mut self) {
        if let Some(round) = self.follower.round()
            && round.cycle != self.work.cycle
        {
            self.work = Work {
                cycle: round.cycle,
                ..Work::default()
            };
        }
    }

    /// One update a hotkey and cycle, inside the window, from whoever sealed (P-16, A-22).
    fn take_upload(&mut self, hotkey: Hotkey, cycle: Cycle, blob: BlobId) -> UploadAnswer {
        let Some(admission) = self.admission() else {
            return UploadAnswer::TooEarly;
        };
        if cycle != admission.cycle {
            return if cycle < admission.cycle {
                UploadAnswer::TooLate
            } else {
                UploadAnswer::TooEarly
            };
        }
        match (self.work.received.get(&hotkey), admission.uploads) {
            (Some(earlier), _) if *earlier == blob => UploadAnswer::Repeated,
            (_, Uploads::NotBefore(_)) => UploadAnswer::TooEarly,
            (_, Uploads::Over) => UploadAnswer::TooLate,
            (Some(_), Uploads::Open) => UploadAnswer::AlreadySubmitted,
            (None, Uploads::Open) if !self.has_sealed(hotkey, cycle) => UploadAnswer::NotSealed,
            (None, Uploads::Open) => {
                self.work.received.insert(hotkey, blob);
                UploadAnswer::Accepted
            }
        }
    }

    fn has_sealed(&self, hotkey: Hotkey, cycle: Cycle) -> bool {
        let said = self
            .follower
            .live()
            .and_then(|(now, _)| now.announcement(hotkey));
        said.is_some_and(|(_, said)| sealed_in(&said, cycle))
    }

    fn on_finished(&mut self, outcome: &Outcome, effects: &mut Effects) {
        let job = self.running.take();
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
                self.work.scored = Some(scored);
            }
            (Outcome::Merged(merged), Some(Job::Merge(_))) if merged.cycle == self.work.cycle => {
                self.on_merged(merged, effects);
            }
            (Outcome::Failed { cycle, cause }, job) => {
                match job {
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
            (Outcome::Trained(_) | Outcome::Scored { .. } | Outcome::Merged(_), _) => {}
        }
    }

    fn on_merged(&mut self, merged: &Merged, effects: &mut Effects) {
        for group in merged.candidate.iter().chain(&merged.fallback) {
            for blob in [Some(group.shard), group.momentum].into_iter().flatten() {
                self.follower.library.add(blob);
            }
        }
        let approves = merged.passes();
        effects.tell(Milestone::Gate {
            cycle: merged.cycle,
            incumbent_loss: merged.incumbent_loss,
            candidate_loss: merged.candidate_loss,
            approves,
        });
        let Some((candidate, fallback)) = self.successors(merged) else {
            return;
        };
        let vote = Vote {
            cycle: merged.cycle,
            approves,
            candidate: self.follower.keep_manifest(candidate, effects),
            fallback: self.follower.keep_manifest(fallback, effects),
        };
        self.work.vote = Some(vote);
    }

    /// The two states that may follow: the merged one, and the incumbent with damped momentum.
    fn successors(&self, merged: &Merged) -> Option<(StateManifest, StateManifest)> {
        let judgement = self.judgement()?;
        let (base, _) = self.follower.base()?;
        let updates = judgement.accepted().map(|(verdict, update)| MergedUpdate {
            group: verdict.group,
            hotkey: verdict.hotkey,
            update,
            weight: verdict.weight,
        });
        let candidate = StateManifest {
            format: StateManifest::FORMAT,
            cycle: merged.cycle.next(),
            parent: Some(base),
            archive: Some(BlobId::of(&judgement.archive.to_bytes())),
            groups: merged.candidate.clone(),
            merged: updates.collect(),
        };
        let fallback = StateManifest {
            groups: merged.fallback.clone(),
            merged: Vec::new(),
            ..candidate.clone()
        };
        Some((candidate, fallback))
    }

    fn judgement(&self) -> Option<&Judgement> {
        self.follower.round()?.judgement.as_ref()
    }

    fn act(&mut self, effects: &mut Effects) {
        self.fetch(effects);
        self.issue_receipts(effects);
        let (Some((_, moment)), Some(next)) = (self.follower.live(), self.follower.next_moment())
        else {
            return;
        };
        // Not in the window's last block: what is found then could not be reported any more.
        if (moment.window, next.window) == (Window::Score, Window::Score) {
            self.score(effects);
        }
        if next.window == Window::Score && next.cycle == self.work.cycle {
            self.announce_report(effects);
        }
        if next.window == Window::Vote && next.cycle == self.work.cycle {
            self.vote(effects);
        }
        self.set_weights(effects);
    }

    /// The whole model, every pool, and every update that was revealed.
    fn fetch(&mut self, effects: &mut Effects) {
        let (Some(task), Some((_, base))) = (self.follower.task(), self.follower.base()) else {
            return;
        };
        let model = &task.manifest.model;
        let mut blobs = vec![model.config, model.tokenizer, model.backbone];
        for domain in &task.manifest.domains {
            // The training text is for serving: miners ask validators, not the owner (P-7).
            blobs.extend([domain.training, domain.scoring, domain.gate]);
        }
        blobs.extend(base.blobs());
        let complete = self.follower.library.has_all(blobs.iter().copied());
        let revealed: Vec<_> = self
            .revealed()
            .iter()
            .map(|candidate| candidate.update)
            .collect();
        self.follower.want(blobs, Form::Blob, effects);
        self.follower.want(revealed, Form::Update, effects);
        let remembered: Vec<_> = self
            .follower
            .remembered()
            .iter()
            .map(|c| c.update)
            .collect();
        self.follower.want(remembered, Form::Update, effects);
        if complete {
            self.follower.tell_ready(effects);
        }
    }

    fn revealed(&self) -> Vec<Candidate> {
        let commits = self
            .follower
            .round()
            .and_then(|round| round.commits.as_ref());
        commits
            .into_iter()
            .flat_map(|commits| &commits.submissions)
            .filter_map(|submission| {
                Some(Candidate {
                    hotkey: submission.hotkey,
                    group: submission.group,
                    update: submission.update()?,
                })
            })
            .collect()
    }

    fn score(&mut self, effects: &mut Effects) {
        let exhausted = self.work.failed_scorings >= MAXIMUM_ATTEMPTS;
        if self.work.scored.is_none()
            && !exhausted
            && let Some((job, absent)) = self.score_job()
        {
            self.work.absent = absent;
            self.run(Job::Score(job), effects);
        }
    }

    fn announce_report(&mut self, effects: &mut Effects) {
        if let Some(report) = self.report() {
            self.follower
                .announce(&Announcement::Scored(report), effects);
        }
    }

    fn run(&mut self, job: Job, effects: &mut Effects) {
        if self.running.is_none() {
            self.running = Some(job.clone());
            effects.push(Effect::Run(job));
        }
    }

    /// Everything that was revealed and is here, and who is known to have uploaded nowhere. An update
    /// that merely could not be fetched is waited for during the first third of the window and then
    /// left out: it costs one entry and not the report (A-29, A-85).
    fn score_job(&self) -> Option<(ScoreJob, BTreeSet<Hotkey>)> {
        let (now, _) = self.follower.live()?;
        let (task, round) = (self.follower.task()?, self.follower.round()?);
        let (state, base) = self.follower.base()?;
        let seeded: BlockRef = round.seeded?;
        round.commits.as_ref()?;
        let library = &self.follower.library;
        let pools = task
            .manifest
            .domains
            .iter()
            .flat_map(|d| [d.scoring, d.gate]);
        if !library.has_all(base.blobs().chain(pools)) {
            return None;
        }
        let opens = task.schedule.opens(round.cycle, Window::Score);
        let closes = task.schedule.closes(round.cycle, Window::Score);
        let is_here = |candidate: &Candidate| library.has(candidate.update);
        let (here, missing): (Vec<_>, Vec<_>) = self.revealed().into_iter().partition(is_here);
        let is_absent = |candidate: &Candidate| library.is_absent(candidate.update, opens);
        let (absent, unreachable): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_absent);
        let patience = Block(opens.0 + (closes.0 + 1 - opens.0) / 3);
        if !unreachable.is_empty() && now.block < patience {
            return None;
        }
        let job = ScoreJob {
            cycle: round.cycle,
            task: task.id,
            state,
            seed: seed(Draw::Scoring, seeded.hash, round.cycle),
            updates: here,
            remembered: self
                .follower
                .remembered()
                .into_iter()
                .filter(is_here)
                .collect(),
            stop_at: closes,
        };
        Some((
            job,
            absent
                .into_iter()
                .map(|candidate| candidate.hotkey)
                .collect(),
        ))
    }

    /// One entry a submission, in the order that everyone derives from the chain.
    fn report(&self) -> Option<ScoreReport> {
        let round = self.follower.round()?;
        let submissions = &round.commits.as_ref()?.submissions;
        let scored = self.work.scored.as_ref()?;
        let entry = |submission: &submission::Submission| match submission.opening {
            submission::Opening::Refused(code) => Entry::Refused(code),
            submission::Opening::Update(_) => {
                match scored
                    .iter()
                    .find(|(hotkey, _)| *hotkey == submission.hotkey)
                {
                    Some((_, Finding::Measured { measurement, .. })) => {
                        Entry::Measured(*measurement)
                    }
                    Some((_, Finding::Refused { code })) => Entry::Refused(*code),
                    None if self.work.absent.contains(&submission.hotkey) => {
                        Entry::Refused(ReasonCode::NotUploaded)
                    }
                    None => Entry::Refused(ReasonCode::Unscored),
                }
            }
        };
        Some(ScoreReport {
            cycle: round.cycle,
            submissions: submission::digest(round.cycle, submissions),
            entries: submissions.iter().map(entry).collect(),
        })
    }

    fn issue_receipts(&mut self, effects: &mut Effects) {
        if self.work.receipts_issued {
            return;
        }
        let Some(judgement) = self.judgement() else {
            return;
        };
        let archive = judgement.archive.to_bytes();
        let own = self.work.scored.as_deref().unwrap_or_default();
        let receipts: Vec<Receipt> = judgement
            .verdicts
            .iter()
            .map(|verdict| {
                let better = |other: &&crate::consensus::Verdict| {
                    other.group == verdict.group && other.weight > verdict.weight
                };
                let finding = own.iter().find(|(hotkey, _)| *hotkey == verdict.hotkey);
                Receipt {
                    cycle: self.work.cycle,
                    hotkey: verdict.hotkey,
                    group: verdict.group,
                    update: verdict.update,
                    code: verdict.code,
                    measurement: verdict.measurement,
                    weight: verdict.weight,
                    reward: judgement
                        .rewards
                        .shares
                        .get(&verdict.hotkey)
                        .copied()
                        .unwrap_or(0.0),
                    rank: 1 + u32::try_from(judgement.verdicts.iter().filter(better).count())
                        .unwrap_or(u32::MAX),
                    validator: self.follower.identity.hotkey,
                    own: finding.map(|(_, finding)| *finding),
                }
            })
            .collect();
        self.work.receipts_issued = true;
        self.follower.keep_document(archive, effects);
        for receipt in receipts {
            effects.push(Effect::Issue(receipt));
        }
    }

    fn vote(&mut self, effects: &mut Effects) {
        if let Some(vote) = self.work.vote {
            self.follower.announce(&Announcement::Voted(vote), effects);
        } else if self.work.failed_merges < MAXIMUM_ATTEMPTS
            && let Some(job) = self.merge_job()
        {
            self.run(job, effects);
        }
    }

    /// Nothing to merge without a quorum: the cycle is void and the incumbent stays as it is.
    fn merge_job(&self) -> Option<Job> {
        let (task, round) = (self.follower.task()?, self.follower.round()?);
        let (state, base) = self.follower.base()?;
        let judgement = round
            .judgement
            .as_ref()
            .filter(|judgement| judgement.quorum)?;
        let accepted: Vec<_> = judgement
            .accepted()
            .map(|(verdict, update)| Weighted {
                group: verdict.group,
                update,
                weight: verdict.weight,
            })
            .collect();
        let updates = accepted.iter().map(|weighted| weighted.update);
        if !self.follower.library.has_all(base.blobs().chain(updates)) {
            return None;
        }
        Some(Job::Merge(MergeJob {
            cycle: round.cycle,
            task: task.id,
            state,
            seed: seed(Draw::Gate, round.seeded?.hash, round.cycle),
            accepted,
        }))
    }

    /// Puts the reward history on the chain as often as the chain takes it (P-41).
    fn set_weights(&mut self, effects: &mut Effects) {
        let (Some((now, _)), Some(task)) = (self.follower.live(), self.follower.task()) else {
            return;
        };
        let Some(me) = now.participant(self.follower.identity.hotkey) else {
            return;
        };
        let interval = task.manifest.rules.rewards.weight_interval;
        let due = now.block.0.saturating_sub(me.weights_set.0) >= interval
            && self
                .weights_sent
                .is_none_or(|sent| now.block.0 >= sent.0 + WEIGHTS_RETRY_BLOCKS);
        if !due || !me.validator_permit {
            return;
        }
        let history = self.follower.history.weights();
        let weights: Vec<(Uid, f64)> = now
            .participants
            .iter()
            .filter_map(|p| history.get(&p.hotkey).map(|weight| (p.uid, *weight)))
            .collect();
        if !weights.is_empty() {
            self.weights_sent = Some(now.block);
            effects.push(Effect::SetWeights { weights });
        }
    }
}

fn sealed_in(said: &Announcement, now: Cycle) -> bool {
    match said {
        Announcement::Sealed { cycle, .. } | Announcement::Revealed { cycle, .. } => *cycle == now,
        Announcement::Task { .. } | Announcement::Scored(_) | Announcement::Voted(_) => false,
    }
}
