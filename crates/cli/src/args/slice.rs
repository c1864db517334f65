//! Options of `slice` and `join`.

use std::path::PathBuf;

use clap::Args;

use super::partition::GroupingArguments;

/// Options of `slice`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SliceArguments {
    /// Hugging Face folder of the whole model
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) grouping: GroupingArguments,
    /// JSONL file of text for --strategy coactivation, may be repeated
    #[arg(long = "data", value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// The group to take, may be repeated
    #[arg(long = "group", value_name = "G", required = true)]
    pub(crate) group: Vec<u16>,
    /// The folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `join`.
#[derive(Debug, Clone, Args)]
pub(crate) struct JoinArguments {
    /// Hugging Face folder that the slices were taken from
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Folders of trained slices; experts that none of them holds stay as they are
    #[arg(long, value_name = "DIR", num_args = 1.., required = true)]
    pub(crate) slices: Vec<PathBuf>,
    /// The folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
