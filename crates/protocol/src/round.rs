//! One cycle as it can be read off the chain, by anyone (P-14 to P-31).
//!
//! Facts are taken at fixed blocks: submissions at the last blocks of the seal and reveal windows,
//! the seed at the first block after uploads close, verdicts at the last block of the score window.
//! What a record says at any other time does not matter, so all observers hold the same round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::announcement::{Announcement, Vote};
use crate::consensus::{self, Reported, Verdict};
use crate::ids::{BlobId, Cycle, GroupId, Hotkey, StateId};
use crate::lineage;
use crate::manifest::{BlockRef, CycleArchive, MergedUpdate, StateManifest};
use crate::report::ScoreReport;
use crate::rewards::{CycleRewards, cycle_rewards};
use crate::schedule::{Schedule, Window};
use crate::snapshot::{Record, Snapshot, Voter};
use crate::submission::{self, Expected, Network, Submission};

/// What has been observed of a cycle so far.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) cycle: Cycle,
    /// The state that the cycle builds on; `None` for an observer that came too late to know.
    pub(crate) base: Option<StateId>,
    /// The first block of the cycle that was seen.
    pub(crate) first_seen: BlockRef,
    sealed: Option<Arc<Snapshot>>,
    revealed: Option<Arc<Snapshot>>,
    pub(crate) commits: Option<Commits>,
    pub(crate) seeded: Option<BlockRef>,
    pub(crate) judgement: Option<Judgement>,
}

/// What the Commit phase left on the chain.
#[derive(Debug, Clone)]
pub(crate) struct Commits {
    sealed: BlockRef,
    revealed: BlockRef,
    seals: BTreeMap<Hotkey, Record>,
    reveals: BTreeMap<Hotkey, Record>,
    unregistered: BTreeSet<Hotkey>,
    pub(crate) submissions: Vec<Submission>,
}

/// What the validators' reports amount to.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    pub(crate) quorum: bool,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) rewards: CycleRewards,
    pub(crate) archive: CycleArchive,
}

/// What an observer knows beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) network: Network,
    pub(crate) schedule: &'a Schedule,
    pub(crate) groups: &'a [GroupId],
    pub(crate) tickets: &'a [u16],
    /// Manifests of the base and of the states before it, as far as they are here.
    pub(crate) manifests: &'a BTreeMap<StateId, StateManifest>,
    pub(crate) rebase_window: u64,
    pub(crate) older: &'a [StateId],
    pub(crate) significance: f64,
}

impl Judgement {
    /// The verdicts with weight and the updates that they are on.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (&Verdict, BlobId)> {
        let weighty = self.verdicts.iter().filter(|verdict| verdict.weight > 0.0);
        weighty.filter_map(|verdict| Some((verdict, verdict.update?)))
    }

    /// What the state that follows says it merged.
    /// Of how many bytes each update is, no record tells.
    pub(crate) fn merged(&self, mut bytes: impl FnMut(BlobId) -> u64) -> Vec<MergedUpdate> {
        let merged = |(verdict, update): (&Verdict, BlobId)| MergedUpdate {
            group: verdict.group,
            hotkey: verdict.hotkey,
            update,
            bytes: bytes(update),
            weight: verdict.weight,
        };
        self.accepted().map(merged).collect()
    }
}

impl Round {
    pub(crate) fn new(cycle: Cycle, base: Option<StateId>, snapshot: &Snapshot) -> Self {
        Self {
            cycle,
            base,
            first_seen: block_ref(snapshot),
            sealed: None,
            revealed: None,
            commits: None,
            seeded: None,
            judgement: None,
        }
    }

    /// Takes what this block fixes. Blocks come in order.
    pub(crate) fn observe(&mut self, snapshot: &Arc<Snapshot>, known: &Known<'_>) {
        let Some(moment) = known.schedule.at(snapshot.block) else {
            return;
        };
        if snapshot.block == known.schedule.opens(self.cycle, Window::Score) {
            self.seeded = Some(block_ref(snapshot));
        }
        if (moment.window, moment.closes_window) == (Window::Reveal, true) {
            self.revealed = Some(Arc::clone(snapshot));
        }
        if self.commits.is_none() {
            // Again with every block: a manifest that it takes may be on its way.
            self.commits = self.collect(known);
            if self.commits.is_some() {
                (self.sealed, self.revealed) = (None, None);
            }
        }
        if moment.closes_window {
            match moment.window {
                Window::Seal => self.sealed = Some(Arc::clone(snapshot)),
                Window::Score => self.judgement = self.judge(snapshot, known),
                Window::Distribute | Window::Train | Window::Reveal | Window::Vote => {}
            }
        }
    }

    fn collect(&self, known: &Known<'_>) -> Option<Commits> {
        let (sealed, revealed) = (self.sealed.as_deref()?, self.revealed.as_deref()?);
        let base = self.base?;
        let earlier = lineage::earlier(base, (self.cycle, known.rebase_window), |state| {
            known.manifests.get(&state)
        });
        let expected = Expected {
            network: known.network,
            cycle: self.cycle,
            base,
            earlier: earlier.as_deref().ok(),
            older: known.older,
            tickets: known.tickets,
            schedule: known.schedule,
        };
        let submissions = submission::collect(&expected, sealed, revealed)?;
        let of_submitters = |records: &BTreeMap<Hotkey, Record>| {
            submissions
                .iter()
                .filter_map(|s| {
                    records
                        .get(&s.hotkey)
                        .map(|record| (s.hotkey, record.clone()))
                })
                .collect()
        };
        Some(Commits {
            sealed: block_ref(sealed),
            revealed: block_ref(revealed),
            seals: of_submitters(&sealed.records),
            reveals: of_submitters(&revealed.records),
            unregistered: submissions
                .iter()
                .map(|submission| submission.hotkey)
                .filter(|hotkey| revealed.participant(*hotkey).is_none())
                .collect(),
            submissions,
        })
    }

    fn judge(&self, scored: &Snapshot, known: &Known<'_>) -> Option<Judgement> {
        let commits = self.commits.as_ref()?;
        let voters = scored.voters();
        let opens = known.schedule.opens(self.cycle, Window::Score);
        let digest = submission::digest(self.cycle, &commits.submissions);
        let sound = |report: &ScoreReport| {
            report.cycle == self.cycle
                && report.submissions == digest
                && report.entries.len() == commits.submissions.len()
        };
        let mut reports = Vec::new();
        let mut records = BTreeMap::new();
        for voter in voters {
            match scored.announcement(voter.hotkey) {
                Some((record, Announcement::Scored(report)))
                    if record.block >= opens && sound(&report) =>
                {
                    records.insert(voter.hotkey, record.clone());
                    reports.push(Reported {
                        voter: *voter,
                        report,
                    });
                }
                _ => {}
            }
        }
        let quorum = consensus::quorum(reports.iter().map(|r| r.voter.stake), voters);
        // Without a quorum nobody is judged: an empty list of reports leaves everyone unscored.
        let counted: &[Reported] = if quorum { &reports } else { &[] };
        let counted = (counted, voters);
        let verdicts = consensus::verdicts(&commits.submissions, counted, known.significance);
        Some(Judgement {
            quorum,
            rewards: cycle_rewards(&verdicts, known.groups),
            verdicts,
            archive: CycleArchive {
                format: CycleArchive::FORMAT,
                cycle: self.cycle,
                base: self.base?,
                sealed: commits.sealed,
                revealed: commits.revealed,
                seeded: self.seeded?,
                scored: block_ref(scored),
                voters: voters.to_vec(),
                seals: commits.seals.clone(),
                reveals: commits.reveals.clone(),
                unregistered: commits.unregistered.clone(),
                reports: records,
            },
        })
    }
}

/// The votes that count, as of the last block of the vote window (P-14, P-33).
pub(crate) fn votes(snapshot: &Snapshot, schedule: &Schedule, cycle: Cycle) -> Vec<(Voter, Vote)> {
    let opens = schedule.opens(cycle, Window::Vote);
    let voted = |voter: &Voter| match snapshot.announcement(voter.hotkey)? {
        (record, Announcement::Voted(vote)) if record.block >= opens && vote.cycle == cycle => {
            Some((*voter, vote))
        }
        _ => None,
    };
    snapshot.voters().iter().filter_map(voted).collect()
}

fn block_ref(snapshot: &Snapshot) -> BlockRef {
    BlockRef {
        number: snapshot.block,
        hash: snapshot.hash,
    }
}
