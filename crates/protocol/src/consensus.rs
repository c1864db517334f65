//! From many validators' reports to one verdict a submission, and from their votes to one state
//! (P-27 to P-33).
//!
//! Inputs are the reports that count and votes as they stand on the chain, with the weights of the
//! committees and stakes as of one block, so everyone computes the same answer: sums of integers,
//! comparisons, and a median that picks one report instead of averaging several.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::announcement::{TaskDigest, Vote};
use crate::committee::{Member, Roster};
use crate::ids::{BlobId, GroupId, Hotkey, StateId};
use crate::reason::{Charged, ReasonCode};
use crate::report::{Entry, Measurement, ScoreReport};
use crate::scoring::judge;
use crate::snapshot::Voter;
use crate::submission::{Opening, Submission};

/// The network's word on one submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whose.
    pub hotkey: Hotkey,
    /// For which group.
    pub group: GroupId,
    /// Which update, if it was opened.
    pub update: Option<BlobId>,
    /// Why.
    pub code: ReasonCode,
    /// The measurement of the median validator.
    pub measurement: Option<Measurement>,
    /// `max(0, u − z·SE)`; zero means no reward and no influence (P-23).
    pub weight: f64,
}

impl Verdict {
    /// What was found, apart from whom it concerns.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome {
            code: self.code,
            measurement: self.measurement,
        }
    }
}

/// A validator's report with the stake behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// Who reports, and with how much stake.
    pub voter: Voter,
    /// The report.
    pub report: ScoreReport,
}

/// What a member of a committee says of a submission, or a voter of one that is reviewed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Testimony {
    /// Who says it, and what its word weighs.
    pub member: Member,
    /// What it says.
    pub entry: Entry,
}

/// What testimonies amount to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The code.
    pub code: ReasonCode,
    /// The measurement of the median, where measurements decided.
    pub measurement: Option<Measurement>,
}

impl Outcome {
    /// `max(0, u − z·SE)` of what was accepted, 0 for everything else (P-23).
    #[must_use]
    pub fn weight(&self, significance: f64) -> f64 {
        match (self.code, self.measurement) {
            (ReasonCode::Accepted, Some(m)) => m.significant_gain(significance),
            _ => 0.0,
        }
    }
}

/// Whether the stake that speaks is more than half of the stake that may (P-27).
#[must_use]
pub fn quorum(speaking: impl Iterator<Item = u64>, voters: &[Voter]) -> bool {
    let all: u128 = voters.iter().map(|voter| u128::from(voter.stake)).sum();
    let present: u128 = speaking.map(u128::from).sum();
    present * 2 > all
}

/// A cycle's submissions, who was to score them, and the reports that count.
#[derive(Debug, Clone, Copy)]
pub struct Hearing<'a> {
    /// In the order of P-15.
    pub submissions: &'a [Submission],
    /// Who scores what.
    pub roster: &'a Roster,
    /// At most one a voter, each with the entries that the roster asks for.
    pub reports: &'a [Reported],
}

impl Hearing<'_> {
    /// Reads the reports side by side: for every submission that was not passed over, in order, its
    /// place and what its committee says of it.
    pub fn for_each(&self, mut hear: impl FnMut(usize, &[Testimony])) {
        let reporting = self.reports.iter().enumerate();
        let places: BTreeMap<Hotkey, usize> = reporting
            .map(|(place, r)| (r.voter.hotkey, place))
            .collect();
        let mut heard: BTreeMap<GroupId, Vec<(Member, usize)>> = BTreeMap::new();
        let mut unread: Vec<_> = self
            .reports
            .iter()
            .map(|r| r.report.entries.iter())
            .collect();
        let mut testimonies = Vec::new();
        for (place, submission) in self.submissions.iter().enumerate() {
            if self.roster.is_passed_over(place) {
                continue;
            }
            let members = heard.entry(submission.group).or_insert_with(|| {
                let members = self.roster.committee(submission.group).members().iter();
                members
                    .filter_map(|member| Some((*member, *places.get(&member.hotkey)?)))
                    .collect()
            });
            testimonies.clear();
            for (member, report) in members {
                if let Some(entry) = unread[*report].next() {
                    testimonies.push(Testimony {
                        member: *member,
                        entry: *entry,
                    });
                }
            }
            hear(place, &testimonies);
        }
    }
}

/// The verdict on every submission, in their order (P-28).
///
/// What the chain itself shows (an unopened or mismatched seal, one that was not drawn) needs no
/// report. Of the rest only the committee's members are heard.
#[must_use]
pub fn verdicts(hearing: &Hearing<'_>, significance: f64) -> Vec<Verdict> {
    let by_the_chain = |submission: &Submission| Outcome {
        code: match submission.opening {
            Opening::Refused(code) => code,
            Opening::Update(_) => ReasonCode::NotDrawn,
        },
        measurement: None,
    };
    let mut outcomes: Vec<Outcome> = hearing.submissions.iter().map(by_the_chain).collect();
    hearing.for_each(|place, testimonies| {
        let submission = &hearing.submissions[place];
        if submission.update().is_some() {
            let committee = hearing.roster.committee(submission.group);
            outcomes[place] = combine(testimonies, committee.weight(), significance);
        }
    });
    let with_outcomes = hearing.submissions.iter().zip(outcomes);
    with_outcomes
        .map(|(submission, outcome)| Verdict {
            hotkey: submission.hotkey,
            group: submission.group,
            update: submission.update(),
            code: outcome.code,
            measurement: outcome.measurement,
            weight: outcome.weight(significance),
        })
        .collect()
}

/// What testimonies amount to, where all who were asked weigh `all` together (P-28).
///
/// Faults and measurements are weighed against each other; measurements win a tie. Where those who say
/// either hold no more than half of the weight, the update stays unscored.
#[must_use]
pub fn combine(testimonies: &[Testimony], all: u128, significance: f64) -> Outcome {
    let mut faults: BTreeMap<ReasonCode, u128> = BTreeMap::new();
    let mut measured = Vec::new();
    for Testimony { member, entry } in testimonies {
        match entry {
            Entry::Measured(measurement) => measured.push((*member, *measurement)),
            Entry::Refused(code) if code.charged_to() == Charged::Miner => {
                *faults.entry(*code).or_default() += u128::from(member.weight);
            }
            // A validator's own failure says nothing of the miner.
            Entry::Refused(_) => {}
        }
    }
    let for_faults: u128 = faults.values().sum();
    let for_measuring: u128 = measured.iter().map(|(m, _)| u128::from(m.weight)).sum();
    let refused = |code| Outcome {
        code,
        measurement: None,
    };
    if (for_faults + for_measuring) * 2 <= all {
        return refused(ReasonCode::Unscored);
    }
    if for_faults > for_measuring {
        let heaviest = faults
            .into_iter()
            .max_by(|(a, weight_a), (b, weight_b)| weight_a.cmp(weight_b).then(b.cmp(a)));
        return refused(heaviest.map_or(ReasonCode::Unscored, |(code, _)| code));
    }
    match lower_median(measured, significance) {
        Some(measurement) => Outcome {
            code: judge(measurement, significance),
            measurement: Some(measurement),
        },
        None => refused(ReasonCode::Unscored),
    }
}

/// The weighted lower median by significant gain: the smallest measurement such that it and all
/// smaller ones hold at least half of the weight (P-29).
fn lower_median(
    mut measured: Vec<(Member, Measurement)>,
    significance: f64,
) -> Option<Measurement> {
    measured.sort_by(|(member_a, a), (member_b, b)| {
        a.significant_gain(significance)
            .partial_cmp(&b.significant_gain(significance))
            .unwrap_or(Ordering::Equal)
            .then(member_a.hotkey.cmp(&member_b.hotkey))
    });
    let all: u128 = measured.iter().map(|(m, _)| u128::from(m.weight)).sum();
    let mut below: u128 = 0;
    measured.into_iter().find_map(|(member, measurement)| {
        below += u128::from(member.weight);
        (below * 2 >= all).then_some(measurement)
    })
}

/// What a cycle's votes decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The canonical state from the next cycle on.
    pub next: StateId,
    /// The two states that the majority computed.
    pub vote: (StateId, StateId),
    /// Whether the gate let the candidate pass.
    pub passed: bool,
}

/// Counts the votes of a cycle (P-33): the pair of states that holders of more than half of all
/// stake computed, then, among those, whether more than half approve. `None` when no pair has that
/// much stake: the incumbent stays as it is.
#[must_use]
pub fn tally(votes: &[(Voter, Vote)], voters: &[Voter]) -> Option<Tally> {
    let mut pairs: BTreeMap<(StateId, StateId), (u128, u128)> = BTreeMap::new();
    for (voter, vote) in votes {
        let (stake, approving) = pairs.entry((vote.candidate, vote.fallback)).or_default();
        *stake += u128::from(voter.stake);
        if vote.approves {
            *approving += u128::from(voter.stake);
        }
    }
    let all: u128 = voters.iter().map(|voter| u128::from(voter.stake)).sum();
    pairs
        .into_iter()
        .find(|(_, (stake, _))| stake * 2 > all)
        .map(|(pair, (stake, approving))| {
            let passed = approving * 2 > stake;
            Tally {
                next: if passed { pair.0 } else { pair.1 },
                vote: pair,
                passed,
            }
        })
}

/// The task that holders of more than half of all stake say the next cycle belongs to (P-39). `None`
/// when no task has that much stake: the one in force goes on.
#[must_use]
pub fn next_task(votes: &[(Voter, Vote)], voters: &[Voter]) -> Option<TaskDigest> {
    let mut named: BTreeMap<TaskDigest, u128> = BTreeMap::new();
    for (voter, vote) in votes {
        *named.entry(vote.task).or_default() += u128::from(voter.stake);
    }
    let all: u128 = voters.iter().map(|voter| u128::from(voter.stake)).sum();
    let most = named.into_iter().find(|(_, stake)| stake * 2 > all);
    most.map(|(task, _)| task)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::committee::Drawing;
    use crate::ids::{Block, Cycle};

    fn voter(number: u8, stake: u64) -> Voter {
        Voter {
            hotkey: Hotkey([number; 32]),
            stake,
        }
    }

    fn measured(utility: f32) -> Entry {
        Entry::Measured(Measurement {
            utility,
            standard_error: 0.01,
        })
    }

    fn reported(number: u8, stake: u64, entry: Entry) -> Reported {
        Reported {
            voter: voter(number, stake),
            report: ScoreReport {
                cycle: Cycle(0),
                submissions: [0; 8],
                entries: vec![entry],
            },
        }
    }

    fn verdict(reports: &[Reported]) -> Verdict {
        let submission = Submission {
            hotkey: Hotkey([77; 32]),
            group: GroupId(0),
            sealed: (Block(35), 0),
            opening: Opening::Update(BlobId([1; 32])),
        };
        let voters: Vec<Voter> = reports.iter().map(|report| report.voter).collect();
        let drawing = Drawing {
            cycle: Cycle(0),
            groups: &[GroupId(0)],
            voters: &voters,
            scorers: 16,
            updates: 1,
        };
        let roster = Roster::new(&drawing, &[submission], None).unwrap();
        let hearing = Hearing {
            submissions: &[submission],
            roster: &roster,
            reports,
        };
        verdicts(&hearing, 1.0).remove(0)
    }

    #[test]
    fn with_stake_evenly_split_the_smaller_of_two_middle_values_counts() {
        let verdict = verdict(&[
            reported(1, 10, measured(0.5)),
            reported(2, 10, measured(0.2)),
        ]);
        assert_eq!(verdict.measurement.map(|m| m.utility), Some(0.2));
        assert_eq!(verdict.code, ReasonCode::Accepted);
    }

    /// A validator that ran out of time abstains; the two others decide.
    #[test]
    fn a_validators_own_failure_is_not_charged_to_the_miner() {
        let unscored = Entry::Refused(ReasonCode::Unscored);
        let some = verdict(&[reported(1, 40, unscored), reported(2, 60, measured(0.2))]);
        assert_eq!(some.code, ReasonCode::Accepted);
        let few = verdict(&[reported(1, 60, unscored), reported(2, 40, measured(0.2))]);
        assert_eq!(
            few.code,
            ReasonCode::Unscored,
            "a minority does not decide alone"
        );
        assert_eq!(
            verdict(&[reported(1, 90, unscored)]).code,
            ReasonCode::Unscored
        );
        assert_eq!(verdict(&[]).code, ReasonCode::Unscored);
    }

    #[test]
    fn a_minority_cannot_reject_what_the_majority_measured() {
        let refused = Entry::Refused(ReasonCode::NotUploaded);
        let minority = [reported(1, 10, refused), reported(2, 20, measured(0.2))];
        assert_eq!(verdict(&minority).code, ReasonCode::Accepted);
        let majority = [reported(1, 21, refused), reported(2, 20, measured(0.2))];
        assert_eq!(verdict(&majority).code, ReasonCode::NotUploaded);
    }

    proptest! {
        /// Whatever a minority of the stake reports, the verdict's gain lies between two gains that
        /// the honest majority measured.
        #[test]
        fn liars_with_less_than_half_of_the_stake_cannot_leave_the_honest_range(
            honest in proptest::collection::vec(-1.0..1.0_f32, 3..8),
            lies in proptest::collection::vec(-1e6..1e6_f32, 0..3),
        ) {
            let mut reports: Vec<_> = honest.iter().enumerate()
                .map(|(n, u)| reported(n as u8, 10, measured(*u))).collect();
            reports.extend(lies.iter().enumerate().map(|(n, u)| reported(100 + n as u8, 10, measured(*u))));
            let utility = verdict(&reports).measurement.unwrap().utility;
            let least = honest.iter().copied().fold(f32::MAX, f32::min);
            let most = honest.iter().copied().fold(f32::MIN, f32::max);
            prop_assert!(utility >= least && utility <= most);
        }
    }

    #[test]
    fn the_gate_is_decided_by_those_who_computed_the_same_states() {
        let vote = |approves, candidate: u8| Vote {
            cycle: Cycle(0),
            approves,
            candidate: StateId([candidate; 32]),
            fallback: StateId([9; 32]),
            task: [candidate; 8],
        };
        let voters = [voter(1, 10), voter(2, 10), voter(3, 10)];
        let agreed = tally(
            &[
                (voters[0], vote(true, 1)),
                (voters[1], vote(true, 1)),
                (voters[2], vote(false, 2)),
            ],
            &voters,
        );
        assert_eq!(
            agreed.map(|t| (t.next, t.passed)),
            Some((StateId([1; 32]), true))
        );
        let split = tally(
            &[(voters[0], vote(true, 1)), (voters[1], vote(false, 1))],
            &voters,
        );
        assert_eq!(
            split.map(|t| t.next),
            Some(StateId([9; 32])),
            "half is not a majority"
        );
        assert_eq!(
            tally(&[(voters[0], vote(true, 1))], &voters),
            None,
            "a third is no quorum"
        );
        let votes = [(voters[0], vote(true, 1)), (voters[1], vote(false, 1))];
        assert_eq!(next_task(&votes, &voters), Some([1; 8]));
        assert_eq!(
            next_task(&votes[..1], &voters),
            None,
            "nor is it for a task"
        );
    }
}
