//! The few bytes that a participant puts on the chain (P-10, P-11).
//!
//! A record on the chain is overwritten whole by the next one and is charged at least 100 bytes
//! against 3,100 an epoch, so there are seven small kinds and at most three writes a cycle. Layout:
//! `"cn"`, version 1, kind, then fields of fixed width, little-endian. Decoding is total: other
//! bytes are somebody else's and yield nothing.

use serde::{Deserialize, Serialize};

use crate::ids::{BlobId, Cycle, GroupId, Seal, StateId};
use crate::report::{ScoreReport, SubmissionsDigest};

const MAGIC: [u8; 3] = [b'c', b'n', 1];

/// Largest announcement, in bytes: the widest single field that the chain takes.
pub const MAXIMUM_ANNOUNCEMENT_BYTES: usize = 512;

/// Random bytes that keep a sealed update from being guessed.
pub type Salt = [u8; 16];

/// What a participant announces on the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Announcement {
    /// Owner: the task that is to be worked on.
    Task {
        /// The task manifest.
        task: BlobId,
    },
    /// Miner, seal window: a commitment to an update that nobody can read yet.
    Sealed {
        /// The cycle that it is for.
        cycle: Cycle,
        /// The group that it is for.
        group: GroupId,
        /// The commitment.
        seal: Seal,
    },
    /// Miner, reveal window: the opening. Repeats the seal, since it overwrites it.
    Revealed {
        /// The cycle that it is for.
        cycle: Cycle,
        /// The group that it is for.
        group: GroupId,
        /// The commitment that it opens.
        seal: Seal,
        /// The update.
        update: BlobId,
        /// The salt of the commitment.
        salt: Salt,
    },
    /// Validator, score window: what it measured.
    Scored(ScoreReport),
    /// Validator, vote window: the state that follows, and whether it passed the gate.
    Voted(Vote),
    /// Validator, score window: what it measured, by name, for it is too long for the chain (P-44).
    Reported(Mirrored),
    /// Validator, vote window: which of these reports it holds.
    Attested(Attestation),
}

/// First bytes of a task manifest's name: enough to tell the one announced task from the one in force.
pub type TaskDigest = [u8; 8];

/// The digest by which votes name a task.
#[must_use]
pub fn task_digest(task: BlobId) -> TaskDigest {
    let mut digest = [0; 8];
    digest.copy_from_slice(&task.0[..8]);
    digest
}

/// A report that is kept as a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirrored {
    /// The cycle that was scored.
    pub cycle: Cycle,
    /// Which list of submissions the entries belong to.
    pub submissions: SubmissionsDigest,
    /// The bytes of the [`Announcement::Scored`] that it stands for.
    pub body: BlobId,
}

/// A validator's word on which bodies it holds (P-44).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The cycle.
    pub cycle: Cycle,
    /// Which list of bodies it is about.
    pub bodies: BodiesDigest,
    /// A bit a voter in the order of their hotkeys, the lowest of a byte first.
    pub held: Vec<u8>,
}

/// First bytes of the hash of the bodies that a cycle's reports name.
pub type BodiesDigest = [u8; 8];

/// A validator's word on what follows (P-33, P-39).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vote {
    /// The cycle that ends.
    pub cycle: Cycle,
    /// Whether the candidate measured no worse than the incumbent on the gate's data.
    pub approves: bool,
    /// The state that follows when the gate lets the candidate pass.
    pub candidate: StateId,
    /// The state that follows when it does not.
    pub fallback: StateId,
    /// The task that the next cycle belongs to.
    pub task: TaskDigest,
}

impl Announcement {
    /// The bytes that go on the chain.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        match self {
            Self::Task { task } => {
                bytes.push(0);
                bytes.extend_from_slice(&task.0);
            }
            Self::Sealed { cycle, group, seal } => {
                bytes.push(1);
                push_sealed(&mut bytes, *cycle, *group, *seal);
            }
            Self::Revealed {
                cycle,
                group,
                seal,
                update,
                salt,
            } => {
                bytes.push(2);
                push_sealed(&mut bytes, *cycle, *group, *seal);
                bytes.extend_from_slice(&update.0);
                bytes.extend_from_slice(salt);
            }
            Self::Scored(report) => {
                bytes.push(3);
                report.encode_into(&mut bytes);
            }
            Self::Voted(vote) => {
                bytes.push(4);
                bytes.extend_from_slice(&vote.cycle.0.to_le_bytes());
                bytes.push(u8::from(vote.approves));
                bytes.extend_from_slice(&vote.candidate.0);
                bytes.extend_from_slice(&vote.fallback.0);
                bytes.extend_from_slice(&vote.task);
            }
            Self::Reported(mirrored) => {
                bytes.push(5);
                bytes.extend_from_slice(&mirrored.cycle.0.to_le_bytes());
                bytes.extend_from_slice(&mirrored.submissions);
                bytes.extend_from_slice(&mirrored.body.0);
            }
            Self::Attested(attestation) => {
                bytes.push(6);
                bytes.extend_from_slice(&attestation.cycle.0.to_le_bytes());
                bytes.extend_from_slice(&attestation.bodies);
                bytes.extend_from_slice(&attestation.held);
            }
        }
        bytes
    }

    /// Reads an announcement; `None` for anything that `encode` does not produce.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes.strip_prefix(&MAGIC)?);
        let announcement = match rest.byte()? {
            0 => Self::Task {
                task: BlobId(rest.array()?),
            },
            1 => Self::Sealed {
                cycle: rest.cycle()?,
                group: rest.group()?,
                seal: Seal(rest.array()?),
            },
            2 => Self::Revealed {
                cycle: rest.cycle()?,
                group: rest.group()?,
                seal: Seal(rest.array()?),
                update: BlobId(rest.array()?),
                salt: rest.array()?,
            },
            3 => Self::Scored(ScoreReport::decode(&mut rest)?),
            4 => Self::Voted(Vote {
                cycle: rest.cycle()?,
                approves: match rest.byte()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
                candidate: StateId(rest.array()?),
                fallback: StateId(rest.array()?),
                task: rest.array()?,
            }),
            5 => Self::Reported(Mirrored {
                cycle: rest.cycle()?,
                submissions: rest.array()?,
                body: BlobId(rest.array()?),
            }),
            6 => Self::Attested(Attestation {
                cycle: rest.cycle()?,
                bodies: rest.array()?,
                held: std::mem::take(&mut rest.0).to_vec(),
            }),
            _ => return None,
        };
        rest.0.is_empty().then_some(announcement)
    }
}

fn push_sealed(bytes: &mut Vec<u8>, cycle: Cycle, group: GroupId, seal: Seal) {
    bytes.extend_from_slice(&cycle.0.to_le_bytes());
    bytes.extend_from_slice(&group.0.to_le_bytes());
    bytes.extend_from_slice(&seal.0);
}

/// Takes fields off the front of a byte string.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn cycle(&mut self) -> Option<Cycle> {
        self.array().map(u64::from_le_bytes).map(Cycle)
    }

    fn group(&mut self) -> Option<GroupId> {
        self.array().map(u16::from_le_bytes).map(GroupId)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Three writes a cycle at the minimum charge are 24 of the 31 that an epoch of eight cycles
    /// allows; one byte over 100 in a reveal would cost every miner its place (P-11).
    #[test]
    fn what_a_miner_writes_is_charged_the_minimum() {
        let revealed = Announcement::Revealed {
            cycle: Cycle(7),
            group: GroupId(1),
            seal: Seal([1; 32]),
            update: BlobId([2; 32]),
            salt: [3; 16],
        };
        assert_eq!(revealed.encode().len(), 94);
        assert_eq!(Announcement::decode(&revealed.encode()), Some(revealed));
    }

    #[test]
    fn one_byte_too_many_makes_it_somebody_elses_record() {
        let vote = Announcement::Voted(Vote {
            cycle: Cycle(1),
            approves: true,
            candidate: StateId([1; 32]),
            fallback: StateId([2; 32]),
            task: [3; 8],
        });
        let mut bytes = vote.encode();
        assert_eq!(Announcement::decode(&bytes), Some(vote));
        bytes.push(0);
        assert_eq!(Announcement::decode(&bytes), None);
    }

    proptest! {
        /// Total and canonical: whatever decodes is exactly what would be encoded again.
        #[test]
        fn any_bytes_decode_to_nothing_or_to_what_encodes_to_them(
            kind in 0..8_u8, body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = MAGIC.to_vec();
            bytes.push(kind);
            bytes.extend(body);
            if let Some(announcement) = Announcement::decode(&bytes) {
                prop_assert_eq!(announcement.encode(), bytes);
            }
        }
    }
}
