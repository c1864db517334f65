//! `connito score`: the number that a validator would find for an update.
//!
//! ```text
//! --update ──read──▶ Δ ────────────────────────┐
//! --base or --state ──▶ Φ, its experts in f32 ─┼──▶ Evaluation ──▶ utility, standard error, code
//! --data or --task, --seed ──▶ sequences ──────┘
//! ```
//!
//! Reading, drawing and measuring are the validator's own (`connito_learning::{update, scorer}`), so that
//! equal inputs give equal numbers, to the bit. What is not told: whether the update is a copy of another,
//! or too long for its group, for which one would have to know the others. A refused update is a result:
//! its code is printed and the command ends with 1. Input that cannot be used ends it with 2, before the
//! model's weights are read where possible.

mod data;
mod state;
mod task;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use connito_learning::EngineBackend;
use connito_learning::scorer::{Evaluation, Measured};
use connito_learning::shard::{Layout, Shard};
use connito_learning::update;
use connito_learning::wire::{self, Rejection};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Codec;
use connito_protocol::scoring::{Unmeasured, judge};
use serde::Serialize;

use crate::args::score::ScoreArguments;
use crate::cores::threads;
use crate::exit::{Blame, Failure};
use crate::output::print;
use state::State;
use task::Task;

/// What to measure on, and by what to judge it.
struct Setting {
    /// Pool by pool.
    sequences: Vec<Vec<Vec<u32>>>,
    sequence_length: usize,
    /// `z`.
    significance: f64,
}

/// Runs the command.
pub(crate) fn run(arguments: &ScoreArguments) -> Result<(), Failure> {
    let task = match (&arguments.task, &arguments.blobs) {
        (Some(task), Some(blobs)) => Some(Task::open(task, blobs)?),
        _ => None,
    };
    let state = State::open(arguments, task.as_ref())?;
    let layout = state.experts()?;
    if let Some(task) = &task {
        task.check_model(&layout, &state)?;
    }
    let update = match read_update(&arguments.update, &layout, task.as_ref())? {
        Ok(update) => update,
        Err(rejection) => return refuse(arguments, &rejection),
    };
    let setting = match &task {
        Some(task) => task.setting(&update, state.config(), &arguments.seed)?,
        None => data::setting(arguments, &state)?,
    };
    let drawn: usize = setting.sequences.iter().map(Vec::len).sum();
    if drawn < 2 {
        return Err(Failure::Input(anyhow!(
            "{drawn} sequences were drawn, a standard error needs two"
        )));
    }
    let shown = state.shown();
    let (evaluation, measured) = measure(arguments, state, &update, &setting)?;
    match measured {
        Ok(measured) => print_result(arguments, &setting, &evaluation, &measured),
        Err(Unmeasured::NonFiniteLoss) => refuse(
            arguments,
            &Rejection {
                code: ReasonCode::NonFiniteLoss,
                detail: "some sequence's loss is not finite under the update".to_owned(),
            },
        ),
        Err(Unmeasured::NoBaseline) => Err(Failure::Input(anyhow!(
            "the loss of {shown} is not finite, so nothing can be compared with it"
        ))),
    }
}

/// The update, or why a validator would not measure it.
fn read_update(
    path: &Path,
    layout: &Layout,
    task: Option<&Task>,
) -> Result<Result<Shard, Rejection>, Failure> {
    let most = wire::encoded_bytes(layout, Codec::F32);
    let unreadable = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(unreadable).input()?;
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes);
    if read.with_context(unreadable).input()? as u64 > most {
        return Ok(Err(Rejection {
            code: ReasonCode::TooLarge,
            detail: format!("more than the {most} bytes of all experts in f32"),
        }));
    }
    let update = match update::read(&bytes, layout) {
        Ok(update) => update,
        Err(rejection) => return Ok(Err(rejection)),
    };
    match task.map_or(Ok(()), |task| task.check(&update)) {
        Ok(()) => Ok(Ok(update)),
        Err(rejection) => Ok(Err(rejection)),
    }
}

type Outcome = (Evaluation, Result<Measured, Unmeasured>);

fn measure(
    arguments: &ScoreArguments,
    state: State,
    update: &Shard,
    setting: &Setting,
) -> Result<Outcome, Failure> {
    let model = state.model(update, threads(arguments.threads))?;
    let of_update = |name: &String| Some((name.clone(), model.tensor(name)?));
    let base = Shard(update.0.keys().filter_map(of_update).collect());
    let mut backend = EngineBackend::holding(model, setting.sequence_length);
    let evaluation = Evaluation::of_base(&mut backend, setting.sequences.clone()).input()?;
    let measured = evaluation.measure(&mut backend, (&base, update)).input()?;
    Ok((evaluation, measured))
}

/// What is printed of an update that was measured.
#[derive(Serialize)]
struct Scored {
    code: ReasonCode,
    utility: f32,
    standard_error: f32,
    loss_before: f64,
    loss_after: f64,
    weight: f64,
    sequences: usize,
    tokens: u64,
}

fn print_result(
    arguments: &ScoreArguments,
    setting: &Setting,
    evaluation: &Evaluation,
    measured: &Measured,
) -> Result<(), Failure> {
    let measurement = measured.measurement;
    let code = judge(measurement, setting.significance);
    let gain = measurement.significant_gain(setting.significance);
    let scored = Scored {
        code,
        utility: measurement.utility,
        standard_error: measurement.standard_error,
        loss_before: measured.loss_before,
        loss_after: measured.loss_after,
        weight: gain.max(0.0),
        sequences: evaluation.sequences(),
        tokens: evaluation.tokens(),
    };
    if arguments.json {
        return print(&serde_json::to_string(&scored).environment()?);
    }
    let measured_on = match arguments.task {
        Some(_) => "the task's pools, in its shares",
        None => "the given data alone; with --task, in the shares of the network",
    };
    print(&format!(
        "{code}\n  utility         {:.6} nats a token\n  standard error  {:.6}\n  \
         loss            {:.6} before, {:.6} after\n  weight          {:.6} with z = {}\n  \
         measured on     {} sequences of {} tokens: {measured_on}",
        scored.utility,
        scored.standard_error,
        scored.loss_before,
        scored.loss_after,
        scored.weight,
        setting.significance,
        scored.sequences,
        scored.tokens,
    ))
}

/// A refusal is the result that was asked for, and a check that failed.
fn refuse(arguments: &ScoreArguments, rejection: &Rejection) -> Result<(), Failure> {
    if arguments.json {
        let Rejection { code, detail } = rejection;
        print(&serde_json::json!({ "code": code, "detail": detail }).to_string())?;
    }
    Err(Failure::Check(anyhow!(
        "{} is refused: {rejection}",
        arguments.update.display()
    )))
}
