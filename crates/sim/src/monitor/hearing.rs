//! Who decides in a cycle, and which honest validators are heard (P-25, P-43, P-44).
//!
//! Committees and their weights are those that everyone draws from the chain. Whose report counts, the
//! chain shows as well: what stood there in the score window's last block, and whose body was attested.
//! An honest validator that crashed or came late is not heard, here as in the protocol.

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::announcement::Announcement;
use connito_protocol::committee::{Committee, Drawing, Lot, Roster};
use connito_protocol::ids::{BlockHash, Cycle, GroupId, Hotkey};
use connito_protocol::manifest::TaskManifest;
use connito_protocol::snapshot::{Snapshot, Voter};
use connito_protocol::submission::Submission;

use crate::network::NodeId;

/// The honest validators.
pub(crate) type Honest = BTreeMap<Hotkey, NodeId>;

/// Who decides in a cycle, and which honest ones among them were heard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hearing {
    /// Voters as of the last block of the reveal window, in the order of their hotkeys.
    voters: Vec<Voter>,
    groups: Vec<GroupId>,
    roster: Option<Roster>,
    /// Honest validators whose report counts.
    pub(crate) heard: BTreeSet<Hotkey>,
    /// Honest validators whose report counts if its body is attested.
    mirrored: BTreeSet<Hotkey>,
}

impl Hearing {
    /// A cycle whose uploads have ended.
    pub(crate) fn new(voters: &[Voter]) -> Self {
        Self {
            voters: voters.to_vec(),
            ..Self::default()
        }
    }

    /// Draws the committees, by the block that opens the score window.
    pub(crate) fn draw(
        &mut self,
        (cycle, seeded): (Cycle, BlockHash),
        submissions: &[Submission],
        excluded: &BTreeMap<Hotkey, Cycle>,
        task: &TaskManifest,
    ) {
        let scoring = &task.rules.scoring;
        let groups = task.group_ids();
        let drawing = Drawing {
            cycle,
            groups: &groups,
            voters: &self.voters,
            scorers: scoring.scorers_per_update,
            updates: scoring.updates_per_group,
        };
        self.roster = Roster::new(&drawing, submissions, Some(Lot { seeded, excluded }));
        self.groups = groups;
    }

    /// Reads which honest reports stand there in the score window's last block.
    pub(crate) fn read(&mut self, cycle: Cycle, scored: &Snapshot, honest: &Honest) {
        self.heard.clear();
        self.mirrored.clear();
        for voter in self
            .voters
            .iter()
            .filter(|v| honest.contains_key(&v.hotkey))
        {
            match scored.announcement(voter.hotkey) {
                Some((_, Announcement::Scored(report))) if report.cycle == cycle => {
                    self.heard.insert(voter.hotkey);
                }
                Some((_, Announcement::Reported(mirrored))) if mirrored.cycle == cycle => {
                    self.mirrored.insert(voter.hotkey);
                }
                _ => {}
            }
        }
    }

    /// Reads which bodies holders of more than half of all stake attest.
    pub(crate) fn attest(&mut self, cycle: Cycle, attested: &Snapshot) {
        let words: Vec<(u64, Vec<u8>)> = self
            .voters
            .iter()
            .filter_map(|voter| match attested.announcement(voter.hotkey)? {
                (_, Announcement::Attested(word)) if word.cycle == cycle => {
                    Some((voter.stake, word.held))
                }
                _ => None,
            })
            .collect();
        // Read once more after a fork: of those whose bodies were attested then, perhaps not all are.
        self.heard.retain(|hotkey| !self.mirrored.contains(hotkey));
        let all: u128 = self
            .voters
            .iter()
            .map(|voter| u128::from(voter.stake))
            .sum();
        for (place, voter) in self.voters.iter().enumerate() {
            let holds = |held: &[u8]| {
                held.get(place / 8)
                    .is_some_and(|b| b >> (place % 8) & 1 == 1)
            };
            let holding = words.iter().filter(|(_, held)| holds(held));
            let holding: u128 = holding.map(|(stake, _)| u128::from(*stake)).sum();
            if self.mirrored.contains(&voter.hotkey) && holding * 2 > all {
                self.heard.insert(voter.hotkey);
            }
        }
    }

    /// Who scores a group; nobody as long as that is not known.
    pub(crate) fn committee(&self, group: GroupId) -> Option<&Committee> {
        self.roster.as_ref().map(|roster| roster.committee(group))
    }

    /// Drawn committees of which hostile members hold more than half of the seats.
    pub(crate) fn captures(&self, honest: &Honest) -> u64 {
        let roster = self.roster.as_ref().filter(|roster| roster.is_drawn());
        let committees = roster
            .into_iter()
            .flat_map(|roster| self.groups.iter().map(|group| roster.committee(*group)));
        let captured = committees.filter(|committee| {
            let hostile = weight(committee, |hotkey| !honest.contains_key(hotkey));
            hostile * 2 > committee.weight()
        });
        captured.count() as u64
    }

    /// Whether hostile voters can outvote the honest ones that were heard, where all voters decide.
    pub(crate) fn is_outvoted(&self, honest: &Honest) -> bool {
        let stake = |counts: &dyn Fn(&Hotkey) -> bool| -> u128 {
            let counted = self.voters.iter().filter(|voter| counts(&voter.hotkey));
            counted.map(|voter| u128::from(voter.stake)).sum()
        };
        stake(&|hotkey| !honest.contains_key(hotkey))
            >= stake(&|hotkey| self.heard.contains(hotkey))
    }

    /// Whether somebody sits on a committee in which hostile members can outvote the honest ones heard.
    pub(crate) fn sits_among_liars(&self, hotkey: Hotkey, honest: &Honest) -> bool {
        let committees = self
            .groups
            .iter()
            .filter_map(|group| self.committee(*group));
        let mut joined = committees.filter(|committee| committee.has(hotkey));
        joined.any(|committee| {
            weight(committee, |hotkey| !honest.contains_key(hotkey))
                >= weight(committee, |hotkey| self.heard.contains(hotkey))
        })
    }
}

/// What some of a committee's members weigh together.
fn weight(committee: &Committee, counts: impl Fn(&Hotkey) -> bool) -> u128 {
    let members = committee.members().iter();
    let counted = members.filter(|member| counts(&member.hotkey));
    counted.map(|member| u128::from(member.weight)).sum()
}
