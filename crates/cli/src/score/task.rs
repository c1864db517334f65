//! What a task says: which pools to measure on and in which shares, and what its states consist of.
//!
//! Blobs are read from the folder of a store, compared with their names, and nothing is written to it, so
//! that a running network's will do.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_engine::data::TokenDocuments;
use connito_engine::data::documents::Limits;
use connito_engine::{Model, ModelConfig};
use connito_learning::scorer::{PoolShare, draw, pool_shares};
use connito_learning::shard::{Layout, Shard};
use connito_learning::store::{BlobStore, MappedFile, MemoryStore};
use connito_learning::task::{join, read_state};
use connito_learning::wire::Rejection;
use connito_protocol::ids::{BlobId, Seed, StateId};
use connito_protocol::manifest::{Document, TaskManifest};
use connito_protocol::partition::ExpertMapping;
use connito_protocol::reason::ReasonCode;

use super::Setting;
use super::state::State;
use crate::exit::{Blame, Failure};
use crate::text_file;

/// A task, and where its blobs lie.
pub(super) struct Task {
    path: PathBuf,
    manifest: TaskManifest,
    blobs: PathBuf,
}

impl Task {
    /// Reads the manifest.
    pub(super) fn open(path: &Path, blobs: &Path) -> Result<Self, Failure> {
        let text = text_file::read(path)?;
        // An editor's line feed at the end changes nothing of what is said.
        let manifest = TaskManifest::from_bytes(text.trim_end().as_bytes())
            .with_context(|| path.display().to_string())
            .input()?;
        manifest
            .check()
            .with_context(|| path.display().to_string())
            .input()?;
        Ok(Self {
            path: path.to_owned(),
            manifest,
            blobs: blobs.to_owned(),
        })
    }

    /// Checks that the task is for a model with these experts.
    pub(super) fn check_model(&self, layout: &Layout, state: &State) -> Result<(), Failure> {
        let mut keys = self.manifest.groups.iter().flat_map(|g| &g.param_keys);
        let unknown = keys.find(|key| !layout.contains_key(*key));
        unknown.map_or(Ok(()), |unknown| {
            Err(Failure::Input(anyhow!(
                "{} is a task for another model: it has {unknown:.120}, {} does not",
                self.path.display(),
                state.shown()
            )))
        })
    }

    /// The model of a state, put together from its blobs.
    pub(super) fn model(&self, id: StateId) -> Result<Model, Failure> {
        let store = MemoryStore::default();
        let keep = |id| store.write(&self.blob(id)?).input();
        let fixed = &self.manifest.model;
        for id in [fixed.config, fixed.backbone, id.manifest_blob()] {
            keep(id)?;
        }
        let state = read_state(id, &store).input()?;
        for group in &state.groups {
            keep(group.shard)?;
        }
        join(&self.manifest, &state, &store).input()
    }

    /// Whether all tensors are of one group.
    pub(super) fn check(&self, update: &Shard) -> Result<(), Rejection> {
        let group = self.group(update);
        let stranger = update
            .0
            .keys()
            .find(|name| group.is_none_or(|group| group.param_keys.binary_search(*name).is_err()));
        stranger.map_or(Ok(()), |name| {
            Err(Rejection {
                code: ReasonCode::UnexpectedTensor,
                detail: format!("{name} is not part of the group of the tensors before"),
            })
        })
    }

    /// The group of the first tensor.
    fn group(&self, update: &Shard) -> Option<&ExpertMapping> {
        let first = update.0.keys().next()?;
        let mut groups = self.manifest.groups.iter();
        groups.find(|group| group.param_keys.binary_search(first).is_ok())
    }

    /// Draws as a validator would.
    pub(super) fn setting(
        &self,
        update: &Shard,
        config: &ModelConfig,
        seed: &Seed,
    ) -> Result<Setting, Failure> {
        let rules = &self.manifest.rules;
        let scoring = rules.scoring;
        let sequence_length = scoring.sequence_length as usize;
        let group = self
            .group(update)
            .context("the update lists no tensor")
            .input()?;
        let amount = (rules.own_share, scoring.sequences);
        let shares = pool_shares(&self.manifest.domains, group.group_id, amount);
        let limits = Limits {
            vocabulary: config.vocab_size,
            sequence_length: sequence_length.min(config.max_position_embeddings),
        };
        let of_pool = |share: &PoolShare| Ok(draw(&self.pool(share.0, limits)?, *share, seed));
        let sequences: Result<_, Failure> = shares.iter().map(of_pool).collect();
        Ok(Setting {
            sequences: sequences?,
            sequence_length,
            significance: scoring.significance,
        })
    }

    fn pool(&self, id: BlobId, limits: Limits) -> Result<TokenDocuments, Failure> {
        TokenDocuments::from_bytes(&self.blob(id)?, limits)
            .with_context(|| self.file(id).display().to_string())
            .input()
    }

    fn blob(&self, id: BlobId) -> Result<Vec<u8>, Failure> {
        let path = self.file(id);
        // Mapped, for that refuses what is no file and may have no end.
        let bytes = MappedFile::open(&path)
            .with_context(|| format!("cannot read {}", path.display()))
            .input()?
            .bytes()
            .to_vec();
        if BlobId::of(&bytes) != id {
            return Err(Failure::Input(anyhow!(
                "{} does not hold what its name says",
                path.display()
            )));
        }
        Ok(bytes)
    }

    /// Where a store keeps a blob.
    fn file(&self, id: BlobId) -> PathBuf {
        let name = id.to_string();
        self.blobs.join(&name[..2]).join(&name)
    }
}
