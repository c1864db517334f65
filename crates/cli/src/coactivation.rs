//! How often experts are visited by the same tokens: what the coactivation strategy divides by.

use std::path::{Path, PathBuf};

use anyhow::Context;
use connito_protocol::partition::CoActivation;

use crate::exit::{Blame, Failure};
use crate::routing_sample::{Limits, Source};

/// Runs the model in the folder `model` over the text of `data`, and counts for every two experts the
/// tokens that visited both, summed over layers. The sample is the one that `affinity` draws by default.
pub(crate) fn measure(model: &Path, data: &[PathBuf]) -> Result<CoActivation, Failure> {
    let source = Source::open(model)?;
    let text = source.draw(data, Limits::default())?;
    let statistics = source.load(None)?.count(&text)?;
    CoActivation::from_rows(&statistics.coactivation())
        .with_context(|| model.display().to_string())
        .input()
}
