//! Pipeline parallelism: chains of workers, each with some layers, that merge their stages now and then.
//!
//! ```text
//! pool 0   stage 0 ─▶ stage 1 ─▶ stage 2 ─▶ stage 3      r workers at each stage,
//!             ○          ○          ○          ○          up to r chains at once
//! pool 1   …                                              all pools merge stage by stage
//! ```
//!
//! A pool has r replicas of each stage and forms as many chains as its scarcest stage has workers. When a worker
//! fails, a free one of its stage takes its place and the chain goes on where it was, which is more than real
//! systems lose; where there is none the chain is broken up and the step it was in is lost. With r = 1 one failure
//! stops the pool until that worker is back. A merge is a ring all-reduce of each stage's weights over all workers
//! of the stage, in which nobody computes. Whoever was not there at the end of a merge fetches its stage's weights.
//! A step is scheduled by `schedule.rs`. Knows nothing of models.

mod pool;

use super::Length;
use super::network::{Cluster, Worker};
use super::outcome::Tally;
use super::schedule::{StageSeconds, step_seconds};
use pool::Pool;

/// Every worker trains some layers of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pipeline {
    /// Parts that the layers are divided into evenly.
    pub stages: u32,
    /// Workers of a pool at each stage; all that there are, if there are fewer.
    pub replicas: u32,
    /// Micro-batches of a step.
    pub micro_batches: u32,
    /// Tokens of a micro-batch.
    pub tokens: f64,
    /// Floating-point operations of one stage's forward pass over a micro-batch; the backward pass takes twice as
    /// many.
    pub forward_flop: f64,
    /// Bytes that a micro-batch takes from one stage to the next, in either direction.
    pub message_bytes: f64,
    /// How chains come together; nothing where they never do.
    pub merge: Option<StageMerge>,
}

/// How the chains of a stage come to the same weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageMerge {
    /// Steps of the slowest chain between two merges.
    pub steps: u32,
    /// Bytes of a stage's weights.
    pub bytes: f64,
}

/// What one step of one chain is.
#[derive(Debug, Clone, Copy)]
struct Step {
    tokens: f64,
    messages: f64,
    message_bytes: f64,
}

impl Pipeline {
    pub(super) fn play(&self, cluster: &mut Cluster, length: Length) -> Tally {
        let mut tally = Tally::default();
        let mut pools = self.pools(cluster.workers.len());
        let used = pools.iter().map(Pool::size).sum();
        // From when on a worker has its stage's newest weights.
        let mut ready = vec![0.0; cluster.workers.len()];
        let (mut now, mut training, mut running) = (0.0, 0.0, 0.0);
        while !pools.is_empty() && !length.suffices(tally.rounds, now) {
            let end = now + self.round_seconds(cluster, &pools, length);
            let mut merged = 0.0;
            for pool in &mut pools {
                let trained = pool.train(self, cluster, &ready, now..end);
                trained.add_to(&mut tally, self.step());
                merged += trained.kept_steps * self.step().tokens;
                running += trained.running_seconds;
            }
            training += (end - now) * pools.len() as f64;
            let merge_end = self.merge(cluster, (&mut ready, used), end, &mut tally);
            // A round of chains that could not form merges nothing.
            tally.rounds += u64::from(merged > 0.0);
            tally.merged_tokens += merged;
            now = merge_end;
        }
        tally.close(cluster, used, now);
        tally.running_share = Some(if training > 0.0 {
            running / training
        } else {
            0.0
        });
        tally
    }

    /// As many pools as there are workers for; worker i is at stage i mod p.
    fn pools(&self, workers: usize) -> Vec<Pool> {
        let stages = self.stages.max(1) as usize;
        let chains = workers / stages;
        let replicas = (self.replicas.max(1) as usize).min(chains.max(1));
        let pool = |index: usize| {
            let first = index * replicas * stages;
            let stage = |stage: usize| {
                let of_stage = (0..replicas).map(|replica| first + replica * stages + stage);
                of_stage.collect::<Vec<_>>()
            };
            Pool::new((0..stages).map(stage).collect())
        };
        (0..chains / replicas).map(pool).collect()
    }

    /// How long chains train between two merges.
    fn round_seconds(&self, cluster: &Cluster, pools: &[Pool], length: Length) -> f64 {
        let Some(merge) = self.merge else {
            return length.least_seconds;
        };
        let chains = pools.iter().flat_map(Pool::chains_if_all_were_up);
        let slowest = chains
            .map(|chain| self.step_seconds(cluster, &chain))
            .fold(0.0, f64::max);
        f64::from(merge.steps) * slowest
    }

    /// Seconds of one step of a chain.
    fn step_seconds(&self, cluster: &Cluster, chain: &[usize]) -> f64 {
        let worker = |place: usize| &cluster.workers[chain[place]];
        let link = |from: &Worker, to: Option<&Worker>| {
            to.map_or(0.0, |to| {
                from.sending(self.message_bytes)
                    .max(to.receiving(self.message_bytes))
            })
        };
        let stage = |place: usize| {
            let next = chain.get(place + 1).map(|index| &cluster.workers[*index]);
            let before = place.checked_sub(1).map(worker);
            let forward = self.forward_flop / worker(place).flop_per_second;
            StageSeconds {
                forward,
                backward: 2.0 * forward,
                send_forward: link(worker(place), next),
                send_backward: link(worker(place), before),
            }
        };
        let stages: Vec<StageSeconds> = (0..chain.len()).map(stage).collect();
        step_seconds(&stages, self.micro_batches, cluster.latency_seconds)
    }

    /// Seconds that one step takes of a worker's time.
    fn computing_seconds(&self, worker: &Worker) -> f64 {
        f64::from(self.micro_batches) * 3.0 * self.forward_flop / worker.flop_per_second
    }

    fn step(&self) -> Step {
        Step {
            tokens: f64::from(self.micro_batches) * self.tokens,
            messages: super::formulas::pipeline_messages(self.stages, self.micro_batches),
            message_bytes: self.message_bytes,
        }
    }

    /// Merges every stage; whoever is not there until its end has to fetch the weights. Gives the end.
    fn merge(
        &self,
        cluster: &mut Cluster,
        (ready, used): (&mut [f64], usize),
        start: f64,
        tally: &mut Tally,
    ) -> f64 {
        let Some(merge) = self.merge else {
            return start;
        };
        let stages = self.stages.max(1) as usize;
        let mut members = vec![Vec::new(); stages];
        for index in 0..used {
            if ready[index] <= start && cluster.workers[index].timeline.is_up(start) {
                members[index % stages].push(index);
            }
        }
        let seconds = members
            .iter()
            .map(|members| cluster.ring_seconds(members, merge.bytes))
            .fold(0.0, f64::max);
        for members in &members {
            let bytes = super::formulas::ring_bytes(members.len(), merge.bytes);
            tally.sent_bytes += bytes * members.len() as f64;
            tally.received_bytes += bytes * members.len() as f64;
            tally.events += members.len() as f64;
        }
        let end = start + seconds;
        for (worker, ready) in cluster.workers.iter_mut().zip(ready).take(used) {
            let fails = worker.timeline.up_until(start);
            if *ready <= start && fails < end {
                let seconds = worker.receiving(merge.bytes);
                *ready = worker.timeline.finish(fails, seconds);
            }
        }
        end
    }
}
