//! The states that cycles led to of which the chain has nothing any more: the ancestors of the first
//! state that kept votes name.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::anyhow;
use connito_learning::audit::Auditor;
use connito_protocol::ids::{Cycle, StateId};

use super::Finding;
use super::tasks::Stage;

/// Nothing on the chain leads to the states before: no mismatch, but not enough to audit.
#[derive(Debug)]
pub(super) struct Forgotten;

impl std::error::Error for Forgotten {}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the chain keeps no vote that names a state, so nothing leads to those that it has forgotten; \
             audit the chain's folder",
        )
    }
}

/// For each pruned cycle of the first stage that decided a state, that state. Later stages that go on
/// with its states may name one where the stage itself keeps no vote.
pub(super) fn states(
    auditor: &Auditor<'_>,
    stages: &[Stage],
) -> Result<BTreeMap<Cycle, StateId>, Finding> {
    let mut states = BTreeMap::new();
    let Some(stage) = stages.first() else {
        return Ok(states);
    };
    let first = stage.manifest.first_cycle;
    let is_kept = |(_, blocks): &&(Cycle, _)| Option::is_some(blocks);
    let kept = stage.cycles.iter().find(is_kept).map(|(cycle, _)| *cycle);
    let kept = kept.unwrap_or_else(|| stage.undecided());
    if kept == first {
        return Ok(states);
    }
    let mut state = named(stages).ok_or_else(|| Finding {
        cycle: first,
        problem: Forgotten.into(),
    })?;
    // Each step leads to an earlier cycle, so there are no more of them than cycles.
    let mut cycle = stages.last().map_or(kept, Stage::undecided);
    loop {
        let finding = |problem| Finding { cycle, problem };
        let manifest = auditor.state(state);
        let manifest = manifest.map_err(|error| finding(error.into()))?;
        let Some(parent) = manifest.parent else {
            return Ok(states);
        };
        let led_here = manifest.cycle.0.checked_sub(1).map(Cycle);
        let led_here = led_here.filter(|led_here| *led_here < cycle);
        cycle = led_here
            .ok_or_else(|| finding(anyhow!("state {state} is of a cycle before its parent's")))?;
        if cycle < first {
            return Ok(states);
        }
        if cycle < kept {
            states.insert(cycle, state);
        }
        state = parent;
    }
}

/// The first state that kept votes of these stages name, up to a task that begins with its own.
fn named(stages: &[Stage]) -> Option<StateId> {
    let (stage, later) = stages.split_first()?;
    let going_on = later
        .iter()
        .take_while(|stage| stage.manifest.first_state.is_none());
    let mut stages = std::iter::once(stage).chain(going_on);
    stages.find_map(|stage| {
        let mut cycles = stage.cycles.iter();
        cycles.find_map(|(cycle, blocks)| {
            let tally = stage.observer.decided(*cycle, &blocks.as_ref()?.voted);
            tally.map(|tally| tally.next)
        })
    })
}
