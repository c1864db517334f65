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
    /// The group to take, may be repeated
    #[arg(long = "group", value_name = "G", required = true)]
    pub(crate) group: Vec<u16>,
    /// The folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// Options of `join`.
#[derive(Debug, Clone, Args)]
pub(crate) struct JoinArguments {
    /// Hugging Face folder that the slices were taken from
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Folders of slices
    #[arg(long, value_name = "DIR", num_args = 1.., required = true)]
    pub(crate) slices: Vec<PathBuf>,
    /// The folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
