//! Whether the network goes on: judged when a run has ended, apart from the invariants.
//!
//! After the last fault is over, a cycle is decided within two cycle lengths; and with no fault at all,
//! every cycle. A run that ends before that time is up proves nothing and is not judged.

use crate::queue::{Micros, micros};
use crate::run::Simulation;

impl Simulation {
    /// A cycle completes within two cycle lengths after the network has healed.
    pub(crate) fn check_liveness(&mut self) {
        if self.monitor.has_failed() {
            return;
        }
        let block = micros(self.scenario.chain.block_seconds);
        let cycle = self.setting.manifest.rules.windows.cycle() * block;
        let healed = self.last_fault.max(self.stalled_until);
        let first = self.setting.manifest.starts.0 * block;
        let deadline = healed.max(first) + 2 * cycle;
        if self.queue.now() < deadline {
            return;
        }
        let decided = |at: Option<Micros>| at.is_some_and(|at| (healed..=deadline).contains(&at));
        let outcomes = self.monitor.outcomes.values();
        let alive = outcomes
            .into_iter()
            .any(|outcome| outcome.passed.is_some() && decided(outcome.concluded_at));
        if !alive {
            let detail = format!(
                "no cycle was decided within two cycle lengths after {} s, when the last fault was over",
                healed / crate::queue::SECOND
            );
            self.monitor.note(
                self.steps,
                Err(("a_cycle_completes_after_faults_heal", detail)),
            );
        }
    }
}
