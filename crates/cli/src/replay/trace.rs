//! Shows what `sim` wrote of a failing run: the steps that led to the violation, and that they still do.
//!
//! Input is a trace file. Its first line holds scenario, seed and number of steps, from which the run is
//! made once more: if it does not violate the same invariant in the same step, the program or the file
//! has changed, and the command fails.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, anyhow};
use connito_sim::{Scenario, TraceHeader, TraceLine};
use serde::Serialize;

use crate::args::ReplayArguments;
use crate::exit::{Blame, Failure};
use crate::output::print;
use crate::text_file;

/// Lines shown to people; all of them are in the file.
const SHOWN_LINES: usize = 40;

/// Bytes that are looked at to tell a trace from a journal.
const BEGINNING_BYTES: u64 = 64;

/// A trace as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recorded {
    header: TraceHeader,
    lines: Vec<TraceLine>,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    seed: u64,
    steps: u64,
    invariant: &'a str,
    detail: &'a str,
    reproduced: bool,
    lines: &'a [TraceLine],
}

/// Reads a trace; nothing if the file is something else.
pub(super) fn read(path: &Path) -> Result<Option<Recorded>, Failure> {
    if !begins_like_a_trace(path)? {
        return Ok(None);
    }
    let text = text_file::read(path)?;
    let mut lines = text.lines();
    let unreadable = |line: usize| format!("line {line} of {} is not a trace's", path.display());
    let first = lines.next().unwrap_or_default();
    let header: TraceHeader = serde_json::from_str(first)
        .with_context(|| unreadable(1))
        .input()?;
    if header.trace != TraceHeader::VERSION {
        return Err(Failure::Input(anyhow!(
            "{} is a trace of another version: {:?} instead of {:?}",
            path.display(),
            header.trace,
            TraceHeader::VERSION
        )));
    }
    let lines = lines.enumerate().map(|(number, line)| {
        serde_json::from_str(line)
            .with_context(|| unreadable(number + 2))
            .input()
    });
    Ok(Some(Recorded {
        header,
        lines: lines.collect::<Result<_, _>>()?,
    }))
}

fn begins_like_a_trace(path: &Path) -> Result<bool, Failure> {
    let unreadable = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(unreadable).input()?;
    let mut beginning = Vec::new();
    let mut file = BufReader::new(file.take(BEGINNING_BYTES));
    file.read_until(b'\n', &mut beginning)
        .with_context(unreadable)
        .input()?;
    Ok(beginning.starts_with(b"{\"trace\":"))
}

/// Runs the trace's network again, shows its steps, and says whether it fails as recorded.
pub(super) fn show(recorded: &Recorded, arguments: &ReplayArguments) -> Result<(), Failure> {
    let header = &recorded.header;
    let path = arguments.journal.display();
    let scenario = Scenario::from_toml(&header.scenario)
        .with_context(|| format!("the scenario of {path} cannot be run"))
        .input()?;
    let report = connito_sim::first_steps(&scenario, header.seed, header.steps).input()?;
    // A violation of a whole run (a network that stands still) shows only when it is run to its end.
    let report = match report.violations.is_empty() {
        true => connito_sim::run(&scenario, header.seed).input()?,
        false => report,
    };
    let shown = Shown {
        seed: header.seed,
        steps: header.steps,
        invariant: &header.violation.invariant,
        detail: &header.violation.detail,
        reproduced: report.violations.first() == Some(&header.violation),
        lines: &recorded.lines,
    };
    match arguments.json {
        true => print(&serde_json::to_string(&shown).environment()?)?,
        false => print(&shown.text())?,
    }
    match shown.reproduced {
        true => Ok(()),
        false => Err(Failure::Check(anyhow!(
            "{path} does not fail as it did: seed {} no longer violates {} in step {}",
            header.seed,
            shown.invariant,
            header.violation.step
        ))),
    }
}

impl Shown<'_> {
    fn text(&self) -> String {
        let left_out = self.lines.len().saturating_sub(SHOWN_LINES);
        let mut text = match left_out {
            0 => Vec::new(),
            _ => vec![format!("{left_out} lines before these")],
        };
        for line in &self.lines[left_out..] {
            let node = line.node.as_deref().unwrap_or("–");
            text.push(format!(
                "{:>7} {:>9.3} s  {node:<16} {}",
                line.step, line.seconds, line.event
            ));
            let indented = |what: &String| format!("{:>38} {what}", "▸");
            text.extend(line.effects.iter().map(indented));
            text.extend(line.end.iter().map(indented));
        }
        text.push(format!(
            "\nseed {} violates {} in step {}: {}",
            self.seed, self.invariant, self.steps, self.detail
        ));
        text.join("\n")
    }
}
