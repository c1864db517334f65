//! A participant: a real role machine, its journal, what is in its store, and how it dies.
//!
//! A life ends at any boundary: before its last step is durable (a torn record, a full disk), or after,
//! with some of the step's effects carried out and the others not. The next life begins as a process
//! does: the journal is replayed into a fresh machine, which must ask for exactly what is recorded.

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::event::{Effect, Event};
use connito_protocol::ids::{BlobId, Block, Cycle, Hotkey};
use connito_protocol::machine::{Character, Machine, Step};
use connito_protocol::receipt::{CycleReceipts, Receipt};

use crate::adversary::{HostileMiner, HostileValidator, Policy};
use crate::names::NameSet;
use crate::network::NodeId;
use crate::queue::Micros;
use crate::random::Random;

/// What a participant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Owner,
    Validator(Option<HostileValidator>),
    Miner(Option<HostileMiner>),
}

impl Kind {
    pub(crate) fn is_honest(self) -> bool {
        match self {
            Self::Owner => true,
            Self::Validator(hostile) => hostile.is_none(),
            Self::Miner(hostile) => hostile.is_none(),
        }
    }

    pub(crate) fn is_validator(self) -> bool {
        matches!(self, Self::Validator(_))
    }

    pub(crate) fn is_honest_validator(self) -> bool {
        self == Self::Validator(None)
    }

    /// The word for it in reports and traces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Validator(None) => "validator",
            Self::Miner(None) => "honest",
            Self::Validator(Some(hostile)) => hostile.name(),
            Self::Miner(Some(hostile)) => hostile.name(),
        }
    }
}

/// How a life ends in the middle of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Doom {
    /// The record of the step is torn: it is cut at the next start, and nothing was done.
    TornRecord,
    /// The disk is full when the step is to be journalled, or when its first document is to be stored.
    DiskFull,
    /// The disk said that the record is durable, the step was carried out, and the record is gone. No
    /// role survives that and none has to: it is here to see the invariants notice.
    LostRecord,
    /// The step is durable, and this share of its effects is carried out.
    Killed(f64),
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Survival {
    /// Whether it is in the journal.
    pub(crate) durable: bool,
    /// How many of its effects are carried out.
    pub(crate) effects: usize,
    /// Whether the life goes on.
    pub(crate) lives: bool,
}

impl Doom {
    /// What becomes of a step with these effects.
    pub(crate) fn strike(self, effects: &[Effect]) -> Survival {
        let store = |effect: &Effect| matches!(effect, Effect::Store { .. });
        let durable = |effects| Survival {
            durable: true,
            effects,
            lives: false,
        };
        let lost = Survival {
            durable: false,
            effects: 0,
            lives: false,
        };
        match self {
            Self::TornRecord => lost,
            Self::LostRecord => Survival {
                effects: effects.len(),
                ..lost
            },
            Self::DiskFull => effects.iter().position(store).map_or(lost, durable),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a small number, from 0 to 1"
            )]
            Self::Killed(share) => durable((share * (effects.len() + 1) as f64) as usize),
        }
    }
}

/// One participant.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) kind: Kind,
    pub(crate) character: Character,
    /// None while it is down.
    pub(crate) machine: Option<Machine>,
    /// Kept only of those that may crash, and of a few whose replay is checked at the end.
    pub(crate) journal: Option<Vec<Step>>,
    pub(crate) holds: NameSet<BlobId>,
    /// The receipts that a validator serves: those of the newest cycle that it judged, for nobody asks
    /// for an older one (P-42). On its disk, like its blobs: a restart does not lose them.
    pub(crate) issued: Option<Box<CycleReceipts>>,
    /// The last block that it took in and that still stands; none before its first.
    pub(crate) seen: Option<Block>,
    /// Whether a fork has taken back what it took in last, and it has not heard of that yet.
    pub(crate) stands_on_air: bool,
    /// Which life this is: answers to an earlier one are lost.
    pub(crate) life: u32,
    pub(crate) doom: Option<Doom>,
    pub(crate) policy: Option<Box<dyn Policy>>,
    pub(crate) crew: Option<usize>,
    /// The kind of processor.
    pub(crate) class: u32,
    /// How many times as long as others it takes.
    pub(crate) slowness: f64,
    /// When its compute thread is free.
    pub(crate) free_at: Micros,
    /// Who is uploading to it.
    pub(crate) uploading: BTreeSet<Hotkey>,
    pub(crate) random: Random,
    /// Optimiser steps that it took.
    pub(crate) training_steps: u64,
    /// Fetches that have not been answered, and the most there ever were.
    pub(crate) fetching: (u32, u32),
}

/// Why a restart did not lead back to where the last life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diverged {
    /// The step of the journal, counted from 0.
    pub(crate) step: usize,
}

impl Node {
    pub(crate) fn hotkey(&self) -> Hotkey {
        self.character.identity.hotkey
    }

    pub(crate) fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// Keeps receipts, unless there are newer ones.
    pub(crate) fn issue(&mut self, receipts: Box<CycleReceipts>) {
        let kept = self.issued.as_ref();
        if kept.is_none_or(|kept| kept.cycle <= receipts.cycle) {
            self.issued = Some(receipts);
        }
    }

    /// What it serves a miner for a cycle.
    pub(crate) fn receipt(&self, cycle: Cycle, hotkey: Hotkey) -> Option<Receipt> {
        let issued = self.issued.as_ref();
        issued.filter(|issued| issued.cycle == cycle)?.of(hotkey)
    }

    /// Blocks after this one were taken back.
    pub(crate) fn step_back(&mut self, stands: Block) {
        if self.seen > Some(stands) {
            self.seen = Some(stands);
            self.stands_on_air = true;
        }
    }

    /// Feeds the journal to a fresh machine; each step must ask for what is recorded (P-62).
    pub(crate) fn replay(&self) -> Result<Machine, Diverged> {
        let mut machine = Machine::new(&self.character);
        for (step, recorded) in self.journal.iter().flatten().enumerate() {
            if machine.handle(&recorded.event) != recorded.effects {
                return Err(Diverged { step });
            }
        }
        Ok(machine)
    }

    /// The last block in the journal.
    pub(crate) fn last_block(&self) -> Option<Block> {
        let steps = self.journal.iter().flatten().rev();
        steps.into_iter().find_map(|step| match &step.event {
            Event::Block(snapshot) => Some(snapshot.block),
            _ => None,
        })
    }

    /// What its machine says that it has received in a cycle; nothing if that is another one.
    pub(crate) fn received(&self, cycle: Cycle) -> Option<BTreeMap<Hotkey, BlobId>> {
        let admission = self.machine.as_ref().and_then(Machine::admission);
        let of_cycle = admission.filter(|admission| admission.cycle == cycle);
        of_cycle.map(|admission| admission.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_can_end_at_every_boundary_of_a_step() {
        let store = || Effect::Store {
            bytes: Vec::new().into(),
        };
        let answer = || Effect::Announce {
            announcement: connito_protocol::announcement::Announcement::Task {
                task: BlobId([0; 32]),
            },
        };
        let effects = [answer(), store(), answer()];
        let reached: BTreeSet<usize> = (0..100)
            .map(|share| {
                Doom::Killed(f64::from(share) / 100.0)
                    .strike(&effects)
                    .effects
            })
            .collect();
        assert_eq!(reached, (0..=3).collect());
        let full = Doom::DiskFull.strike(&effects);
        assert_eq!(
            (full.durable, full.effects),
            (true, 1),
            "the document does not fit"
        );
        assert!(
            !Doom::DiskFull.strike(&effects[..1]).durable,
            "nor does the record"
        );
        assert!(!Doom::TornRecord.strike(&effects).durable);
        let lost = Doom::LostRecord.strike(&effects);
        assert_eq!((lost.durable, lost.effects, lost.lives), (false, 3, false));
    }
}
