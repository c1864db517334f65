//! Expert parallelism as this system does it: a cycle of blocks, a slice for each group, an update for each miner.
//!
//! ```text
//! blocks      0          5                         35     38     40        45
//! a miner     │ fetches what its group accepted ─▶ trains ─▶ seals │ uploads │ waits
//! ```
//!
//! Windows are those of the protocol's rules (P-1). A miner begins to fetch when the cycle opens and to train when
//! it has the state, in the train window only; what it has at the window's end is its update, which has to arrive
//! in the reveal window. A miner that fails loses what it has trained in this cycle and begins again with what is
//! left of the window; its update is late if the link cannot carry it in time. No other miner notices.
//!
//! Every update that arrives is accepted, which is the most there could be to merge, and also the most to fetch:
//! a miner fetches all accepted updates of its group since the state that it has, its own among them, or the whole
//! shard where that is less. The first cycle, with nothing to fetch, is not counted. Knows nothing of the role
//! machines, of scores, or of validators' traffic.

use connito_protocol::rules::Windows;

use super::Length;
use super::network::{Cluster, Worker};
use super::outcome::Tally;

/// Every worker holds a frozen backbone and one group's experts, and trains some of these.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertParallel {
    /// Groups that the workers are spread over evenly.
    pub groups: usize,
    /// How a cycle's blocks are divided.
    pub windows: Windows,
    /// Seconds of a block.
    pub block_seconds: f64,
    /// Floating-point operations of training on one token.
    pub token_flop: f64,
    /// Bytes of an update.
    pub update_bytes: f64,
    /// Bytes of a group's shard: what a newcomer fetches.
    pub shard_bytes: f64,
}

/// The moments of one cycle, in seconds since the beginning.
#[derive(Debug, Clone, Copy)]
struct Moments {
    opens: f64,
    train: f64,
    seal: f64,
    reveal: f64,
    score: f64,
}

/// The state that a miner has, or is about to have.
#[derive(Debug, Clone, Copy)]
struct Base {
    /// The cycle that it is the base of.
    cycle: usize,
    /// When its download began.
    asked: f64,
    /// From when on.
    from: f64,
}

impl ExpertParallel {
    /// Seconds from one state to the next.
    #[must_use]
    pub fn cycle_seconds(&self) -> f64 {
        self.windows.cycle() as f64 * self.block_seconds
    }

    pub(super) fn play(&self, cluster: &mut Cluster, length: Length) -> Tally {
        let mut tally = Tally::default();
        let workers = cluster.workers.len();
        let mut bases = vec![
            Base {
                cycle: 0,
                asked: 0.0,
                from: 0.0
            };
            workers
        ];
        // Updates accepted in each cycle so far, by group.
        let mut accepted: Vec<Vec<usize>> = Vec::new();
        let warm_up = self.cycle_seconds();
        while accepted.is_empty() || !self.suffices(length, accepted.len() - 1) {
            let cycle = accepted.len();
            if cycle == 1 {
                tally = Tally::default();
            }
            let mut arrived = vec![0; self.groups];
            for (index, base) in bases.iter_mut().enumerate() {
                let group = index % self.groups;
                let worker = &mut cluster.workers[index];
                let missed = accepted[base.cycle..].iter().map(|groups| groups[group]);
                let updates: usize = missed.sum();
                self.fetch(worker, base, (updates, cycle), &mut tally);
                let latency = cluster.latency_seconds;
                let delivered = self.train(worker, (*base, cycle), latency, &mut tally);
                arrived[group] += usize::from(delivered);
            }
            tally.rounds += u64::from(arrived.iter().any(|updates| *updates > 0));
            accepted.push(arrived);
        }
        let end = accepted.len() as f64 * warm_up;
        tally.close(cluster, workers, end);
        let before = cluster.workers.iter_mut();
        let before = before.map(|worker| worker.timeline.up_seconds(0.0, warm_up));
        tally.live_seconds -= before.sum::<f64>();
        tally.seconds -= warm_up;
        tally
    }

    /// Whether so many cycles suffice, whether or not anything was delivered in them.
    fn suffices(&self, length: Length, cycles: usize) -> bool {
        length.suffices(cycles as u64, cycles as f64 * self.cycle_seconds())
    }

    /// Brings a miner to the state of a cycle, which is so many updates away.
    fn fetch(
        &self,
        worker: &mut Worker,
        base: &mut Base,
        (updates, cycle): (usize, usize),
        tally: &mut Tally,
    ) {
        let opens = self.moments(cycle).opens;
        let closes = opens + self.cycle_seconds();
        let mut receive = |worker: &mut Worker, from: f64, to: f64| {
            let seconds = worker.timeline.up_seconds(from, to.min(closes));
            tally.received_bytes += seconds * worker.down_bits_per_second / 8.0;
        };
        // What an earlier cycle began.
        receive(worker, base.asked.max(opens), base.from);
        // A link that is still busy when the cycle closes brings nothing for it.
        if base.cycle == cycle || base.from >= closes {
            return;
        }
        let bytes = (updates as f64 * self.update_bytes).min(self.shard_bytes);
        let asked = base.from.max(opens);
        let from = worker.timeline.finish(asked, worker.receiving(bytes));
        receive(worker, asked, from);
        *base = Base { cycle, asked, from };
    }

    /// Trains and uploads in one cycle; whether the update arrives in time.
    fn train(
        &self,
        worker: &mut Worker,
        (base, cycle): (Base, usize),
        latency: f64,
        tally: &mut Tally,
    ) -> bool {
        if base.cycle != cycle {
            return false;
        }
        let moments = self.moments(cycle);
        let rate = worker.flop_per_second / self.token_flop;
        let start = base.from.max(moments.train).min(moments.seal);
        let computing = worker.timeline.up_seconds(start, moments.seal);
        tally.computing_seconds += computing;
        tally.processed_tokens += computing * rate;
        // What it had before it failed is gone.
        let Some(since) = worker.timeline.up_since(moments.seal) else {
            return false;
        };
        let trained = moments.seal - start.max(since);
        if trained <= 0.0 {
            return false;
        }
        let seconds = worker.sending(self.update_bytes);
        let arrives = worker.timeline.finish(moments.reveal, seconds) + latency;
        let window = moments.score - moments.reveal;
        tally.sent_bytes += self.update_bytes * (window / seconds).min(1.0);
        let delivered = arrives <= moments.score;
        if delivered {
            tally.events += 1.0;
            tally.merged_tokens += trained * rate;
        }
        delivered
    }

    fn moments(&self, cycle: usize) -> Moments {
        let windows = &self.windows;
        let opens = cycle as f64 * self.cycle_seconds();
        let after = |blocks: u64| opens + blocks as f64 * self.block_seconds;
        let train = windows.distribute;
        let seal = train + windows.train;
        let reveal = seal + windows.seal;
        Moments {
            opens,
            train: after(train),
            seal: after(seal),
            reveal: after(reveal),
            score: after(reveal + windows.reveal),
        }
    }
}
