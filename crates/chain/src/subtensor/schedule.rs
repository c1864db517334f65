//! When a subnet's epochs run, and when sealed weights come to light.
//!
//! The runtime keeps the schedule as state: an epoch runs when the owner's pending one is due, when a
//! tempo has passed since the last, or when none has run for [`LONGEST_TEMPO`] blocks. Sealed weights
//! of epoch `e` are revealed in the first block whose epoch would be `e` plus the reveal period, before
//! that epoch runs. Nothing here depends on the subnet's number. What is not known here: the main
//! network runs two epochs a block at most and may defer one.

use connito_protocol::ids::Block;

/// The longest tempo an owner may set, in blocks; the runtime's safety net as well.
pub(super) const LONGEST_TEMPO: u64 = 50_400;
/// Epochs between setting and revealing, as the runtime bounds them.
const REVEAL_PERIODS: std::ops::RangeInclusive<u64> = 1..=100;
/// Blocks after the predicted one until its pulse has surely been taken in.
const PULSE_MARGIN_BLOCKS: u64 = 3;

/// The schedule's state after a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    /// The block.
    pub(super) now: Block,
    pub(super) last_epoch: u64,
    /// The block of an epoch that the owner asked for; 0 for none.
    pub(super) pending: u64,
    pub(super) index: u64,
    pub(super) tempo: u64,
    pub(super) since_last_step: u64,
}

impl Schedule {
    fn runs(&self, block: u64) -> bool {
        if self.tempo == 0 {
            return false;
        }
        let asked_for = self.pending > 0 && block >= self.pending;
        let overdue = self.since_last_step > LONGEST_TEMPO;
        asked_for || overdue || block.saturating_sub(self.last_epoch) >= self.tempo
    }

    /// The state after the next block.
    fn next(mut self) -> Self {
        let block = self.now.0.saturating_add(1);
        self.now = Block(block);
        self.since_last_step = self.since_last_step.saturating_add(1);
        if self.runs(block) {
            self.last_epoch = block;
            self.pending = 0;
            self.index = self.index.saturating_add(1);
            self.since_last_step = 0;
        }
        self
    }

    /// The block of the next epoch, if epochs run at all.
    pub(super) fn next_epoch(self) -> Option<Block> {
        let tempo_ends = self.last_epoch.saturating_add(self.tempo);
        let due = match self.pending {
            0 => tempo_ends,
            pending => pending.min(tempo_ends),
        };
        let next = self.now.0.saturating_add(1);
        let overdue = next
            .saturating_add(LONGEST_TEMPO)
            .saturating_sub(self.since_last_step);
        (self.tempo > 0).then(|| Block(due.min(overdue).max(next)))
    }

    /// The first block that reveals what the next block would take in sealed; nothing if epochs do
    /// not run, or for a period that no subnet can have.
    pub(super) fn reveals(self, period_epochs: u64) -> Option<Block> {
        if !REVEAL_PERIODS.contains(&period_epochs) {
            return None;
        }
        let mut state = self;
        // The epoch of the including block ends first, then those of the period.
        let epochs = self.next().index.saturating_sub(self.index) + period_epochs;
        for _ in 0..epochs {
            let before = state.next_epoch()?.0 - 1;
            // Nothing happens until the block before the epoch's.
            let idle = before - state.now.0;
            state.since_last_step = state.since_last_step.saturating_add(idle);
            state.now = Block(before);
            state = state.next();
        }
        Some(state.now)
    }

    /// Milliseconds from this block's time until the pulse to which sealed weights are bound.
    pub(super) fn seal_for_ms(self, period_epochs: u64, block_time_ms: u64) -> Option<u64> {
        let opened = self
            .reveals(period_epochs)?
            .0
            .saturating_add(PULSE_MARGIN_BLOCKS);
        Some((opened - self.now.0).saturating_mul(block_time_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT_120: Schedule = Schedule {
        now: Block(120),
        last_epoch: 100,
        pending: 0,
        index: 7,
        tempo: 50,
        since_last_step: 20,
    };

    /// The long way: block by block.
    fn reveals_slowly(start: Schedule, period: u64) -> Block {
        let target = start.next().index + period;
        let mut state = start;
        while state.index < target {
            state = state.next();
        }
        state.now
    }

    #[test]
    fn an_epoch_ends_with_its_tempo_or_when_the_owner_asked() {
        assert_eq!(AT_120.next_epoch(), Some(Block(150)));
        let asked = Schedule {
            pending: 130,
            ..AT_120
        };
        assert_eq!(asked.next_epoch(), Some(Block(130)));
        let due = Schedule {
            pending: 110,
            ..AT_120
        };
        assert_eq!(due.next_epoch(), Some(Block(121)));
        let never = Schedule { tempo: 0, ..AT_120 };
        assert_eq!((never.next_epoch(), never.reveals(1)), (None, None));
    }

    #[test]
    fn weights_of_an_epoch_come_to_light_when_their_period_is_over() {
        assert_eq!(AT_120.reveals(1), Some(Block(150)));
        assert_eq!(AT_120.reveals(2), Some(Block(200)));
        // The including block opens the next epoch already.
        let last = Schedule {
            now: Block(149),
            since_last_step: 49,
            ..AT_120
        };
        assert_eq!(last.reveals(1), Some(Block(200)));
        assert_eq!(AT_120.seal_for_ms(1, 12_000), Some(33 * 12_000));
    }

    proptest! {
        /// Whatever an endpoint says the state is: no overflow, and an end.
        #[test]
        fn no_state_is_too_strange(
            now in any::<u64>(), last_epoch in any::<u64>(), pending in any::<u64>(),
            numbers in any::<[u64; 4]>()
        ) {
            let [index, tempo, since_last_step, period] = numbers;
            let state = Schedule {
                now: Block(now),
                last_epoch,
                pending,
                index,
                tempo,
                since_last_step,
            };
            let _ = (state.next_epoch(), state.reveals(period), state.reveals(period % 100));
            let _ = state.seal_for_ms(1, u64::MAX);
        }

        #[test]
        fn the_prediction_is_what_happens_block_by_block(
            since in 0_u64..400, pending in 0_u64..2_000, tempo in 1_u64..400, period in 1_u64..6
        ) {
            let start = Schedule {
                now: Block(1_000),
                last_epoch: 1_000 - since,
                pending,
                index: 3,
                tempo,
                since_last_step: since,
            };
            prop_assert_eq!(start.reveals(period), Some(reveals_slowly(start, period)));
        }
    }
}
