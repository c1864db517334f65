//! Configurations of published models that the program carries: their dimensions by name, without a
//! download.
//!
//! Reads a configuration by name or path. A file of the given name wins over a built-in configuration:
//! what a user put there was meant. Knows nothing of weights.

use std::path::Path;

use anyhow::{Context, anyhow};
use connito_engine::ModelConfig;

use crate::exit::{Blame, Failure};
use crate::text_file;

/// The `config.json` of DeepSeek-V2-Lite.
pub(crate) const DEEPSEEK_V2_LITE: &str =
    include_str!("../../../assets/configs/deepseek-v2-lite.json");

/// The `config.json` of Qwen3-30B-A3B.
pub(crate) const QWEN3_30B_A3B: &str = include_str!("../../../assets/configs/qwen3-30b-a3b.json");

/// Every built-in configuration under its name.
const BUILT_IN: [(&str, &str); 3] = [
    ("deepseek-v2-lite", DEEPSEEK_V2_LITE),
    ("qwen3-30b-a3b", QWEN3_30B_A3B),
    (
        "qwen3-vl-30b-a3b",
        include_str!("../../../assets/configs/qwen3-vl-30b-a3b.json"),
    ),
];

/// Parses the text of a built-in configuration.
pub(crate) fn parse(text: &str) -> Result<ModelConfig, Failure> {
    ModelConfig::from_json(text)
        .context("the built-in configuration cannot be used")
        .environment()
}

/// The configuration in a file of this name, or else the built-in one.
pub(crate) fn named(name: &str) -> Result<ModelConfig, Failure> {
    let path = Path::new(name);
    match BUILT_IN.iter().find(|(known, _)| *known == name) {
        Some((_, text)) if !path.is_file() => parse(text),
        None if !path.exists() && path.components().count() == 1 && path.extension().is_none() => {
            let names = BUILT_IN.map(|(known, _)| known).join(", ");
            Err(Failure::Input(anyhow!(
                "{name} is neither a file nor a built-in configuration; built in are {names}"
            )))
        }
        _ => from_file(path),
    }
}

/// The configuration of a Hugging Face folder.
pub(crate) fn of_model(folder: &Path) -> Result<ModelConfig, Failure> {
    from_file(&folder.join("config.json"))
}

fn from_file(path: &Path) -> Result<ModelConfig, Failure> {
    let text = text_file::read(path)?;
    let config = ModelConfig::from_json(&text);
    for warning in ModelConfig::warnings(&text) {
        eprintln!("connito: {}: {warning}", path.display());
    }
    config.with_context(|| path.display().to_string()).input()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_configuration_is_read_and_has_its_published_size() {
        let sizes = BUILT_IN.map(|(_, text)| parse(text).unwrap().parameters().total);
        assert_eq!(sizes, [15_706_484_224, 30_532_122_624, 30_532_122_624]);
    }
}
