//! A role machine of any kind, as the driver, the journal and `connito replay` see it.

use serde::{Deserialize, Serialize};

use crate::copier::Copier;
use crate::event::{Effect, Event};
use crate::follow::Identity;
use crate::ids::{BlobId, Block, Hotkey, StateId};
use crate::miner::Miner;
use crate::owner::Owner;
use crate::validator::{Admission, Validator};

/// What makes a machine: the first line of its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Character {
    /// Who it is.
    pub identity: Identity,
    /// What it does.
    pub role: Role,
}

/// What a participant does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Announces and serves a task.
    Owner {
        /// The task's manifest.
        task: BlobId,
    },
    /// Scores, merges, votes and serves.
    Validator,
    /// Trains.
    Miner,
    /// Pretends to: a rehearsal of copying.
    Copier {
        /// Whose work it copies.
        victim: Hotkey,
    },
}

impl Role {
    /// The word for it, lower-case.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Owner { .. } => "owner",
            Self::Validator => "validator",
            Self::Miner | Self::Copier { .. } => "miner",
        }
    }
}

/// One of the role machines.
#[derive(Debug, Clone)]
pub enum Machine {
    /// An owner.
    Owner(Box<Owner>),
    /// A validator.
    Validator(Box<Validator>),
    /// A miner.
    Miner(Box<Miner>),
    /// A copier.
    Copier(Box<Copier>),
}

impl Machine {
    /// A machine at its beginning.
    #[must_use]
    pub fn new(character: &Character) -> Self {
        let identity = character.identity;
        match character.role {
            Role::Owner { task } => Self::Owner(Box::new(Owner::new(identity, task))),
            Role::Validator => Self::Validator(Box::new(Validator::new(identity))),
            Role::Miner => Self::Miner(Box::new(Miner::new(identity))),
            Role::Copier { victim } => Self::Copier(Box::new(Copier::new(identity, victim))),
        }
    }

    /// Takes an event, gives what is to be done, in order.
    pub fn handle(&mut self, event: &Event) -> Vec<Effect> {
        match self {
            Self::Owner(owner) => owner.handle(event),
            Self::Validator(validator) => validator.handle(event),
            Self::Miner(miner) => miner.handle(event),
            Self::Copier(copier) => copier.handle(event),
        }
        .into_vec()
    }

    /// What the upload server may take; nothing unless this is a validator.
    #[must_use]
    pub fn admission(&self) -> Option<Admission> {
        match self {
            Self::Validator(validator) => validator.admission(),
            Self::Owner(_) | Self::Miner(_) | Self::Copier(_) => None,
        }
    }

    /// Whether the role has a use for a blob that it was sent; only validators are sent any.
    #[must_use]
    pub fn knows(&self, blob: BlobId) -> bool {
        match self {
            Self::Validator(validator) => validator.knows(blob),
            Self::Owner(_) | Self::Miner(_) | Self::Copier(_) => true,
        }
    }

    /// The block before which blocks that continue the last one (see [`Snapshot::continues`]) and are the
    /// newest ask nothing of this role. A driver of many may keep them back until something else comes,
    /// and hand them over before it.
    ///
    /// [`Snapshot::continues`]: crate::snapshot::Snapshot::continues
    #[must_use]
    pub fn rests_until(&self) -> Option<Block> {
        match self {
            Self::Miner(miner) => miner.rests_until(),
            Self::Owner(_) | Self::Validator(_) | Self::Copier(_) => None,
        }
    }

    /// The canonical state, as far as this role knows.
    #[must_use]
    pub fn canonical(&self) -> Option<StateId> {
        match self {
            Self::Owner(owner) => owner.canonical(),
            Self::Validator(validator) => validator.canonical(),
            Self::Miner(miner) => miner.canonical(),
            Self::Copier(copier) => copier.canonical(),
        }
    }
}

/// One line of a journal: what was heard, and what was asked for in answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What was heard.
    pub event: Event,
    /// What was asked for.
    pub effects: Vec<Effect>,
}
