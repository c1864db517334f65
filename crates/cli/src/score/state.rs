//! The state that an update builds on: a Hugging Face folder, or a state of the task by its name.
//!
//! A folder is read when the model is needed; a state is put together at once, as validators do it, for
//! what it consists of follows from its blobs. Knows nothing of updates' values or of what is measured.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use connito_engine::checkpoint::{Checkpoint, FileElement};
use connito_engine::device::Cpu;
use connito_engine::element::Element;
use connito_engine::routing::ExpertMap;
use connito_engine::{
    Holding, MemoryPlan, Model, ModelConfig, Residency, TrainableSet, parse_expert_name,
};
use connito_learning::shard::{Layout, Shard};
use connito_protocol::ids::StateId;

use super::task::Task;
use crate::args::score::ScoreArguments;
use crate::exit::{Blame, Failure};

/// Where the state comes from.
pub(super) enum State {
    Folder {
        path: PathBuf,
        checkpoint: Box<Checkpoint>,
    },
    Blobs {
        id: StateId,
        model: Box<Model>,
    },
}

impl State {
    /// Opens what the arguments name.
    pub(super) fn open(arguments: &ScoreArguments, task: Option<&Task>) -> Result<Self, Failure> {
        match (&arguments.base, &arguments.state, task) {
            (Some(path), _, _) => Ok(Self::Folder {
                path: path.clone(),
                checkpoint: Box::new(Checkpoint::open(path).input()?),
            }),
            (None, Some(id), Some(task)) => Ok(Self::Blobs {
                id: *id,
                model: Box::new(task.model(*id)?),
            }),
            _ => Err(Failure::Input(anyhow!(
                "give --base, or --task and --state"
            ))),
        }
    }

    pub(super) fn config(&self) -> &ModelConfig {
        match self {
            Self::Folder { checkpoint, .. } => checkpoint.config(),
            Self::Blobs { model, .. } => model.config(),
        }
    }

    /// How to name it in a sentence.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Folder { path, .. } => path.display().to_string(),
            Self::Blobs { id, .. } => format!("state {id}"),
        }
    }

    /// Names and shapes of all routed experts' tensors; there are some.
    pub(super) fn experts(&self) -> Result<Layout, Failure> {
        let mut layout = Model::expected_tensors(self.config());
        layout.retain(|name, _| parse_expert_name(name).is_some());
        if layout.is_empty() {
            return Err(Failure::Input(anyhow!(
                "{} has no layer with routed experts",
                self.shown()
            )));
        }
        Ok(layout)
    }

    /// The whole model, in which this update's experts can be replaced.
    pub(super) fn model(self, update: &Shard, threads: usize) -> Result<Model, Failure> {
        let device = Cpu::new(threads).environment()?;
        match self {
            Self::Blobs { model, .. } => Ok(model.on(device)),
            Self::Folder { path, checkpoint } => {
                let holding = Holding {
                    residency: Residency::Whole,
                    trainable: TrainableSet::experts(listed(update)),
                    plan: MemoryPlan {
                        frozen: element(&checkpoint),
                        ..MemoryPlan::default()
                    },
                };
                Model::from_checkpoint(device, &checkpoint, &holding)
                    .with_context(|| path.display().to_string())
                    .input()
            }
        }
    }
}

/// The experts that an update lists.
fn listed(update: &Shard) -> ExpertMap {
    let mut experts = ExpertMap::new();
    for (layer, expert) in update.0.keys().filter_map(|name| parse_expert_name(name)) {
        let of_layer = experts.entry(layer).or_default();
        if !of_layer.contains(&expert) {
            of_layer.push(expert);
        }
    }
    experts
        .values_mut()
        .for_each(|listed| listed.sort_unstable());
    experts
}

/// Half the memory where the file holds no more than that; sums are the same.
fn element(checkpoint: &Checkpoint) -> Element {
    let halved = |name: &String| {
        let stored = checkpoint.element(name);
        stored.is_ok_and(|element| element == FileElement::Bf16)
    };
    let expected = Model::expected_tensors(checkpoint.config());
    match expected.keys().all(halved) {
        true => Element::Bf16,
        false => Element::F32,
    }
}
