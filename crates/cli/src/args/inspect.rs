//! Options of `inspect`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What can be looked at.
#[derive(Debug, Subcommand)]
pub(crate) enum InspectCommand {
    /// Write a batch's next-token logits: tensor `logits` [batch, sequence, vocabulary]
    Logits(LogitsArguments),
    /// Write the mean next-token `loss` and its gradients, under the checkpoint's own names
    Grads(GradsArguments),
}

/// Options of `inspect logits`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogitsArguments {
    #[command(flatten)]
    pub(crate) batch: BatchArguments,
    /// Trained experts as {"layer": [ids]}; for masked, frozen-kept and fallback, which need them
    #[arg(long, value_name = "FILE")]
    pub(crate) experts: Option<PathBuf>,
}

/// Options of `inspect grads`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GradsArguments {
    #[command(flatten)]
    pub(crate) batch: BatchArguments,
    /// Trained experts as {"layer": [ids]}: those that gradients are computed for
    #[arg(long, value_name = "FILE")]
    pub(crate) experts: PathBuf,
}

/// What is run, and where the result goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct BatchArguments {
    /// Hugging Face folder (config.json, *.safetensors)
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Token ids as a JSON array of arrays of one length
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: PathBuf,
    /// Which experts a token may visit
    #[arg(long, value_enum, value_name = "MODE", default_value_t = RoutingMode::Classic)]
    pub(crate) routing: RoutingMode,
    /// Frozen experts in memory as {"layer": [ids]}; for frozen-kept and fallback, which need them
    #[arg(long, value_name = "FILE")]
    pub(crate) kept: Option<PathBuf>,
    /// The safetensors file to write, all f32
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// The four routing modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoutingMode {
    /// All experts
    Classic,
    /// The trained ones
    Masked,
    /// Trained and kept ones
    FrozenKept,
    /// All of them, kept ones in the places of those that are not in memory
    Fallback,
}

impl RoutingMode {
    /// The mode as it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Masked => "masked",
            Self::FrozenKept => "frozen-kept",
            Self::Fallback => "fallback",
        }
    }
}
