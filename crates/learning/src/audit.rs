//! Whether a cycle led where its votes say (P-47).
//!
//! Inputs are the state before, what the chain's records amount to
//! ([`Observed`](connito_protocol::audit::Observed)), the state that was decided, and the blobs. Every
//! part of the new state is computed again and compared by name: its parent, the archive, the merged
//! updates with their weights, and each group's bytes. Nothing is written: what is computed is only named.
//!
//! Knows no chain, and no losses: that the gate measured rightly is the validators' word.

use std::collections::BTreeMap;

use connito_protocol::audit::Observed;
use connito_protocol::consensus::Verdict;
use connito_protocol::ids::{BlobId, GroupId, StateId};
use connito_protocol::manifest::{Document, GroupState, StateManifest, TaskManifest};
use connito_protocol::reason::ReasonCode;

use crate::shard::Layout;
use crate::store::{Blob, BlobStore, StoreError};
use crate::succession::{Succession, SuccessionError, of_group};
use crate::wire::{self, Rejection};

/// The first thing that does not match.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// A blob that must be there is not, or is not what its name says.
    #[error("{what} cannot be read")]
    Unreadable {
        /// What it stands for.
        what: String,
        /// Why, with its name.
        #[source]
        source: StoreError,
    },
    /// A document is not one.
    #[error("{what} {id} is no such document: {detail}")]
    NoDocument {
        /// What it should be.
        what: &'static str,
        /// Its name.
        id: BlobId,
        /// What is wrong with it.
        detail: String,
    },
    /// The first state's shard does not fit the task.
    #[error("shard {id} of group {group} is none")]
    NoShard {
        /// The group.
        group: GroupId,
        /// The shard.
        id: BlobId,
        /// What is wrong with it.
        #[source]
        rejection: Rejection,
    },
    /// The first state is none that a task can begin with.
    #[error("state {state} is none to begin with: it has another {field} than a first state")]
    NotFirst {
        /// The state.
        state: StateId,
        /// The field of its manifest.
        field: &'static str,
    },
    /// A state was decided without enough reports.
    #[error("state {state} was decided although too little stake reported scores")]
    NoQuorum {
        /// The state.
        state: StateId,
    },
    /// The new state's manifest says something else than the records.
    #[error("state {state} has another {field} than follows from the chain's records")]
    Field {
        /// The state.
        state: StateId,
        /// The field of its manifest.
        field: &'static str,
    },
    /// A group of the new state has other bytes than its updates give.
    #[error("group {group} of state {state} has another {field}: recomputed it is {computed}")]
    Group {
        /// The state.
        state: StateId,
        /// The group.
        group: GroupId,
        /// Which of its entries.
        field: &'static str,
        /// What the updates give.
        computed: String,
    },
    /// The votes' other state is not the one that was to be voted on.
    #[error("the votes name {named} beside the decided state, recomputed it is {computed}")]
    OtherState {
        /// By the votes.
        named: StateId,
        /// As recomputed.
        computed: StateId,
    },
    /// A group cannot be stepped.
    #[error("group {group} cannot be recomputed")]
    Succession {
        /// The group.
        group: GroupId,
        /// Why.
        #[source]
        source: SuccessionError,
    },
}

/// What a cycle's votes decided, as far as the chain still tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The state that follows.
    pub next: StateId,
    /// The state if the gate lets pass, and the one if not; unknown where the votes are pruned.
    pub vote: Option<(StateId, StateId)>,
}

/// Which updates have to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// All that were judged by their bytes: of a folder that somebody collected.
    Judged,
    /// Those with weight: a validator keeps of the others only what it scored itself (P-7).
    Accepted,
}

/// Audits cycles of one task. Reads from `store`; what it computes it hands there to be named.
#[derive(Clone, Copy)]
pub struct Auditor<'a> {
    /// The blobs.
    pub store: &'a dyn BlobStore,
    /// The task.
    pub task: &'a TaskManifest,
    /// Names and shapes of each group's tensors.
    pub layouts: &'a BTreeMap<GroupId, Layout>,
}

impl std::fmt::Debug for Auditor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auditor").finish_non_exhaustive()
    }
}

impl Auditor<'_> {
    /// Everything that the task names is there, and its first state can be begun with. Nothing for a task
    /// that goes on with the state of the one before (P-39).
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn begin(&self) -> Result<Option<(StateId, StateManifest)>, Mismatch> {
        let model = &self.task.model;
        self.whole("the model's configuration", model.config)?;
        self.whole("the tokenizer", model.tokenizer)?;
        self.whole("the backbone", model.backbone)?;
        for domain in &self.task.domains {
            let pools = [domain.training, domain.scoring, domain.gate];
            for (pool, id) in ["training", "scoring", "gate"].into_iter().zip(pools) {
                self.whole(format!("the {pool} text of {}", domain.name), id)?;
            }
        }
        let Some(id) = self.task.first_state else {
            return Ok(None);
        };
        let state = self.state(id)?;
        let groups = state.groups.iter().map(|group| group.group);
        let wrong = [
            ("cycle", state.cycle != self.task.first_cycle),
            ("parent", state.parent.is_some()),
            ("list of groups", !groups.eq(self.task.group_ids())),
        ];
        if let Some((field, _)) = wrong.into_iter().find(|(_, wrong)| *wrong) {
            return Err(Mismatch::NotFirst { state: id, field });
        }
        for group in &state.groups {
            self.first_shard(group)?;
        }
        Ok(Some((id, state)))
    }

    fn first_shard(&self, group: &GroupState) -> Result<(), Mismatch> {
        let blob = self.whole(format!("the shard of group {}", group.group), group.shard)?;
        let no_layout = Layout::new();
        let layout = self.layouts.get(&group.group).unwrap_or(&no_layout);
        wire::open_shard(&blob, layout).map_err(|rejection| Mismatch::NoShard {
            group: group.group,
            id: group.shard,
            rejection,
        })?;
        Ok(())
    }

    /// The required updates are there, and every other one that is there is whole. Gives how many were
    /// judged by their bytes and are not there.
    ///
    /// # Errors
    /// The first that is not as it should be.
    pub fn uploads(&self, observed: &Observed, required: Required) -> Result<usize, Mismatch> {
        let mut unseen = 0;
        for verdict in &observed.verdicts {
            let Some(update) = verdict.update else {
                continue;
            };
            let judged = was_read(verdict);
            let must = judged && (required == Required::Judged || verdict.weight > 0.0);
            if must || self.store.has(update) {
                let (hotkey, group) = (verdict.hotkey, verdict.group);
                self.whole(format!("the update of {hotkey} for group {group}"), update)?;
            } else if judged {
                unseen += 1;
            }
        }
        Ok(unseen)
    }

    /// The decided state, if it is the one that follows from the state before and the records.
    ///
    /// # Errors
    /// The first thing that is not as recomputed.
    pub fn successor(
        &self,
        base: (StateId, &StateManifest),
        observed: &Observed,
        decision: &Decision,
    ) -> Result<StateManifest, Mismatch> {
        let state = decision.next;
        if !observed.quorum {
            return Err(Mismatch::NoQuorum { state });
        }
        let found = self.state(state)?;
        let passed = match decision.vote {
            Some((candidate, _)) => candidate == state,
            // Nothing distinguishes the two where nothing was accepted: they are one state.
            None => observed.accepted.is_empty() || !found.merged.is_empty(),
        };
        let facts = facts(base, observed, passed);
        differing(&found, &facts).map_or(Ok(()), |field| Err(Mismatch::Field { state, field }))?;
        let archive = BlobId::of(&observed.archive.to_bytes());
        self.whole(format!("the archive of cycle {}", observed.cycle), archive)?;
        for (before, after) in base.1.groups.iter().zip(&found.groups) {
            let computed = self.group(before, observed, passed)?;
            same_group(state, after, &computed)?;
            self.whole(format!("the shard of group {}", after.group), after.shard)?;
            if let Some(momentum) = after.momentum {
                self.whole(format!("the momentum of group {}", after.group), momentum)?;
            }
        }
        if let Some(vote) = decision.vote {
            let other = if passed { vote.1 } else { vote.0 };
            self.other_state(other, facts_of_other(base, observed, passed))?;
        }
        Ok(found)
    }

    /// The state that the gate did not choose, named by the votes all the same.
    fn other_state(
        &self,
        named: StateId,
        (facts, (base, observed, passed)): (StateManifest, Side<'_>),
    ) -> Result<(), Mismatch> {
        let mut computed = facts;
        computed.groups.clear();
        for before in &base.groups {
            computed.groups.push(self.group(before, observed, passed)?);
        }
        if computed.id() != named {
            let computed = computed.id();
            return Err(Mismatch::OtherState { named, computed });
        }
        // Nobody has to keep what was not chosen; what is kept must be whole.
        let parts = std::iter::once(named.manifest_blob()).chain(computed.blobs());
        for id in parts.filter(|id| self.store.has(*id)) {
            self.whole("a part of the state that was not chosen", id)?;
        }
        Ok(())
    }

    /// A group after the merge, or after the gate refused it.
    fn group(
        &self,
        before: &GroupState,
        observed: &Observed,
        passed: bool,
    ) -> Result<GroupState, Mismatch> {
        let group = before.group;
        let own = of_group(group, &observed.accepted);
        let layout = self.layouts.get(&group);
        let Some(layout) = layout.filter(|_| !own.is_empty()) else {
            return Ok(before.clone());
        };
        let succession = Succession {
            store: self.store,
            layout,
            rules: &self.task.rules.outer,
        };
        let computed = if passed {
            succession.merged(before, &own)
        } else {
            succession.damped(before)
        };
        computed.map_err(|source| Mismatch::Succession { group, source })
    }

    /// A state's manifest.
    ///
    /// # Errors
    /// It is not there, not whole, or none.
    pub fn state(&self, state: StateId) -> Result<StateManifest, Mismatch> {
        let (what, id) = ("state manifest", state.manifest_blob());
        self.document(what, id, StateManifest::from_bytes)
    }

    /// A document of any kind.
    ///
    /// # Errors
    /// It is not there, not whole, or none.
    pub fn document<D, E: std::fmt::Display>(
        &self,
        what: &'static str,
        id: BlobId,
        read: impl FnOnce(&[u8]) -> Result<D, E>,
    ) -> Result<D, Mismatch> {
        let blob = self.whole(format!("{what} {}", id.short()), id)?;
        read(&blob).map_err(|error| Mismatch::NoDocument {
            what,
            id,
            detail: error.to_string(),
        })
    }

    fn whole(&self, what: impl Into<String>, id: BlobId) -> Result<Blob, Mismatch> {
        self.store.open(id).map_err(|source| Mismatch::Unreadable {
            what: what.into(),
            source,
        })
    }
}

/// One of the two states that may follow: the state before, the records, and whether the gate let pass.
type Side<'a> = (&'a StateManifest, &'a Observed, bool);

/// What the records alone say of the state that follows; its groups are still those before.
fn facts(
    (base, before): (StateId, &StateManifest),
    observed: &Observed,
    passed: bool,
) -> StateManifest {
    StateManifest {
        format: StateManifest::FORMAT,
        cycle: observed.cycle.next(),
        parent: Some(base),
        archive: Some(BlobId::of(&observed.archive.to_bytes())),
        groups: before.groups.clone(),
        merged: if passed {
            observed.accepted.clone()
        } else {
            Vec::new()
        },
        excluded: observed.excluded.clone(),
    }
}

fn facts_of_other<'a>(
    base: (StateId, &'a StateManifest),
    observed: &'a Observed,
    passed: bool,
) -> (StateManifest, Side<'a>) {
    (facts(base, observed, !passed), (base.1, observed, !passed))
}

fn differing(found: &StateManifest, facts: &StateManifest) -> Option<&'static str> {
    let groups = |state: &StateManifest| -> Vec<GroupId> {
        state.groups.iter().map(|group| group.group).collect()
    };
    [
        ("cycle", found.cycle == facts.cycle),
        ("parent", found.parent == facts.parent),
        ("archive", found.archive == facts.archive),
        ("list of merged updates", found.merged == facts.merged),
        ("list of the excluded", found.excluded == facts.excluded),
        ("list of groups", groups(found) == groups(facts)),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}

fn same_group(state: StateId, found: &GroupState, computed: &GroupState) -> Result<(), Mismatch> {
    let named = |blob: Option<BlobId>| blob.map_or("none".to_owned(), |blob| blob.to_string());
    let norm = |norm: Option<f64>| norm.map_or("none".to_owned(), |norm| norm.to_string());
    let (shards, momenta) = (
        [found, computed].map(|group| named(Some(group.shard))),
        [found, computed].map(|group| named(group.momentum)),
    );
    let norms = [found, computed].map(|group| norm(group.reference_norm));
    let lengths = [found, computed].map(|group| group.bytes.to_string());
    let fields = [
        ("shard", shards),
        ("momentum", momenta),
        ("reference norm", norms),
        ("length", lengths),
    ];
    for (field, [found_text, computed]) in fields {
        if found_text != computed {
            let group = found.group;
            return Err(Mismatch::Group {
                state,
                group,
                field,
                computed,
            });
        }
    }
    Ok(())
}

/// Whether validators must have held the update's bytes to judge it so.
fn was_read(verdict: &Verdict) -> bool {
    match verdict.code {
        ReasonCode::NotUploaded
        | ReasonCode::HashMismatch
        | ReasonCode::LateUpload
        | ReasonCode::TooLarge
        | ReasonCode::Unscored
        | ReasonCode::NotDrawn
        | ReasonCode::CycleVoid => false,
        _ => verdict.update.is_some(),
    }
}
