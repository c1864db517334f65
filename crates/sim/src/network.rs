//! Links between participants: how long a message takes, what a transfer has to share, who is cut off.
//!
//! ```text
//! request ── latency ──▶ server ── its uplink, shared fairly ──▶ client's downlink, the same ──▶ done
//! ```
//!
//! A node has one link in each direction. Transfers under way share it evenly; one passes the sender's
//! link and then the receiver's. Latencies vary from half to five times the median. Losses and cuts are
//! the caller's to ask for: this file knows no blobs, roles or blocks.

use std::collections::BTreeMap;

use crate::queue::{Micros, micros};
use crate::random::Random;
use crate::scenario::LinkModel;

/// Which participant, in the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) u32);

impl NodeId {
    /// Its place in a list of all nodes.
    pub(crate) fn place(self) -> usize {
        self.0 as usize
    }
}

/// A transfer under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlowId(pub(crate) u64);

/// One direction of one node's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    /// What it sends.
    Up(NodeId),
    /// What it receives.
    Down(NodeId),
}

/// A link, to be asked again at a time because a transfer will have passed it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passing {
    pub(crate) way: Way,
    pub(crate) at: Micros,
    /// Void when the link has been asked for another time since.
    pub(crate) turn: u64,
}

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    median: f64,
    random: Random,
    cut: Vec<bool>,
    links: BTreeMap<Way, Link>,
}

impl Network {
    pub(crate) fn new(model: &LinkModel, random: Random) -> Self {
        Self {
            median: micros(model.latency_milliseconds / 1_000.0) as f64,
            random,
            cut: Vec::new(),
            links: BTreeMap::new(),
        }
    }

    /// Adds the next node, with its bandwidth in both directions.
    pub(crate) fn add(&mut self, node: NodeId, megabits_per_second: Option<f64>) {
        self.cut.push(false);
        if let Some(speed) = megabits_per_second {
            // A megabit in a second is an eighth of a byte in a microsecond.
            let link = || Link::new(speed / 8.0);
            self.links.insert(Way::Up(node), link());
            self.links.insert(Way::Down(node), link());
        }
    }

    /// How long one message takes.
    pub(crate) fn latency(&mut self) -> Micros {
        let luck = self.random.unit();
        // Mostly about the median, rarely five times that.
        let rarely = (0..4).fold(luck, |power, _| power * power);
        let factor = 0.5 + luck + 3.5 * rarely;
        micros(self.median * factor / 1e6)
    }

    /// Whether something happens that has this probability, in percent.
    pub(crate) fn strikes(&mut self, percent: f64) -> bool {
        percent > 0.0 && self.random.chance(percent / 100.0)
    }

    /// Cuts a node off, or connects it again.
    pub(crate) fn set_cut(&mut self, node: NodeId, cut: bool) {
        self.cut[node.place()] = cut;
    }

    /// Whether a node is cut off from the chain and from most others.
    pub(crate) fn is_cut(&self, node: NodeId) -> bool {
        self.cut[node.place()]
    }

    /// Whether two nodes are on one side.
    pub(crate) fn connected(&self, a: NodeId, b: NodeId) -> bool {
        self.is_cut(a) == self.is_cut(b)
    }

    /// Puts a transfer on a link; `None` when that takes no time.
    pub(crate) fn enter(
        &mut self,
        way: Way,
        (flow, bytes): (FlowId, f64),
        now: Micros,
    ) -> Option<Passing> {
        let link = self.links.get_mut(&way)?;
        link.advance(now);
        link.flows.push((link.carried + bytes, flow));
        Some(link.next(way, now))
    }

    /// Takes off a link what has passed it, and says when the next will have.
    pub(crate) fn pass(&mut self, passing: Passing) -> (Vec<FlowId>, Option<Passing>) {
        let Some(link) = self.links.get_mut(&passing.way) else {
            return (Vec::new(), None);
        };
        if link.turn != passing.turn {
            return (Vec::new(), None);
        }
        link.advance(passing.at);
        // Half a byte: below what rounding of times can leave over, and no transfer is that short.
        let passed = |entry: &(f64, FlowId)| entry.0 <= link.carried + 0.5;
        let (mut done, left): (Vec<_>, Vec<_>) = link.flows.iter().copied().partition(passed);
        link.flows = left;
        done.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let next = (!link.flows.is_empty()).then(|| link.next(passing.way, passing.at));
        (done.into_iter().map(|(_, flow)| flow).collect(), next)
    }

    /// Takes a transfer off a link before its time.
    pub(crate) fn leave(&mut self, way: Way, flow: FlowId, now: Micros) -> Option<Passing> {
        let link = self.links.get_mut(&way)?;
        link.advance(now);
        link.flows.retain(|(_, other)| *other != flow);
        (!link.flows.is_empty()).then(|| link.next(way, now))
    }
}

/// A shared link. Instead of every transfer's rest it counts what each transfer has been given since
/// the beginning, so that time passing changes one number.
#[derive(Debug)]
struct Link {
    bytes_per_micro: f64,
    /// Bytes that every transfer has been given, had it been here from the beginning.
    carried: f64,
    /// The value of `carried` at which each transfer is through.
    flows: Vec<(f64, FlowId)>,
    since: Micros,
    turn: u64,
}

impl Link {
    fn new(bytes_per_micro: f64) -> Self {
        Self {
            bytes_per_micro,
            carried: 0.0,
            flows: Vec::new(),
            since: 0,
            turn: 0,
        }
    }

    fn advance(&mut self, now: Micros) {
        if !self.flows.is_empty() {
            let passed = now.saturating_sub(self.since) as f64;
            self.carried += passed * self.bytes_per_micro / self.flows.len() as f64;
        }
        self.since = now;
    }

    fn next(&mut self, way: Way, now: Micros) -> Passing {
        self.turn += 1;
        let nearest = self.flows.iter().map(|(through, _)| *through);
        let nearest = nearest.fold(f64::INFINITY, f64::min);
        let share = self.bytes_per_micro / self.flows.len().max(1) as f64;
        let wait = ((nearest - self.carried) / share).max(0.0).ceil();
        Passing {
            way,
            at: now.saturating_add(micros(wait / 1e6)).max(now),
            turn: self.turn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(megabits: f64) -> Network {
        let mut network = Network::new(&LinkModel::default(), Random::of(b"links"));
        network.add(NodeId(0), Some(megabits));
        network
    }

    /// Two transfers of a megabyte at 8 Mbit/s, the second half a second later. By hand: the first has
    /// the link alone for 0.5 s, then both share it; it is through at 1.5 s, the second at 2 s.
    #[test]
    fn transfers_share_a_link_evenly() {
        let mut network = network(8.0);
        let way = Way::Up(NodeId(0));
        network.enter(way, (FlowId(1), 1e6), 0).unwrap();
        let passing = network.enter(way, (FlowId(2), 1e6), 500_000).unwrap();
        assert_eq!(passing.at, 1_500_000);
        let (done, next) = network.pass(passing);
        assert_eq!(done, [FlowId(1)]);
        let next = next.unwrap();
        assert_eq!(next.at, 2_000_000);
        assert_eq!(network.pass(next), (vec![FlowId(2)], None));
    }

    #[test]
    fn a_transfer_that_breaks_off_leaves_its_share_to_the_others() {
        let mut network = network(8.0);
        let way = Way::Down(NodeId(0));
        network.enter(way, (FlowId(1), 1e6), 0).unwrap();
        let stale = network.enter(way, (FlowId(2), 1e6), 0).unwrap();
        let next = network.leave(way, FlowId(2), 1_000_000).unwrap();
        assert_eq!(network.pass(stale), (Vec::new(), None), "that time is void");
        assert_eq!(next.at, 1_500_000);
        assert_eq!(network.pass(next).0, [FlowId(1)]);
    }

    #[test]
    fn latencies_stay_between_half_and_five_times_the_median() {
        let mut network = network(8.0);
        let latencies: Vec<Micros> = (0..10_000).map(|_| network.latency()).collect();
        assert!(
            latencies
                .iter()
                .all(|latency| (40_000..=400_000).contains(latency))
        );
        let below = latencies
            .iter()
            .filter(|latency| **latency < 80_000)
            .count();
        assert!(
            (4_500..5_500).contains(&below),
            "{below} of 10,000 below the median"
        );
    }

    #[test]
    fn a_cut_separates_the_two_sides_and_not_those_on_one() {
        let mut network = Network::new(&LinkModel::default(), Random::of(b"links"));
        let nodes = [NodeId(0), NodeId(1), NodeId(2)];
        nodes.iter().for_each(|node| network.add(*node, None));
        network.set_cut(NodeId(1), true);
        network.set_cut(NodeId(2), true);
        assert!(!network.connected(NodeId(0), NodeId(1)));
        assert!(network.connected(NodeId(1), NodeId(2)));
    }
}
