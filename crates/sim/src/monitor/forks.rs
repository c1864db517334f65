//! What a fork makes of the monitor's records: what it read at a window's end it reads anew, of the
//! blocks that stand there now; what honest validators said of a cycle they may say otherwise, once; and
//! a cycle whose last block was taken back has not ended.
//!
//! Inputs are the last block that still stands and the schedule. What a fork does not reach stays, and is
//! held against whatever is said afterwards: a fork in the second half of a vote changes no verdict.
//! What validators acknowledged stays in any case, for they have it.

use connito_protocol::ids::{Block, Cycle};
use connito_protocol::schedule::Window;

use super::Monitor;
use super::record::Anew;
use crate::adversary::Setting;

impl Monitor {
    /// Blocks after `stands` were taken back.
    pub(crate) fn taken_back(&mut self, stands: Block, setting: &Setting) {
        let schedule = &setting.schedule;
        let half = setting.manifest.rules.windows.vote.div_ceil(2);
        for (cycle, record) in &mut self.cycles {
            if schedule.opens(*cycle, Window::Score) > stands {
                record.measured.clear();
            }
            // Attestations are the last that a verdict depends on.
            if schedule.opens(*cycle, Window::Vote).0 + half > stands.0 + 1 {
                record.anew = Anew {
                    judged: true,
                    pair: true,
                    gate: true,
                };
            }
        }
        let ended =
            |cycle: &Cycle| schedule.opens(cycle.next(), Window::Distribute) <= stands.next();
        self.endings.retain(|cycle, _| ended(cycle));
        for (cycle, outcome) in &mut self.outcomes {
            if !ended(cycle) {
                outcome.passed = None;
            }
        }
        self.canonical.truncate(1);
        for concluded in self.endings.values().filter(|end| end.passed.is_some()) {
            if self.canonical.last() != Some(&concluded.state) {
                self.canonical.push(concluded.state);
            }
        }
    }
}
