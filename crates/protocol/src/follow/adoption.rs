//! How the bytes of a state come to a role: recomputed from the state before and the few updates that
//! were merged, or fetched whole (P-37).
//!
//! ```text
//! base known ──▶ plan ──▶ fetch updates ──▶ Run(Advance) ──▶ what is missing is fetched whole
//!                  └──────── nothing to recompute ─────────────────────▲
//! ```
//!
//! A group is recomputed where its shard and momentum before are here and its updates are shorter than
//! the shard that they replace. Whatever stands in the way of that (an update that cannot be had, a job
//! that fails, other bytes than the manifest names), the shard is fetched. Inputs are manifests and
//! what is in the store; arithmetic is the learner's affair.

use std::collections::{BTreeMap, BTreeSet};

use super::{Follower, Reads};
use crate::event::{Effects, Milestone};
use crate::ids::{BlobId, Block, GroupId, StateId};
use crate::job::{AdvanceJob, Job};
use crate::library::Wanted;
use crate::manifest::{GroupState, MergedUpdate, StateManifest};
use crate::merged::Merged;

/// How far the adoption of a state has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Adoption {
    state: Option<StateId>,
    /// The block in which it began.
    since: Block,
    /// Groups that are to be recomputed, with the updates that this takes.
    recomputing: BTreeMap<GroupId, Vec<MergedUpdate>>,
    /// Groups of which the updates that were merged are shorter than the shard.
    short: BTreeSet<GroupId>,
    /// Everything that the role wants of the state is here.
    complete: bool,
    /// What was asked for on behalf of the state, to know its bytes from others'.
    asked: BTreeSet<BlobId>,
    figures: Figures,
}

/// What adopting has taken since it was last told.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    fetched: u64,
    whole: u64,
    recomputed: bool,
}

impl Adoption {
    /// Whether everything that the role wants of the state is here.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }
}

impl Follower {
    /// Asks for what is missing of the base in these groups. Gives a job as soon as recomputing is all
    /// that is left to do; nothing more is asked for until it has ended.
    pub(crate) fn adopt(&mut self, groups: &[GroupId], effects: &mut Effects) -> Option<Job> {
        let (state, base) = self.base()?;
        if self.adoption.state == Some(state) && self.adoption.complete {
            return None;
        }
        let wanted: Vec<GroupState> = groups
            .iter()
            .filter_map(|group| base.group(*group).cloned())
            .collect();
        if self.adoption.state != Some(state) {
            self.plan(state, &wanted);
        }
        self.drop_what_cannot_be_recomputed();
        let recomputing = self.adoption.recomputing.values().flatten();
        let updates: Vec<Wanted> = recomputing
            .map(|merged| Wanted::of_length(merged.update, merged.bytes))
            .collect();
        let ready = updates.iter().all(|update| self.library.has(update.blob));
        self.want_of_state(updates, effects);
        self.want_shards(&wanted, effects);
        if self.adoption.recomputing.is_empty() || !ready {
            return None;
        }
        self.advance_job(state)
    }

    /// The job has ended; these groups are what it left in the store. Whatever is missing is fetched.
    pub(crate) fn advanced(&mut self, to: StateId, computed: &[GroupState]) {
        if self.adoption.state == Some(to) {
            self.adoption.recomputing.clear();
            self.adoption.figures.recomputed |= !computed.is_empty();
        }
        for group in computed {
            self.library.add(group.shard);
            group
                .momentum
                .into_iter()
                .for_each(|blob| self.library.add(blob));
        }
    }

    /// Bytes have come over the network.
    pub(super) fn count_received(&mut self, blob: BlobId, received: u64) {
        if self.adoption.asked.remove(&blob) {
            let fetched = &mut self.adoption.figures.fetched;
            *fetched = fetched.saturating_add(received);
        }
    }

    /// A document of the state itself is on its way.
    pub(super) fn count_manifest(&mut self, state: StateId) {
        self.adoption.asked.insert(state.manifest_blob());
    }

    /// Tells once a cycle that its base is complete, and what that took.
    pub(crate) fn tell_ready(&mut self, effects: &mut Effects) {
        let Some(round) = &self.reading.round else {
            return;
        };
        let (cycle, Some(state)) = (round.cycle, round.base) else {
            return;
        };
        if self.ready == Some(cycle) {
            return;
        }
        self.ready = Some(cycle);
        let figures = std::mem::take(&mut self.adoption.figures);
        effects.tell(Milestone::BaseReady {
            cycle,
            state,
            bytes_fetched: figures.fetched,
            bytes_whole: figures.whole,
            recomputed: figures.recomputed,
        });
    }

    /// Decides, group by group, what is recomputed.
    fn plan(&mut self, state: StateId, wanted: &[GroupState]) {
        let missing = |blob: BlobId| !self.library.has(blob);
        let base = self.manifest(state);
        let parent = base.and_then(|base| self.manifest(base.parent?));
        let led = base.and_then(|base| self.task_that_led_to(base.cycle));
        let short = base.zip(self.merged(state));
        let short = short.map_or_else(BTreeSet::new, groups_with_short_updates);
        let mut recomputing = BTreeMap::new();
        let mut whole = 0_u64;
        for group in wanted {
            if missing(group.shard) {
                whole = whole.saturating_add(group.bytes);
            }
            let (Some(base), Some(parent), Some(_)) = (base, parent, led) else {
                continue;
            };
            let any_missing = missing(group.shard) || group.momentum.is_some_and(missing);
            let held = parent.group(group.group).is_some_and(|before| {
                !missing(before.shard) && before.momentum.is_none_or(|momentum| !missing(momentum))
            });
            if any_missing && held && short.contains(&group.group) {
                recomputing.insert(group.group, of_group(base, group.group));
            }
        }
        let mut figures = self.adoption.figures;
        figures.whole = figures.whole.saturating_add(whole);
        self.adoption = Adoption {
            state: Some(state),
            since: self.now.as_ref().map_or(Block(0), |now| now.block),
            recomputing,
            short,
            complete: false,
            asked: BTreeSet::new(),
            figures,
        };
    }

    /// An update that no server could give is not waited for: the shard is to be had.
    fn drop_what_cannot_be_recomputed(&mut self) {
        let (library, since) = (&self.library, self.adoption.since);
        let lost = |merged: &MergedUpdate| {
            !library.has(merged.update) && library.has_failed(merged.update, since)
        };
        let recomputing = &mut self.adoption.recomputing;
        recomputing.retain(|_, updates| !updates.iter().any(lost));
    }

    /// Shards that are not recomputed; and momenta, where the next state can be recomputed with them.
    fn want_shards(&mut self, wanted: &[GroupState], effects: &mut Effects) {
        let mut blobs = Vec::new();
        for group in wanted {
            let keeps_all = self.reads == Reads::Everything;
            let momentum = group
                .momentum
                .filter(|_| keeps_all || self.adoption.short.contains(&group.group));
            if !self.adoption.recomputing.contains_key(&group.group) {
                let both = std::iter::once(group.shard).chain(momentum);
                blobs.extend(both.map(|blob| Wanted::of_length(blob, group.bytes)));
            }
        }
        let here = blobs.iter().all(|wanted| self.library.has(wanted.blob));
        self.adoption.complete = here && self.adoption.recomputing.is_empty();
        self.want_of_state(blobs, effects);
    }

    fn want_of_state(&mut self, blobs: Vec<Wanted>, effects: &mut Effects) {
        let missing = blobs.iter().map(|wanted| wanted.blob);
        let missing = missing.filter(|blob| !self.library.has(*blob));
        self.adoption.asked.extend(missing);
        self.want_all(blobs, effects);
    }

    fn advance_job(&self, to: StateId) -> Option<Job> {
        let base = self.manifest(to)?;
        Some(Job::Advance(AdvanceJob {
            cycle: self.round()?.cycle,
            task: self.task_that_led_to(base.cycle)?,
            from: base.parent?,
            to,
        }))
    }
}

/// The groups whose merged updates are together shorter than the shard. Without any, what changed is the
/// momentum, which was halved: nothing has to come for that.
fn groups_with_short_updates((base, merged): (&StateManifest, &Merged)) -> BTreeSet<GroupId> {
    let short = |state: &&GroupState| merged.bytes(state.group) < state.bytes;
    base.groups
        .iter()
        .filter(short)
        .map(|state| state.group)
        .collect()
}

fn of_group(base: &StateManifest, group: GroupId) -> Vec<MergedUpdate> {
    let merged = base.merged.iter();
    merged.filter(|m| m.group == group).cloned().collect()
}
