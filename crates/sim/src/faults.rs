//! What goes wrong, and when: crashes, cuts, stalls, forks, departures. Decided by the seed before the run.
//!
//! That who may crash is known beforehand has a reason: only their journals have to be kept. A crash is
//! drawn as a time and a doom; the doom strikes in the node's next step, at a boundary of its own
//! (`node.rs`), so that every boundary of every kind of step is hit over many seeds.

use connito_protocol::event::{Effect, Event};
use connito_protocol::machine::{Character, Machine, Role};

use crate::cast::{Member, key};
use crate::chain::Registration;
use crate::network::NodeId;
use crate::node::{Doom, Kind};
use crate::queue::{Micros, micros};
use crate::random::Random;
use crate::rest::Rest;
use crate::run::{Happening, Simulation};
use crate::scenario::{FaultModel, Interruption};

/// Something that goes wrong, or is repaired.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A life will end with its next step.
    Doom(NodeId, Doom),
    /// A process is started again.
    Restart(NodeId),
    /// A process ends for good.
    Leave(NodeId),
    /// Nodes are cut off.
    Cut(Vec<NodeId>),
    /// They are connected again.
    Heal(Vec<NodeId>),
    /// No block is made until a time.
    Stall(Micros),
    /// So many blocks are taken back, and others stand in their place.
    Fork(u32),
    /// A new miner registers.
    Join(u64),
    /// A miner's registration ends.
    Deregister,
}

impl Simulation {
    /// Draws everything that will go wrong.
    pub(crate) fn plan_faults(&mut self) {
        let mut random = Random::new(self.seed, "faults", 0);
        self.plan_crashes(&mut random);
        self.plan_churn(&mut random);
        let interruptions = self.scenario.partitions.clone();
        for interruption in &interruptions {
            self.plan_cut(interruption, &mut random);
        }
        for stall in self.scenario.chain.stalls.clone() {
            let at = self.time_of(stall.at_cycle);
            let until = at + micros(stall.seconds);
            self.queue.at(at, Happening::Fault(Fault::Stall(until)));
        }
        for fork in self.scenario.chain.forks.clone() {
            let at = self.time_of(fork.at_cycle);
            self.queue
                .at(at, Happening::Fault(Fault::Fork(fork.blocks)));
        }
        if let Some(cycle) = self.scenario.owner_leaves_at_cycle {
            let at = self.time_of(cycle);
            self.queue.at(at, Happening::Fault(Fault::Leave(NodeId(0))));
        }
    }

    /// When a cycle would begin if no block came late.
    fn time_of(&self, cycle: f64) -> Micros {
        let manifest = &self.setting.manifest;
        let blocks = manifest.starts.0 as f64 + cycle * manifest.rules.windows.cycle() as f64;
        micros(blocks * self.scenario.chain.block_seconds)
    }

    fn plan_crashes(&mut self, random: &mut Random) {
        let faults = self.scenario.faults.clone();
        if !faults.strike() {
            return;
        }
        let until = faults.until_cycle.unwrap_or(self.scenario.cycles as f64);
        let mean = faults.crashes_per_cycle * until;
        for place in 0..self.nodes.len() {
            if !random.chance(faults.crashing_percent / 100.0) {
                continue;
            }
            self.nodes[place].journal = Some(Vec::new());
            for _ in 0..count(mean, random) {
                let at = self.time_of(random.unit() * until);
                let doom = faults.draw(random);
                let id = self.nodes[place].id;
                self.queue.at(at, Happening::Fault(Fault::Doom(id, doom)));
            }
        }
    }

    fn plan_churn(&mut self, random: &mut Random) {
        let churn = self.scenario.churn.clone();
        let until = churn.until_cycle.unwrap_or(self.scenario.cycles as f64);
        for number in 0..count(churn.joins_per_cycle * until, random) {
            let at = self.time_of(random.unit() * until);
            self.queue.at(at, Happening::Fault(Fault::Join(number)));
        }
        for _ in 0..count(churn.leaves_per_cycle * until, random) {
            let at = self.time_of(random.unit() * until);
            self.queue.at(at, Happening::Fault(Fault::Deregister));
        }
    }

    /// Draws who is cut off: of the validators no more than the stated share of the stake.
    fn plan_cut(&mut self, interruption: &Interruption, random: &mut Random) {
        let share = interruption.percent / 100.0;
        let of_kind = |validators: bool| {
            let nodes = self
                .nodes
                .iter()
                .filter(move |node| node.kind != Kind::Owner);
            nodes.filter(move |node| node.kind.is_validator() == validators)
        };
        let mut miners: Vec<NodeId> = of_kind(false).map(|node| node.id).collect();
        let mut validators: Vec<NodeId> = of_kind(true).map(|node| node.id).collect();
        random.shuffle(&mut miners);
        random.shuffle(&mut validators);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a number of nodes"
        )]
        miners.truncate((miners.len() as f64 * share) as usize);
        let stake = |id: &NodeId| self.chain.stake(self.nodes[id.place()].hotkey()) as f64;
        let mut left = validators.iter().map(stake).sum::<f64>() * share;
        validators.retain(|id| {
            let fits = stake(id) <= left;
            left -= if fits { stake(id) } else { 0.0 };
            fits
        });
        let cut: Vec<NodeId> = miners.into_iter().chain(validators).collect();
        let at = self.time_of(interruption.at_cycle);
        let heals = self.time_of(interruption.at_cycle + interruption.cycles);
        self.queue.at(at, Happening::Fault(Fault::Cut(cut.clone())));
        self.queue.at(heals, Happening::Fault(Fault::Heal(cut)));
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.last_fault = self.queue.now();
        if matches!(fault, Fault::Restart(_)) {
            // What a life begins with is checked too, so it is a step: a run can be cut right after it.
            self.steps += 1;
        }
        if let Some(trace) = &mut self.trace {
            trace.fault(self.steps, self.queue.now(), &fault);
        }
        match fault {
            Fault::Doom(id, doom) => self.nodes[id.place()].doom = Some(doom),
            Fault::Restart(id) => self.restart(id),
            Fault::Leave(id) => {
                self.nodes[id.place()].journal = None;
                self.end_life(id);
            }
            Fault::Cut(nodes) => self.set_cut(&nodes, true),
            Fault::Heal(nodes) => {
                self.set_cut(&nodes, false);
                for node in nodes {
                    self.queue.after(0, Happening::Notice(node));
                }
            }
            Fault::Stall(until) => self.stalled_until = self.stalled_until.max(until),
            Fault::Fork(blocks) => self.fork(blocks),
            Fault::Join(number) => self.join(number),
            Fault::Deregister => self.deregister(),
        }
    }

    /// The blocks that replace others come all at once, and one more: a chain gives way to a longer one.
    /// Every node goes on from the last block that still stands, as soon as it hears of it.
    fn fork(&mut self, blocks: u32) {
        for place in 0..self.nodes.len() {
            self.hand_over(self.nodes[place].id);
        }
        let taken = self.chain.take_back(blocks);
        let stands = self.chain.head().block;
        for node in &mut self.nodes {
            node.step_back(stands);
        }
        self.monitor.taken_back(stands, &self.setting);
        for _ in 0..=taken {
            self.append_block();
        }
    }

    fn set_cut(&mut self, nodes: &[NodeId], cut: bool) {
        for id in nodes {
            self.network.set_cut(*id, cut);
        }
        for id in nodes {
            // Those on one side go on; a transfer across the cut does not.
            let within = nodes.to_vec();
            self.break_transfers(*id, |other| !within.contains(&other));
        }
    }

    /// The process ends where its doom struck, and is started again later.
    pub(crate) fn die(&mut self, id: NodeId) {
        self.end_life(id);
        let mean = self.scenario.faults.restart_seconds;
        let wait = micros(mean * 2.0 * self.random.unit());
        self.queue.after(wait, Happening::Fault(Fault::Restart(id)));
    }

    fn end_life(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.place()];
        node.machine = None;
        node.life += 1;
        node.uploading.clear();
        node.fetching.0 = 0;
        self.rests[id.place()] = Rest::default();
        self.traffic.crashes += 1;
        self.break_transfers(id, |_| true);
    }

    /// A process begins: replay, the last step's documents once more, then `Started` (P-61, P-62).
    fn restart(&mut self, id: NodeId) {
        let node = &self.nodes[id.place()];
        if node.journal.is_none() || node.is_up() {
            return;
        }
        let machine = match node.replay() {
            Ok(machine) => machine,
            Err(diverged) => {
                return self.monitor.diverged(self.steps, node, &diverged);
            }
        };
        self.become_alive(id, machine);
        let node = &self.nodes[id.place()];
        self.monitor.restarted(self.steps, node);
        let last = node.journal.iter().flatten().last();
        let again: Vec<Effect> = last
            .into_iter()
            .flat_map(|step| &step.effects)
            .filter(|effect| {
                matches!(
                    effect,
                    Effect::Store { .. } | Effect::Forget { .. } | Effect::Issue(_)
                )
            })
            .cloned()
            .collect();
        for effect in again {
            self.carry_out(id, effect);
        }
        self.step(id, Event::Started);
        self.catch_up(id);
    }

    fn become_alive(&mut self, id: NodeId, machine: Machine) {
        let node = &mut self.nodes[id.place()];
        // Less than it has recorded, where a fork has taken back what it recorded last.
        node.seen = node.last_block().min(node.seen);
        node.machine = Some(machine);
        node.free_at = self.queue.now();
    }

    fn join(&mut self, number: u64) {
        let hotkey = key(self.seed, "newcomer", number);
        let owner = self.nodes[0].character;
        let member = Member {
            kind: Kind::Miner(None),
            character: Character {
                identity: connito_protocol::Identity {
                    hotkey,
                    endpoint: None,
                    ..owner.identity
                },
                role: Role::Miner,
            },
            stake: 0,
            crew: None,
            slow: false,
            friend: None,
        };
        self.chain.register(Registration {
            hotkey,
            stake: 0,
            validator_permit: false,
        });
        let id = self.add(&member);
        self.traffic.joined += 1;
        self.queue.after(0, Happening::Notice(id));
    }

    /// Ends the registration of some honest miner, without telling it.
    fn deregister(&mut self) {
        let registered: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|node| {
                node.kind == Kind::Miner(None) && self.chain.is_registered(node.hotkey())
            })
            .map(|node| node.id)
            .collect();
        let place = self.random.place(registered.len());
        if let Some(id) = registered.get(place) {
            let hotkey = self.nodes[id.place()].hotkey();
            self.chain.deregister(hotkey);
            self.traffic.left += 1;
        }
    }
}

impl FaultModel {
    /// How one crash ends a life: lost records first, and what the earlier ones leave of a hundred for
    /// the later ones, so that a scenario need not make the shares add up.
    fn draw(&self, random: &mut Random) -> Doom {
        let luck = random.unit() * 100.0;
        let torn = self.lost_records_percent + self.torn_percent;
        if luck < self.lost_records_percent {
            Doom::LostRecord
        } else if luck < torn {
            Doom::TornRecord
        } else if luck < torn + self.disk_full_percent {
            Doom::DiskFull
        } else {
            Doom::Killed(random.unit())
        }
    }
}

/// A whole number with this mean: its whole part, and one more with the probability of the rest.
fn count(mean: f64, random: &mut Random) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of faults; scenarios bound it"
    )]
    let whole = mean as u64;
    whole + u64::from(random.chance(mean - whole as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_its_mean_on_average() {
        let mut random = Random::of(b"count");
        let sum: u64 = (0..10_000).map(|_| count(2.25, &mut random)).sum();
        assert!((22_000..23_000).contains(&sum), "{sum}");
        assert_eq!(count(0.0, &mut random), 0);
    }
}
