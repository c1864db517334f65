//! Whether the network goes on: judged when a run has ended, apart from the invariants.
//!
//! Without a fault, every cycle is decided. After one, every cycle that begins when the last of them is
//! over, but for the first, into which its consequences may reach: whoever was down has to catch up. A run
//! that ends before there is such a cycle proves nothing and is not judged.

use connito_protocol::ids::Cycle;

use crate::queue::SECOND;
use crate::run::Simulation;

impl Simulation {
    /// Every cycle after the network has healed is decided.
    pub(crate) fn check_liveness(&mut self) {
        if self.monitor.has_failed() {
            return;
        }
        let healed = self.last_fault.max(self.stalled_until);
        let spared = usize::from(healed > 0);
        let begun = self.begun.iter().filter(|(_, at)| **at >= healed);
        let mut judged = begun
            .map(|(cycle, _)| *cycle)
            .filter(|cycle| cycle.0 < self.scenario.cycles)
            .skip(spared);
        let decided = |cycle: &Cycle| {
            let outcome = self.monitor.outcomes.get(cycle);
            outcome.is_some_and(|outcome| outcome.passed.is_some())
        };
        let Some(undecided) = judged.find(|cycle| !decided(cycle)) else {
            return;
        };
        let since = match healed {
            0 => "although nothing went wrong".to_owned(),
            _ => format!(
                "although the last fault was over after {} s",
                healed / SECOND
            ),
        };
        let detail = format!("cycle {undecided} was not decided {since}");
        let found = Err(("a_cycle_completes_after_faults_heal", detail));
        self.monitor.note(self.steps, found);
    }
}
