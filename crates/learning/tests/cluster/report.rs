//! What became of a cycle of a cluster test, as its participants told it.

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::conduct::Misconduct;
use connito_protocol::consensus::Verdict;
use connito_protocol::event::Milestone;
use connito_protocol::ids::{Cycle, Hotkey, StateId};
use connito_protocol::reason::ReasonCode;
use connito_protocol::review::Reviewed;
use connito_protocol::rewards::CycleRewards;

use crate::network::{Network, Who};

impl Network {
    pub(crate) fn report(&self, cycle: Cycle) -> Report {
        self.report_by(cycle, Who::Owner)
    }

    /// The same, with the cycle's end as somebody else than the owner saw it.
    pub(crate) fn report_by(&self, cycle: Cycle, observer: Who) -> Report {
        let mut report = Report::default();
        for (who, told) in &self.told {
            match told {
                Milestone::Judged {
                    cycle: of,
                    quorum,
                    verdicts,
                    rewards,
                } if *of == cycle => {
                    report.quorum = *quorum;
                    report.verdicts = verdicts.clone();
                    report.rewards = Some(rewards.clone());
                }
                Milestone::Concluded {
                    cycle: of,
                    committed,
                    ..
                } if *of == cycle && *who == observer => {
                    report.committed = committed.clone();
                }
                Milestone::Conduct { cycle: of, conduct } if *of == cycle => {
                    report.conducts.push(conduct.clone());
                }
                Milestone::Reviewed {
                    cycle: of,
                    reviewed,
                } if *of == cycle => report.reviews.push(reviewed.clone()),
                _ => {}
            }
        }
        report.hotkeys = self.hotkeys();
        report
    }

    /// What somebody told, in order.
    pub(crate) fn told_by(&self, who: Who) -> impl Iterator<Item = &Milestone> {
        let told = self.told.iter().filter(move |(teller, _)| *teller == who);
        told.map(|(_, milestone)| milestone)
    }

    /// Whether any validator finished two scorings of one cycle.
    pub(crate) fn scored_twice(&self) -> bool {
        let mut measured: Vec<_> = self
            .told
            .iter()
            .filter_map(|(who, told)| match told {
                Milestone::Measured { cycle, .. } => Some((*who, *cycle)),
                _ => None,
            })
            .collect();
        let all = measured.len();
        measured.sort();
        measured.dedup();
        measured.len() != all
    }
}

/// What became of a cycle.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) quorum: bool,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) rewards: Option<CycleRewards>,
    pub(crate) committed: Vec<(Hotkey, StateId)>,
    pub(crate) hotkeys: BTreeMap<Who, Hotkey>,
    conducts: Vec<BTreeMap<Hotkey, Misconduct>>,
    reviews: Vec<Vec<Reviewed>>,
}

impl Report {
    pub(crate) fn code(&self, who: Who) -> Option<ReasonCode> {
        let hotkey = self.hotkeys[&who];
        self.verdicts
            .iter()
            .find(|verdict| verdict.hotkey == hotkey)
            .map(|verdict| verdict.code)
    }

    pub(crate) fn reward(&self, who: Who) -> f64 {
        let shares = &self.rewards.as_ref().unwrap().shares;
        shares.get(&self.hotkeys[&who]).copied().unwrap_or(0.0)
    }

    pub(crate) fn rewards_and_withheld(&self) -> f64 {
        let rewards = self.rewards.as_ref().unwrap();
        rewards.shares.values().sum::<f64>() + rewards.withheld
    }

    pub(crate) fn distinct_states(&self) -> usize {
        let states: BTreeSet<_> = self.committed.iter().map(|(_, state)| state).collect();
        states.len()
    }

    pub(crate) fn voters(&self) -> usize {
        self.committed.len()
    }

    /// The verdicts' codes, each with how often it was given.
    pub(crate) fn codes(&self) -> BTreeMap<ReasonCode, usize> {
        let mut codes = BTreeMap::new();
        for verdict in &self.verdicts {
            *codes.entry(verdict.code).or_default() += 1;
        }
        codes
    }

    /// What all validators that told anything of conduct agree on.
    pub(crate) fn misconduct(&self, who: Who) -> Option<Misconduct> {
        let first = self.conducts.first()?;
        assert!(self.conducts.iter().all(|told| told == first));
        first.get(&self.hotkeys[&who]).copied()
    }

    /// Whether anybody was found to have done anything wrong.
    pub(crate) fn is_spotless(&self) -> bool {
        self.conducts.is_empty()
    }

    /// What all validators that told of reviews agree on.
    pub(crate) fn reviewed(&self) -> Vec<Reviewed> {
        let Some(first) = self.reviews.first() else {
            return Vec::new();
        };
        assert!(self.reviews.iter().all(|told| told == first));
        first.clone()
    }
}
