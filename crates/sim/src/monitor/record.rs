//! What the monitor knows of one cycle: what stood on the chain, and what honest participants said of it.
//!
//! Filled by `monitor.rs` as blocks and steps come in, read by the invariants. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use connito_protocol::consensus::Verdict;
use connito_protocol::ids::{BlobId, Hotkey, StateId};
use connito_protocol::job::Finding;
use connito_protocol::rewards::CycleRewards;
use connito_protocol::snapshot::Snapshot;
use connito_protocol::submission::Submission;

use super::hearing::Hearing;
use crate::names::NameMap;
use crate::network::NodeId;

/// What honest validators said of a cycle's submissions.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) quorum: bool,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) rewards: CycleRewards,
}

/// The same in the words of one of them: quorum, verdicts, rewards.
pub(crate) type Told<'a> = (bool, &'a [Verdict], &'a CycleRewards);

impl Judged {
    pub(crate) fn told(&self) -> Told<'_> {
        (self.quorum, &self.verdicts, &self.rewards)
    }
}

/// What is known of one cycle.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(super) sealed: Option<Arc<Snapshot>>,
    /// Committees that hostile validators captured.
    pub(super) captures: u64,
    /// What may be said anew, for a fork has reached what it followed from.
    pub(super) anew: Anew,
    /// Who decides, and who was heard.
    pub(crate) hearing: Hearing,
    /// What every submission came to, as the chain shows it.
    pub(crate) submissions: Option<Vec<Submission>>,
    /// The updates among them that were opened.
    pub(crate) opened: BTreeSet<(Hotkey, BlobId)>,
    pub(crate) judged: Option<Judged>,
    /// The pair of states that honest validators voted for.
    pub(crate) pair: Option<(StateId, StateId)>,
    /// Who has measured already.
    pub(crate) measured: BTreeSet<NodeId>,
    /// What honest validators found, by miner.
    pub(crate) findings: BTreeMap<Hotkey, Vec<(NodeId, Finding)>>,
    /// Gate losses that honest validators measured: incumbent and candidate.
    pub(crate) gate: Vec<(f64, Option<f64>)>,
    /// Uploads that a validator has acknowledged.
    pub(crate) accepted: BTreeMap<NodeId, NameMap<Hotkey, BlobId>>,
}

impl Record {
    pub(super) fn show(&mut self, submissions: Option<Vec<Submission>>) {
        let opened = submissions.iter().flatten();
        let opened = opened.filter_map(|shown| Some((shown.hotkey, shown.update()?)));
        self.opened = opened.collect();
        self.submissions = submissions;
    }
}

/// What honest validators have said of a cycle and may say otherwise, once, after a fork. Until somebody
/// does, it stands: not everything that a fork reaches comes out differently, or is said again.
#[derive(Debug, Default)]
pub(super) struct Anew {
    pub(super) judged: bool,
    pub(super) pair: bool,
    pub(super) gate: bool,
}
