//! How a role that reads everything comes to a cycle's verdicts: bodies, judgement, review (P-25,
//! P-44 to P-46).
//!
//! Inputs are the round, which knows what stood on the chain, and the documents that come in. Most
//! cycles are judged with the last block of the score window; where reports are mirrored, as soon as
//! the attestations and the bodies that count are here. What a judgement says is decided elsewhere.

use std::sync::Arc;

use super::{Follower, OpenedIn, Reading, Reads};
use crate::announcement::Vote;
use crate::consensus::{Tally, Verdict};
use crate::event::{Effect, Effects, Form, Milestone};
use crate::ids::{BlobId, BlockHash, Cycle};
use crate::job::Candidate;
use crate::memo::SharedKey;
use crate::reason::ReasonCode;
use crate::review::Docket;
use crate::rewards::History;
use crate::round::{Attestable, Judgement, Known, Round};
use crate::snapshot::Voter;

impl Follower {
    /// The round, with everything beside it that it is read by; `None` before the task begins.
    pub(super) fn with_round<T>(
        &mut self,
        read: impl FnOnce(&mut Round, &Known<'_>) -> T,
    ) -> Option<T> {
        let Reading {
            tasks,
            older,
            round,
            docket,
            ..
        } = Arc::make_mut(&mut self.reading);
        let (task, round) = (tasks.current.as_deref()?, round.as_mut()?);
        let base = round.base.and_then(|base| self.manifests.get(&base));
        let known = Known {
            network: self.identity.network,
            task: task.id,
            schedule: &task.schedule,
            groups: &task.groups,
            assignment: &tasks.assignment,
            manifests: &self.manifests,
            older,
            rules: &task.manifest.rules,
            excluded: base.map(|base| &base.excluded),
            docket: docket.as_ref(),
        };
        Some(read(round, &known))
    }

    /// What of the cycle before is reviewed in this one; `None` for whoever did not see it judged.
    pub(crate) fn docket(&self) -> Option<&Docket> {
        self.reading.docket.as_deref()
    }

    /// What of the round that ends is reviewed in the cycle that begins with a block of this hash.
    pub(super) fn next_docket(&self, begins: Cycle, hash: BlockHash) -> Option<Arc<Docket>> {
        let task = self.task()?;
        if begins == task.manifest.first_cycle {
            // Another task has other groups and another text: what it replaced is not looked back at.
            return Some(Arc::default());
        }
        let past = self.reading.round.as_ref();
        let past = past.filter(|past| past.cycle.next() == begins && past.base.is_some())?;
        if past.base == self.reading.canonical {
            // Nothing was decided, so no archive is left by which others could repeat a review.
            return Some(Arc::default());
        }
        past.docket(hash, &task.manifest.rules)
    }

    /// Judges the cycle as soon as everything that it takes is here.
    pub(super) fn settle(&mut self, effects: &mut Effects) {
        let judged = self.round().is_none_or(|round| round.judgement.is_some());
        if self.reads == Reads::Everything
            && !judged
            && let Some(Some(archived)) = self.with_round(|round, known| round.settle(known))
        {
            self.archive = Some(archived);
            self.on_judged(effects);
        }
    }

    /// Keeps the document that the last judgement was read from, once.
    pub(crate) fn keep_archive(&mut self, effects: &mut Effects) {
        if let Some(archived) = self.archive.take() {
            self.library.add(archived.document);
            let bytes = Arc::clone(&archived.bytes);
            effects.push(Effect::Store { bytes });
        }
    }

    /// A body that this role wrote itself.
    pub(crate) fn keep_body(&mut self, bytes: Vec<u8>, effects: &mut Effects) -> BlobId {
        let body = BlobId::of(&bytes);
        if let Some(round) = &mut self.reading_mut().round {
            round.reporting.take_body(body, &bytes);
        }
        self.keep_document(bytes, effects)
    }

    /// A document that may be a body that somebody named.
    pub(super) fn take_body(&mut self, blob: BlobId, bytes: &[u8]) {
        let round = self.reading.round.as_ref();
        let wanted = round.is_some_and(|round| round.reporting.wanted().any(|body| body == blob));
        if let (true, Some(round)) = (wanted, &mut self.reading_mut().round) {
            round.reporting.take_body(blob, bytes);
        }
    }

    pub(super) fn pursue_bodies(&mut self, effects: &mut Effects) {
        let round = self.reading.round.as_ref();
        let wanted: Vec<BlobId> = round.map_or_else(Vec::new, |r| r.reporting.wanted().collect());
        if !wanted.is_empty() {
            self.want(wanted, Form::Document, effects);
        }
    }

    /// What can be attested in a record that is included in the next block, and whether that block is
    /// the last in which it counts.
    pub(crate) fn attestable(&mut self) -> Option<(Attestable, bool)> {
        let next = self.live()?.0.block.next();
        self.with_round(|round, known| {
            let attestable = round.attestable(known, next)?;
            Some((attestable, round.is_last_to_attest(known, next)))
        })?
    }

    /// Accepted updates of cycles before this one, as far back as they are remembered.
    pub(crate) fn remembered_before(&self, cycle: Cycle) -> Vec<Candidate> {
        let earlier = self
            .reading
            .opened
            .iter()
            .filter(|opened| opened.cycle < cycle);
        let updates = earlier.map(|opened| &opened.accepted);
        updates.flatten().cloned().collect()
    }

    fn on_judged(&mut self, effects: &mut Effects) {
        let memory = self.memory();
        let Reading {
            tasks,
            round,
            history,
            opened,
            ..
        } = Arc::make_mut(&mut self.reading);
        let (Some(task), Some(round)) = (&tasks.current, round) else {
            return;
        };
        let Some(judgement) = &round.judgement else {
            return;
        };
        let rules = &task.manifest.rules.rewards;
        let entered = |before: &SharedKey<History>| {
            let before = before.0.as_ref().clone();
            Arc::new(judgement.entered(before, rules))
        };
        let before = SharedKey(Arc::clone(history));
        *history = judgement.histories.get(before, entered);
        let reviewed = judgement.reviewed.as_deref().unwrap_or(&[]);
        let opened = Arc::make_mut(opened);
        opened.push_back(opened_in(round.cycle, judgement));
        // One cycle more than is remembered in scoring: reviews look back from the cycle before.
        let forget = opened.len().saturating_sub(memory.saturating_add(1));
        opened.drain(..forget);
        if !reviewed.is_empty() {
            effects.tell(Milestone::Reviewed {
                cycle: round.cycle,
                reviewed: reviewed.to_vec(),
            });
        }
        effects.tell(Milestone::Judged {
            cycle: round.cycle,
            quorum: judgement.quorum,
            verdicts: judgement.verdicts.clone(),
            rewards: judgement.rewards.clone(),
        });
    }

    /// Tells what voters did wrong in the cycle that ends, if anything (P-45).
    pub(super) fn tell_conduct(
        &self,
        votes: &[(Voter, Vote)],
        tally: Option<&Tally>,
        effects: &mut Effects,
    ) {
        let Some(round) = self.reading.round.as_ref() else {
            return;
        };
        let conduct = round.conduct(votes, tally);
        if !conduct.is_empty() {
            effects.tell(Milestone::Conduct {
                cycle: round.cycle,
                conduct,
            });
        }
    }
}

/// What of a cycle's updates somebody could send again with profit. Those that were refused are worth
/// nothing, and those that were not drawn are more than anybody reads.
fn opened_in(cycle: Cycle, judgement: &Judgement) -> OpenedIn {
    let candidate = |(verdict, update): (&Verdict, BlobId)| Candidate {
        hotkey: verdict.hotkey,
        group: verdict.group,
        update,
    };
    let verdicts = judgement.verdicts.iter();
    let unscored = verdicts.filter(|verdict| verdict.code == ReasonCode::Unscored);
    let unscored = unscored.filter_map(|verdict| Some((verdict, verdict.update?)));
    OpenedIn {
        cycle,
        accepted: judgement.accepted().map(candidate).collect(),
        unscored: unscored.map(candidate).collect(),
    }
}
