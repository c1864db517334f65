//! Hostile participants: each a policy around the real role machine.
//!
//! ```text
//! event ──▶ machine ──effects──▶ journal ──▶ policy ──▶ what is carried out
//!                                             ▲
//! job's outcome ──▶ policy ──▶ machine        └── effects of its own, with every block
//! ```
//!
//! A policy sees what its operator sees: the chain, the public blobs, its own machine and those of the
//! same crew. It may change the outcome of work, drop or rewrite what is carried out, add writes of its
//! own, and answer other people's requests as it likes. It can open no seal and sign for nobody else.

mod contents;
mod copies;
mod crew;
mod labels;
mod mirror;
mod timing;
mod validators;

use std::fmt;
use std::sync::Arc;

use connito_protocol::assignment::Assignment;
use connito_protocol::event::Effect;
use connito_protocol::ids::{BlobId, Cycle, GroupId, Hotkey, StateId};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::manifest::TaskManifest;
use connito_protocol::schedule::{Moment, Schedule};
use connito_protocol::snapshot::Snapshot;
use connito_protocol::submission::Network;
use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::workshop::Workshop;

pub(crate) use contents::preferred;
pub(crate) use crew::{Crew, Crews};

/// A kind of hostile miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostileMiner {
    /// Copies seals and openings, and earlier updates, of one victim (A-1, A-2).
    Copier,
    /// Submits what a rival had accepted the cycle before (A-2).
    Echo,
    /// The same, with noise added and scaled (A-3, A-4).
    Noiser,
    /// The same, of the best of them, under noise as long as itself (A-3).
    Fogger,
    /// Submits the best of what rivals revealed the cycle before and that was not merged (A-2).
    Scavenger,
    /// The same, with the signs of a part of the values turned around (A-5).
    Flipper,
    /// One trained update under several hotkeys, each time with the experts' numbers in another order that
    /// computes the same (A-6).
    Permuter,
    /// The same, with numbers that were turned into others (A-7).
    Rescaler,
    /// Copies some experts of a rival's earlier update, and trained the rest itself (A-5).
    PartCopier,
    /// Blends two rivals' earlier updates (A-9).
    Blender,
    /// One trained update under several hotkeys (A-11).
    Twins,
    /// One trained update cut into parts, one for each hotkey (A-15).
    Splitter,
    /// Submits the network's own momentum, without training (A-10).
    MomentumRider,
    /// Submits hardly anything, and hopes for luck (A-12, A-68).
    Lazy,
    /// Seals and never opens (A-16).
    Silent,
    /// Seals or opens a window late (A-21).
    Latecomer,
    /// Shows the seal and the opening of an earlier cycle again (A-19).
    Replayer,
    /// Submits another group's experts as its own group's, or its own in another group's name (A-28).
    Trespasser,
    /// Seals several lottery tickets and opens only the one that looks best (A-18).
    OptionHolder,
    /// Trains on the state before and submits a cycle late (A-26).
    Sleeper,
    /// Opens its seal and lets nobody have the update (A-29).
    VanishingBlob,
    /// Enlarges its update to the bound of the rules, or beyond it (A-40).
    Amplifier,
    /// Shrinks its update to next to nothing, to draw the clip down (A-41).
    Shrinker,
    /// Gains on its own domain at the others' cost (A-43).
    Specialist,
    /// Does a little damage in every cycle, below the noise (A-44).
    Drifter,
    /// Reverses and enlarges its update.
    Vandal,
    /// Trains on the scoring pool (A-59, A-62).
    PoolTrainer,
    /// Has friends among the authors of blocks, who try two hashes for the seed (A-61).
    Grinder,
    /// Opens its own seal with a rival's update, to tie with it (A-64).
    Sniper,
    /// Overwrites its seal when rivals have opened theirs, with one that fits a rival's update, and again
    /// when the window has closed (A-24).
    Rewriter,
    /// Sends what is no update: every malformed file there is, one after the other (A-33 to A-55).
    Garbler,
}

/// A kind of hostile validator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostileValidator {
    /// Reports good updates as bad and bad ones as good (A-86).
    Liar,
    /// Praises one miner of its own, which does no work (A-78).
    SelfDealer,
    /// Reports what another validator reported (A-80).
    Parrot,
    /// Reports and votes one thing first and another later: a second report in even cycles, no report any
    /// more in odd ones (A-82).
    TwoFaced,
    /// Takes nobody's upload and says that there was none (A-94).
    Censor,
    /// Serves wrong bytes, or nothing (A-92, A-93, A-131).
    BadMirror,
    /// Measures and never reports (A-81, A-83).
    Withholder,
    /// Votes against every candidate (A-88).
    Vetoer,
    /// Merges something else than everybody (A-89).
    Forker,
}

impl HostileMiner {
    /// Every kind.
    pub const ALL: [Self; 31] = [
        Self::Copier,
        Self::Echo,
        Self::Noiser,
        Self::Fogger,
        Self::Scavenger,
        Self::Flipper,
        Self::Permuter,
        Self::Rescaler,
        Self::PartCopier,
        Self::Blender,
        Self::Twins,
        Self::Splitter,
        Self::MomentumRider,
        Self::Lazy,
        Self::Silent,
        Self::Latecomer,
        Self::Replayer,
        Self::Trespasser,
        Self::OptionHolder,
        Self::Sleeper,
        Self::VanishingBlob,
        Self::Amplifier,
        Self::Shrinker,
        Self::Specialist,
        Self::Drifter,
        Self::Vandal,
        Self::PoolTrainer,
        Self::Grinder,
        Self::Sniper,
        Self::Rewriter,
        Self::Garbler,
    ];

    /// The word for it, as in scenarios and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Copier => "copier",
            Self::Echo => "echo",
            Self::Noiser => "noiser",
            Self::Fogger => "fogger",
            Self::Scavenger => "scavenger",
            Self::Permuter => "permuter",
            Self::Rescaler => "rescaler",
            Self::Flipper => "flipper",
            Self::PartCopier => "part-copier",
            Self::Blender => "blender",
            Self::Twins => "twins",
            Self::Splitter => "splitter",
            Self::MomentumRider => "momentum-rider",
            Self::Lazy => "lazy",
            Self::Silent => "silent",
            Self::Latecomer => "latecomer",
            Self::Replayer => "replayer",
            Self::Trespasser => "trespasser",
            Self::OptionHolder => "option-holder",
            Self::Sleeper => "sleeper",
            Self::VanishingBlob => "vanishing-blob",
            Self::Amplifier => "amplifier",
            Self::Shrinker => "shrinker",
            Self::Specialist => "specialist",
            Self::Drifter => "drifter",
            Self::Vandal => "vandal",
            Self::PoolTrainer => "pool-trainer",
            Self::Grinder => "grinder",
            Self::Sniper => "sniper",
            Self::Rewriter => "rewriter",
            Self::Garbler => "garbler",
        }
    }

    /// Whether all hotkeys of the kind are one person's, and in one group.
    pub(crate) fn is_crew(self) -> bool {
        matches!(
            self,
            Self::Twins
                | Self::Permuter
                | Self::Rescaler
                | Self::Splitter
                | Self::OptionHolder
                | Self::Grinder
        )
    }

    /// The policy of one hotkey; `None` for a copier, which has a role machine of its own.
    pub(crate) fn policy(self) -> Option<Box<dyn Policy>> {
        Some(match self {
            Self::Copier => return None,
            Self::Echo => Box::new(copies::Echo::new(copies::Treatment::None)),
            Self::Noiser => Box::new(copies::Echo::new(copies::Treatment::Noise)),
            Self::Fogger => Box::new(copies::Echo::new(copies::Treatment::Fog)),
            Self::Scavenger => Box::new(copies::Echo::new(copies::Treatment::Scavenge)),
            Self::Permuter => Box::new(mirror::Mirror::new(mirror::Disguise::Permuted)),
            Self::Rescaler => Box::new(mirror::Mirror::new(mirror::Disguise::Rescaled)),
            Self::Flipper => Box::new(copies::Echo::new(copies::Treatment::Flip)),
            Self::PartCopier => Box::new(copies::Echo::new(copies::Treatment::Part)),
            Self::Blender => Box::new(copies::Echo::new(copies::Treatment::Blend)),
            Self::MomentumRider => Box::new(copies::MomentumRider::default()),
            Self::Twins => Box::new(crew::Twins),
            Self::Splitter => Box::new(crew::Splitter),
            Self::OptionHolder => Box::new(crew::OptionHolder),
            Self::Grinder => Box::new(contents::Grinder),
            Self::Silent => Box::new(timing::Silent),
            Self::Latecomer => Box::new(timing::Latecomer::default()),
            Self::Replayer => Box::new(labels::Replayer::default()),
            Self::Trespasser => Box::new(labels::Trespasser::default()),
            Self::Sleeper => Box::new(timing::Sleeper::default()),
            Self::VanishingBlob => Box::new(timing::VanishingBlob),
            Self::Sniper => Box::new(timing::Sniper::default()),
            Self::Rewriter => Box::new(timing::Rewriter::default()),
            Self::Lazy => Box::new(contents::Lazy),
            Self::Amplifier => Box::new(contents::Altered::Amplifier),
            Self::Shrinker => Box::new(contents::Altered::Shrinker),
            Self::Drifter => Box::new(contents::Altered::Drifter),
            Self::Vandal => Box::new(contents::Altered::Vandal),
            Self::Specialist => Box::new(contents::OtherText::OwnDomainOnly),
            Self::PoolTrainer => Box::new(contents::OtherText::ScoringPool),
            Self::Garbler => Box::new(contents::Garbler::default()),
        })
    }
}

impl HostileValidator {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Liar,
        Self::SelfDealer,
        Self::Parrot,
        Self::TwoFaced,
        Self::Censor,
        Self::BadMirror,
        Self::Withholder,
        Self::Vetoer,
        Self::Forker,
    ];

    /// The word for it, as in scenarios and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Liar => "liar",
            Self::SelfDealer => "self-dealer",
            Self::Parrot => "parrot",
            Self::TwoFaced => "two-faced",
            Self::Censor => "censor",
            Self::BadMirror => "bad-mirror",
            Self::Withholder => "withholder",
            Self::Vetoer => "vetoer",
            Self::Forker => "forker",
        }
    }

    /// The policy of one validator; `friend` is the miner that a self-dealer favours.
    pub(crate) fn policy(self, friend: Option<Hotkey>) -> Box<dyn Policy> {
        match self {
            Self::Liar => Box::new(validators::Liar),
            Self::SelfDealer => Box::new(validators::SelfDealer {
                friend,
                updates: Vec::new(),
            }),
            Self::Parrot => Box::new(validators::Parrot::default()),
            Self::TwoFaced => Box::new(validators::TwoFaced::default()),
            Self::Censor => Box::new(validators::Censor),
            Self::BadMirror => Box::new(validators::BadMirror),
            Self::Withholder => Box::new(validators::Withholder),
            Self::Vetoer => Box::new(validators::Vetoer),
            Self::Forker => Box::new(validators::Forker),
        }
    }
}

/// How a server answers a request for a blob that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// With its bytes.
    Right,
    /// With other bytes, which do not match the name.
    Wrong,
    /// It says that it does not have it.
    Denied,
    /// Not at all.
    Silent,
}

/// What everybody knows of the run.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) network: Network,
    pub(crate) task: BlobId,
    pub(crate) manifest: TaskManifest,
    /// The state that cycle 0 builds on.
    pub(crate) first_state: StateId,
    pub(crate) schedule: Schedule,
    pub(crate) assignment: Assignment,
}

impl Setting {
    /// The group that a hotkey is assigned to.
    pub(crate) fn group(&self, hotkey: Hotkey) -> Option<GroupId> {
        self.assignment.group_of(hotkey)
    }
}

/// What a policy acts on.
pub(crate) struct Scene<'a> {
    pub(crate) me: Hotkey,
    /// The newest block that it has seen.
    pub(crate) now: Option<&'a Arc<Snapshot>>,
    pub(crate) setting: &'a Setting,
    pub(crate) workshop: &'a mut Workshop,
    /// Whether some server gives a blob to whoever asks for it.
    pub(crate) is_public: &'a dyn Fn(BlobId) -> bool,
    /// What those of the same crew tell each other.
    pub(crate) crew: &'a mut Crew,
    pub(crate) random: &'a mut Random,
}

impl Scene<'_> {
    pub(crate) fn group(&self) -> GroupId {
        self.setting.group(self.me).unwrap_or_default()
    }

    pub(crate) fn moment(&self) -> Option<Moment> {
        self.setting.schedule.at(self.now?.block)
    }

    pub(crate) fn cycle(&self) -> Cycle {
        self.moment().map_or(Cycle(0), |moment| moment.cycle)
    }
}

/// What a hostile participant does differently. By default nothing.
pub(crate) trait Policy: fmt::Debug {
    /// Changes a job before it is done.
    fn job(&mut self, job: Job, _scene: &mut Scene<'_>) -> Job {
        job
    }

    /// Changes what a job came to, before the machine hears of it.
    fn outcome(&mut self, outcome: Outcome, _scene: &mut Scene<'_>) -> Outcome {
        outcome
    }

    /// Changes what is carried out; `None` drops it.
    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        Some(effect)
    }

    /// Adds effects of its own with every block, after the machine's.
    fn on_block(&mut self, _scene: &mut Scene<'_>) -> Vec<Effect> {
        Vec::new()
    }

    /// How it serves a blob that it has.
    fn serves(&self, _blob: BlobId) -> Service {
        Service::Right
    }

    /// Whether it takes an upload.
    fn takes(&self, _from: Hotkey) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
