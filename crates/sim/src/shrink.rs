//! From a failing run to its shortest beginning that fails.
//!
//! What is checked with every step is noticed with the step that breaks it; what is checked when a run
//! ends (a journal that does not replay) may have been broken long before. So the number of steps is
//! bisected: a run of that many steps either fails with the same invariant or it does not.

use crate::report::RunReport;
use crate::run::{Simulation, Watch};
use crate::scenario::{Scenario, ScenarioError};
use crate::trace::{TraceHeader, TraceLine};

/// A failing run, as short as it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// What makes it possible to run it again.
    pub header: TraceHeader,
    /// What happened.
    pub lines: Vec<TraceLine>,
}

/// Shortens a failing run; nothing if the report has no violation.
///
/// # Errors
/// The scenario cannot be run.
pub fn shrink(scenario: &Scenario, report: &RunReport) -> Result<Option<Shrunk>, ScenarioError> {
    let Some(violation) = report.violations.first() else {
        return Ok(None);
    };
    let fails = |steps: u64| -> Result<bool, ScenarioError> {
        let report = first_steps(scenario, report.seed, steps)?;
        let same = |other: &crate::Violation| other.invariant == violation.invariant;
        Ok(report.violations.iter().any(same))
    };
    let (mut least, mut most) = (0, report.steps);
    // A violation of the whole run (liveness) has no shorter beginning.
    if fails(most)? {
        while least < most {
            let middle = least + (most - least) / 2;
            match fails(middle)? {
                true => most = middle,
                false => least = middle + 1,
            }
        }
    }
    let (shortest, lines) = traced_steps(scenario, report.seed, most)?;
    // What is noticed when a run ends is noticed in another step of a shorter one.
    let noticed = shortest.violations.into_iter().next();
    let text = toml::to_string(scenario).map_err(|error| ScenarioError::Task(error.to_string()))?;
    Ok(Some(Shrunk {
        header: TraceHeader {
            trace: TraceHeader::VERSION.to_owned(),
            scenario: text,
            seed: report.seed,
            steps: most,
            violation: noticed.unwrap_or_else(|| violation.clone()),
        },
        lines,
    }))
}

/// Runs the first so many steps of a scenario and writes down what happens.
///
/// # Errors
/// The scenario cannot be run.
pub fn traced_steps(
    scenario: &Scenario,
    seed: u64,
    steps: u64,
) -> Result<(RunReport, Vec<TraceLine>), ScenarioError> {
    let watch = Watch {
        steps: Some(steps),
        trace: true,
    };
    let (report, trace) = Simulation::new(scenario, seed, watch)?.run();
    Ok((report, trace.map(|trace| trace.lines()).unwrap_or_default()))
}

/// Runs the first so many steps of a scenario.
///
/// # Errors
/// The scenario cannot be run.
pub fn first_steps(scenario: &Scenario, seed: u64, steps: u64) -> Result<RunReport, ScenarioError> {
    let watch = Watch {
        steps: Some(steps),
        trace: false,
    };
    Ok(Simulation::new(scenario, seed, watch)?.run().0)
}
