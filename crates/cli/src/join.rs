//! `connito join`: trained slices put back into the checkpoint that they were taken from.
//!
//! What may be put back and what comes out is the engine's to decide; this says it. Numbers that changed
//! their type on the way are told of on standard error, for they are not those that were trained.

use connito_engine::checkpoint::{CheckpointError, Conversion, JoinError, JoinReport, join_slices};
use serde_json::json;

use crate::args::slice::JoinArguments;
use crate::exit::Failure;
use crate::output::print;
use crate::progress::ByteBar;

/// Runs the command.
pub(crate) fn run(arguments: &JoinArguments) -> Result<(), Failure> {
    let mut bar = ByteBar::new("joining");
    let report = join_slices(
        &arguments.model,
        &arguments.slices,
        &arguments.out,
        &mut |progress| bar.show(progress),
    );
    bar.clear();
    let report = report.map_err(|error| match error {
        JoinError::Checkpoint(CheckpointError::Write { .. }) => Failure::Environment(error.into()),
        error => Failure::Input(error.into()),
    })?;
    report.conversions.iter().for_each(tell);
    let out = arguments.out.display();
    if arguments.json {
        return print(&as_json(arguments, &report).to_string());
    }
    print(&format!(
        "{out}\n  slices   {}\n  experts  {} of {}, of which {} changed\n  bytes    {}",
        arguments.slices.len(),
        report.experts,
        report.model_experts,
        report.changed,
        report.bytes,
    ))
}

fn as_json(arguments: &JoinArguments, report: &JoinReport) -> serde_json::Value {
    let converted = report.conversions.iter().map(|conversion| {
        json!({
            "slice": conversion.slice.display().to_string(),
            "from": conversion.from,
            "to": conversion.to,
            "tensors": conversion.tensors,
        })
    });
    json!({
        "out": arguments.out.display().to_string(),
        "slices": arguments.slices.len(),
        "experts": report.experts,
        "changed_experts": report.changed,
        "model_experts": report.model_experts,
        "bytes": report.bytes,
        "converted": converted.collect::<Vec<_>>(),
    })
}

fn tell(conversion: &Conversion) {
    let Conversion {
        slice,
        from,
        to,
        tensors,
    } = conversion;
    eprintln!(
        "connito: {}: {tensors} tensors are stored as {from} and became {to}, rounded to nearest even",
        slice.display()
    );
}
