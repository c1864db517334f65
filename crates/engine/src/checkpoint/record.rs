//! What the file of a slice says of itself, in the text that a safetensors header may carry.
//!
//! ```text
//! format           pt, as every checkpoint says
//! connito.experts  {"1":[0,1],"2":[0,1]}: original ids of the experts held, by layer, ascending
//! connito.config   SHA-256 of the config.json of the model that they were taken from
//! ```
//!
//! A fused tensor of a slice has one row for each listed expert of its layer, in this order. Whoever
//! writes a slice may add more; such as which groups of how many it is, which this file knows nothing of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::{CheckpointError, RecordError};
use super::header;
use crate::config::ModelConfig;
use crate::routing::{ExpertMap, RoutingError};

const EXPERTS: &str = "connito.experts";
const CONFIG_DIGEST: &str = "connito.config";

/// The text of a slice's file: the writer's own notes, and what the engine needs to read it.
pub(super) fn write(
    notes: &BTreeMap<String, String>,
    experts: &ExpertMap,
    config: &str,
) -> BTreeMap<String, String> {
    let mut text = notes.clone();
    text.extend(header::pytorch());
    text.insert(EXPERTS.to_owned(), serde_json::json!(experts).to_string());
    text.insert(CONFIG_DIGEST.to_owned(), config.to_owned());
    text
}

/// The experts that a file says it holds; `None` if it says nothing.
pub(super) fn held(text: &BTreeMap<String, String>) -> Result<Option<ExpertMap>, RecordError> {
    let Some(experts) = text.get(EXPERTS) else {
        return Ok(None);
    };
    let experts: ExpertMap =
        serde_json::from_str(experts).map_err(|source| RecordError::Syntax { source })?;
    let unordered = experts
        .iter()
        .find(|(_, listed)| !listed.is_sorted_by(|a, b| a < b));
    match unordered {
        Some((layer, _)) => Err(RecordError::Order { layer: *layer }),
        None => Ok(Some(experts)),
    }
}

/// The digest of the configuration that a file says its experts were made for.
pub(super) fn config_digest(text: &BTreeMap<String, String>) -> Option<&str> {
    text.get(CONFIG_DIGEST).map(String::as_str)
}

/// The digest of a `config.json`, as `sha256sum` prints it.
pub(super) fn digest(config: &Path) -> Result<String, CheckpointError> {
    let bytes = fs::read(config).map_err(|source| CheckpointError::read(config, source))?;
    let digest = Sha256::digest(&bytes);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether a model has all of these experts.
pub(super) fn check(experts: &ExpertMap, config: &ModelConfig) -> Result<(), RoutingError> {
    for (&layer, listed) in experts {
        if !config.is_moe_layer(layer) {
            return Err(RoutingError::NoSuchMoeLayer { layer });
        }
        if let Some(&expert) = listed
            .iter()
            .find(|&&expert| expert >= config.mixture.experts)
        {
            return Err(RoutingError::NoSuchExpert { layer, expert });
        }
    }
    Ok(())
}
