//! What a validator may write in a cycle without running out of room on the chain (P-11).
//!
//! The chain charges each write its bytes, at least [`LEAST_CHARGE`], against [`EPOCH_BYTES`] in
//! [`EPOCH_BLOCKS`]. A vote costs the least; where bodies are mirrored, so does an attestation. What is
//! left may be a report. Inputs are the lengths of the windows; knows nothing of what is reported.

use crate::rules::Windows;

/// Bytes that the chain takes of a hotkey in an epoch.
const EPOCH_BYTES: u64 = 3_100;

/// Blocks in an epoch.
const EPOCH_BLOCKS: u64 = 360;

/// Bytes that the shortest write is charged.
const LEAST_CHARGE: u64 = 100;

/// Longest report that stands on the chain itself, in bytes, with announcement and all.
///
/// Never below what the shortest write is charged anyway: cycles so short that even that is too much
/// cannot be helped by shorter reports.
pub(crate) fn longest_inline(windows: &Windows, other_writes: OtherWrites) -> usize {
    let cycles = EPOCH_BLOCKS.div_ceil(windows.cycle().max(1));
    let others = match other_writes {
        OtherWrites::Vote => LEAST_CHARGE,
        OtherWrites::AttestationAndVote => 2 * LEAST_CHARGE,
    };
    let left = (EPOCH_BYTES / cycles).saturating_sub(others);
    let widest_field = crate::announcement::MAXIMUM_ANNOUNCEMENT_BYTES as u64;
    usize::try_from(left.clamp(LEAST_CHARGE, widest_field)).unwrap_or(usize::MAX)
}

/// What a validator writes in a cycle beside its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherWrites {
    /// Every report stands on the chain.
    Vote,
    /// Some report is mirrored.
    AttestationAndVote,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::{Announcement, Attestation, Mirrored, Vote};
    use crate::ids::{BlobId, Cycle, StateId};
    use crate::rules::Rules;

    fn charged(announcement: &Announcement) -> u64 {
        (announcement.encode().len() as u64).max(LEAST_CHARGE)
    }

    /// Eight cycles of 45 blocks in an epoch, each with a report, perhaps an attestation, and a vote.
    #[test]
    fn an_epoch_has_room_for_every_write_of_its_cycles() {
        let windows = Rules::default().windows;
        let cycles = EPOCH_BLOCKS / windows.cycle();
        let vote = Announcement::Voted(Vote {
            cycle: Cycle(1),
            approves: true,
            candidate: StateId([1; 32]),
            fallback: StateId([2; 32]),
            task: [4; 8],
        });
        let attested = Announcement::Attested(Attestation {
            cycle: Cycle(1),
            bodies: [0; 8],
            held: vec![0; 64_usize.div_ceil(8)],
        });
        let mirrored = Announcement::Reported(Mirrored {
            cycle: Cycle(1),
            submissions: [0; 8],
            body: BlobId([3; 32]),
        });
        let inline = |others| longest_inline(&windows, others) as u64;
        let of_a_cycle = [
            inline(OtherWrites::Vote) + charged(&vote),
            inline(OtherWrites::AttestationAndVote) + charged(&attested) + charged(&vote),
            charged(&mirrored) + charged(&attested) + charged(&vote),
        ];
        for charged in of_a_cycle {
            assert!(cycles * charged <= EPOCH_BYTES, "{charged} a cycle");
        }
        assert_eq!(inline(OtherWrites::Vote), 287);
        assert_eq!(inline(OtherWrites::AttestationAndVote), 187);
    }

    #[test]
    fn the_bound_is_a_field_that_the_chain_takes_whatever_the_windows() {
        for train in [1, 30, 5_000, 50_400] {
            let windows = Windows {
                train,
                ..Rules::default().windows
            };
            let bound = longest_inline(&windows, OtherWrites::Vote);
            assert!((100..=512).contains(&bound), "{bound} with {train} blocks");
        }
    }
}
