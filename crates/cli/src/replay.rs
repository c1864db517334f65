//! `connito replay`: runs a role machine again from its journal, or a simulation from its trace.
//!
//! Which of the two a file is, its first line says. A journal is fed to a fresh machine of its role; a
//! trace runs the network that it names (`replay/trace.rs`). Either fails at the first difference.

mod trace;

use std::collections::BTreeMap;

use anyhow::Context;
use connito_node::driver;
use connito_node::journal::Journal;
use connito_protocol::event::{Effect, Event};
use connito_protocol::machine::{Character, Step};
use serde::Serialize;

use crate::args::ReplayArguments;
use crate::exit::{Blame, Failure};
use crate::output::print;

/// What a replay found.
#[derive(Debug, Serialize)]
struct Replayed {
    role: &'static str,
    hotkey: String,
    steps: usize,
    effects: usize,
    first_block: Option<u64>,
    last_block: Option<u64>,
    starts: usize,
    canonical_state: Option<String>,
    milestones: BTreeMap<String, usize>,
}

/// Replays and prints what the journal holds; fails at the first effect that differs.
pub(crate) fn run(arguments: &ReplayArguments) -> Result<(), Failure> {
    if let Some(trace) = trace::read(&arguments.journal)? {
        return trace::show(&trace, arguments);
    }
    let (character, steps): (Character, Vec<Step>) = Journal::read(&arguments.journal).input()?;
    let machine = driver::replay(&character, &steps)
        .with_context(|| format!("{} cannot be replayed", arguments.journal.display()))
        .map_err(Failure::Check)?;
    let blocks: Vec<u64> = steps
        .iter()
        .filter_map(|step| match &step.event {
            Event::Block(snapshot) => Some(snapshot.block.0),
            _ => None,
        })
        .collect();
    let replayed = Replayed {
        role: character.role.name(),
        hotkey: character.identity.hotkey.to_string(),
        steps: steps.len(),
        effects: steps.iter().map(|step| step.effects.len()).sum(),
        first_block: blocks.first().copied(),
        last_block: blocks.last().copied(),
        starts: steps
            .iter()
            .filter(|step| step.event == Event::Started)
            .count(),
        canonical_state: machine.canonical().map(|state| state.to_string()),
        milestones: milestones(&steps),
    };
    if arguments.json {
        let json = serde_json::to_string_pretty(&replayed).environment()?;
        return print(&json);
    }
    print(&replayed.text())
}

impl Replayed {
    fn text(&self) -> String {
        let mut lines = vec![
            format!("{} {}", self.role, self.hotkey),
            format!(
                "{} steps, {} effects, every one as recorded",
                self.steps, self.effects
            ),
        ];
        if let (Some(first), Some(last)) = (self.first_block, self.last_block) {
            lines.push(format!(
                "blocks {first} to {last}, started {} times",
                self.starts
            ));
        }
        let counts = self.milestones.iter();
        lines.extend(counts.map(|(milestone, count)| format!("{count:>6} {milestone}")));
        lines.join("\n")
    }
}

/// How often each kind of milestone was told.
fn milestones(steps: &[Step]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for effect in steps.iter().flat_map(|step| &step.effects) {
        if let Effect::Tell(milestone) = effect {
            let value = serde_json::to_value(milestone).unwrap_or_default();
            if let Some(name) = value["milestone"].as_str() {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    counts
}
