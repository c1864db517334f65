//! Shows what `sim` wrote of a failing run: the steps that led to the violation, and that they still do.
//!
//! Input is a trace file. Its first line holds scenario, seed and number of steps, from which the run is
//! made once more. What is shown is what happens then, not what the file says: if the same invariant is
//! not violated in the same step, or a line is another one, the program or the file has changed, and the
//! command fails.

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
    /// The other lines, as they stand there.
    lines: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    seed: u64,
    steps: u64,
    invariant: &'a str,
    detail: &'a str,
    reproduced: bool,
    as_recorded: bool,
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
        let read: Result<TraceLine, _> = serde_json::from_str(line);
        read.map(|_| line.to_owned())
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
    let (seed, steps) = (header.seed, header.steps);
    let (report, lines) = connito_sim::traced_steps(&scenario, seed, steps).input()?;
    // A violation of a whole run (a network that stands still) shows only when it is run to its end.
    let report = match report.violations.is_empty() {
        true => connito_sim::run(&scenario, seed).input()?,
        false => report,
    };
    let again: Vec<String> = lines
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()
        .environment()?;
    let difference = difference(&recorded.lines, &again);
    let shown = Shown {
        seed,
        steps: report.steps,
        invariant: &printable(&header.violation.invariant),
        detail: &printable(&header.violation.detail),
        reproduced: report.violations.first() == Some(&header.violation),
        as_recorded: difference.is_none() && report.steps == steps,
        lines: &lines,
    };
    match arguments.json {
        true => print(&serde_json::to_string(&shown).environment()?)?,
        false => print(&shown.text())?,
    }
    let step = header.violation.step;
    if !shown.reproduced {
        return Err(Failure::Check(anyhow!(
            "{path} does not fail as it did: seed {seed} no longer violates {} in step {step}",
            shown.invariant
        )));
    }
    match difference {
        _ if report.steps != steps => Err(Failure::Check(anyhow!(
            "{path} says that seed {seed} fails after {steps} steps, and it does after {}",
            report.steps
        ))),
        Some(line) => Err(Failure::Check(anyhow!(
            "line {line} of {path} is not what happens with seed {seed}"
        ))),
        None => Ok(()),
    }
}

/// The first line of the file, counted from 1, that is another one or that there is on one side only.
fn difference(recorded: &[String], again: &[String]) -> Option<usize> {
    let most = recorded.len().max(again.len());
    let differs = |place: &usize| recorded.get(*place) != again.get(*place);
    (0..most).find(differs).map(|place| place + 2)
}

/// Text from a file with what would steer a terminal written out.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => printable.extend(letter.escape_default()),
            false => printable.push(letter),
        }
    }
    printable
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
