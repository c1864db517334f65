//! Options of `train`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use connito_learning::inner::Method;

use super::inspect::RoutingMode;

/// Options of `train`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrainArguments {
    /// Hugging Face folder (config.json, *.safetensors, tokenizer.json)
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// JSONL file of one domain, may be repeated: {"text"}, {"question","answer"} or {"messages"}
    #[arg(long = "data", value_name = "FILE", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// JSONL file on which a domain is judged, one for each --data in its order
    /// [default: a part of each --data that is not trained on]
    #[arg(long, value_name = "FILE")]
    pub(crate) held_out: Vec<PathBuf>,
    /// Experts to train, as {"experts": {"layer": [ids]}} [default: all of every layer]
    #[arg(long, value_name = "FILE")]
    pub(crate) experts: Option<PathBuf>,
    /// Frozen experts that may be visited, in the same form; for frozen-kept and fallback
    #[arg(long, value_name = "FILE")]
    pub(crate) kept: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// Folder for the trained model; must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How it is trained.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct RunArguments {
    /// How gradients of several domains come together
    #[arg(long, value_enum, default_value_t = TrainerKind::Esft)]
    pub(crate) trainer: TrainerKind,
    /// Which experts a token may visit while training; judged is the natural choice
    #[arg(long, value_enum, value_name = "MODE", default_value_t = RoutingMode::Classic)]
    pub(crate) routing: RoutingMode,
    /// Optimiser steps
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) steps: u32,
    /// Sequences of a step, as many of each domain
    #[arg(
        long,
        value_name = "SEQUENCES",
        default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) batch: u16,
    /// Tokens of a sequence at most [default: 256, or the model's positions if they are fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) sequence_length: Option<u32>,
    /// Step size of AdamW, constant
    #[arg(long, value_name = "R", default_value = "1e-4", value_parser = positive)]
    pub(crate) learning_rate: f32,
    /// Chooses the order of the text and the routers' corrections
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// The trainers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrainerKind {
    /// All domains alike
    Esft,
    /// Each domain trains the experts that it mainly visits, with routers corrected meanwhile
    DesMoe,
}

impl TrainerKind {
    /// What it stands for.
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Esft => Method::Esft,
            Self::DesMoe => Method::DesMoe,
        }
    }

    /// The trainer as it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Esft => "esft",
            Self::DesMoe => "des-moe",
        }
    }
}

fn positive(text: &str) -> Result<f32, String> {
    let number: Option<f32> = text.parse().ok();
    number
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "not a positive number".to_owned())
}
