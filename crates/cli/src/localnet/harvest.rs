//! What a finished run leaves behind: all blobs in one store, the final model, held-out losses.

use std::path::Path;

use anyhow::Context;
use connito_engine::data::TokenDocuments;
use connito_learning::store::BlobStore;
use connito_learning::task::{join, read_state, read_task};
use connito_learning::{Conduct, EngineBackend, StateLearner};
use connito_node::blobs::DiskBlobs;
use connito_protocol::ids::{BlobId, StateId};
use connito_protocol::manifest::TaskManifest;
use connito_protocol::scoring::{SequenceLoss, mean_loss};
use serde_json::json;

use super::plan::Plan;
use crate::exit::{Blame, Failure};

/// Held-out text: one entry a domain.
pub(crate) type Heldout = Vec<(String, TokenDocuments)>;

/// The losses of one state on the held-out text.
#[derive(Debug, Clone)]
pub(crate) struct HeldoutLoss {
    /// Per domain, sequence by sequence.
    pub(crate) domains: Vec<(String, Vec<SequenceLoss>)>,
}

impl HeldoutLoss {
    /// Mean over all predicted tokens of all domains, in nats.
    pub(crate) fn mean(&self) -> Option<f64> {
        let all: Vec<SequenceLoss> = self
            .domains
            .iter()
            .flat_map(|(_, losses)| losses.clone())
            .collect();
        mean_loss(&all)
    }
}

/// Copies what the roles hold into one store.
pub(crate) fn gather(plan: &Plan) -> Result<DiskBlobs, Failure> {
    let store = DiskBlobs::open(plan.out.join("blobs")).environment()?;
    for actor in &plan.actors {
        let own = DiskBlobs::open(actor.config.folder.join("blobs")).environment()?;
        for id in own.ids().environment()? {
            if !store.has(&id) {
                let bytes = own.get(&id).environment()?;
                store.put(&bytes).environment()?;
            }
        }
    }
    Ok(store)
}

/// Writes one `{"domain", "ids"}` a line.
pub(crate) fn write_heldout(path: &Path, heldout: &Heldout) -> Result<(), Failure> {
    let mut text = String::new();
    for (domain, documents) in heldout {
        for ids in documents.iter() {
            text.push_str(&json!({"domain": domain, "ids": ids}).to_string());
            text.push('\n');
        }
    }
    std::fs::write(path, text)
        .with_context(|| format!("cannot write {}", path.display()))
        .environment()
}

/// Measures states, one after the other, on the held-out text.
#[derive(Debug)]
pub(crate) struct Judge {
    learner: StateLearner<DiskBlobs, EngineBackend>,
    task: BlobId,
}

impl Judge {
    /// A judge over a store that holds everything.
    pub(crate) fn new(store: &DiskBlobs, task: BlobId) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            learner: StateLearner::new(store.clone(), EngineBackend::new(threads), Conduct::Honest),
            task,
        }
    }

    /// The held-out losses of a state.
    pub(crate) fn measure(
        &mut self,
        state: StateId,
        heldout: &Heldout,
    ) -> Result<HeldoutLoss, Failure> {
        let mut domains = Vec::new();
        for (domain, documents) in heldout {
            let sequences: Vec<&[u32]> = documents.iter().collect();
            let losses = self
                .learner
                .heldout_loss(self.task, state, &sequences)
                .environment()?;
            domains.push((domain.clone(), losses));
        }
        Ok(HeldoutLoss { domains })
    }

    /// The learner, for recomputing what others computed.
    pub(crate) fn learner(&mut self) -> &mut StateLearner<DiskBlobs, EngineBackend> {
        &mut self.learner
    }
}

/// Writes the model of a state as a Hugging Face folder.
pub(crate) fn write_model(
    folder: &Path,
    (task, state): (&TaskManifest, StateId),
    store: &DiskBlobs,
) -> Result<(), Failure> {
    let manifest = read_state(state, store).environment()?;
    let model = join(task, &manifest, store).environment()?;
    model.save(folder).environment()?;
    let tokenizer = store.read(task.model.tokenizer).environment()?;
    let path = folder.join("tokenizer.json");
    std::fs::write(&path, tokenizer)
        .with_context(|| format!("cannot write {}", path.display()))
        .environment()
}

/// The task that the run worked on; its manifest is left where it is easily found.
pub(crate) fn task(plan: &Plan, id: BlobId, store: &DiskBlobs) -> Result<TaskManifest, Failure> {
    let path = plan.out.join("task.json");
    std::fs::write(&path, store.read(id).environment()?)
        .with_context(|| format!("cannot write {}", path.display()))
        .environment()?;
    read_task(id, store).environment()
}
