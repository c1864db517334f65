//! From revealed updates to a report on the chain and receipts for the miners (P-25, P-42).
//!
//! Decides when to start measuring, and with what; what a measurement is worth is decided elsewhere
//! (`scoring.rs`, `consensus.rs`), what it is by the learner.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{MAXIMUM_ATTEMPTS, Validator};
use crate::announcement::{Announcement, Mirrored};
use crate::event::{Effect, Effects};
use crate::ids::{Block, GroupId, Hotkey};
use crate::job::{Candidate, Job, ScoreJob};
use crate::manifest::BlockRef;
use crate::reason::ReasonCode;
use crate::receipt::CycleReceipts;
use crate::report::{Entry, ScoreReport};
use crate::schedule::Window;
use crate::seed::{Draw, seed};
use crate::submission;

impl Validator {
    /// Notes what this validator is to score, once it follows from the chain (P-43).
    pub(super) fn note_assignment(&mut self) {
        if self.work.assigned.is_some() {
            return;
        }
        let hotkey = self.follower.identity.hotkey;
        let round = self.follower.round();
        self.work.assigned = round.and_then(|round| {
            let (scope, commits) = (round.scope.as_ref()?, round.commits.as_ref()?);
            let sheet = scope.roster.sheet(hotkey, &commits.submissions);
            let opened = sheet.filter_map(|(_, submission)| {
                Some(Candidate {
                    hotkey: submission.hotkey,
                    group: submission.group,
                    update: submission.update()?,
                })
            });
            Some(opened.collect())
        });
    }

    pub(super) fn score(&mut self, effects: &mut Effects) {
        let exhausted = self.work.failed_scorings >= MAXIMUM_ATTEMPTS;
        if self.work.scored.is_none()
            && !exhausted
            && let Some((job, absent)) = self.score_job()
        {
            self.work.absent = absent;
            self.run(Job::Score(job), effects);
        }
    }

    /// Says what was measured, on the chain itself or by the name of a body (P-44).
    pub(super) fn announce_report(&mut self, effects: &mut Effects) {
        if self.work.report.is_none() {
            self.work.report = self.write_report(effects);
        }
        if let Some(report) = self.work.report.clone() {
            self.follower.announce(&report, effects);
        }
    }

    fn write_report(&mut self, effects: &mut Effects) -> Option<Announcement> {
        let report = self.report()?;
        let (cycle, submissions) = (report.cycle, report.submissions);
        let scope = self.follower.round()?.scope.as_ref()?;
        let is_mirrored = scope.is_mirrored(self.follower.identity.hotkey);
        let inline = Announcement::Scored(report);
        if !is_mirrored {
            return Some(inline);
        }
        Some(Announcement::Reported(Mirrored {
            cycle,
            submissions,
            body: self.follower.keep_body(inline.encode(), effects),
        }))
    }

    /// Says which bodies are here, once: when no answer is outstanding, or with the last block in which
    /// it counts, lest one server that keeps its body back keeps everybody waiting. Then too it
    /// waits while what is here is no quorum, for there is nothing to lose.
    pub(super) fn attest(&mut self, effects: &mut Effects) {
        let Some((attestable, is_last)) = self.follower.attestable() else {
            return;
        };
        let library = &self.follower.library;
        let mut missing = attestable.missing.iter();
        let is_settled = !missing.any(|body| library.is_under_way(*body));
        if self.work.attestation.is_none() && (is_settled || is_last && attestable.is_quorate) {
            self.work.attestation = Some(Announcement::Attested(attestable.attestation));
        }
        if let Some(attestation) = self.work.attestation.clone() {
            self.follower.announce(&attestation, effects);
        }
    }

    /// Everything that is to be scored and is here, and who is known to have uploaded nowhere. An
    /// update that merely could not be fetched is waited for during the first third of the window,
    /// where lots are drawn and it could not be asked for before the first half, and then left out: it
    /// costs one entry and not the report.
    fn score_job(&self) -> Option<(ScoreJob, BTreeSet<Hotkey>)> {
        let (now, _) = self.follower.live()?;
        let (task, round) = (self.follower.task()?, self.follower.round()?);
        let (state, base) = self.follower.base()?;
        let seeded: BlockRef = round.seeded?;
        let assigned = self.work.assigned.clone()?;
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
        let (here, missing): (Vec<_>, Vec<_>) = assigned.into_iter().partition(is_here);
        let is_absent = |candidate: &Candidate| library.is_absent(candidate.update, opens);
        let (absent, unreachable): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_absent);
        let is_drawn = round.scope.as_ref()?.roster.is_drawn();
        let part = if is_drawn { 2 } else { 3 };
        let patience = Block(opens.0 + (closes.0 + 1 - opens.0) / part);
        if !unreachable.is_empty() && now.block < patience {
            return None;
        }
        // Groups have nothing in common that could be a copy.
        let groups: BTreeSet<GroupId> = here.iter().map(|candidate| candidate.group).collect();
        let is_comparable = |other: &Candidate| groups.contains(&other.group) && is_here(other);
        let follower = &self.follower;
        let known = follower.remembered().into_iter().chain(follower.unscored());
        let job = ScoreJob {
            cycle: round.cycle,
            task: task.id,
            state,
            seed: seed(Draw::Scoring, seeded.hash, round.cycle),
            updates: here,
            remembered: known.filter(is_comparable).collect(),
            // What is found by the window's last block can be reported only if it is known one block before
            // (P-2). Who begins as late as that has nothing to lose by going on.
            stop_at: Block((closes.0.saturating_sub(1)).max(now.block.0 + 1)),
        };
        Some((
            job,
            absent
                .into_iter()
                .map(|candidate| candidate.hotkey)
                .collect(),
        ))
    }

    /// One entry for each submission on this validator's sheet, in the order that everyone derives from
    /// the chain, then its reviews.
    fn report(&self) -> Option<ScoreReport> {
        let round = self.follower.round()?;
        let (scope, commits) = (round.scope.as_ref()?, round.commits.as_ref()?);
        let scored = self.work.scored.as_ref()?;
        let entry = |submission: &submission::Submission| match submission.opening {
            submission::Opening::Refused(code) => Entry::Refused(code),
            submission::Opening::Update(_) => match scored.get(&submission.hotkey) {
                Some(finding) => Entry::from(finding),
                None if self.work.absent.contains(&submission.hotkey) => {
                    Entry::Refused(ReasonCode::NotUploaded)
                }
                None => Entry::Refused(ReasonCode::Unscored),
            },
        };
        let hotkey = self.follower.identity.hotkey;
        let sheet = scope.roster.sheet(hotkey, &commits.submissions);
        let mut entries: Vec<Entry> = sheet.map(|(_, submission)| entry(submission)).collect();
        if scope.roster.is_drawn() {
            entries.extend(self.reviews());
        }
        Some(ScoreReport {
            cycle: round.cycle,
            submissions: scope.digest,
            entries,
        })
    }

    pub(super) fn issue_receipts(&mut self, effects: &mut Effects) {
        if self.work.receipts_issued {
            return;
        }
        let Some(round) = self.follower.round() else {
            return;
        };
        let (Some(judgement), Some(base), Some(seeded)) =
            (&round.judgement, round.base, round.seeded)
        else {
            return;
        };
        let receipts = CycleReceipts {
            cycle: self.work.cycle,
            base,
            seed: seed(Draw::Scoring, seeded.hash, self.work.cycle),
            validator: self.follower.identity.hotkey,
            graded: Arc::clone(&judgement.graded),
            own: self.work.scored.clone().unwrap_or_default(),
        };
        self.work.receipts_issued = true;
        self.follower.keep_archive(effects);
        effects.push(Effect::Issue(Box::new(receipts)));
    }
}
