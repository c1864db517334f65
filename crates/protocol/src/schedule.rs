//! Where a block lies in the cycle: phases are a function of the block, never state (P-1, P-2).
//!
//! ```text
//! | Distribute | Train ........ | Seal | Reveal | Score | Vote |   six windows
//! | Distribute | Train ........ |    Commit     |   Evaluate   |   four phases
//! ```
//!
//! Inputs: the task's first block, the number of its first cycle and the lengths of the windows. Knows
//! nothing of time.

use serde::{Deserialize, Serialize};

use crate::ids::{Block, Cycle};
use crate::rules::Windows;

/// The six windows of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// Validators serve the new state.
    Distribute,
    /// Miners train.
    Train,
    /// Sealed commitments go on the chain; uploads are refused.
    Seal,
    /// Commitments are opened, updates uploaded.
    Reveal,
    /// Validators score and report.
    Score,
    /// Validators merge and vote.
    Vote,
}

impl Window {
    const ALL: [Self; 6] = [
        Self::Distribute,
        Self::Train,
        Self::Seal,
        Self::Reveal,
        Self::Score,
        Self::Vote,
    ];

    /// The phase that this window belongs to.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self {
            Self::Distribute => Phase::Distribute,
            Self::Train => Phase::Train,
            Self::Seal | Self::Reveal => Phase::Commit,
            Self::Score | Self::Vote => Phase::Evaluate,
        }
    }
}

/// The four phases that people speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Validators serve the new state.
    Distribute,
    /// Miners train.
    Train,
    /// Miners seal, then open and upload.
    Commit,
    /// Validators score, merge and vote.
    Evaluate,
}

impl Phase {
    /// The word for it, lower-case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Distribute => "distribute",
            Self::Train => "train",
            Self::Commit => "commit",
            Self::Evaluate => "evaluate",
        }
    }
}

/// A block's place in its cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The cycle that the block belongs to.
    pub cycle: Cycle,
    /// The window that the block belongs to.
    pub window: Window,
    /// Whether it is the window's last block.
    pub closes_window: bool,
}

/// The mapping from blocks to cycles and windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    first: Block,
    first_cycle: Cycle,
    windows: Windows,
}

impl Schedule {
    /// A schedule whose cycle 0 begins at `first`. `windows` come from checked rules.
    #[must_use]
    pub fn new(first: Block, windows: Windows) -> Self {
        Self {
            first,
            first_cycle: Cycle(0),
            windows,
        }
    }

    /// The same schedule with another number for its first cycle: the one after the last cycle of the
    /// task before (P-39).
    #[must_use]
    pub fn counting_from(self, first_cycle: Cycle) -> Self {
        Self {
            first_cycle,
            ..self
        }
    }

    /// Where `block` lies; `None` before the task begins.
    #[must_use]
    pub fn at(&self, block: Block) -> Option<Moment> {
        let since = block.0.checked_sub(self.first.0)?;
        let length = self.windows.cycle();
        let mut offset = since % length;
        for window in Window::ALL {
            let blocks = self.length(window);
            if offset < blocks {
                return Some(Moment {
                    cycle: Cycle(self.first_cycle.0.saturating_add(since / length)),
                    window,
                    closes_window: offset + 1 == blocks,
                });
            }
            offset -= blocks;
        }
        None
    }

    /// The first block of a window. Of a cycle before the first there is none: the first one's is
    /// given.
    #[must_use]
    pub fn opens(&self, cycle: Cycle, window: Window) -> Block {
        let before: u64 = Window::ALL
            .into_iter()
            .take_while(|earlier| *earlier != window)
            .map(|earlier| self.length(earlier))
            .sum();
        let since = cycle.0.saturating_sub(self.first_cycle.0);
        let since = since.saturating_mul(self.windows.cycle());
        Block(self.first.0.saturating_add(since).saturating_add(before))
    }

    /// The last block of a window.
    #[must_use]
    pub fn closes(&self, cycle: Cycle, window: Window) -> Block {
        let after = self
            .opens(cycle, window)
            .0
            .saturating_add(self.length(window));
        Block(after - 1)
    }

    fn length(&self, window: Window) -> u64 {
        match window {
            Window::Distribute => self.windows.distribute,
            Window::Train => self.windows.train,
            Window::Seal => self.windows.seal,
            Window::Reveal => self.windows.reveal,
            Window::Score => self.windows.score,
            Window::Vote => self.windows.vote,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::Rules;

    /// The table of the design: offsets 0, 5, 35, 38, 40 and 43 open the six windows.
    #[test]
    fn the_default_windows_open_where_the_design_says() {
        let schedule = Schedule::new(Block(100), Rules::default().windows);
        let opens = Window::ALL.map(|window| schedule.opens(Cycle(0), window).0 - 100);
        assert_eq!(opens, [0, 5, 35, 38, 40, 43]);
        assert_eq!(schedule.at(Block(99)), None, "the task has not begun");
        assert_eq!(schedule.at(Block(145)).map(|m| m.cycle), Some(Cycle(1)));
    }

    proptest! {
        /// `at`, `opens` and `closes` are three views of one table.
        #[test]
        fn every_block_lies_between_the_edges_of_its_window(
            first in 0..10_000_u64, ahead in 0..100_000_u64, train in 1..500_u64, seal in 2..9_u64,
            first_cycle in 0..1_000_u64,
        ) {
            let windows = Windows { train, seal, ..Rules::default().windows };
            let schedule = Schedule::new(Block(first), windows).counting_from(Cycle(first_cycle));
            let block = Block(first + ahead);
            let moment = schedule.at(block).unwrap();
            prop_assert!(moment.cycle >= Cycle(first_cycle));
            prop_assert!(schedule.opens(moment.cycle, moment.window) <= block);
            prop_assert!(block <= schedule.closes(moment.cycle, moment.window));
            prop_assert_eq!(moment.closes_window, block == schedule.closes(moment.cycle, moment.window));
        }
    }
}
