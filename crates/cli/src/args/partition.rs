//! Options of `partition` and `assign`, and how every command is told which groups there are.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How a model's experts are divided into groups.
#[derive(Debug, Clone, Args)]
pub(crate) struct GroupingArguments {
    /// Expert groups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) groups: Option<u16>,
    /// How experts are put into groups
    #[arg(long, value_enum, value_name = "STRATEGY", default_value_t = Strategy::Contiguous)]
    pub(crate) strategy: Strategy,
    /// Allow groups of different sizes
    #[arg(long)]
    pub(crate) allow_uneven: bool,
}

/// The ways to divide experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// Experts 0 to n−1 to group 0, the next n to group 1
    Contiguous,
    /// Expert i to group i modulo N
    Strided,
    /// As files list them
    Explicit,
    /// Experts that fire together land together
    Coactivation,
}

/// Options of `partition`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PartitionArguments {
    /// Hugging Face folder, its config.json, its index, or one safetensors file
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) grouping: GroupingArguments,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `assign`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AssignArguments {
    /// One hotkey a line
    #[arg(long, value_name = "FILE")]
    pub(crate) hotkeys: PathBuf,
    /// Expert groups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) groups: u16,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
