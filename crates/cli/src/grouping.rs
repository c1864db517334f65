//! From arguments to a model's expert groups: what `partition`, `slice`, `select` and `affinity` share.
//!
//! Groups are divided anew, by the options, or read from what `connito partition --json` printed and
//! held against the model. Nothing but headers is read of the model, unless its text has to be run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use connito_engine::config::Family;
use connito_engine::expert_parameter_names;
use connito_engine::routing::ExpertMap;
use connito_learning::ExpertManager;
use connito_learning::task::experts_of;
use connito_protocol::partition::{
    CoActivation, Division, ExpertAssignment, ExpertMapping, Inventory, Partition, PartitionError,
    Sizes, Strategy, Uneven,
};

use crate::args::partition::{GroupingArguments, Strategy as Asked};
use crate::exit::{Blame, Failure};
use crate::{coactivation, text_file};

/// A model's experts, and their groups.
#[derive(Debug)]
pub(crate) struct Grouped {
    pub(crate) experts: ExpertManager,
    pub(crate) partition: Partition,
}

/// The groups of the model at `model` (a Hugging Face folder, its `config.json`, its index or one
/// safetensors file), in order. `data` is the text for the coactivation strategy.
pub(crate) fn groups(
    model: &Path,
    arguments: &GroupingArguments,
    data: &[PathBuf],
) -> Result<Vec<ExpertMapping>, Failure> {
    Ok(grouped(model, arguments, data)?.partition.into_groups())
}

/// As [`groups`], with what they are groups of.
pub(crate) fn grouped(
    model: &Path,
    arguments: &GroupingArguments,
    data: &[PathBuf],
) -> Result<Grouped, Failure> {
    if let Some(file) = &arguments.partition {
        let text = text_file::read(file)?;
        let experts = scan(model)?;
        let partition = read(&text, &experts).with_context(|| file.display().to_string());
        return Ok(Grouped {
            partition: partition.input()?,
            experts,
        });
    }
    let asked = Request::new(arguments)?;
    let experts = scan(model)?;
    let counts = match asked.strategy {
        Asked::Coactivation => Some(coactivation::measure(model, data_of(data)?)?),
        Asked::Contiguous | Asked::Strided | Asked::Explicit => None,
    };
    let partition = divided(experts.inventory(), &asked, counts.as_ref())?;
    Ok(Grouped { experts, partition })
}

/// The groups of any model with experts at these places, whatever it calls them; their parameter keys are
/// those of DeepSeek-V2.
pub(crate) fn groups_of_any_model(
    experts: &ExpertMap,
    arguments: &GroupingArguments,
) -> Result<Vec<ExpertMapping>, Failure> {
    if let Some(file) = &arguments.partition {
        let text = text_file::read(file)?;
        let partition: Partition = serde_json::from_str(&text)
            .with_context(|| file.display().to_string())
            .input()?;
        let groups = partition.into_groups();
        divides(&groups, experts)
            .with_context(|| file.display().to_string())
            .input()?;
        return Ok(groups);
    }
    let asked = Request::new(arguments)?;
    if asked.strategy == Asked::Coactivation {
        return Err(Failure::Input(anyhow!(
            "--strategy coactivation needs --model and --data, or --partition in its place"
        )));
    }
    let named = |(layer, experts): (&usize, &Vec<usize>)| {
        let keys = experts.iter().map(|expert| {
            let names = expert_parameter_names(Family::DeepseekV2, *layer, *expert);
            (*expert, names.into())
        });
        (*layer, keys.collect())
    };
    let inventory = Inventory::new(experts.iter().map(named).collect()).input()?;
    Ok(divided(&inventory, &asked, None)?.into_groups())
}

/// Whether groups have exactly these experts.
fn divides(groups: &[ExpertMapping], experts: &ExpertMap) -> anyhow::Result<()> {
    let places = |experts: &ExpertMap| -> BTreeSet<(usize, usize)> {
        let layers = experts.iter();
        layers
            .flat_map(|(layer, ids)| ids.iter().map(|id| (*layer, *id)))
            .collect()
    };
    let grouped: BTreeSet<_> = groups
        .iter()
        .flat_map(|group| places(&experts_of(group)))
        .collect();
    let scored = places(experts);
    if let Some((layer, expert)) = scored.difference(&grouped).next() {
        bail!("expert {expert} of layer {layer} is in no group");
    }
    match grouped.difference(&scored).next() {
        Some((layer, expert)) => bail!("expert {expert} of layer {layer} has no score"),
        None => Ok(()),
    }
}

fn divided(
    inventory: &Inventory,
    asked: &Request,
    counts: Option<&CoActivation>,
) -> Result<Partition, Failure> {
    let strategy = match (asked.strategy, counts) {
        (Asked::Strided, _) => Strategy::Strided,
        (Asked::Explicit, _) => Strategy::Explicit(&asked.lists),
        (Asked::Coactivation, Some(counts)) => Strategy::Coactivation(counts),
        (Asked::Contiguous, _) | (Asked::Coactivation, None) => Strategy::Contiguous,
    };
    let division = Division {
        strategy,
        sizes: asked.sizes.clone(),
        uneven: asked.uneven,
    };
    Partition::divide(inventory, &division).map_err(|error| {
        // What the option would permit is said beside its name.
        let permitted = matches!(
            error,
            PartitionError::Remainder { .. }
                | PartitionError::Size { .. }
                | PartitionError::Layer { .. }
        );
        let error = anyhow::Error::new(error);
        Failure::Input(match permitted {
            true => anyhow!("{error:#} (--allow-uneven permits it)"),
            false => error,
        })
    })
}

/// What the options ask for, with the files that they name.
struct Request {
    strategy: Asked,
    sizes: Sizes,
    lists: Vec<ExpertAssignment>,
    uneven: Uneven,
}

impl Request {
    fn new(arguments: &GroupingArguments) -> Result<Self, Failure> {
        let strategy = strategy(arguments)?;
        if let (Some(_), files @ 2..) = (&arguments.sizes, arguments.assignment.len()) {
            return Err(Failure::Input(anyhow!(
                "--sizes cuts one list of all experts, and --assignment names {files} files"
            )));
        }
        let sizes = match (
            &arguments.sizes,
            arguments.groups,
            arguments.assignment.len(),
        ) {
            (Some(sizes), ..) => Sizes::Given(sizes.clone()),
            (None, Some(groups), _) => Sizes::Groups(groups),
            (None, None, files @ 2..) => Sizes::Groups(
                u16::try_from(files)
                    .with_context(|| format!("--assignment names {files} files"))
                    .input()?,
            ),
            (None, None, _) => {
                return Err(Failure::Input(anyhow!(
                    "--groups, --sizes or --partition is needed to say which groups there are"
                )));
            }
        };
        let lists = arguments.assignment.iter().map(|path| {
            let text = text_file::read(path)?;
            ExpertAssignment::from_json(&text)
                .with_context(|| path.display().to_string())
                .input()
        });
        Ok(Self {
            strategy,
            sizes,
            lists: lists.collect::<Result<_, _>>()?,
            uneven: match arguments.allow_uneven {
                true => Uneven::Allowed,
                false => Uneven::Refused,
            },
        })
    }
}

fn strategy(arguments: &GroupingArguments) -> Result<Asked, Failure> {
    let refused = |what: &str| Err(Failure::Input(anyhow!("{what}")));
    match (arguments.strategy, arguments.assignment.is_empty()) {
        (None | Some(Asked::Explicit), false) => Ok(Asked::Explicit),
        (Some(Asked::Explicit), true) => refused("--strategy explicit needs --assignment"),
        (Some(_), false) => refused("--assignment is for --strategy explicit"),
        (asked, true) => Ok(asked.unwrap_or(Asked::Contiguous)),
    }
}

fn data_of(data: &[PathBuf]) -> Result<&[PathBuf], Failure> {
    match data.is_empty() {
        true => Err(Failure::Input(anyhow!(
            "--strategy coactivation needs text to run: --data"
        ))),
        false => Ok(data),
    }
}

fn scan(model: &Path) -> Result<ExpertManager, Failure> {
    ExpertManager::scan(model)
        .with_context(|| format!("--model {}", model.display()))
        .input()
}

/// A partition that was made before. Whether groups may differ was asked then.
fn read(text: &str, experts: &ExpertManager) -> anyhow::Result<Partition> {
    let partition: Partition = serde_json::from_str(text)?;
    partition.verify(experts.inventory(), Uneven::Allowed)?;
    Ok(partition)
}
