//! What a role machine hears and what it asks for: the one vocabulary of journal, replay, report,
//! dashboard and tests.
//!
//! ```text
//! chain, peers, compute ──Event──▶ machine ──Effect──▶ chain, peers, compute
//!                            └── both, in one record, to the journal, before any effect ──┘
//! ```
//!
//! Tensors, sockets and clocks do not occur: bytes are names and sizes, time is a block.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::announcement::{Announcement, Salt};
use crate::conduct::Misconduct;
use crate::consensus::Verdict;
use crate::ids::{BlobId, Block, Cycle, Hotkey, StateId, Uid};
use crate::job::{Finding, Job, Outcome, Trained};
use crate::receipt::{CycleReceipts, Receipt};
use crate::received::ReceivedDocument;
use crate::review::Reviewed;
use crate::rewards::CycleRewards;
use crate::snapshot::{Endpoint, Snapshot, hex_bytes};

/// Something that happened outside of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The process started, perhaps again: whatever was asked for and not answered is asked again.
    Started,
    /// The chain has a new block. Every block comes once, in order.
    Block(Arc<Snapshot>),
    /// A document that was asked for, whole and matching its name.
    Document {
        /// Its name.
        blob: BlobId,
        /// Its bytes.
        #[serde(rename = "bytes")]
        document: Arc<ReceivedDocument>,
        /// Bytes that came over the network for it; none where it was here already.
        #[serde(default)]
        received: u64,
    },
    /// A blob that was asked for is in the store.
    Fetched {
        /// Its name.
        blob: BlobId,
        /// Bytes that came over the network for it; none where it was here already.
        #[serde(default)]
        received: u64,
    },
    /// A blob could not be had.
    FetchFailed {
        /// Its name.
        blob: BlobId,
        /// Every server answered that it does not have it, as opposed to not answering.
        absent: bool,
    },
    /// A miner uploaded an update; it is stored and waits for an answer.
    Uploaded {
        /// Identifies the request to answer.
        ticket: u64,
        /// Who signed the request.
        hotkey: Hotkey,
        /// The cycle that it names.
        cycle: Cycle,
        /// The stored bytes.
        blob: BlobId,
    },
    /// A validator answered an upload of ours, or could not be reached.
    Delivered {
        /// What was uploaded.
        blob: BlobId,
        /// To whom.
        to: Hotkey,
        /// What it said.
        answer: Delivery,
    },
    /// A job ended.
    Finished {
        /// How.
        outcome: Outcome,
        /// Fresh random bytes, for a machine cannot draw any itself.
        #[serde(with = "hex_salt")]
        entropy: Salt,
    },
    /// The chain refused a write of ours.
    ChainRefused {
        /// In the chain's words.
        reason: String,
    },
    /// The answer to [`Effect::AskReceipt`].
    Receipt {
        /// The cycle that was asked for.
        cycle: Cycle,
        /// The receipt, its signature verified as that of the validator which it names; `None` where
        /// nobody that was asked had one.
        receipt: Option<Box<Receipt>>,
    },
    /// The operator of an owner has another task to announce, which is in the store.
    TaskGiven {
        /// Its manifest.
        task: BlobId,
    },
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The validator has it.
    Accepted,
    /// The validator does not want it, for the reason given; asking again will not help.
    Refused(String),
    /// No answer, or one that says to come back later.
    Unreachable(String),
}

/// Something that the machine wants done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Bring a blob into the store, from the first server that has it.
    Fetch(Fetch),
    /// Keep a document that the machine wrote.
    Store {
        /// Its bytes; its name is their hash.
        #[serde(with = "hex_bytes")]
        bytes: Arc<[u8]>,
    },
    /// Drop blobs from the store: nobody here needs them any more, and whoever does after all fetches
    /// them anew.
    Forget {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// Write a record on the chain.
    Announce {
        /// What.
        announcement: Announcement,
    },
    /// Set weights on the chain, relative to each other.
    SetWeights {
        /// Slot and weight.
        weights: Vec<(Uid, f64)>,
    },
    /// Publish our address on the chain.
    Serve {
        /// The address.
        endpoint: Endpoint,
    },
    /// Upload an update to a validator.
    Deliver {
        /// The cycle that it is for.
        cycle: Cycle,
        /// The update.
        blob: BlobId,
        /// Who should have it.
        to: Hotkey,
        /// Where it serves.
        endpoint: Endpoint,
    },
    /// Start a job on the compute thread.
    Run(Job),
    /// Answer an upload.
    Answer {
        /// The request.
        ticket: u64,
        /// The answer.
        answer: UploadAnswer,
    },
    /// Sign a cycle's receipts and serve them.
    Issue(Box<CycleReceipts>),
    /// Ask validators for their receipt for our submission, until one has it.
    AskReceipt {
        /// The cycle.
        cycle: Cycle,
        /// Whom to ask, and where.
        from: Vec<(Hotkey, Endpoint)>,
    },
    /// Something that people want to know. Has no consequence.
    Tell(Milestone),
}

/// A blob to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Its name.
    pub blob: BlobId,
    /// Whether the machine wants to read it.
    pub form: Form,
    /// Largest size to accept, in bytes.
    pub maximum_bytes: u64,
    /// Servers, the preferred one first.
    pub sources: Arc<[Endpoint]>,
}

/// In which form a blob is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Small, and to be handed to the machine.
    Document,
    /// To be kept in the store for the learner.
    Blob,
    /// Like a blob, but named by a stranger: no longer than an update can be (P-19).
    Update,
}

/// A validator's answer to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadAnswer {
    /// Taken; it will be considered if the chain's reveal names it.
    Accepted,
    /// The same bytes were taken before.
    Repeated,
    /// Another update of this hotkey was taken before in this cycle.
    AlreadySubmitted,
    /// The reveal window has not opened.
    TooEarly,
    /// The reveal window has closed, or the cycle is another.
    TooLate,
    /// The hotkey has no sealed commitment in this cycle.
    NotSealed,
}

/// What people want to know of a role's doings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "milestone", rename_all = "snake_case")]
pub enum Milestone {
    /// The hotkey is not registered; nothing can be done until it is.
    NotRegistered,
    /// The task is known and sound, and is worked on from here on.
    TaskLoaded {
        /// Its manifest.
        task: BlobId,
    },
    /// A task that follows the present one is known and sound.
    TaskFollows {
        /// Its manifest.
        task: BlobId,
        /// The first cycle under it, if the validators are ready by then.
        cycle: Cycle,
        /// That cycle's first block.
        starts: Block,
    },
    /// An announced task is not worked on.
    TaskRefused {
        /// Why.
        reason: String,
    },
    /// The base of a cycle is complete.
    BaseReady {
        /// The cycle.
        cycle: Cycle,
        /// The state.
        state: StateId,
        /// Bytes that came over the network for it.
        #[serde(default)]
        bytes_fetched: u64,
        /// Bytes of the shards that were missing: what fetching them whole would have taken.
        #[serde(default)]
        bytes_whole: u64,
        /// Whether some of it was recomputed from the state before.
        #[serde(default)]
        recomputed: bool,
    },
    /// Training ended too late; the update is presented in the next cycle.
    PresentedLate {
        /// The cycle that it was trained in.
        trained: Cycle,
        /// The cycle that it is presented in.
        cycle: Cycle,
        /// The update.
        update: BlobId,
    },
    /// Training ended.
    Trained(Trained),
    /// What earlier updates left unsent could not be used, and nothing is owed any more (P-38).
    ResidualDropped {
        /// The cycle.
        cycle: Cycle,
        /// Why.
        cause: String,
    },
    /// A job ended without a result.
    JobFailed {
        /// The cycle.
        cycle: Cycle,
        /// Why.
        cause: String,
    },
    /// Our own measurements of a cycle.
    Measured {
        /// The cycle.
        cycle: Cycle,
        /// Hotkey and finding.
        findings: Vec<(Hotkey, Finding)>,
    },
    /// The validators' verdicts, as they follow from the chain.
    Judged {
        /// The cycle.
        cycle: Cycle,
        /// Whether more than half of the stake reported.
        quorum: bool,
        /// One verdict a submission.
        verdicts: Vec<Verdict>,
        /// What was earned.
        rewards: CycleRewards,
    },
    /// What all voters found of the submissions of the cycle before that were drawn for review.
    Reviewed {
        /// The cycle in which they were reviewed.
        cycle: Cycle,
        /// One a submission.
        reviewed: Vec<Reviewed>,
    },
    /// What voters did wrong in a cycle; not told where nobody did.
    Conduct {
        /// The cycle.
        cycle: Cycle,
        /// Whoever did something wrong, and what.
        conduct: BTreeMap<Hotkey, Misconduct>,
    },
    /// Our own measurement at the gate.
    Gate {
        /// The cycle.
        cycle: Cycle,
        /// Mean loss of the incumbent.
        incumbent_loss: f64,
        /// Mean loss of the candidate.
        candidate_loss: Option<f64>,
        /// Our vote.
        approves: bool,
    },
    /// A cycle ended.
    Concluded {
        /// The cycle.
        cycle: Cycle,
        /// The canonical state from now on.
        state: StateId,
        /// Whether the gate passed; `None` when the votes decided nothing.
        passed: Option<bool>,
        /// What each validator committed to: the state that follows from its vote and the outcome.
        committed: Vec<(Hotkey, StateId)>,
    },
    /// Weights were sent to the chain.
    WeightsSent {
        /// Miners that get some.
        miners: usize,
        /// The share that is withheld, of all that the history holds.
        withheld: f64,
        /// Whether it is the weight of the subnet owner's slot; otherwise the owner has none, and the
        /// chain divides the whole among the miners.
        to_owner: bool,
    },
    /// What a validator says in writing of our submission.
    Receipt(Box<Receipt>),
    /// Whether our update is part of the state that followed.
    Included {
        /// The cycle of the submission.
        cycle: Cycle,
        /// The update.
        update: BlobId,
        /// Whether the next state's manifest names it.
        merged: bool,
    },
    /// The chain refused a write.
    ChainRefused {
        /// In its words.
        reason: String,
    },
}

/// What a machine asks for, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// Adds one.
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Adds something for people.
    pub fn tell(&mut self, milestone: Milestone) {
        self.0.push(Effect::Tell(milestone));
    }

    /// Takes them out.
    #[must_use]
    pub fn into_vec(self) -> Vec<Effect> {
        self.0
    }
}

mod hex_salt {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::announcement::Salt;

    pub(super) fn serialize<S: Serializer>(salt: &Salt, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(salt))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Salt, D::Error> {
        let mut salt = Salt::default();
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut salt)
            .map_err(de::Error::custom)?;
        Ok(salt)
    }
}
