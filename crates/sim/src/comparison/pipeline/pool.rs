//! The workers that stand in for each other, and the chains that they form.
//!
//! Between two moments at which a worker fails, comes back or has fetched its weights, nothing changes but how far
//! the chains are; a pool goes from one such moment to the next.

use std::ops::Range;

use super::super::network::Cluster;
use super::super::outcome::Tally;
use super::{Pipeline, Step};

/// The replicas of every stage.
#[derive(Debug)]
pub(super) struct Pool {
    stages: Vec<Vec<usize>>,
}

/// Workers, one for each stage, that train together.
#[derive(Debug)]
struct Chain {
    members: Vec<usize>,
    step_seconds: f64,
    /// Up to when its steps are counted.
    counted: f64,
    /// Steps since it was formed, whole and begun ones.
    steps: f64,
}

/// What chains have done in a round.
#[derive(Debug, Default)]
pub(super) struct Trained {
    /// Steps, lost ones included.
    pub(super) steps: f64,
    /// Steps of which the weights have something.
    pub(super) kept_steps: f64,
    /// Worker-seconds of computing.
    pub(super) computing_seconds: f64,
    /// Time with at least one chain.
    pub(super) running_seconds: f64,
}

impl Trained {
    pub(super) fn add_to(&self, tally: &mut Tally, step: Step) {
        let messages = self.steps * step.messages;
        tally.processed_tokens += self.steps * step.tokens;
        tally.events += messages;
        tally.sent_bytes += messages * step.message_bytes;
        tally.received_bytes += messages * step.message_bytes;
        tally.computing_seconds += self.computing_seconds;
    }
}

impl Pool {
    pub(super) fn new(stages: Vec<Vec<usize>>) -> Self {
        Self { stages }
    }

    pub(super) fn size(&self) -> usize {
        self.stages.iter().map(Vec::len).sum()
    }

    pub(super) fn chains_if_all_were_up(&self) -> impl Iterator<Item = Vec<usize>> {
        let replicas = self.stages.first().map_or(0, Vec::len);
        (0..replicas).map(|replica| self.stages.iter().map(|stage| stage[replica]).collect())
    }

    /// Trains through one round. `ready` says from when on each worker has its weights.
    pub(super) fn train(
        &self,
        pipeline: &Pipeline,
        cluster: &mut Cluster,
        ready: &[f64],
        round: Range<f64>,
    ) -> Trained {
        let moments = self.moments(cluster, ready, &round);
        let mut running = Running {
            pipeline,
            chains: Vec::new(),
            free: vec![Vec::new(); self.stages.len()],
            trained: Trained::default(),
        };
        let mut last = round.start;
        for (moment, stage, worker) in moments {
            running.pass(last..moment);
            last = moment;
            let there = ready[worker] <= moment && cluster.workers[worker].timeline.is_up(moment);
            running.change(cluster, (stage, worker), moment, there);
        }
        running.pass(last..round.end);
        running.end(cluster, round.end)
    }

    /// All moments of a round at which a worker may come or go, the beginning included.
    fn moments(
        &self,
        cluster: &mut Cluster,
        ready: &[f64],
        round: &Range<f64>,
    ) -> Vec<(f64, usize, usize)> {
        let mut moments = Vec::new();
        for (stage, workers) in self.stages.iter().enumerate() {
            for index in workers {
                moments.push((round.start, stage, *index));
                let timeline = &mut cluster.workers[*index].timeline;
                let changes = timeline.changes(round.start, round.end);
                moments.extend(changes.iter().map(|moment| (*moment, stage, *index)));
                if round.contains(&ready[*index]) {
                    moments.push((ready[*index], stage, *index));
                }
            }
        }
        moments.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.2.cmp(&right.2)));
        moments
    }
}

/// A pool in the course of a round.
struct Running<'a> {
    pipeline: &'a Pipeline,
    chains: Vec<Chain>,
    /// Workers of each stage that are there and in no chain.
    free: Vec<Vec<usize>>,
    trained: Trained,
}

impl Running<'_> {
    /// Time goes by.
    fn pass(&mut self, time: Range<f64>) {
        if !self.chains.is_empty() {
            self.trained.running_seconds += time.end - time.start;
        }
    }

    /// A worker is there, or is not.
    fn change(
        &mut self,
        cluster: &Cluster,
        (stage, worker): (usize, usize),
        now: f64,
        there: bool,
    ) {
        let has = |chain: &Chain| chain.members[stage] == worker;
        let busy = self.chains.iter().position(has);
        let idle = self.free[stage].iter().position(|free| *free == worker);
        match (busy, idle, there) {
            (Some(chain), _, false) => self.replace(cluster, (chain, stage), now),
            (None, Some(place), false) => {
                self.free[stage].remove(place);
            }
            (None, None, true) => self.free[stage].push(worker),
            _ => return,
        }
        self.form(cluster, now);
    }

    /// A free worker takes a place in a chain; without one the chain is broken up and its step is lost.
    fn replace(&mut self, cluster: &Cluster, (index, stage): (usize, usize), now: f64) {
        let mut chain = self.chains.swap_remove(index);
        self.count(cluster, &mut chain, now);
        if let Some(substitute) = self.free[stage].pop() {
            chain.members[stage] = substitute;
            chain.step_seconds = self.pipeline.step_seconds(cluster, &chain.members);
            self.chains.push(chain);
            return;
        }
        self.trained.kept_steps += chain.steps.floor();
        for (place, member) in chain.members.into_iter().enumerate() {
            if place != stage {
                self.free[place].push(member);
            }
        }
    }

    /// Forms chains as long as every stage has a free worker.
    fn form(&mut self, cluster: &Cluster, now: f64) {
        while self.free.iter().all(|free| !free.is_empty()) {
            let members: Vec<usize> = self.free.iter_mut().filter_map(Vec::pop).collect();
            self.chains.push(Chain {
                step_seconds: self.pipeline.step_seconds(cluster, &members),
                members,
                counted: now,
                steps: 0.0,
            });
        }
    }

    /// Counts a chain's steps up to now.
    fn count(&mut self, cluster: &Cluster, chain: &mut Chain, now: f64) {
        let steps = (now - chain.counted) / chain.step_seconds;
        chain.counted = now;
        chain.steps += steps;
        self.trained.steps += steps;
        let seconds = chain.members.iter();
        let seconds =
            seconds.map(|member| self.pipeline.computing_seconds(&cluster.workers[*member]));
        self.trained.computing_seconds += steps * seconds.sum::<f64>();
    }

    /// The round is over; of a step that is under way, the micro-batches that are through count.
    fn end(mut self, cluster: &Cluster, now: f64) -> Trained {
        for mut chain in std::mem::take(&mut self.chains) {
            self.count(cluster, &mut chain, now);
            self.trained.kept_steps += chain.steps;
        }
        self.trained
    }
}
