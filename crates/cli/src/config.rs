//! The configuration of a role that runs alone: one TOML file, one struct a role.
//!
//! Unknown keys are errors that name the key and the line. Paths are relative to the file. The
//! commented examples under `config/` are parsed by a test, so they cannot go stale.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use connito_chain::embedded::GenesisSpec;
use connito_learning::inner::Method;
use connito_protocol::ids::{BlobId, BlockHash, Hotkey, Netuid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chain_access::Addresses;
use crate::exit::{Blame, Failure};

/// `connito chain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChainConfig {
    /// Where the blocks are kept.
    pub(crate) folder: PathBuf,
    /// Where JSON-RPC is served; loopback, for the chain believes what it is told.
    pub(crate) listen: SocketAddr,
    /// End when standard input closes: for a parent that starts the role.
    #[serde(default)]
    pub(crate) stop_with_input: bool,
    /// The first block. Ignored when the folder already has one, which must be the same.
    pub(crate) genesis: GenesisSpec,
}

/// What owner, validator and miner have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleConfig {
    /// The chain's JSON-RPC address, or several in the order of preference.
    pub(crate) chain: Addresses,
    /// The subnet; the chain's only one if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) netuid: Option<Netuid>,
    /// The chain's first block, if another chain is to be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) genesis: Option<BlockHash>,
    /// The key file, with mode 0600.
    pub(crate) hotkey: PathBuf,
    /// Where the role keeps its blobs and receipts.
    pub(crate) folder: PathBuf,
    /// The role's journal.
    pub(crate) journal: PathBuf,
    /// Where the role serves. Owner and validator need it, a miner has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address that others should use, where it differs from `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) announce: Option<SocketAddr>,
    /// Threads that compute.
    #[serde(default = "one")]
    pub(crate) threads: usize,
    /// End when standard input closes: for a parent that starts the role.
    #[serde(default)]
    pub(crate) stop_with_input: bool,
    /// How a miner behaves.
    #[serde(default)]
    pub(crate) conduct: MinerConduct,
    /// How a miner fine-tunes its experts.
    #[serde(default)]
    pub(crate) trainer: Method,
    /// Whom a copying miner copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) victim: Option<Hotkey>,
    /// The task that an owner makes when it starts for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<TaskConfig>,
    /// Another task, which an owner announces to follow the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<NextTaskConfig>,
}

/// How a miner behaves. All but `honest` are rehearsals of what the network must withstand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MinerConduct {
    /// Trains and submits what it trained.
    #[default]
    Honest,
    /// Submits the reverse of what it trained, enlarged.
    Damaging,
    /// Trains nothing and submits what `victim` submitted.
    Copying,
}

/// What an owner makes a task of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskConfig {
    /// A name for people.
    pub(crate) name: String,
    /// A Hugging Face folder with config.json, weights and tokenizer.json.
    pub(crate) model: PathBuf,
    /// JSONL files, one domain each; the built-in text if there are none.
    #[serde(default)]
    pub(crate) data: Vec<PathBuf>,
    /// Seed of the built-in text.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Expert groups.
    pub(crate) groups: u16,
    /// Tickets of each group, as `connito assign` finds them for known hotkeys; even shares if there
    /// are none.
    #[serde(default)]
    pub(crate) tickets: Option<Vec<u16>>,
    /// Blocks from now until the first cycle, so that everyone has time to fetch.
    pub(crate) starts_in_blocks: u64,
    /// The rules; those of the 45-block cycle at twelve seconds a block if there are none.
    #[serde(default)]
    pub(crate) rules: connito_protocol::rules::Rules,
}

/// What an owner makes the next task of (P-39). What is left out stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NextTaskConfig {
    /// The number of the first cycle under it.
    pub(crate) first_cycle: u64,
    /// The task that it takes the place of; the last one that this owner made and whose first block has
    /// come if there is none.
    #[serde(default)]
    pub(crate) follows: Option<BlobId>,
    /// A name for people.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// JSONL files, one domain each.
    #[serde(default)]
    pub(crate) data: Vec<PathBuf>,
    /// A Hugging Face folder to begin with anew, on `data` or the built-in text; without it, the
    /// canonical state goes on.
    #[serde(default)]
    pub(crate) model: Option<PathBuf>,
    /// Expert groups of that model.
    #[serde(default)]
    pub(crate) groups: Option<u16>,
    /// Tickets of each group.
    #[serde(default)]
    pub(crate) tickets: Option<Vec<u16>>,
    /// The rules that change.
    #[serde(default)]
    pub(crate) rules: toml::Table,
}

fn one() -> usize {
    1
}

/// Reads a configuration file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .input()?;
    toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), one_line(&text, &error)))
        .input()
}

/// A TOML error as one sentence with the line, without the picture that the library draws.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().replace('\n', " ");
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message,
    }
}

/// Resolves a path of a configuration against the file that it stands in.
pub(crate) fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../config")
            .join(name)
    }

    #[test]
    fn every_shipped_example_parses() {
        read::<ChainConfig>(&example("chain.toml")).unwrap();
        for name in ["owner.toml", "validator.toml", "miner.toml"] {
            read::<RoleConfig>(&example(name)).unwrap();
        }
    }

    #[test]
    fn a_wrong_key_is_named_with_its_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("miner.toml");
        std::fs::write(
            &path,
            "chain = \"http://127.0.0.1:9944\"\nhotky = \"key.json\"\n",
        )
        .unwrap();
        let failure = read::<RoleConfig>(&path).unwrap_err();
        let sentence = failure.to_string();
        assert!(
            sentence.contains("miner.toml: line 2") && sentence.contains("hotky"),
            "{sentence}"
        );
        assert_eq!(failure.code(), 2);
    }
}
