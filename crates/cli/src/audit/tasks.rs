//! The tasks of a network in their order, and which cycles belong to which (P-39).
//!
//! The owner's records lead back to the first task; from there on the votes of each cycle tell whether
//! another one took its place. A task that no role works on decides nothing, however new its
//! announcement is. Inputs are the chain, the manifests, and how far the chain has come.

use anyhow::anyhow;
use connito_learning::task::{TaskBlobsError, read_task};
use connito_protocol::audit::Observer;
use connito_protocol::ids::{BlobId, Block, Cycle, Netuid};
use connito_protocol::manifest::TaskManifest;

use super::blobs::AuditedBlobs;
use super::records::{Announced, AuditedChain, Blocks};
use super::{Finding, of_the_task};
use crate::exit::Failure;

/// Tasks and announcements that are followed back at most: a chain of either may be as long as someone
/// likes.
const MAXIMUM_TASKS: usize = 1024;

/// A task and its name.
pub(super) type Named = (BlobId, TaskManifest);

/// Where manifests are read, and the subnet that they have to be for.
#[derive(Clone, Copy)]
struct Source<'a> {
    blobs: &'a AuditedBlobs,
    netuid: Netuid,
}

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

/// The newest announcement that leads back to a first task: that task, and those that claim to follow it,
/// in their order. The inner error is what is wrong with the newest of all, where none does.
pub(super) async fn announced(
    chain: &AuditedChain,
    blobs: &AuditedBlobs,
    newest: Announced,
) -> Result<anyhow::Result<Vec<Named>>, Failure> {
    let source = Source {
        blobs,
        netuid: chain.network().netuid,
    };
    let mut problem = None;
    let mut announced = Some(newest);
    for _ in 0..MAXIMUM_TASKS {
        let Some(Announced { task, since }) = announced else {
            break;
        };
        match tokio::task::block_in_place(|| source.up_to(task)) {
            Ok(tasks) => return Ok(Ok(tasks)),
            Err(error) => _ = problem.get_or_insert(error),
        }
        announced = chain.announced_before(since).await?;
    }
    let none = || anyhow!("none of {MAXIMUM_TASKS} announcements leads to a first task");
    Ok(Err(problem.unwrap_or_else(none)))
}

impl Source<'_> {
    /// The tasks from the first one to `newest`, without those that cannot follow what they name.
    fn up_to(self, newest: BlobId) -> anyhow::Result<Vec<Named>> {
        let mut tasks: Vec<Named> = Vec::new();
        let mut problem = None;
        let mut wanted = Some(newest);
        for _ in 0..MAXIMUM_TASKS {
            let Some(id) = wanted else {
                tasks.reverse();
                let none = || anyhow!("task {newest} follows none that can be worked on");
                return match tasks.is_empty() {
                    false => Ok(tasks),
                    true => Err(problem.map_or_else(none, anyhow::Error::new)),
                };
            };
            let manifest = read_task(id, self.blobs)?;
            wanted = manifest.follows;
            let sound = manifest.check_on(self.netuid);
            let followed = match (&sound, tasks.last()) {
                (Ok(()), Some((_, after))) => after.check_follows((id, &manifest)),
                _ => Ok(()),
            };
            let is_sound = sound.is_ok();
            if let Err(error) = sound.and(followed) {
                problem.get_or_insert(error);
                // Nobody worked on what claims to follow it.
                tasks.clear();
            }
            if is_sound {
                tasks.push((id, manifest));
            }
        }
        Err(anyhow!("more than {MAXIMUM_TASKS} tasks follow each other"))
    }

    /// What the votes of a cycle say of the task of the next one. Votes that the chain has forgotten are
    /// taken to name whichever of `tasks` begins there: the states after them are verified under that task
    /// or not at all.
    fn next_task(
        self,
        (own, stage): (BlobId, &Stage),
        (cycle, blocks): &(Cycle, Blocks),
        tasks: &[Named],
    ) -> Result<Option<Named>, Finding> {
        let begins = cycle.next();
        let next = match blocks {
            None => {
                let mut tasks = tasks.iter();
                tasks.find(|(_, task)| task.first_cycle == begins).cloned()
            }
            Some(blocks) => match stage.observer.succeeded(*cycle, &blocks.voted) {
                None => None,
                Some(id) => match read_task(id, self.blobs) {
                    Ok(task) => Some((id, task)),
                    Err(error @ TaskBlobsError::Store(_)) => {
                        return Err(of_the_task(begins, error));
                    }
                    Err(_) => None,
                },
            },
        };
        // A majority that names what cannot be worked on has not replaced what can.
        Ok(next.filter(|(_, task)| {
            task.first_cycle == begins
                && task.check_on(self.netuid).is_ok()
                && task.check_follows((own, &stage.manifest)).is_ok()
        }))
    }

    /// Ends a stage where another task took its place, and gives that.
    fn succeed(
        self,
        own: BlobId,
        stage: &mut Stage,
        tasks: &[Named],
    ) -> Result<Option<Named>, Finding> {
        for voted in &stage.cycles {
            if let Some(next) = self.next_task((own, stage), voted, tasks)? {
                let first = next.1.first_cycle;
                stage.cycles.retain(|(cycle, _)| *cycle < first);
                return Ok(Some(next));
            }
        }
        Ok(None)
    }
}

/// Reads the cycles of each task that was worked on, from the first of `tasks` on. The inner error is a
/// task that votes made the next one and that cannot be read.
pub(super) async fn stages(
    chain: &AuditedChain,
    blobs: &AuditedBlobs,
    (tasks, head): (&[Named], Block),
) -> Result<Result<Vec<Stage>, Finding>, Failure> {
    let network = chain.network();
    let source = Source {
        blobs,
        netuid: network.netuid,
    };
    let mut stages: Vec<Stage> = Vec::new();
    let mut worked_on = tasks.first().cloned();
    while let Some((id, manifest)) = worked_on.take() {
        let observer = Observer::new(network, &manifest);
        let cycles = chain.cycles(&observer, manifest.first_cycle, head).await?;
        let mut stage = Stage {
            manifest,
            observer,
            cycles,
        };
        let next = tokio::task::block_in_place(|| source.succeed(id, &mut stage, tasks));
        stages.push(stage);
        match next {
            Ok(next) => worked_on = next,
            Err(finding) => return Ok(Err(finding)),
        }
    }
    Ok(Ok(stages))
}
