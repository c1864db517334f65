//! `connito sim`: runs a scenario with many seeds and says what held, who earned, and which seed failed.
//!
//! Seeds are handed to threads one by one and added up in their order, so that the result is a function
//! of scenario and seeds. The first failing run is cut to its shortest failing beginning and written as
//! a trace, which `connito replay` shows. What is simulated is `connito-sim`'s affair.

mod table;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, anyhow};
use connito_sim::{RunReport, Scenario, ScenarioError, Shrunk, Summary, shrink};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::sim::SimArguments;
use crate::cores;
use crate::exit::{Blame, Failure};
use crate::output::print;
use crate::result_file::ResultFile;
use crate::text_file;

/// What is printed.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    scenario: &'a str,
    #[serde(flatten)]
    summary: &'a Summary,
    /// The trace of the first failing run.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    elapsed_seconds: f64,
}

/// Runs the command.
pub(crate) fn run(arguments: &SimArguments) -> Result<(), Failure> {
    let begun = Instant::now();
    let path = &arguments.scenario;
    let scenario = read(path)?;
    if arguments.first_seed.checked_add(arguments.seeds).is_none() {
        return Err(Failure::Input(anyhow!(
            "--first-seed leaves no room for --seeds"
        )));
    }
    let chosen = arguments.trace.as_deref();
    let chosen = chosen.map(|trace| ResultFile::new("--trace", trace, &[("SCENARIO.toml", path)]));
    let chosen = chosen.transpose()?;
    let runs = run_all(&scenario, arguments).input()?;
    let summary = Summary::new(&runs);
    let failing = runs.iter().find(|run| !run.violations.is_empty());
    let trace = failing.map(|run| keep_trace((path, &scenario), run, chosen));
    let trace = trace.transpose()?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let printed = Printed {
        scenario: &name,
        summary: &summary,
        trace: trace.as_ref().map(|trace| trace.display().to_string()),
        elapsed_seconds: begun.elapsed().as_secs_f64(),
    };
    match arguments.json {
        true => print(&serde_json::to_string(&printed).environment()?)?,
        false => print(&table::text(&printed))?,
    }
    match summary.failures.first() {
        None => Ok(()),
        Some(failure) => Err(Failure::Check(anyhow!(
            "seed {} violates {}: {}",
            failure.seed,
            failure.invariant,
            failure.detail
        ))),
    }
}

fn read(path: &Path) -> Result<Scenario, Failure> {
    let text = text_file::read(path)?;
    Scenario::from_toml(&text)
        .with_context(|| format!("{} cannot be run", path.display()))
        .input()
}

/// Runs every seed, as many at a time as there are threads.
fn run_all(scenario: &Scenario, arguments: &SimArguments) -> Result<Vec<RunReport>, ScenarioError> {
    let next = AtomicU64::new(0);
    let reports = Mutex::new(BTreeMap::new());
    let bar = progress(arguments.seeds);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= arguments.seeds {
                return;
            }
            let report = connito_sim::run(scenario, arguments.first_seed + number);
            let mut reports = reports
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            reports.insert(number, report);
            bar.inc(1);
        }
    };
    let threads = cores::threads(arguments.threads) as u64;
    std::thread::scope(|scope| {
        for _ in 0..threads.min(arguments.seeds) {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    let reports = reports
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    reports.into_values().collect()
}

/// How many seeds are done, on standard error if that is a terminal and there are many.
fn progress(seeds: u64) -> ProgressBar {
    if seeds == 1 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("seeds {bar:40} {pos}/{len}  {eta} left");
    let bar = ProgressBar::new(seeds);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Shortens a failing run and writes it down.
fn keep_trace(
    (path, scenario): (&Path, &Scenario),
    run: &RunReport,
    chosen: Option<ResultFile>,
) -> Result<PathBuf, Failure> {
    let place = match chosen {
        Some(place) => place,
        None => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = PathBuf::from(format!("{stem}-{}.trace", run.seed));
            ResultFile::new("the trace", &name, &[("SCENARIO.toml", path)])?
        }
    };
    let shrunk = shrink(scenario, run).input()?;
    let text = shrunk
        .as_ref()
        .map_or(Ok(String::new()), lines)
        .environment()?;
    place.prepare_text(&text)?.put()?;
    Ok(place.path().to_owned())
}

fn lines(shrunk: &Shrunk) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(&shrunk.header)?;
    for line in &shrunk.lines {
        text.push('\n');
        text.push_str(&serde_json::to_string(line)?);
    }
    text.push('\n');
    Ok(text)
}
