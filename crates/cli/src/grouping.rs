//! From arguments to a model's expert groups: what `partition`, `slice`, `select` and `affinity` share.

use std::path::Path;

use anyhow::{Context, anyhow};
use connito_engine::ModelConfig;
use connito_protocol::partition::ExpertMapping;

use crate::args::partition::GroupingArguments;
use crate::exit::{Blame, Failure};

/// The groups of the model at `model` (a Hugging Face folder, its `config.json`, its index or one
/// safetensors file), in order. `data` is the text for the coactivation strategy.
pub(crate) fn groups(
    model: &Path,
    arguments: &GroupingArguments,
    _data: &[std::path::PathBuf],
) -> Result<Vec<ExpertMapping>, Failure> {
    let wanted = arguments
        .groups
        .ok_or_else(|| Failure::Input(anyhow!("--groups is needed")))?;
    let path = if model.is_dir() {
        model.join("config.json")
    } else {
        model.to_owned()
    };
    let json = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))
        .input()?;
    let config = ModelConfig::from_json(&json)
        .with_context(|| path.display().to_string())
        .input()?;
    connito_learning::task::partition(&config, wanted).input()
}
