//! The experts of a group that `select` chooses among.
//!
//! A model's groups come from where every command has them, or from a partition that was written before.
//! Scores without a model still say how many layers and experts there are, which is enough for the groups
//! that follow from numbers alone.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, anyhow};
use connito_engine::routing::ExpertMap;
use connito_learning::selection::Scores;
use connito_learning::task::experts_of;
use connito_protocol::partition::{self, ExpertMapping};
use serde::Deserialize;

use crate::args::partition::{GroupingArguments, Strategy};
use crate::args::select::SelectArguments;
use crate::exit::{Blame, Failure};
use crate::grouping;

/// A group and its experts by layer.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) number: u16,
    pub(super) experts: ExpertMap,
}

impl Group {
    /// The group that was asked for, of a model.
    pub(super) fn of_model(
        arguments: &SelectArguments,
        model: &Path,
    ) -> Result<Option<Self>, Failure> {
        let Some(number) = wanted(arguments)? else {
            return Ok(None);
        };
        let mappings = match &arguments.partition {
            Some(path) => written(path)?,
            None => grouping::groups(model, &arguments.grouping, &arguments.data)?,
        };
        Self::listed(number, &mappings).map(Some)
    }

    /// The group that was asked for, where nothing but scores is known.
    pub(super) fn of_scores(
        arguments: &SelectArguments,
        scores: &Scores,
    ) -> Result<Option<Self>, Failure> {
        let Some(number) = wanted(arguments)? else {
            return Ok(None);
        };
        if let Some(path) = &arguments.partition {
            return Self::listed(number, &written(path)?).map(Some);
        }
        let members = members(&arguments.grouping, number, scores.experts())?;
        let layers = scores.layers().map(|(layer, _)| (layer, members.clone()));
        Ok(Some(Self {
            number,
            experts: layers.collect(),
        }))
    }

    fn listed(number: u16, mappings: &[ExpertMapping]) -> Result<Self, Failure> {
        let mapping = mappings.get(usize::from(number));
        let mapping = mapping.ok_or_else(|| absent(number, mappings.len()))?;
        Ok(Self {
            number,
            experts: experts_of(mapping),
        })
    }
}

/// Which group, if any; groups without one to choose from are a mistake.
fn wanted(arguments: &SelectArguments) -> Result<Option<u16>, Failure> {
    let refused = |what: &str| Err(Failure::Input(anyhow!("{what}")));
    match arguments.within_group {
        None if arguments.grouping.groups.is_some() => {
            refused("--groups says nothing without --within-group")
        }
        None if arguments.partition.is_some() => {
            refused("--partition says nothing without --within-group")
        }
        Some(_) if arguments.grouping.groups.is_none() && arguments.partition.is_none() => {
            refused("--within-group needs --groups or --partition")
        }
        number => Ok(number),
    }
}

fn absent(number: u16, groups: usize) -> Failure {
    Failure::Input(anyhow!(
        "--within-group {number}: there are {groups} groups, counted from 0"
    ))
}

/// The groups of a partition that was written before. Its hash is not looked at: what is chosen from is
/// listed here, whatever it is called.
fn written(path: &Path) -> Result<Vec<ExpertMapping>, Failure> {
    #[derive(Deserialize)]
    struct Written {
        groups: Vec<ExpertMapping>,
    }
    let json = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .input()?;
    let Written { groups } = serde_json::from_str(&json)
        .with_context(|| path.display().to_string())
        .input()?;
    partition::check(&groups)
        .with_context(|| path.display().to_string())
        .input()?;
    Ok(groups)
}

/// Experts of a group of consecutive or evenly spaced ones, in every layer.
fn members(
    grouping: &GroupingArguments,
    number: u16,
    experts: usize,
) -> Result<Vec<usize>, Failure> {
    let groups = usize::from(grouping.groups.unwrap_or(1));
    let group = usize::from(number);
    if groups > experts {
        return Err(Failure::Input(anyhow!(
            "--groups {groups}: there are only {experts} experts to divide"
        )));
    }
    if group >= groups {
        return Err(absent(number, groups));
    }
    if !experts.is_multiple_of(groups) && !grouping.allow_uneven {
        return Err(Failure::Input(anyhow!(
            "--groups {groups}: {experts} experts do not divide evenly, which needs --allow-uneven"
        )));
    }
    match grouping.strategy {
        Strategy::Contiguous => Ok(consecutive(experts, groups, group).collect()),
        Strategy::Strided => Ok((group..experts).step_by(groups).collect()),
        Strategy::Explicit | Strategy::Coactivation => Err(Failure::Input(anyhow!(
            "--strategy explicit and coactivation need --model, or --partition in their place"
        ))),
    }
}

/// The first groups hold one expert more where the number does not divide.
fn consecutive(experts: usize, groups: usize, group: usize) -> Range<usize> {
    let (size, more) = (experts / groups, experts % groups);
    let start = |group: usize| group * size + group.min(more);
    start(group)..start(group + 1)
}
