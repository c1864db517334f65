//! Options of `train`.

use std::path::PathBuf;

use clap::Args;

/// Options of `train`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrainArguments {
    /// Hugging Face folder
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
}
