//! `connito audit`: a run's states, recomputed from the first manifest by someone who was not there (P-47).
//!
//! ```text
//! chain ─▶ task ─▶ cycle 0, 1, …: commitments, reveals, scores ─▶ verdicts ─┐
//! blobs ─▶ first state, updates ───────────────────────────────────────────┴▶ merged again
//!                                                                               = the votes' state
//! ```
//!
//! Reading the chain is [`records`]' and what follows from it the protocol's; the arithmetic is the
//! learner's. This file walks from cycle to cycle, says what does not match first, and changes nothing.

mod blobs;
mod pruned;
mod records;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::anyhow;
use connito_chain::embedded::EmbeddedError;
use connito_learning::audit::{Auditor, Decision};
use connito_learning::store::BlobStore;
use connito_learning::task;
use connito_protocol::audit::{Before, Fixed, Observed, Observer};
use connito_protocol::ids::{BlobId, Block, Cycle, StateId};
use connito_protocol::manifest::{CycleArchive, Document, StateManifest};
use connito_protocol::snapshot::Snapshot;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::blobs::AuditedBlobs;
use self::pruned::Forgotten;
use self::records::{Announced, AuditedChain};
use self::tasks::Stage;
use crate::args::audit::AuditArguments;
use crate::exit::{Blame, Failure};
use crate::output::print;

/// States that are remembered to tell a stale base from an unknown one; it decides no verdict's weight.
const OLDER_STATES: usize = 4;

/// What does not match, and in which cycle.
#[derive(Debug)]
struct Finding {
    cycle: Cycle,
    problem: anyhow::Error,
}

/// What was verified before the first mismatch, if there is one.
#[derive(Debug, Default)]
struct Verified {
    task: Option<BlobId>,
    cycles: u64,
    states: Vec<StateId>,
    submissions: usize,
    merged: usize,
    unnamed: usize,
    /// Updates that were judged by their bytes, and that a server need not have.
    unseen: usize,
}

/// Runs the command.
pub(crate) async fn run(arguments: AuditArguments) -> Result<(), Failure> {
    let mut verified = Verified::default();
    let finding = audit(&arguments, &mut verified).await?;
    verified.print(&arguments, finding.as_ref())?;
    match finding {
        None => Ok(()),
        Some(Finding { cycle, problem }) => {
            Err(Failure::Check(anyhow!("cycle {cycle}: {problem:#}")))
        }
    }
}

async fn audit(
    arguments: &AuditArguments,
    verified: &mut Verified,
) -> Result<Option<Finding>, Failure> {
    let chain = match AuditedChain::open(&arguments.chain).await? {
        Ok(chain) => chain,
        Err(damage) => return Ok(Some(damaged(Cycle(0), damage))),
    };
    let blobs = AuditedBlobs::open(&arguments.blobs).await?;
    let (task, head) = chain.task().await?;
    let Some(newest) = task else {
        return match chain.damage() {
            Some(damage) => Ok(Some(damaged(Cycle(0), damage))),
            None => Err(Failure::Input(anyhow!(
                "{}: the owner has announced no task",
                arguments.chain
            ))),
        };
    };
    verified.task = Some(newest.task);
    let finding = walk(chain, &blobs, (newest, head), verified).await?;
    match (&finding, blobs.unanswered()) {
        (Some(_), Some(error)) => Err(Failure::Environment(error)),
        (Some(Finding { problem, .. }), None) if problem.is::<Forgotten>() => {
            Err(Failure::Environment(Forgotten.into()))
        }
        _ => Ok(finding),
    }
}

/// Audits everything that was announced by block `head`.
async fn walk(
    chain: AuditedChain,
    blobs: &AuditedBlobs,
    (newest, head): (Announced, Block),
    verified: &mut Verified,
) -> Result<Option<Finding>, Failure> {
    let tasks = match tasks::announced(&chain, blobs, newest).await? {
        Ok(tasks) => tasks,
        Err(error) => return Ok(Some(of_the_task(Cycle(0), error))),
    };
    verified.task = tasks.last().map(|(id, _)| *id);
    let stages = match tasks::stages(&chain, blobs, (&tasks, head)).await? {
        Ok(stages) => stages,
        Err(finding) => return Ok(Some(finding)),
    };
    let outcome = tokio::task::block_in_place(|| {
        let mut walk = Walk::over(blobs, verified);
        for position in 0..stages.len() {
            walk.stage(&stages[position..])?;
        }
        if let (Some(damage), Some(last)) = (chain.damage(), stages.last()) {
            return Err(damaged(last.cycle_after(head), damage));
        }
        let rest = blobs.look_at_the_rest();
        let cycle = stages.last().map_or(Cycle(0), Stage::undecided);
        verified.unnamed = rest.map_err(|problem| Finding { cycle, problem })?;
        Ok(())
    });
    Ok(outcome.err())
}

fn of_the_task(cycle: Cycle, problem: impl Into<anyhow::Error>) -> Finding {
    let problem = problem.into().context("the task cannot be worked on");
    Finding { cycle, problem }
}

fn damaged(cycle: Cycle, damage: EmbeddedError) -> Finding {
    Finding {
        cycle,
        problem: damage.into(),
    }
}

/// An audit under way: the state that the next cycle builds on, and those before it.
struct Walk<'a> {
    blobs: &'a AuditedBlobs,
    verified: &'a mut Verified,
    base: Option<StateId>,
    manifests: BTreeMap<StateId, Arc<StateManifest>>,
    older: Vec<StateId>,
    /// What the last cycle amounted to, if it decided a state.
    past: Option<Observed>,
}

/// What audits the cycles of one task.
struct Examiner<'a> {
    auditor: Auditor<'a>,
    observer: &'a Observer,
}

impl<'a> Walk<'a> {
    fn over(blobs: &'a AuditedBlobs, verified: &'a mut Verified) -> Self {
        Self {
            blobs,
            verified,
            base: None,
            manifests: BTreeMap::new(),
            older: Vec::new(),
            past: None,
        }
    }

    /// Audits the first of these stages; those after it only help to find its states.
    fn stage(&mut self, stages: &[Stage]) -> Result<(), Finding> {
        let Some(stage) = stages.first() else {
            return Ok(());
        };
        let first = stage.manifest.first_cycle;
        let layouts = task::layouts(&stage.manifest, self.blobs);
        let layouts = layouts.map_err(|error| of_the_task(first, error))?;
        let examiner = Examiner {
            auditor: Auditor {
                store: self.blobs,
                task: &stage.manifest,
                layouts: &layouts,
            },
            observer: &stage.observer,
        };
        let begun = examiner.auditor.begin().map_err(|error| Finding {
            cycle: first,
            problem: error.into(),
        })?;
        if let Some((state, manifest)) = begun {
            self.reach(state, manifest);
        }
        self.cycles(&examiner, stages)
    }

    fn reach(&mut self, state: StateId, manifest: StateManifest) {
        self.verified.states.push(state);
        self.manifests.insert(state, Arc::new(manifest));
        self.older.extend(self.base.replace(state));
        let surplus = self.older.len().saturating_sub(OLDER_STATES);
        self.older.drain(..surplus);
    }

    fn cycles(&mut self, examiner: &Examiner<'_>, stages: &[Stage]) -> Result<(), Finding> {
        let Some(Stage { cycles, .. }) = stages.first() else {
            return Ok(());
        };
        let bar = ProgressBar::new(cycles.len() as u64).with_message("auditing");
        let style = ProgressStyle::with_template("{msg} {bar:40} cycle {pos} of {len}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let pruned = pruned::states(&examiner.auditor, stages)?;
        for (cycle, blocks) in cycles {
            let audited = match blocks {
                Some(blocks) => self.kept_cycle(examiner, *cycle, blocks),
                None => self.pruned_cycle(examiner, pruned.get(cycle).copied()),
            };
            let cycle = *cycle;
            audited.map_err(|problem| Finding { cycle, problem })?;
            self.verified.cycles += 1;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn kept_cycle(
        &mut self,
        examiner: &Examiner<'_>,
        cycle: Cycle,
        blocks: &Fixed<Arc<Snapshot>>,
    ) -> anyhow::Result<()> {
        let observer = examiner.observer;
        let base = self.base()?;
        let observed = self.before(|before| observer.from_chain((cycle, base), before, blocks))?;
        let tally = observer.decided(cycle, &blocks.voted);
        let decision = tally.map(|tally| Decision {
            next: tally.next,
            vote: Some(tally.vote),
        });
        self.cycle(&examiner.auditor, observed, decision)
    }

    /// A cycle of which the chain has nothing any more: its archive tells what stood there.
    fn pruned_cycle(
        &mut self,
        examiner: &Examiner<'_>,
        next: Option<StateId>,
    ) -> anyhow::Result<()> {
        let Some(next) = next else {
            self.past = None;
            return Ok(());
        };
        let auditor = &examiner.auditor;
        let archive = auditor.state(next)?.archive;
        let archive = archive.ok_or_else(|| anyhow!("state {next} names no archive"))?;
        let read = CycleArchive::from_bytes;
        let archive = auditor.document("archive", archive, read)?;
        if archive.base != self.base()? {
            return Err(anyhow!("the archive of state {next} is of another base"));
        }
        let observed = self.before(|before| examiner.observer.from_archive(&archive, before));
        let observed = observed
            .map_err(|error| anyhow::Error::new(error).context("the archive cannot be trusted"))?;
        let decision = Decision { next, vote: None };
        self.cycle(auditor, observed, Some(decision))
    }

    fn cycle(
        &mut self,
        auditor: &Auditor<'_>,
        observed: Observed,
        decision: Option<Decision>,
    ) -> anyhow::Result<()> {
        self.verified.unseen += auditor.uploads(&observed, self.blobs.required())?;
        self.verified.submissions += observed.verdicts.len();
        self.past = None;
        let Some(decision) = decision else {
            return Ok(());
        };
        let id = self.base()?;
        let base = self.manifests.get(&id);
        let base = base.ok_or_else(|| anyhow!("state {id} was not verified"))?;
        let next = auditor.successor((id, base), &observed, &decision)?;
        self.verified.merged += next.merged.len();
        self.reach(decision.next, next);
        self.past = Some(observed);
        Ok(())
    }

    fn base(&self) -> anyhow::Result<StateId> {
        let none = || anyhow!("the first task has no first state");
        self.base.ok_or_else(none)
    }

    fn before<T>(&self, then: impl FnOnce(&Before<'_>) -> T) -> T {
        // One that cannot be read is of no length; that it is missing is found when it is looked for.
        let bytes = |update| self.blobs.open(update).map_or(0, |blob| blob.len() as u64);
        then(&Before {
            manifests: &self.manifests,
            older: &self.older,
            past: self.past.as_ref(),
            bytes: &bytes,
            body: &|body| self.blobs.read(body).ok(),
        })
    }
}

impl Verified {
    fn print(&self, arguments: &AuditArguments, finding: Option<&Finding>) -> Result<(), Failure> {
        let last = self.states.last();
        if arguments.json {
            let mismatch = finding.map(|Finding { cycle, problem }| {
                json!({ "cycle": cycle, "what": format!("{problem:#}") })
            });
            let object = json!({
                "task": self.task.map(|task| task.to_string()),
                "cycles": self.cycles,
                "states": self.states.len(),
                "submissions": self.submissions,
                "merged_updates": self.merged,
                "unnamed_blobs": self.unnamed,
                "unseen_updates": self.unseen,
                "last_state": last.map(|state| state.to_string()),
                "mismatch": mismatch,
            });
            return print(&serde_json::to_string(&object).environment()?);
        }
        if finding.is_some() {
            return Ok(());
        }
        let unseen = match self.unseen {
            0 => String::new(),
            unseen => format!(", {unseen} refused updates not looked at"),
        };
        print(&format!(
            "{} cycles, {} states, {} submissions, {} merged updates: all as recomputed{unseen}\n\
             last state {}",
            self.cycles,
            self.states.len(),
            self.submissions,
            self.merged,
            last.map_or("none".to_owned(), ToString::to_string),
        ))
    }
}
