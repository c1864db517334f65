//! `connito inspect`: a checkpoint's logits, or its loss and gradients, in a file that any framework reads.
//!
//! Everything is computed in f32, whatever the checkpoint stores, and only what the routing can reach is
//! read. Gradients have the names, shapes and orientations of the checkpoint's own tensors; where one
//! tensor holds many experts, those that were not asked for are zero. `input.rs` reads what the command
//! line names, `output.rs` writes. Compares nothing: that is the other framework's part.

mod input;
mod output;

use anyhow::{Context, anyhow};
use connito_engine::checkpoint::Checkpoint;
use connito_engine::device::Cpu;
use connito_engine::model::Residency;
use connito_engine::{EngineError, Holding, Model, Tensor, TrainableSet, gradients};

use crate::args::inspect::{
    BatchArguments, GradsArguments, InspectCommand, LogitsArguments, RoutingMode,
};
use crate::cores::threads;
use crate::exit::{Blame, Failure};
use input::{Experts, Selection};
use output::Sink;

/// Runs the command.
pub(crate) fn run(command: &InspectCommand) -> Result<(), Failure> {
    match command {
        InspectCommand::Logits(arguments) => logits(arguments),
        InspectCommand::Grads(arguments) => grads(arguments),
    }
}

fn logits(arguments: &LogitsArguments) -> Result<(), Failure> {
    let experts = arguments.experts.as_deref();
    if arguments.batch.routing == RoutingMode::Classic
        && let Some(experts) = experts
    {
        return Err(Failure::Input(anyhow!(
            "--experts {}: --routing classic visits all experts",
            experts.display()
        )));
    }
    let sink = Sink::new(&arguments.batch, experts)?;
    let inspected = Inspected::open(&arguments.batch, experts.map(Experts::read).transpose()?)?;
    let (model, routing) = (&inspected.model, &inspected.selection.routing);
    let sequences = &inspected.sequences;
    let vocabulary = model.config().vocab_size;
    let mut logits = Tensor {
        shape: vec![sequences.len(), sequences[0].len(), vocabulary],
        values: Vec::new(),
    };
    for (index, ids) in sequences.iter().enumerate() {
        let of_one = model.logits(ids, routing).map_err(|error| {
            // The engine was given one sequence and calls it the first.
            let error = match error {
                EngineError::TokenId { id, vocabulary, .. } => EngineError::TokenId {
                    index,
                    id,
                    vocabulary,
                },
                error => error,
            };
            inspected.blamed(error)
        })?;
        logits.values.extend(of_one.values);
    }
    let of_one = (logits.values.len() / sequences.len()).max(1);
    let mut each = logits.values.chunks(of_one);
    let infinite = each.position(|values| !finite(values));
    sink.write(&[("logits".to_owned(), logits)].into())?;
    if let Some(index) = infinite {
        sink.warn(&format!("logits of sequence {index} are not finite"));
    }
    sink.tell()
}

fn grads(arguments: &GradsArguments) -> Result<(), Failure> {
    let sink = Sink::new(&arguments.batch, Some(&arguments.experts))?;
    let experts = Experts::read(&arguments.experts)?;
    let trainable = TrainableSet::experts(experts.map.clone());
    let inspected = Inspected::open(&arguments.batch, Some(experts))?;
    let routing = &inspected.selection.routing;
    let sequences: Vec<&[u32]> = inspected.sequences.iter().map(Vec::as_slice).collect();
    let (loss, gradients) = gradients(&inspected.model, &trainable, routing, &sequences)
        .map_err(|error| inspected.blamed(error))?;
    let mut tensors = inspected.checkpoint.as_stored(&gradients).input()?;
    let loss = Tensor {
        shape: vec![1],
        values: vec![loss as f32],
    };
    tensors.insert("loss".to_owned(), loss);
    sink.write(&tensors)?;
    if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !finite(&tensor.values)) {
        sink.warn(&format!("tensor {name} is not finite"));
    }
    sink.tell()
}

fn finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// A checkpoint with as much of it in memory as is needed, and what it is run on.
struct Inspected {
    checkpoint: Checkpoint,
    model: Model,
    selection: Selection,
    sequences: Vec<Vec<u32>>,
    ids: String,
}

impl Inspected {
    /// Refuses what cannot be used before anything large is read.
    fn open(batch: &BatchArguments, experts: Option<Experts>) -> Result<Self, Failure> {
        let sequences = input::sequences(&batch.ids)?;
        let kept = batch.kept.as_deref().map(Experts::read).transpose()?;
        let checkpoint = Checkpoint::open(&batch.model).input()?;
        for warning in checkpoint.warnings() {
            eprintln!("connito: {}: {warning}", batch.model.display());
        }
        let selection = Selection::new(batch.routing, experts, kept, checkpoint.config())?;
        let device = Cpu::new(threads(batch.threads)).environment()?;
        let model = read(device, &checkpoint, &selection.residency)
            .with_context(|| batch.model.display().to_string())
            .input()?;
        Ok(Self {
            checkpoint,
            model,
            selection,
            sequences,
            ids: batch.ids.display().to_string(),
        })
    }

    /// An error of the engine with the file that is at fault.
    fn blamed(&self, error: EngineError) -> Failure {
        let file = match error {
            EngineError::Routing(_) | EngineError::NothingToTrain => &self.selection.file,
            _ => &self.ids,
        };
        Failure::Input(anyhow::Error::new(error).context(file.clone()))
    }
}

fn read(device: Cpu, checkpoint: &Checkpoint, residency: &Residency) -> Result<Model, EngineError> {
    let holding = Holding {
        residency: residency.clone(),
        ..Holding::whole()
    };
    Model::from_checkpoint(device, checkpoint, &holding)
}
