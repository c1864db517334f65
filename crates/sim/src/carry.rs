//! What a machine asked for, carried out: chain, transfers, store, compute thread.
//!
//! The match over effects and jobs has no catch-all: an effect that the simulator does not know must
//! not pass unnoticed.

use std::sync::Arc;

use connito_learning::store::BlobStore;
use connito_protocol::event::{Effect, Event};
use connito_protocol::ids::{BlobId, BlockHash, Hotkey};
use connito_protocol::job::{Job, Outcome, Trained};
use connito_protocol::manifest::GroupState;
use connito_protocol::schedule::Window;

use crate::adversary::{HostileMiner, preferred};
use crate::chain::Write;
use crate::network::NodeId;
use crate::node::Kind;
use crate::queue::{Micros, micros};
use crate::run::{Happening, Simulation};
use crate::workshop::Bench;

impl Simulation {
    /// Carries an effect out, whoever asked for it.
    pub(crate) fn carry_out_really(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Fetch(fetch) => self.fetch(id, &fetch),
            Effect::Store { bytes } => self.keep(id, bytes),
            Effect::Forget { blobs } => {
                let holds = &mut self.nodes[id.place()].holds;
                for blob in &blobs {
                    holds.remove(blob);
                }
                holds.shrink_to_fit();
            }
            Effect::Announce { announcement } => {
                self.write(id, Write::Record(announcement.encode()));
            }
            Effect::SetWeights { .. } => self.write(id, Write::Weights),
            Effect::Serve { endpoint } => self.write(id, Write::Endpoint(endpoint)),
            Effect::Deliver {
                cycle, blob, to, ..
            } => self.deliver(id, (cycle, blob), to),
            Effect::Run(job) => self.start_job(id, job),
            Effect::Answer { ticket, answer } => self.answer(ticket, answer),
            Effect::Issue(receipts) => {
                self.traffic.receipts += receipts.count() as u64;
                self.nodes[id.place()].issue(receipts);
            }
            Effect::AskReceipt { cycle, from } => self.ask_receipt(id, cycle, &from),
            // For people; the monitor has read it already.
            Effect::Tell(_) => {}
        }
    }

    /// Stores a document. Of a cycle's archive, which is long, all validators keep the same bytes.
    fn keep(&mut self, id: NodeId, bytes: Arc<[u8]>) {
        let same = self
            .kept
            .as_ref()
            .filter(|(kept, _)| Arc::ptr_eq(kept, &bytes));
        let blob = match same {
            Some((_, blob)) => *blob,
            None => match self.store.write(&bytes) {
                Ok(blob) => blob,
                Err(_) => return,
            },
        };
        self.nodes[id.place()].holds.insert(blob);
        self.kept = Some((bytes, blob));
    }

    /// Sends a write to the chain. One that is lost is told as such: the writer watches its connection.
    fn write(&mut self, id: NodeId, write: Write) {
        let hotkey = self.nodes[id.place()].hotkey();
        let lost = self
            .network
            .strikes(self.scenario.chain.lost_writes_percent);
        if lost || self.network.is_cut(id) {
            let reason = "connection reset".to_owned();
            let timeout = self.short_timeout();
            return self.hear(id, timeout, Event::ChainRefused { reason });
        }
        self.traffic.writes += 1;
        let latency = self.network.latency();
        self.queue
            .after(latency, Happening::Write(hotkey, Box::new(write)));
    }

    /// Tells a writer that the chain refused it.
    pub(crate) fn tell_refused(&mut self, hotkey: Hotkey, reason: &'static str) {
        self.traffic.refused_writes += 1;
        if let Some(node) = self.by_hotkey.get(&hotkey).copied()
            && self.nodes[node.place()].is_up()
        {
            let latency = self.network.latency();
            let reason = reason.to_owned();
            self.hear(node, latency, Event::ChainRefused { reason });
        }
    }

    /// Does a job at once, and lets its outcome be known when it would have ended.
    pub(crate) fn compute(&mut self, id: NodeId, job: &Job) {
        let now = self.queue.now();
        let work = &self.scenario.work;
        let node = &self.nodes[id.place()];
        let (one_call, at_the_end) = match job {
            Job::Train(_) => (work.training_step_seconds, 0.0),
            Job::Score(_) => (work.scoring_seconds_per_update, 0.0),
            Job::Merge(_) | Job::Advance(_) => (0.0, work.merging_seconds),
        };
        let one_call = micros(one_call * node.slowness);
        let starts = node.free_at.max(now);
        let bench = Bench {
            class: node.class,
            calls_allowed: self.calls_before(job, starts, one_call),
        };
        let done = self.workshop.run(job, bench);
        let ends = starts + done.calls * one_call + micros(at_the_end);
        let node = &mut self.nodes[id.place()];
        node.free_at = ends;
        let (life, outcome) = (node.life, Box::new(done.outcome));
        self.queue.at(ends, Happening::JobEnds(id, life, outcome));
    }

    /// How often a job looks at the clock and sees that the block at which it must stop is not yet made. It
    /// looks before each call, so that the last of them may still be under way when that block comes.
    fn calls_before(&self, job: &Job, starts: Micros, one_call: Micros) -> u64 {
        let stop_at = match job {
            Job::Train(job) => job.stop_at,
            Job::Score(job) => job.stop_at,
            Job::Merge(_) | Job::Advance(_) => return u64::MAX,
        };
        let blocks = stop_at.0.saturating_sub(self.chain.head().block.0);
        let block = micros(self.scenario.chain.block_seconds);
        let left = (self.head_made + blocks.saturating_mul(block)).saturating_sub(starts);
        match one_call {
            0 => u64::MAX,
            _ => left.div_ceil(one_call),
        }
    }

    pub(crate) fn job_ends(&mut self, id: NodeId, life: u32, outcome: Outcome) {
        let node = &mut self.nodes[id.place()];
        if node.life != life || !node.is_up() {
            return;
        }
        let outcome = match node.policy.is_some() {
            true => self.with_policy(
                id,
                || None,
                |p, scene| Some(p.outcome(outcome.clone(), scene)),
            ),
            false => None,
        }
        .unwrap_or(outcome);
        self.keep_results(id, &outcome);
        let node = &mut self.nodes[id.place()];
        if let Outcome::Trained(Trained { steps, .. }) = &outcome {
            // As the policy tells it, who says what work the update really took.
            node.training_steps += u64::from(*steps);
        }
        let entropy = node.random.bytes();
        self.step(id, Event::Finished { outcome, entropy });
    }

    /// What a job wrote lies in the store of whoever did it.
    fn keep_results(&mut self, id: NodeId, outcome: &Outcome) {
        let (updates, shards): (Vec<BlobId>, Vec<BlobId>) = match outcome {
            Outcome::Trained(trained) => {
                let written = [Some(trained.update), trained.residual];
                (written.into_iter().flatten().collect(), Vec::new())
            }
            Outcome::Merged(merged) => {
                let groups = merged.candidate.iter().chain(&merged.fallback);
                (Vec::new(), blobs_of(groups))
            }
            Outcome::Advanced(advanced) => (Vec::new(), blobs_of(&advanced.groups)),
            Outcome::Scored { .. } | Outcome::Failed { .. } => return,
        };
        for update in &updates {
            self.sizes.insert(*update, self.update_bytes());
        }
        for shard in &shards {
            self.sizes.insert(*shard, self.shard_bytes());
        }
        self.nodes[id.place()]
            .holds
            .extend(updates.into_iter().chain(shards));
    }

    /// The hash of the next block: of two, where its author grinds for a crew and the block seeds a
    /// scoring.
    pub(crate) fn next_hash(&mut self) -> BlockHash {
        let honest = self.chain.next_hash(0);
        let next = self.chain.head().block.next();
        let moment = self.setting.schedule.at(next);
        let seeds = moment.filter(|m| next == self.setting.schedule.opens(m.cycle, Window::Score));
        let grinders = Kind::Miner(Some(HostileMiner::Grinder));
        let grinder = self.nodes.iter().find(|node| node.kind == grinders);
        let (Some(moment), Some(grinder)) = (seeds, grinder.map(|node| node.id)) else {
            return honest;
        };
        if !self
            .network
            .strikes(self.scenario.chain.grinding_authors_percent)
        {
            return honest;
        }
        let hashes = [honest, self.chain.next_hash(1)];
        self.with_policy(
            grinder,
            || honest,
            |_, scene| preferred(moment.cycle, hashes, scene),
        )
    }
}

fn blobs_of<'a>(groups: impl IntoIterator<Item = &'a GroupState>) -> Vec<BlobId> {
    groups
        .into_iter()
        .flat_map(|group| [Some(group.shard), group.momentum])
        .flatten()
        .collect()
}
