//! The experts of a group that `select` chooses among.
//!
//! A model's groups come from where every command has them. Scores without a model still say which layers
//! and how many experts there are; their groups are those of any model with as many, and a partition that
//! was written before needs no model either.

use std::path::Path;

use anyhow::anyhow;
use connito_engine::ModelConfig;
use connito_engine::routing::ExpertMap;
use connito_learning::selection::Scores;
use connito_learning::task::experts_of;
use connito_protocol::partition::ExpertMapping;

use crate::args::select::SelectArguments;
use crate::exit::Failure;
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
        (model, config): (&Path, &ModelConfig),
    ) -> Result<Option<Self>, Failure> {
        let Some(number) = wanted(arguments)? else {
            return Ok(None);
        };
        let asked = arguments.grouping.or_usual(config.mixture.experts);
        let mappings = grouping::groups(model, &asked, &arguments.data)?;
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
        let asked = arguments.grouping.or_usual(scores.experts());
        let mappings = grouping::groups_of_any_model(&scores.all(), &asked)?;
        Self::listed(number, &mappings).map(Some)
    }

    fn listed(number: u16, mappings: &[ExpertMapping]) -> Result<Self, Failure> {
        let mapping = mappings.get(usize::from(number)).ok_or_else(|| {
            Failure::Input(anyhow!(
                "--within-group {number}: there are {} groups, counted from 0",
                mappings.len()
            ))
        })?;
        Ok(Self {
            number,
            experts: experts_of(mapping),
        })
    }
}

/// Which group, if any; groups without one to choose from are a mistake.
fn wanted(arguments: &SelectArguments) -> Result<Option<u16>, Failure> {
    let grouping = &arguments.grouping;
    match (arguments.within_group, grouping.stated()) {
        (None, None) => match grouping.manner() {
            Some(option) => Err(Failure::Input(anyhow!(
                "{option} says nothing without --within-group"
            ))),
            None => Ok(None),
        },
        (None, Some(option)) => Err(Failure::Input(anyhow!(
            "{option} says nothing without --within-group"
        ))),
        (number, _) => Ok(number),
    }
}
