//! `connito plan`: what training a few experts of a model takes, before anything is downloaded or bought.
//!
//! From a model's dimensions and what is to be trained: the parameter account, the memory of a step by
//! part, the bytes of one upload and the cards that suffice. `setup.rs` holds the request against the
//! model, `proposal.rs` finds what fits a given memory, `figures.rs` writes every number down as a formula
//! over the engine's accounts, and `text.rs` and `json.rs` show the same figures. Nothing here reads
//! weights; what a plan takes is the engine's own prediction, which `bench` holds against measured peaks.

mod figure;
mod figures;
mod gpus;
mod json;
mod proposal;
mod settings;
mod setup;
mod text;

use anyhow::anyhow;
use connito_engine::{MemoryPlan, ModelConfig};

use crate::args::plan::{MemorySize, PlanArguments, SettingArguments, SourceArguments};
use crate::built_in;
use crate::exit::Failure;
use crate::output::print;
use figure::Section;
use proposal::Choice;
use settings::Settings;
use setup::Setup;

/// How everything is held in a training for which no setting is given.
pub(crate) fn usual_memory_plan() -> MemoryPlan {
    Settings::given(SettingArguments::default()).memory_plan()
}

/// Everything that is printed.
struct Plan<'a> {
    /// The name, file or folder of the configuration.
    source: String,
    setup: &'a Setup<'a>,
    choice: Choice,
    budget: Option<Budget<'a>>,
    sections: Vec<Section>,
    /// Bytes at the peak of a step.
    total: u64,
}

/// A memory that the plan was held against.
struct Budget<'a> {
    size: &'a MemorySize,
    /// Options that the plan has chosen, as they would be typed.
    proposed: Vec<(&'static str, String)>,
}

/// Runs the command.
pub(crate) fn run(arguments: &PlanArguments) -> Result<(), Failure> {
    let (source, config) = read(&arguments.source)?;
    let setup = Setup::new(&config, arguments)?;
    let open = proposal::Open::new(arguments);
    let choice = match &arguments.memory {
        Some(memory) if open.anything() => proposal::largest(&setup, arguments, memory)?,
        _ => Choice::given(&setup, arguments),
    };
    let memory = setup.memory(choice);
    let plan = Plan {
        source,
        setup: &setup,
        choice,
        budget: arguments.memory.as_ref().map(|size| Budget {
            size,
            proposed: open.proposed(choice),
        }),
        sections: figures::sections(&setup, choice, &memory)?,
        total: memory.account().total(),
    };
    print(&if arguments.json {
        json::line(&plan, arguments.explain)
    } else {
        text::page(&plan, arguments.explain)
    })?;
    match &arguments.memory {
        Some(memory) if plan.total > memory.bytes => Err(proposal::too_large(
            &format!("{} trained experts of a layer", choice.experts),
            plan.total,
            memory,
        )),
        _ => Ok(()),
    }
}

/// The configuration, and what the user calls it.
fn read(source: &SourceArguments) -> Result<(String, ModelConfig), Failure> {
    let (name, config) = match (&source.config, &source.model) {
        (Some(name), _) => (name.clone(), built_in::named(name)?),
        (None, Some(folder)) => (folder.display().to_string(), built_in::of_model(folder)?),
        // The parser asks for one of them.
        (None, None) => return Err(Failure::Input(anyhow!("--config or --model is needed"))),
    };
    if config.moe_layers().next().is_none() {
        let why = "the model has no layer with routed experts";
        return Err(Failure::Input(anyhow!("{name}: {why}")));
    }
    Ok((name, config))
}

impl Plan<'_> {
    /// Every number, in the order in which they are shown.
    fn figures(&self) -> impl Iterator<Item = &figure::Figure> {
        let rows = self.sections.iter().flat_map(|section| &section.rows);
        rows.flat_map(|row| &row.figures)
    }
}
