//! Two-phase commit: what a cycle's submissions are, derived from the chain alone (P-12 to P-15).
//!
//! ```text
//! seal = H(network, cycle, group, hotkey, base state, update, salt)     every field framed
//! ```
//!
//! The hotkey is inside, so a copied seal never opens under another name; the cycle and the base are
//! inside, so it never opens twice. Inputs are two snapshots: as of the last block of the seal window
//! and of the reveal window. Whatever a record says later is ignored (A-24).

use serde::{Deserialize, Serialize};

use crate::announcement::{Announcement, Salt};
use crate::assignment::Assignment;
use crate::ids::{BlobId, Block, BlockHash, Cycle, GroupId, Hotkey, Netuid, Seal, StateId};
use crate::lineage::Earlier;
use crate::reason::ReasonCode;
use crate::report::SubmissionsDigest;
use crate::schedule::{Schedule, Window};
use crate::snapshot::Snapshot;

/// Which network a commitment is for, so that none can be replayed on another (A-20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Hash of the chain's first block.
    pub genesis: BlockHash,
    /// The subnet.
    pub netuid: Netuid,
}

/// Everything that a seal binds except its secret half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// On which network.
    pub network: Network,
    /// For which cycle.
    pub cycle: Cycle,
    /// For which group.
    pub group: GroupId,
    /// By whom.
    pub hotkey: Hotkey,
    /// Built on which state.
    pub base: StateId,
}

impl Binding {
    /// The commitment to `update` under this binding (P-12).
    #[must_use]
    pub fn seal(&self, update: BlobId, salt: &Salt) -> Seal {
        let mut hasher = blake3::Hasher::new_derive_key("connito/1 sealed update");
        // Every field but the last has one fixed length; the salt's is framed so that a longer one
        // in a later version cannot be mistaken for this one.
        hasher.update(&self.network.genesis.0);
        hasher.update(&self.network.netuid.0.to_le_bytes());
        hasher.update(&self.cycle.0.to_le_bytes());
        hasher.update(&self.group.0.to_le_bytes());
        hasher.update(&self.hotkey.0);
        hasher.update(&self.base.0);
        hasher.update(&update.0);
        hasher.update(&(salt.len() as u64).to_le_bytes());
        hasher.update(salt);
        Seal(*hasher.finalize().as_bytes())
    }
}

/// One hotkey's submission of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// By whom.
    pub hotkey: Hotkey,
    /// For which group; the one it is assigned to, whatever it claimed.
    pub group: GroupId,
    /// When it was sealed: the earlier of two like updates keeps the credit.
    pub sealed: (Block, u32),
    /// What came of it by the end of the reveal window.
    pub opening: Opening,
}

/// What a sealed commitment turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// It opens to this update.
    Update(BlobId),
    /// It does not, for this reason.
    Refused(ReasonCode),
}

impl Submission {
    /// The update, if the commitment was opened.
    #[must_use]
    pub fn update(&self) -> Option<BlobId> {
        match self.opening {
            Opening::Update(update) => Some(update),
            Opening::Refused(_) => None,
        }
    }
}

/// What everyone knows of a cycle before its submissions are read.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The network.
    pub network: Network,
    /// The cycle.
    pub cycle: Cycle,
    /// The state to build on.
    pub base: StateId,
    /// Earlier states that an update may build on where its group is unchanged (A-26); `None` for an
    /// observer that cannot tell.
    pub earlier: Option<&'a [Earlier]>,
    /// States before those, only to tell a stale base from an unknown one.
    pub older: &'a [StateId],
    /// Which group each hotkey trains.
    pub assignment: &'a Assignment,
    /// The task's schedule.
    pub schedule: &'a Schedule,
}

/// The cycle's submissions, the earliest seal first (P-15).
///
/// `sealed` and `revealed` are the chain as of the last blocks of the two windows. `None` when some
/// opening may be of an earlier state and those are not known: a guess would be another list.
#[must_use]
pub fn collect(
    expected: &Expected<'_>,
    sealed: &Snapshot,
    revealed: &Snapshot,
) -> Option<Vec<Submission>> {
    let opens = expected.schedule.opens(expected.cycle, Window::Seal);
    let submissions: Option<Vec<_>> = sealed
        .announcements()
        .filter(|(_, record, _)| record.block >= opens && record.block <= sealed.block)
        .filter_map(|(hotkey, record, announcement)| match announcement {
            Announcement::Sealed { cycle, group, seal } => {
                let own = expected.assignment.group_of(hotkey)?;
                let claim = Claim {
                    hotkey,
                    cycle,
                    group,
                    seal,
                };
                let opening = claim.open(expected, own, revealed);
                Some(opening.map(|opening| Submission {
                    hotkey,
                    group: own,
                    sealed: (record.block, record.index),
                    opening,
                }))
            }
            _ => None,
        })
        .collect();
    let mut submissions = submissions?;
    submissions.sort_by_key(|submission| (submission.sealed, submission.hotkey));
    Some(submissions)
}

/// Tells this list from any other, in a score report.
#[must_use]
pub fn digest(cycle: Cycle, submissions: &[Submission]) -> SubmissionsDigest {
    let mut hasher = blake3::Hasher::new_derive_key("connito/1 submissions");
    hasher.update(&cycle.0.to_le_bytes());
    for submission in submissions {
        hasher.update(&submission.hotkey.0);
        match submission.opening {
            Opening::Update(update) => hasher.update(&[1]).update(&update.0),
            // Not the reason: an observer that came late may not know a stale base from an unknown one.
            Opening::Refused(_) => hasher.update(&[0]),
        };
    }
    let mut digest = [0; 8];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    digest
}

/// What a miner said when it sealed.
struct Claim {
    hotkey: Hotkey,
    cycle: Cycle,
    group: GroupId,
    seal: Seal,
}

impl Claim {
    fn open(&self, expected: &Expected<'_>, own: GroupId, revealed: &Snapshot) -> Option<Opening> {
        let refused = |code| Some(Opening::Refused(code));
        if revealed.participant(self.hotkey).is_none() {
            return refused(ReasonCode::NotRegistered);
        }
        if self.cycle != expected.cycle {
            return refused(ReasonCode::WrongCycle);
        }
        if self.group != own {
            return refused(ReasonCode::WrongGroup);
        }
        let closes = expected.schedule.closes(expected.cycle, Window::Seal);
        match revealed.announcement(self.hotkey) {
            Some((
                record,
                Announcement::Revealed {
                    cycle,
                    group,
                    seal,
                    update,
                    salt,
                },
            )) if record.block > closes => {
                if seal != self.seal || cycle != self.cycle || group != self.group {
                    return refused(ReasonCode::RevealMismatch);
                }
                self.check(expected, update, &salt)
            }
            _ => refused(ReasonCode::NotRevealed),
        }
    }

    fn check(&self, expected: &Expected<'_>, update: BlobId, salt: &Salt) -> Option<Opening> {
        let binding = |base| Binding {
            network: expected.network,
            cycle: self.cycle,
            group: self.group,
            hotkey: self.hotkey,
            base,
        };
        let opens_on = |base: &StateId| binding(*base).seal(update, salt) == self.seal;
        if opens_on(&expected.base) {
            return Some(Opening::Update(update));
        }
        let earlier = expected.earlier?.iter().find(|e| opens_on(&e.state));
        Some(match earlier {
            Some(earlier) if earlier.unchanged.contains(&self.group) => Opening::Update(update),
            Some(_) => Opening::Refused(ReasonCode::StaleBase),
            None if expected.older.iter().any(opens_on) => Opening::Refused(ReasonCode::StaleBase),
            None => Opening::Refused(ReasonCode::RevealMismatch),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use proptest::prelude::*;

    use super::*;
    use crate::ids::Uid;
    use crate::rules::Rules;
    use crate::snapshot::{Participant, Record};

    const NETWORK: Network = Network {
        genesis: BlockHash([9; 32]),
        netuid: Netuid(7),
    };
    const BASE: StateId = StateId([1; 32]);
    const OLD: StateId = StateId([2; 32]);
    const REPLACED: StateId = StateId([6; 32]);
    const SALT: Salt = [5; 16];

    static ONE_GROUP: OnceLock<Assignment> = OnceLock::new();

    fn miner() -> Hotkey {
        Hotkey([3; 32])
    }

    fn binding(base: StateId) -> Binding {
        Binding {
            network: NETWORK,
            cycle: Cycle(0),
            group: GroupId(0),
            hotkey: miner(),
            base,
        }
    }

    fn snapshot(block: u64, records: &[(Hotkey, u64, Announcement)]) -> Snapshot {
        let participant = |n: u16, hotkey| Participant {
            uid: Uid(n),
            hotkey,
            stake: 0,
            validator_permit: false,
            endpoint: None,
            weights_set: Block(0),
        };
        Snapshot {
            block: Block(block),
            hash: BlockHash([0; 32]),
            head: Block(block),
            owner: None,
            participants: [participant(0, miner()), participant(1, Hotkey([4; 32]))]
                .into_iter()
                .collect(),
            records: Arc::new(
                records
                    .iter()
                    .map(|(hotkey, block, announcement)| {
                        let record = Record {
                            block: Block(*block),
                            index: 0,
                            bytes: announcement.encode().into(),
                        };
                        (*hotkey, record)
                    })
                    .collect(),
            ),
            readings: Default::default(),
        }
    }

    fn sealed(seal: Seal) -> Announcement {
        Announcement::Sealed {
            cycle: Cycle(0),
            group: GroupId(0),
            seal,
        }
    }

    fn revealed(seal: Seal, update: BlobId) -> Announcement {
        Announcement::Revealed {
            cycle: Cycle(0),
            group: GroupId(0),
            seal,
            update,
            salt: SALT,
        }
    }

    fn collected(
        seals: &[(Hotkey, u64, Announcement)],
        reveals: &[(Hotkey, u64, Announcement)],
    ) -> Vec<Submission> {
        let schedule = Schedule::new(Block(0), Rules::default().windows);
        let expected = Expected {
            earlier: Some(&[]),
            ..expected(&schedule)
        };
        collect(&expected, &snapshot(37, seals), &snapshot(39, reveals)).unwrap()
    }

    fn expected(schedule: &Schedule) -> Expected<'_> {
        Expected {
            network: NETWORK,
            cycle: Cycle(0),
            base: BASE,
            earlier: None,
            older: &[OLD],
            assignment: ONE_GROUP.get_or_init(|| Assignment::new(vec![1])),
            schedule,
        }
    }

    fn opening(base: StateId, reveal: Option<(Hotkey, u64, Announcement)>) -> Opening {
        let update = BlobId([8; 32]);
        let seal = binding(base).seal(update, &SALT);
        let reveals: Vec<_> = reveal.into_iter().collect();
        collected(&[(miner(), 35, sealed(seal))], &reveals)[0].opening
    }

    #[test]
    fn an_opened_seal_is_a_submission_and_an_unopened_one_is_not() {
        let update = BlobId([8; 32]);
        let seal = binding(BASE).seal(update, &SALT);
        let reveal = (miner(), 38, revealed(seal, update));
        assert_eq!(opening(BASE, Some(reveal)), Opening::Update(update));
        assert_eq!(
            opening(BASE, None),
            Opening::Refused(ReasonCode::NotRevealed)
        );
    }

    /// What should happen: the copier's seal is the victim's, byte for byte, and so is its opening.
    /// What should not: that it opens, for the victim's hotkey is inside.
    #[test]
    fn a_copied_seal_does_not_open_under_another_hotkey() {
        let update = BlobId([8; 32]);
        let seal = binding(BASE).seal(update, &SALT);
        let copier = Hotkey([4; 32]);
        let submissions = collected(
            &[(miner(), 35, sealed(seal)), (copier, 36, sealed(seal))],
            &[
                (miner(), 38, revealed(seal, update)),
                (copier, 39, revealed(seal, update)),
            ],
        );
        assert_eq!(submissions[0].opening, Opening::Update(update));
        assert_eq!(
            submissions[1].opening,
            Opening::Refused(ReasonCode::RevealMismatch)
        );
    }

    #[test]
    fn an_update_built_on_an_earlier_state_is_called_stale_and_not_a_mismatch() {
        let update = BlobId([8; 32]);
        let seal = binding(OLD).seal(update, &SALT);
        let reveal = (miner(), 38, revealed(seal, update));
        assert_eq!(
            opening(OLD, Some(reveal)),
            Opening::Refused(ReasonCode::StaleBase)
        );
    }

    /// What should happen: an update for a group that did not change since is a submission like any
    /// other. What should not: that one for a changed group is, or that an observer who does not know
    /// the state before takes part in the list.
    #[test]
    fn an_update_on_the_state_before_counts_only_where_its_group_is_unchanged() {
        let schedule = Schedule::new(Block(0), Rules::default().windows);
        let update = BlobId([8; 32]);
        let seal = binding(REPLACED).seal(update, &SALT);
        let sealed = snapshot(37, &[(miner(), 35, sealed(seal))]);
        let revealed = snapshot(39, &[(miner(), 38, revealed(seal, update))]);
        let opening = |unchanged: Option<Vec<GroupId>>| {
            let earlier = unchanged.map(|unchanged| {
                [Earlier {
                    state: REPLACED,
                    unchanged,
                }]
            });
            let expected = Expected {
                earlier: earlier.as_ref().map(|earlier| &earlier[..]),
                ..expected(&schedule)
            };
            collect(&expected, &sealed, &revealed).map(|list| list[0].opening)
        };
        assert_eq!(
            opening(Some(vec![GroupId(0)])),
            Some(Opening::Update(update))
        );
        let stale = Opening::Refused(ReasonCode::StaleBase);
        assert_eq!(opening(Some(vec![GroupId(1)])), Some(stale));
        assert_eq!(opening(None), None);
    }

    /// Valid in every other respect, opening included: the claim alone decides, before any opening.
    #[test]
    fn a_seal_for_another_group_or_cycle_is_refused_by_name() {
        let claims = [
            (Cycle(0), GroupId(5), ReasonCode::WrongGroup),
            (Cycle(3), GroupId(0), ReasonCode::WrongCycle),
        ];
        for (cycle, group, code) in claims {
            let update = BlobId([8; 32]);
            let binding = Binding {
                cycle,
                group,
                ..binding(BASE)
            };
            let seal = binding.seal(update, &SALT);
            let sealed = Announcement::Sealed { cycle, group, seal };
            let revealed = Announcement::Revealed {
                cycle,
                group,
                seal,
                update,
                salt: SALT,
            };
            let submissions = collected(&[(miner(), 35, sealed)], &[(miner(), 38, revealed)]);
            assert_eq!(submissions[0].opening, Opening::Refused(code));
            assert_eq!(
                submissions[0].group,
                GroupId(0),
                "it is judged in its own group"
            );
        }
    }

    #[test]
    fn a_seal_before_the_window_is_no_submission() {
        let seal = binding(BASE).seal(BlobId([8; 32]), &SALT);
        assert!(collected(&[(miner(), 34, sealed(seal))], &[]).is_empty());
        assert_eq!(collected(&[(miner(), 35, sealed(seal))], &[]).len(), 1);
        assert_eq!(collected(&[(miner(), 37, sealed(seal))], &[]).len(), 1);
    }

    proptest! {
        /// No opening serves two (network, cycle, group, hotkey, base, update, salt) (A-17, A-19, A-20).
        #[test]
        fn changing_any_part_changes_the_seal(field in 0..7_usize, byte in 0..32_usize, bit in 0..8_u8) {
            let flip = 1 << bit;
            let (mut changed, mut update, mut salt) = (binding(BASE), BlobId([8; 32]), SALT);
            match field {
                0 => changed.network.genesis.0[byte] ^= flip,
                1 => changed.network.netuid.0 ^= u16::from(flip),
                2 => changed.cycle.0 ^= u64::from(flip),
                3 => changed.group.0 ^= u16::from(flip),
                4 => changed.hotkey.0[byte] ^= flip,
                5 => update.0[byte] ^= flip,
                _ => salt[byte % 16] ^= flip,
            }
            prop_assert_ne!(changed.seal(update, &salt), binding(BASE).seal(BlobId([8; 32]), &SALT));
        }
    }
}
