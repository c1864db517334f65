//! `connito partition`: a model's expert groups, for people or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::anyhow;
use connito_engine::parse_expert_name;
use connito_protocol::ids::Hotkey;
use connito_protocol::partition::ExpertMapping;

use crate::args::partition::{PartitionArguments, Strategy};
use crate::exit::{Blame, Failure};
use crate::grouping::{Grouped, grouped};
use crate::hotkeys;
use crate::output::print;

/// Runs the command.
pub(crate) fn run(arguments: &PartitionArguments) -> Result<(), Failure> {
    let of_text = arguments.grouping.strategy == Some(Strategy::Coactivation);
    if !arguments.data.is_empty() && !of_text {
        return Err(Failure::Input(anyhow!(
            "--data is for --strategy coactivation"
        )));
    }
    let listed = arguments.hotkeys.as_deref().map(hotkeys::read);
    let listed = listed.transpose()?;
    let mut grouped = grouped(&arguments.model, &arguments.grouping, &arguments.data)?;
    if let Some(listed) = &listed {
        let count = grouped.partition.groups().len();
        let tickets = hotkeys::tickets(arguments.tickets.as_deref(), count, listed)?;
        let keys: Vec<Hotkey> = listed.iter().map(|listed| listed.hotkey).collect();
        grouped.partition.assign(&keys, &tickets);
    }
    if arguments.json {
        return print(&serde_json::to_string(&grouped.partition).environment()?);
    }
    print(&table(arguments, &grouped))
}

/// What people want to know: which experts are where, and how much that is.
fn table(arguments: &PartitionArguments, grouped: &Grouped) -> String {
    let inventory = grouped.experts.inventory();
    let layers: Vec<usize> = inventory.layers().collect();
    let config = grouped.experts.config();
    let mut text = format!("model    {}", arguments.model.display());
    if let Some(config) = config {
        let _ = write!(text, " ({})", config.family.model_type());
    }
    let _ = write!(
        text,
        "\nlayers   {} with experts: {}\nexperts  {} in each\n\n",
        layers.len(),
        ranges(&layers),
        inventory.experts()
    );
    let per_expert = config.map(|config| config.parameters().per_expert);
    let with_hotkeys = arguments.hotkeys.is_some();
    text.push_str("group  experts  tensors");
    text.push_str(if per_expert.is_some() {
        "      parameters"
    } else {
        ""
    });
    text.push_str(if with_hotkeys { "  hotkeys" } else { "" });
    text.push_str("  which\n");
    for mapping in grouped.partition.groups() {
        let (held, which) = experts(mapping);
        let size = mapping.expert_indices.len();
        let tensors = mapping.param_keys.len();
        let _ = write!(text, "{:>5}  {size:>7}  {tensors:>7}", mapping.group_id);
        if let Some(each) = per_expert {
            let _ = write!(text, "  {:>14}", each.saturating_mul(held));
        }
        if with_hotkeys {
            let _ = write!(text, "  {:>7}", mapping.miner_hotkeys.len());
        }
        let _ = writeln!(text, "  {which}");
    }
    let _ = write!(text, "\nhash     {}", grouped.partition.hash());
    text
}

/// A group's experts of all layers together, and which they are.
fn experts(mapping: &ExpertMapping) -> (u64, String) {
    let mut layers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (layer, expert) in mapping
        .param_keys
        .iter()
        .filter_map(|key| parse_expert_name(key))
    {
        layers.entry(layer).or_default().push(expert);
    }
    let mut held = 0;
    let mut varies = false;
    for listed in layers.values_mut() {
        listed.sort_unstable();
        listed.dedup();
        held += listed.len() as u64;
        varies |= *listed != mapping.expert_indices;
    }
    let which = ranges(&mapping.expert_indices);
    match varies {
        true => (held, format!("{which} (not all in every layer)")),
        false => (held, which),
    }
}

/// Ascending numbers as people write them: 0-7, 12, 14-15.
fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let spelled = runs.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    spelled.collect::<Vec<_>>().join(", ")
}
