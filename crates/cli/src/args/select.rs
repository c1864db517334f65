//! Options of `select` and `affinity`.

use std::path::PathBuf;

use clap::Args;

use super::partition::GroupingArguments;

/// Options of `select`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SelectArguments {
    /// Hugging Face folder
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) grouping: GroupingArguments,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// Options of `affinity`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AffinityArguments {
    /// Hugging Face folder
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) grouping: GroupingArguments,
}
