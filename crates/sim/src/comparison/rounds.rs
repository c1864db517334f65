//! Data parallelism: everybody holds the model, takes H steps alone, then exchanges; H = 1 is the classic form.
//!
//! ```text
//! every worker with the state:  │ H steps │ waits for the slowest │ exchange │ H steps …
//! ```
//!
//! A round lasts as long as its slowest worker needs undisturbed. A worker that fails and is back goes on where it
//! was, from its disk, and brings the steps that it has done; who is down when the exchange begins is left out of
//! the round with its share, and nobody waits for it (torchft, INTELLECT-1, Templar). A ring goes on without those
//! that leave it and keeps of their share what has gone round; a store keeps what has been uploaded. This is more
//! than real systems achieve: they repeat a broken ring. Waiting for everybody instead would stop 256 workers for
//! good at 5 % of them failing. Whoever has missed an exchange fetches the state, across further outages if there
//! are any, and joins the next round. Computing and exchanging take turns. Knows nothing of models.

use super::Length;
use super::network::{Cluster, Worker};
use super::outcome::Tally;

/// Every worker trains the whole model on its own data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataParallel {
    /// Steps that a worker takes from one exchange to the next.
    pub steps: u32,
    /// Tokens of one step of one worker.
    pub step_tokens: f64,
    /// Floating-point operations of such a step.
    pub step_flop: f64,
    /// What is exchanged, and how.
    pub exchange: Exchange,
}

/// How workers combine what they have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Exchange {
    /// A ring all-reduce over everybody.
    AllReduce {
        /// Bytes of what is reduced.
        bytes: f64,
        /// Bytes of the state, which a worker fetches that was not in the ring to its end.
        state_bytes: f64,
    },
    /// Updates go to a store, from which everybody fetches the chosen ones.
    Gather {
        /// Bytes of an update.
        update_bytes: f64,
        /// Updates that are chosen.
        peers: usize,
    },
}

/// A worker with the state of this round, and the tokens that it has trained on.
struct Member {
    index: usize,
    tokens: f64,
}

/// What a round is played on.
struct Round<'a> {
    cluster: &'a mut Cluster,
    /// From when on each worker has the newest state.
    ready: &'a mut [f64],
    tally: &'a mut Tally,
}

impl DataParallel {
    pub(super) fn play(&self, cluster: &mut Cluster, length: Length) -> Tally {
        let mut tally = Tally::default();
        let workers = cluster.workers.len();
        let mut ready = vec![0.0; workers];
        let mut now = 0.0;
        while !length.suffices(tally.rounds, now) {
            let earliest = ready.iter().copied().fold(f64::INFINITY, f64::min);
            now = earliest.max(now);
            let mut round = Round {
                cluster,
                ready: &mut ready,
                tally: &mut tally,
            };
            let (members, computed) = round.train(self, now);
            now = match self.exchange {
                Exchange::AllReduce { bytes, state_bytes } => {
                    round.reduce(&members, computed, (bytes, state_bytes))
                }
                Exchange::Gather {
                    update_bytes,
                    peers,
                } => round.gather(&members, computed, (update_bytes, peers)),
            };
        }
        tally.close(cluster, workers, now);
        tally
    }
}

impl Round<'_> {
    /// H steps of everybody that has the state, and when the slowest is done.
    fn train(&mut self, strategy: &DataParallel, start: f64) -> (Vec<Member>, f64) {
        let flop = f64::from(strategy.steps) * strategy.step_flop;
        let has_state = |index: &usize| self.ready[*index] <= start;
        let members: Vec<usize> = (0..self.ready.len()).filter(has_state).collect();
        let end = start + self.slowest(&members, |worker| flop / worker.flop_per_second);
        let trained = members.into_iter().map(|index| {
            let worker = &mut self.cluster.workers[index];
            let needed = flop / worker.flop_per_second;
            let computed = worker.timeline.up_seconds(start, end).min(needed);
            let share = f64::from(strategy.steps) * strategy.step_tokens;
            let tokens = share * computed / needed;
            self.tally.computing_seconds += computed;
            self.tally.processed_tokens += tokens;
            Member { index, tokens }
        });
        (trained.collect(), end)
    }

    /// A ring over those that are up; gives its end.
    fn reduce(&mut self, members: &[Member], start: f64, (bytes, state): (f64, f64)) -> f64 {
        let mut ring = Vec::new();
        for member in members {
            if self.cluster.workers[member.index].timeline.is_up(start) {
                ring.push(member.index);
            }
        }
        let seconds = self.cluster.ring_seconds(&ring, bytes);
        let end = start + seconds;
        let sent = super::formulas::ring_bytes(ring.len(), bytes);
        let mut merged = 0.0;
        for member in members {
            let worker = &mut self.cluster.workers[member.index];
            let leaves = worker.timeline.up_until(start);
            if leaves < end || leaves <= start {
                let fetching = worker.receiving(state);
                self.ready[member.index] = worker.timeline.finish(leaves, fetching);
            }
            if leaves > start {
                let stayed = if seconds > 0.0 {
                    ((leaves - start) / seconds).min(1.0)
                } else {
                    1.0
                };
                // The first half of a ring adds, the second hands the sums round.
                merged += member.tokens * (2.0 * stayed).min(1.0);
                self.tally.sent_bytes += sent * stayed;
                self.tally.received_bytes += sent * stayed;
                self.tally.events += 1.0;
            }
        }
        self.merge(merged);
        end
    }

    /// Uploads, and then downloads of what was chosen; gives the end.
    fn gather(&mut self, members: &[Member], start: f64, (update, peers): (f64, usize)) -> f64 {
        let latency = self.cluster.latency_seconds;
        let all: Vec<usize> = members.iter().map(|member| member.index).collect();
        let sent = start + self.slowest(&all, |worker| worker.sending(update));
        let mut delivered = Vec::new();
        for member in members {
            let worker = &mut self.cluster.workers[member.index];
            let needed = worker.sending(update);
            let uploading = worker.timeline.up_seconds(start, sent).min(needed);
            self.tally.sent_bytes += update * uploading / needed;
            // A link that was up throughout is done in time; the margin is that of a sum of times.
            if uploading >= needed * (1.0 - 1e-9) && member.tokens > 0.0 {
                delivered.push(member.tokens);
            }
        }
        self.tally.events += delivered.len() as f64;
        // Which are chosen is not decided here: a mean share stands for each.
        let chosen = peers.min(delivered.len()) as f64;
        let mean = delivered.iter().sum::<f64>() / delivered.len().max(1) as f64;
        self.merge(chosen * mean);
        // One's own update need not be fetched.
        let bytes = peers.min(delivered.len().saturating_sub(1)) as f64 * update;
        let from = sent + latency;
        let end = from + self.slowest(&all, |worker| worker.receiving(bytes)) + latency;
        for index in all {
            let worker = &mut self.cluster.workers[index];
            let has = worker.timeline.finish(from, worker.receiving(bytes)) + latency;
            self.tally.received_bytes += bytes;
            if has > end {
                self.ready[index] = has;
            }
        }
        end
    }

    fn merge(&mut self, tokens: f64) {
        self.tally.merged_tokens += tokens;
        self.tally.rounds += u64::from(tokens > 0.0);
    }

    /// What the slowest of some workers takes, undisturbed.
    fn slowest(&self, members: &[usize], seconds: impl Fn(&Worker) -> f64) -> f64 {
        let of = |index: &usize| seconds(&self.cluster.workers[*index]);
        members.iter().map(of).fold(0.0, f64::max)
    }
}
