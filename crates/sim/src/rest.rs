//! Blocks that ask nothing of a machine are handed to it together, before the next thing that does.
//!
//! For most of ten thousand miners most blocks of a cycle are like that, and to wake each of them for
//! each block is a fetch from far memory. Inputs are what machines say of how long they rest, and the
//! newest block. Nothing of a run depends on it: a machine takes in the same blocks in the same order,
//! and asks for nothing. Where steps are written down, nobody rests.

use connito_protocol::event::Event;
use connito_protocol::ids::Block;
use connito_protocol::machine::Machine;

use crate::network::NodeId;
use crate::run::Simulation;

/// Blocks that are kept back at most: the chain must still have them.
pub(crate) const MOST_KEPT_BACK: u64 = 32;

/// How long a node rests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rest {
    /// The first block that asks something; none before it if the node does not rest.
    until: Block,
    /// The last block that it has heard of.
    heard: Block,
}

#[cfg(test)]
impl Rest {
    /// Whether the machine of a node that has seen so much lacks a block that it has heard of.
    pub(crate) fn keeps_back(&self, seen: Option<Block>) -> bool {
        seen.is_some_and(|seen| seen < self.heard)
    }
}

impl Simulation {
    /// Notes until when a node rests, after a step of its machine.
    pub(crate) fn note_rest(&mut self, id: NodeId) {
        let node = &self.nodes[id.place()];
        let is_watched = self.trace.is_some() || node.journal.is_some() || node.policy.is_some();
        let machine = node.machine.as_ref().filter(|_| !is_watched);
        let until = machine.and_then(Machine::rests_until);
        self.rests[id.place()] = match (until, node.seen) {
            (Some(until), Some(heard)) => Rest {
                until: until.min(Block(heard.0 + MOST_KEPT_BACK)),
                heard,
            },
            _ => Rest::default(),
        };
    }

    /// Whether the newest block asks nothing of a node that hears of it now.
    pub(crate) fn lets_pass(&mut self, id: NodeId) -> bool {
        let head = self.chain.head().block;
        let rest = &mut self.rests[id.place()];
        let follows = self.head_continues && head == rest.heard.next();
        let passes = follows && head < rest.until && !self.network.is_cut(id);
        if passes {
            rest.heard = head;
            self.steps += 1;
        }
        passes
    }

    /// Hands a machine the blocks that were kept back.
    pub(crate) fn hand_over(&mut self, id: NodeId) {
        let rest = std::mem::take(&mut self.rests[id.place()]);
        let node = &mut self.nodes[id.place()];
        let (Some(machine), Some(seen)) = (&mut node.machine, node.seen) else {
            return;
        };
        for block in seen.0 + 1..=rest.heard.0 {
            let Some(snapshot) = self.chain.block(Block(block)) else {
                return;
            };
            let effects = machine.handle(&Event::Block(snapshot.clone()));
            assert!(effects.is_empty(), "a block that asks nothing");
            node.seen = Some(Block(block));
        }
    }
}
