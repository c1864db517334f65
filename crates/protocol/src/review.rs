//! What all voters think of what a committee said (P-46).
//!
//! ```text
//! cycle c    committee reports ──▶ verdict, reward, merge
//! cycle c+1  a few of c's submissions are drawn, the most disputed first; every voter scores them
//!            again, on the same state and text ──▶ reports ──▶ what was not earned is taken back,
//!            whoever was wrong is not drawn for a while
//! ```
//!
//! Committees are drawn anew in every cycle, so now and then liars hold most seats of one (A-87). They
//! never hold most of the stake, and that is what reviews a cycle later. Inputs are two cycles' reports;
//! knows nothing of how anything is measured.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::committee::{Member, keyed};
use crate::conduct::{Tolerance, is_repeatable};
use crate::consensus::{Hearing, Outcome, Reported, Testimony, Verdict, combine};
use crate::ids::{BlobId, BlockHash, Cycle, GroupId, Hotkey, Seed, StateId};
use crate::job::Candidate;
use crate::reason::{Charged, ReasonCode};
use crate::rewards::CycleRewards;
use crate::seed::{Draw, seed};
use crate::snapshot::Voter;

/// What of the cycle before is scored again, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Docket {
    /// The submissions.
    pub cases: Vec<Case>,
}

/// A submission that is scored again.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its cycle.
    pub cycle: Cycle,
    /// The state that it builds on.
    pub base: StateId,
    /// Draws the sequences, as it did then.
    pub seed: Seed,
    /// Whose.
    pub hotkey: Hotkey,
    /// For which group.
    pub group: GroupId,
    /// Which update.
    pub update: BlobId,
    /// The weight that it was given.
    pub weight: f64,
    /// The share of the reward that it was given.
    pub earned: f64,
    /// What the members of its committee said.
    pub testimonies: Vec<Testimony>,
    /// Updates of its group that were sealed before it and accepted: it may be a copy of one.
    pub earlier: Vec<Candidate>,
}

/// What a finished cycle left to be reviewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past<'a> {
    pub(crate) cycle: Cycle,
    pub(crate) base: StateId,
    pub(crate) seed: Seed,
    pub(crate) hearing: Hearing<'a>,
    pub(crate) verdicts: &'a [Verdict],
    pub(crate) rewards: &'a CycleRewards,
}

/// What a review found of one submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reviewed {
    /// Whose.
    pub hotkey: Hotkey,
    /// The weight that its committee gave it.
    pub weight: f64,
    /// The code that all voters give it; charged to the network where they did not say.
    pub code: ReasonCode,
    /// The weight that all voters give it.
    pub reviewed_weight: f64,
    /// Share of the cycle's reward that it had not earned.
    pub unearned: f64,
    /// Members of its committee whose word the review contradicts.
    pub contradicted: Vec<Hotkey>,
}

impl Docket {
    /// Draws at most `most` submissions of a finished cycle, by a block after its end: those on which
    /// most of the committee's seats contradict the verdict come first, then accepted ones.
    pub(crate) fn draw(
        past: &Past<'_>,
        most: usize,
        block: BlockHash,
        tolerance: &Tolerance,
    ) -> Self {
        let draw = seed(Draw::Review, block, past.cycle);
        let mut drawn = Vec::new();
        past.hearing.for_each(|place, testimonies| {
            let verdict = &past.verdicts[place];
            if verdict.update.is_none() || !is_repeatable(verdict.code) {
                return;
            }
            let dissent = dissent(verdict, testimonies, tolerance);
            if dissent > 0 || verdict.weight > 0.0 {
                drawn.push((Reverse(dissent), keyed(&draw, &verdict.hotkey.0), place));
            }
        });
        drawn.sort_unstable();
        drawn.truncate(most);
        let places: Vec<usize> = drawn.iter().map(|(_, _, place)| *place).collect();
        Self {
            cases: past.cases(&places),
        }
    }

    /// What all voters' reports, whose last entries are reviews, say of each case. `entries` tells how
    /// many entries come before a voter's reviews; a report with another number of reviews abstains.
    pub(crate) fn resolve(
        &self,
        reports: &[Reported],
        (voters, entries): (&[Voter], &dyn Fn(Hotkey) -> usize),
        tolerance: &Tolerance,
    ) -> Vec<Reviewed> {
        let all: u128 = voters.iter().map(|voter| u128::from(voter.stake)).sum();
        let mut said = vec![Vec::new(); self.cases.len()];
        for Reported { voter, report } in reports {
            let reviews = report.entries.get(entries(voter.hotkey)..).unwrap_or(&[]);
            if reviews.len() == self.cases.len() {
                for (said, entry) in said.iter_mut().zip(reviews) {
                    said.push(Testimony {
                        member: Member {
                            hotkey: voter.hotkey,
                            weight: voter.stake,
                        },
                        entry: *entry,
                    });
                }
            }
        }
        let found = self.cases.iter().zip(said).map(|(case, said)| {
            let outcome = combine(&said, all, tolerance.significance);
            case.reviewed(&outcome, tolerance)
        });
        found.collect()
    }
}

impl Past<'_> {
    /// The cases in these places, in this order.
    fn cases(&self, places: &[usize]) -> Vec<Case> {
        let mut cases = BTreeMap::new();
        let mut accepted: BTreeMap<GroupId, Vec<Candidate>> = BTreeMap::new();
        self.hearing.for_each(|place, testimonies| {
            let verdict = &self.verdicts[place];
            let Some(update) = verdict.update else { return };
            let earlier = accepted.entry(verdict.group).or_default();
            if places.contains(&place) {
                let case = Case {
                    cycle: self.cycle,
                    base: self.base,
                    seed: self.seed,
                    hotkey: verdict.hotkey,
                    group: verdict.group,
                    update,
                    weight: verdict.weight,
                    earned: self
                        .rewards
                        .shares
                        .get(&verdict.hotkey)
                        .copied()
                        .unwrap_or(0.0),
                    testimonies: testimonies.to_vec(),
                    earlier: earlier.clone(),
                };
                cases.insert(place, case);
            }
            if verdict.weight > 0.0 {
                earlier.push(Candidate {
                    hotkey: verdict.hotkey,
                    group: verdict.group,
                    update,
                });
            }
        });
        places
            .iter()
            .filter_map(|place| cases.remove(place))
            .collect()
    }
}

impl Case {
    fn reviewed(&self, outcome: &Outcome, tolerance: &Tolerance) -> Reviewed {
        let reviewed_weight = outcome.weight(tolerance.significance);
        let decided = outcome.code.charged_to() != Charged::Network;
        let excess = self.weight - reviewed_weight;
        let is_too_much = decided && excess > tolerance.agreement;
        let mistaken = |testimony: &&Testimony| tolerance.contradicts(&testimony.entry, outcome);
        let members = self.testimonies.iter().filter(mistaken);
        Reviewed {
            hotkey: self.hotkey,
            weight: self.weight,
            code: outcome.code,
            reviewed_weight,
            unearned: if is_too_much {
                self.earned * excess / self.weight
            } else {
                0.0
            },
            contradicted: members.map(|testimony| testimony.member.hotkey).collect(),
        }
    }
}

/// What those weigh who contradict the verdict.
fn dissent(verdict: &Verdict, testimonies: &[Testimony], tolerance: &Tolerance) -> u64 {
    let outcome = verdict.outcome();
    let dissenting = testimonies
        .iter()
        .filter(|testimony| tolerance.contradicts(&testimony.entry, &outcome));
    dissenting.map(|testimony| testimony.member.weight).sum()
}

#[cfg(test)]
mod tests;
