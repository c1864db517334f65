//! The tasks of a network in their order, and which cycles belong to which (P-39).
//!
//! The owner's record names the newest task, which names the one before it. A task that the votes did
//! not name was never worked on: with it the list ends.

use anyhow::{Context, anyhow};
use connito_learning::task;
use connito_protocol::audit::Observer;
use connito_protocol::ids::{BlobId, Block, Cycle};
use connito_protocol::manifest::TaskManifest;

use super::blobs::AuditedBlobs;
use super::records::{AuditedChain, Blocks};
use crate::exit::Failure;

/// Tasks that are followed back at most: a chain of manifests may be as long as someone likes.
const MAXIMUM_TASKS: usize = 1024;

/// The cycles that belong to one task.
pub(super) struct Stage {
    pub(super) manifest: TaskManifest,
    pub(super) observer: Observer,
    /// Those whose votes were counted, in their order.
    pub(super) cycles: Vec<(Cycle, Blocks)>,
}

impl Stage {
    /// The first cycle that no votes have decided.
    pub(super) fn undecided(&self) -> Cycle {
        let last = self.cycles.last();
        last.map_or(self.manifest.first_cycle, |(cycle, _)| cycle.next())
    }

    /// The cycle of the block after `head`.
    pub(super) fn cycle_after(&self, head: Block) -> Cycle {
        let moment = self.manifest.schedule().at(head.next());
        moment.map_or(self.manifest.first_cycle, |moment| moment.cycle)
    }
}

/// The task `newest` and those before it, the first one first.
pub(super) fn up_to(
    newest: BlobId,
    blobs: &AuditedBlobs,
) -> anyhow::Result<Vec<(BlobId, TaskManifest)>> {
    let mut tasks: Vec<(BlobId, TaskManifest)> = Vec::new();
    let mut wanted = Some(newest);
    while let Some(id) = wanted {
        if tasks.len() == MAXIMUM_TASKS {
            return Err(anyhow!("more than {MAXIMUM_TASKS} tasks follow each other"));
        }
        let manifest = task::read_task(id, blobs)?;
        manifest.check()?;
        if let Some((_, after)) = tasks.last() {
            let before = (id, &manifest);
            let follows = after.check_follows(before);
            follows.with_context(|| format!("after task {id}"))?;
        }
        wanted = manifest.follows;
        tasks.push((id, manifest));
    }
    tasks.reverse();
    Ok(tasks)
}

/// Reads the cycles of each task that was worked on.
pub(super) async fn stages(
    chain: &AuditedChain,
    tasks: Vec<(BlobId, TaskManifest)>,
    head: Block,
) -> Result<Vec<Stage>, Failure> {
    let mut stages: Vec<Stage> = Vec::new();
    for (id, manifest) in tasks {
        if let Some(before) = stages.last_mut()
            && !before.give_way(id, manifest.first_cycle)
        {
            break;
        }
        let observer = Observer::new(chain.network(), &manifest);
        let cycles = chain.cycles(&observer, manifest.first_cycle, head).await?;
        stages.push(Stage {
            manifest,
            observer,
            cycles,
        });
    }
    Ok(stages)
}

impl Stage {
    /// Ends the stage before `first` if the votes named `task`. Votes that the chain has forgotten are
    /// taken to have done so: the states after them are verified under that task or not at all.
    fn give_way(&mut self, task: BlobId, first: Cycle) -> bool {
        let last = self.cycles.iter().find(|(cycle, _)| cycle.next() == first);
        let Some((last, blocks)) = last else {
            return false;
        };
        let named = blocks.as_ref().is_none_or(|blocks| {
            let decided = self.observer.succeeded(*last, &blocks.voted);
            decided == Some(task)
        });
        if named {
            self.cycles.retain(|(cycle, _)| *cycle < first);
        }
        named
    }
}
