//! `connito slice`: the part of a checkpoint that a miner of some groups needs, in a folder of its own.
//!
//! Which experts a group has is `grouping.rs`'s to say, and how they are stored the engine's; here the
//! numbers of the groups become a set of experts, and a note in the slice. `connito join` puts it back.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use connito_engine::checkpoint::{
    CheckpointError, SliceError, SlicePlan, SliceReport, write_slice,
};
use connito_engine::routing::ExpertMap;
use connito_learning::task::experts_of;
use connito_protocol::partition::ExpertMapping;
use serde_json::json;

use crate::args::slice::SliceArguments;
use crate::exit::Failure;
use crate::grouping;
use crate::output::print;
use crate::progress::ByteBar;

/// What a slice says of the groups that it holds: their numbers, how many there are, and of which
/// partition.
const GROUP_IDS: &str = "connito.group_ids";
const GROUP_COUNT: &str = "connito.group_count";
const PARTITION: &str = "connito.partition";

/// Runs the command.
pub(crate) fn run(arguments: &SliceArguments) -> Result<(), Failure> {
    let grouped = grouping::grouped(&arguments.model, &arguments.grouping, &arguments.data)?;
    let groups = grouped.partition.groups();
    let wanted: BTreeSet<u16> = arguments.group.iter().copied().collect();
    let experts = experts(groups, &wanted)?;
    let partition = grouped.partition.hash().to_string();
    let notes = [
        (GROUP_IDS, json!(wanted).to_string()),
        (GROUP_COUNT, groups.len().to_string()),
        (PARTITION, partition.clone()),
    ];
    let plan = SlicePlan {
        model: &arguments.model,
        experts: &experts,
        notes: &notes.map(|(key, value)| (key.to_owned(), value)).into(),
    };
    let mut bar = ByteBar::new("slicing");
    let report = write_slice(&plan, &arguments.out, &mut |progress| bar.show(progress));
    bar.clear();
    let report = report.map_err(|error| match error {
        SliceError::Checkpoint(CheckpointError::Write { .. }) => Failure::Environment(error.into()),
        error => Failure::Input(error.into()),
    })?;
    if arguments.json {
        let SliceReport {
            tensors,
            experts,
            bytes,
            model_bytes,
        } = report;
        let result = json!({
            "out": arguments.out.display().to_string(),
            "groups": wanted,
            "group_count": groups.len(),
            "partition": partition,
            "tensors": tensors,
            "experts": experts,
            "bytes": bytes,
            "model_bytes": model_bytes,
        });
        return print(&result.to_string());
    }
    let numbers: Vec<String> = wanted.iter().map(u16::to_string).collect();
    print(&format!(
        "{}\n  group    {} of {}\n  experts  {}\n  tensors  {}\n  bytes    {} of the model's {} ({:.1} %)",
        arguments.out.display(),
        numbers.join(", "),
        groups.len(),
        report.experts,
        report.tensors,
        report.bytes,
        report.model_bytes,
        100.0 * report.bytes as f64 / report.model_bytes.max(1) as f64,
    ))
}

/// The experts of the wanted groups, by layer.
fn experts(groups: &[ExpertMapping], wanted: &BTreeSet<u16>) -> Result<ExpertMap, Failure> {
    let mut experts: ExpertMap = BTreeMap::new();
    for number in wanted {
        let group = groups.get(usize::from(*number)).ok_or_else(|| {
            let last = groups.len().saturating_sub(1);
            Failure::Input(anyhow!(
                "--group {number} is none of the {} groups, 0 to {last}",
                groups.len()
            ))
        })?;
        for (layer, listed) in experts_of(group) {
            experts.entry(layer).or_default().extend(listed);
        }
    }
    Ok(experts)
}
