//! Which runtime stands in the state after a block, and its metadata: fetched once for each version.
//!
//! A block is made by the runtime in the state after its *parent*: a block that brings a new one was
//! still made by the old. A block says which version made it (`System.LastRuntimeUpgrade`), so an
//! upgrade is noticed where it happens and older blocks are still read by the runtime that made them;
//! what stands here is asked where it does not, where the version is new, and before signing. Metadata
//! is kept in memory and, where a folder is given, on disk under the chain's first hash and the version;
//! a file that cannot be read is fetched anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use connito_protocol::ids::BlockHash;
use serde_json::{Value as Json, json};

use super::json_rpc::{CallError, Question, ask, misshapen};
use crate::error::ChainError;
use crate::hex_text;
use crate::rpc::RpcTransport;
use crate::runtime::{Runtime, RuntimeVersion};

/// Version 15, as the argument of a runtime call.
const VERSION_15: &str = "0x0f000000";
/// Versions of one chain that are remembered; an upgrade a week makes this a quarter of a year.
const REMEMBERED_VERSIONS: usize = 12;
/// Blocks whose version is remembered.
const REMEMBERED_BLOCKS: usize = 64;

/// A block by number and hash.
pub(super) type Named = (u64, BlockHash);

/// The runtimes of one chain.
#[derive(Debug, Default)]
pub(super) struct Runtimes {
    known: Mutex<Known>,
    folder: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Known {
    by_spec: BTreeMap<u32, Runtime>,
    /// By number, with the hash: forks may differ.
    blocks: BTreeMap<u64, (BlockHash, u32)>,
}

impl Runtimes {
    /// With `folder`, metadata is kept there too.
    pub(super) fn kept_in(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            ..Self::default()
        }
    }

    /// The runtime in the state after a block: the one that makes the next.
    pub(super) async fn after(
        &self,
        transport: &impl RpcTransport,
        genesis: BlockHash,
        block: Named,
    ) -> Result<Runtime, CallError> {
        if let Some(runtime) = self.remembered(block) {
            return Ok(runtime);
        }
        let answer = ask(transport, version_after(block.1)).await?;
        let version = read_version(&answer)?;
        self.of_version(transport, genesis, (block, version)).await
    }

    /// The runtime of this version, which stands in the state after a block.
    pub(super) async fn of_version(
        &self,
        transport: &impl RpcTransport,
        genesis: BlockHash,
        (block, version): (Named, RuntimeVersion),
    ) -> Result<Runtime, CallError> {
        if let Some(runtime) = self.of_spec(version.spec) {
            self.remember(block, &runtime);
            return Ok(runtime);
        }
        let file = self
            .folder
            .as_ref()
            .map(|folder| file_name(folder, genesis, version.spec));
        let stored = file.as_deref().and_then(|file| std::fs::read(file).ok());
        let stored = stored.and_then(|bytes| Runtime::from_metadata(&bytes, version).ok());
        let runtime = match stored {
            Some(runtime) => runtime,
            None => {
                let bytes = metadata_after(transport, block).await?;
                let runtime = Runtime::from_metadata(&bytes, version)
                    .map_err(|error| misshapen("state_getMetadata", error.to_string()))?;
                if let Some(file) = file {
                    keep(&file, &bytes);
                }
                runtime
            }
        };
        for misfit in runtime.misfits() {
            tracing::warn!(target: "chain::runtime", spec = version.spec, misfit = %misfit.detail(), "a part of the runtime is not as expected");
        }
        self.remember(block, &runtime);
        Ok(runtime)
    }

    /// The runtime in the state after a block, if that is known already.
    pub(super) fn remembered(&self, (number, hash): Named) -> Option<Runtime> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, spec) = known.blocks.get(&number)?;
        (*at == hash).then(|| known.by_spec.get(spec).cloned())?
    }

    /// The runtime of a version that has been met before.
    pub(super) fn of_spec(&self, spec: u32) -> Option<Runtime> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_spec.get(&spec).cloned()
    }

    fn remember(&self, (number, hash): Named, runtime: &Runtime) {
        let spec = runtime.version().spec;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_spec.insert(spec, runtime.clone());
        known.blocks.insert(number, (hash, spec));
        while known.by_spec.len() > REMEMBERED_VERSIONS {
            known.by_spec.pop_first();
        }
        while known.blocks.len() > REMEMBERED_BLOCKS {
            // Whoever reads far back reads forward from there.
            let oldest = known.blocks.keys().next().copied();
            match oldest.filter(|oldest| *oldest != number) {
                Some(oldest) => known.blocks.remove(&oldest),
                None => known.blocks.pop_last().map(|(_, newest)| newest),
            };
        }
    }
}

fn file_name(folder: &Path, genesis: BlockHash, spec: u32) -> PathBuf {
    folder.join(format!("{}-{spec}.scale", hex::encode(genesis.0)))
}

/// Keeps metadata on disk: whole or not at all. Without it the next start merely asks again.
fn keep(file: &Path, bytes: &[u8]) {
    let partial = file.with_extension(format!("{}.partial", std::process::id()));
    let kept = file
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&partial, bytes))
        .and_then(|()| std::fs::rename(&partial, file));
    if let Err(error) = kept {
        tracing::debug!(target: "chain::runtime", file = %file.display(), %error, "metadata is not kept");
    }
}

const VERSION_METHOD: &str = "state_getRuntimeVersion";

/// Which version stands in the state after the block with this hash?
pub(super) fn version_after(hash: BlockHash) -> Question {
    Question::new(VERSION_METHOD, json!([hex_text::encode(&hash.0)]))
}

/// The answer to [`version_after`].
pub(super) fn read_version(answer: &Json) -> Result<RuntimeVersion, ChainError> {
    let number = |name: &str| u32::try_from(answer.get(name)?.as_u64()?).ok();
    let version = number("specVersion").zip(number("transactionVersion"));
    let (spec, transaction) = version.ok_or_else(|| misshapen(VERSION_METHOD, "no versions"))?;
    Ok(RuntimeVersion { spec, transaction })
}

/// Version 15 where the node has it, else what it gives.
async fn metadata_after(
    transport: &impl RpcTransport,
    (_, hash): Named,
) -> Result<Vec<u8>, CallError> {
    let hash = hex_text::encode(&hash.0);
    let params = json!(["Metadata_metadata_at_version", VERSION_15, hash]);
    let newest = ask(transport, Question::new("state_call", params)).await;
    match newest.map(|answer| answer.as_str().and_then(hex_text::decode)) {
        // An option that is empty: the node knows no version 15.
        Ok(Some(bytes)) if bytes.first() == Some(&1) => return Ok(bytes),
        Ok(_) | Err(CallError::Other(ChainError::Shape { .. })) => {}
        Err(error) => return Err(error),
    }
    const METHOD: &str = "state_getMetadata";
    let answer = ask(transport, Question::new(METHOD, json!([hash]))).await?;
    let bytes = answer.as_str().and_then(hex_text::decode);
    Ok(bytes.ok_or_else(|| misshapen(METHOD, shown(&answer)))?)
}

fn shown(answer: &Json) -> String {
    let text: String = answer.to_string().chars().take(80).collect();
    format!("{text} is no metadata")
}
