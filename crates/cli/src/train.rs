//! `connito train`: fine-tunes experts on this machine, outside any network.
//!
//! Every `--data` file is a domain. Two trainers take the same steps over the same text: `esft`, in which
//! all domains change all listed experts, and `des-moe`, in which each changes its own. Routing is the
//! trainer's; what is printed is the held-out loss under the model's own, before and after. Only routed
//! experts change. Computes in f32 with the whole model in memory, for judging it takes all experts.

mod experts;
mod output;
mod text;

use std::time::Instant;

use anyhow::{Context, anyhow};
use connito_engine::checkpoint::Checkpoint;
use connito_engine::device::Cpu;
use connito_engine::{EngineError, Model, Routing};
use connito_learning::inner::{self, InnerTrainer};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::train::{RunArguments, TrainArguments};
use crate::base::Base;
use crate::cores::threads;
use crate::exit::{Blame, Failure};
use crate::output::print;
use experts::Choice;
use output::{DomainResult, Place, TrainResult, check_writable};
use text::{DomainTokens, Steps};

/// Tokens of a sequence unless told otherwise.
const SEQUENCE_LENGTH: usize = 256;

/// Runs the command.
pub(crate) fn run(arguments: &TrainArguments) -> Result<(), Failure> {
    let place = Place::new(&arguments.out, &arguments.model)?;
    let Base {
        model, tokenizer, ..
    } = Base::load(&arguments.model)?;
    let checkpoint = Checkpoint::open(&arguments.model).input()?;
    let choice = Choice::new(arguments, model.config())?;
    let length = sequence_length(arguments, &model)?;
    let domains = text::domains(arguments, &tokenizer, length)?;
    let steps = Steps::new(&domains, arguments.run.batch.into(), arguments.run.seed)?;
    let mut model = model.on(Cpu::new(threads(arguments.run.threads)).environment()?);
    let trainer = trainer(&model, &choice, &arguments.run)
        .with_context(|| choice.source.clone())
        .input()?;
    check_writable(&checkpoint, &model, &choice.trained)?;

    let before = losses(&model, &domains).input()?;
    let speed = train(&mut model, trainer, steps, &arguments.run).input()?;
    let after = losses(&model, &domains).input()?;
    if after.iter().any(|loss| !loss.is_finite()) {
        return Err(Failure::Input(anyhow!(
            "the held-out loss after training is not finite; --learning-rate {} may be too large",
            arguments.run.learning_rate
        )));
    }
    place.write(&checkpoint, &model, &choice.trained)?;
    let pairs = before.into_iter().zip(after);
    let domains = domains.iter().zip(pairs);
    let result = TrainResult {
        out: arguments.out.display().to_string(),
        trainer: arguments.run.trainer.name(),
        routing: arguments.run.routing.name(),
        experts: choice.count(),
        trained_parameters: trained_parameters(&model, &choice),
        steps: arguments.run.steps,
        tokens: speed.tokens,
        tokens_per_second: speed.tokens as f64 / speed.seconds.max(1e-9),
        domains: domains
            .map(|(domain, (before, after))| DomainResult {
                name: domain.name.clone(),
                tokens: domain.held_out.tokens() - domain.held_out.len(),
                before,
                after,
            })
            .collect(),
    };
    if arguments.json {
        return print(&serde_json::to_string(&result).environment()?);
    }
    print(&result.text())
}

fn sequence_length(arguments: &TrainArguments, model: &Model) -> Result<usize, Failure> {
    let positions = model.config().max_position_embeddings;
    match arguments.run.sequence_length.map(|length| length as usize) {
        None => Ok(SEQUENCE_LENGTH.min(positions)),
        Some(length) if length <= positions => Ok(length),
        Some(length) => Err(Failure::Input(anyhow!(
            "--sequence-length {length} exceeds the {positions} positions of {}",
            arguments.model.display()
        ))),
    }
}

fn trained_parameters(model: &Model, choice: &Choice) -> usize {
    let mixture = &model.config().mixture;
    // Gate, up and down of an expert have as many values.
    choice.count() * 3 * model.config().hidden_size * mixture.width
}

/// Mean held-out loss of every domain.
fn losses(model: &Model, domains: &[DomainTokens]) -> Result<Vec<f64>, EngineError> {
    let mean = |domain: &DomainTokens| {
        let sequences: Vec<&[u32]> = domain.held_out.iter().collect();
        let losses = model.sequence_losses(&sequences, &Routing::Classic)?;
        let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
        Ok(losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64)
    };
    domains.iter().map(mean).collect()
}

fn trainer(
    model: &Model,
    choice: &Choice,
    run: &RunArguments,
) -> Result<InnerTrainer, EngineError> {
    let plan = inner::Plan {
        experts: choice.trained.clone(),
        routing: &choice.routing,
        steps: run.steps.into(),
        seed: run.seed,
    };
    InnerTrainer::new(model, run.trainer.method(), plan)
}

/// What training took.
struct Speed {
    tokens: u64,
    seconds: f64,
}

fn train(
    model: &mut Model,
    mut trainer: InnerTrainer,
    mut steps: Steps<'_>,
    run: &RunArguments,
) -> Result<Speed, EngineError> {
    let bar = ProgressBar::new(run.steps.into());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} steps  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let begun = Instant::now();
    let mut tokens = 0;
    for _ in 0..run.steps {
        let batch = steps.next();
        let loss = trainer.step(model, &batch, run.learning_rate)?.loss;
        let lengths = batch.iter().flatten().map(|sequence| sequence.len() as u64);
        tokens += lengths.sum::<u64>();
        let rate = tokens as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!("loss {loss:.3}, {rate:.0} tokens/s"));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Speed {
        tokens,
        seconds: begun.elapsed().as_secs_f64(),
    })
}
