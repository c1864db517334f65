//! The three documents that define a run: the task, the state, and a cycle's archive (P-3, P-4, P-34).
//!
//! Each is canonical JSON (the fields in the order of the structs, no white space) named by its
//! BLAKE3 hash; reading refuses any other spelling of the same facts, so that one document has one
//! name. They hold names of blobs, never tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::assignment::{TicketsError, check_tickets};
use crate::ids::{BlobId, Block, BlockHash, Cycle, GroupId, Hotkey, Netuid, StateId};
use crate::partition::{self, ExpertMapping, PartitionError};
use crate::rules::{Rules, RulesError, SelectionTop};
use crate::schedule::{Schedule, Window};
use crate::snapshot::{Record, Voter};

/// Largest document that a role machine reads, in bytes.
pub const MAXIMUM_DOCUMENT_BYTES: u64 = 4 << 20;

/// The last block with which a task may begin: any number that every reader of JSON has exactly, and far
/// enough from the end of u64 for sums of a few windows.
const LAST_START: Block = Block(1 << 53);

const FORMAT: u32 = 1;

/// What is to be trained, on what, under which rules. Published by the owner (P-3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskManifest {
    /// Version of this document's layout.
    pub format: u32,
    /// A name for people.
    pub name: String,
    /// The subnet that it is for.
    pub netuid: Netuid,
    /// The task that this one replaces; none for the first.
    pub follows: Option<BlobId>,
    /// The first block of the first cycle.
    pub starts: Block,
    /// The number of the first cycle: 0, or the one after the last cycle of the task before.
    pub first_cycle: Cycle,
    /// The rules.
    pub rules: Rules,
    /// The model.
    pub model: ModelParts,
    /// The partition of its experts.
    pub groups: Vec<ExpertMapping>,
    /// Tickets of each group: its part of all tickets is its part of all hotkeys (P-6).
    pub tickets: Vec<u16>,
    /// The text that each group is trained and judged on.
    pub domains: Vec<Domain>,
    /// The manifest of the state that the first cycle builds on; none to go on with the canonical state
    /// of the task before.
    pub first_state: Option<StateId>,
}

/// The parts of the model that no update ever changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelParts {
    /// The model's `config.json`.
    pub config: BlobId,
    /// The `tokenizer.json`.
    pub tokenizer: BlobId,
    /// Every tensor that is not a routed expert's, as safetensors.
    pub backbone: BlobId,
}

/// A domain's text, already turned into tokens and split into pools that share no document (A-63).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// The group that is trained on it.
    pub group: GroupId,
    /// What miners train on.
    pub training: BlobId,
    /// What updates are scored on.
    pub scoring: BlobId,
    /// What the gate is measured on.
    pub gate: BlobId,
}

/// A state of the model: which bytes each group's experts have (P-4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateManifest {
    /// Version of this document's layout.
    pub format: u32,
    /// The first cycle that builds on this state.
    pub cycle: Cycle,
    /// The state before it; none for the first.
    pub parent: Option<StateId>,
    /// The on-chain inputs that led from the parent here; none for the first.
    pub archive: Option<BlobId>,
    /// The groups' shards, in the order of the groups.
    pub groups: Vec<GroupState>,
    /// The updates that were merged into it.
    pub merged: Vec<MergedUpdate>,
    /// Validators that no committee is drawn from, and the first cycle in which they may be drawn again
    /// (P-46). Part of the state, so that a newcomer learns it without the past.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub excluded: BTreeMap<Hotkey, Cycle>,
}

/// The bytes of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupState {
    /// The group.
    pub group: GroupId,
    /// Its experts' tensors, f32 safetensors.
    pub shard: BlobId,
    /// Length of the shard, and of the momentum.
    pub bytes: u64,
    /// The outer optimiser's momentum, laid out like the shard; none while it is zero.
    pub momentum: Option<BlobId>,
    /// Weighted median norm of the updates last accepted: the yardstick of the norm bound (A-40).
    pub reference_norm: Option<f64>,
}

/// An update that became part of a state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergedUpdate {
    /// The group.
    pub group: GroupId,
    /// Whose it was.
    pub hotkey: Hotkey,
    /// The update.
    pub update: BlobId,
    /// Its length.
    pub bytes: u64,
    /// Its weight before normalising: significant gain in nats a token.
    pub weight: f64,
}

/// What stood on the chain during a cycle, as far as it decides the next state (A-126).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CycleArchive {
    /// Version of this document's layout.
    pub format: u32,
    /// The cycle.
    pub cycle: Cycle,
    /// The state that it built on.
    pub base: StateId,
    /// First block of the cycle, by which reviews were drawn (P-46); none where nothing was reviewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<BlockRef>,
    /// Last block of the seal window.
    pub sealed: BlockRef,
    /// Last block of the reveal window.
    pub revealed: BlockRef,
    /// The block whose hash seeds the evaluation.
    pub seeded: BlockRef,
    /// Last block of the score window.
    pub scored: BlockRef,
    /// The block as of which attestations were read; none where no report names a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<BlockRef>,
    /// Validators and stakes as of the last block of the reveal window.
    pub voters: Vec<Voter>,
    /// Records of the seal window.
    pub seals: Arc<BTreeMap<Hotkey, Record>>,
    /// Records of the reveal window.
    pub reveals: Arc<BTreeMap<Hotkey, Record>>,
    /// Who of those that sealed was not registered any more as of the last block of the reveal window.
    pub unregistered: BTreeSet<Hotkey>,
    /// Records of the reports that count, and of all that name a body, whether it counts or not.
    pub reports: BTreeMap<Hotkey, Record>,
    /// Records that attest which bodies are held (P-44).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attestations: BTreeMap<Hotkey, Record>,
    /// Two records of each validator that reported twice: the evidence why neither counts (A-82).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub equivocations: BTreeMap<Hotkey, [Record; 2]>,
}

/// A block by number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRef {
    /// Number.
    pub number: Block,
    /// Hash.
    pub hash: BlockHash,
}

/// A document that is named by the hash of its canonical bytes.
pub trait Document: Serialize + DeserializeOwned {
    /// What it is called in an error.
    const KIND: &'static str;

    /// The layout version that the document claims.
    fn format(&self) -> u32;

    /// The canonical bytes.
    #[must_use]
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("documents hold only finite numbers and string keys")
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Not JSON of this shape, another format version, or another spelling of the same facts.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document: Self =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Json {
                kind: Self::KIND,
                source,
            })?;
        if document.format() != FORMAT {
            return Err(DocumentError::Format {
                kind: Self::KIND,
                format: document.format(),
            });
        }
        if document.to_bytes() != bytes {
            return Err(DocumentError::NotCanonical { kind: Self::KIND });
        }
        Ok(document)
    }
}

macro_rules! document {
    ($name:ident, $kind:literal) => {
        impl Document for $name {
            const KIND: &'static str = $kind;
            fn format(&self) -> u32 {
                self.format
            }
        }

        impl $name {
            /// The layout version that this program writes.
            pub const FORMAT: u32 = FORMAT;
        }
    };
}

document!(TaskManifest, "task manifest");
document!(StateManifest, "state manifest");
document!(CycleArchive, "cycle archive");

impl TaskManifest {
    /// Which block lies where.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::new(self.starts, self.rules.windows).counting_from(self.first_cycle)
    }

    /// Names the first thing in the task that cannot be worked with.
    ///
    /// # Errors
    /// A beginning that is none, rules out of range, a partition with a hole, tickets that cannot be drawn for, a domain of an
    /// unknown group, or a group that no domain trains.
    pub fn check(&self) -> Result<(), TaskError> {
        self.rules.check()?;
        self.check_beginning()?;
        partition::check(&self.groups)?;
        self.check_selection()?;
        check_tickets(&self.tickets, self.groups.len())?;
        for domain in &self.domains {
            if usize::from(domain.group.0) >= self.groups.len() {
                return Err(TaskError::UnknownGroup {
                    domain: domain.name.clone(),
                    group: domain.group,
                });
            }
        }
        let untrained = self
            .group_ids()
            .into_iter()
            .find(|group| self.domains.iter().all(|domain| domain.group != *group));
        untrained.map_or(Ok(()), |group| Err(TaskError::NoDomain { group }))
    }

    /// As [`Self::check`], and that the task is one of this subnet.
    ///
    /// # Errors
    /// As there, or it is for another subnet.
    pub fn check_on(&self, netuid: Netuid) -> Result<(), TaskError> {
        self.check()?;
        if self.netuid == netuid {
            return Ok(());
        }
        Err(TaskError::OtherSubnet {
            netuid: self.netuid,
        })
    }

    /// The first task begins with cycle 0 and a state of its own.
    fn check_beginning(&self) -> Result<(), TaskError> {
        match (self.follows, self.first_state) {
            _ if self.starts > LAST_START => Err(TaskError::Starts {
                starts: self.starts,
            }),
            (None, _) if self.first_cycle != Cycle(0) => Err(TaskError::FirstCycle {
                cycle: self.first_cycle,
            }),
            (None, None) => Err(TaskError::NoFirstState),
            // Each cycle has more than one block, so a larger number is no block's.
            (Some(_), _) if self.first_cycle.0 > self.starts.0 => Err(TaskError::NotACycle {
                starts: self.starts,
                cycle: self.first_cycle,
            }),
            _ => Ok(()),
        }
    }

    /// Names the first thing that keeps this task from following `before`, whose name is `id` (P-39).
    ///
    /// # Errors
    /// It follows another task, begins in the middle of a cycle, or goes on with a state that is not
    /// one of its own partition and model.
    pub fn check_follows(&self, (id, before): (BlobId, &Self)) -> Result<(), TaskError> {
        if self.follows != Some(id) {
            return Err(TaskError::FollowsAnother { expected: id });
        }
        if self.netuid != before.netuid {
            return Err(TaskError::OtherSubnet {
                netuid: self.netuid,
            });
        }
        let schedule = before.schedule();
        let opens = schedule.opens(self.first_cycle, Window::Distribute);
        if self.first_cycle <= before.first_cycle || opens != self.starts {
            return Err(TaskError::NotACycle {
                starts: self.starts,
                cycle: self.first_cycle,
            });
        }
        let same = partition::same(&self.groups, &before.groups) && self.model == before.model;
        if self.first_state.is_none() && !same {
            return Err(TaskError::OtherModel);
        }
        Ok(())
    }

    /// Whether `state` can be this task's first state.
    #[must_use]
    pub fn begins_with(&self, state: &StateManifest) -> bool {
        let groups = state.groups.iter().map(|group| group.group);
        state.cycle == self.first_cycle && state.parent.is_none() && groups.eq(self.group_ids())
    }

    /// No group has fewer experts than are to be taken of it.
    fn check_selection(&self) -> Result<(), TaskError> {
        let SelectionTop::K(wanted) = self.rules.selection.top else {
            return Ok(());
        };
        let size = |mapping: &&ExpertMapping| mapping.expert_indices.len();
        let Some(smallest) = self.groups.iter().min_by_key(size) else {
            return Ok(());
        };
        if wanted as usize <= size(&smallest) {
            return Ok(());
        }
        Err(TaskError::SmallGroup {
            wanted,
            group: smallest.group_id,
            size: size(&smallest),
        })
    }

    /// The groups, in order.
    #[must_use]
    pub fn group_ids(&self) -> Vec<GroupId> {
        self.groups.iter().map(|mapping| mapping.group_id).collect()
    }
}

impl StateManifest {
    /// The state's name: the hash of these bytes.
    #[must_use]
    pub fn id(&self) -> StateId {
        StateId::of(&self.to_bytes())
    }

    /// A group's shard.
    #[must_use]
    pub fn shard(&self, group: GroupId) -> Option<BlobId> {
        self.group(group).map(|state| state.shard)
    }

    /// A group's entry.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&GroupState> {
        self.groups.iter().find(|state| state.group == group)
    }

    /// Every blob that holding the whole state means holding.
    pub fn blobs(&self) -> impl Iterator<Item = BlobId> {
        self.groups
            .iter()
            .flat_map(|group| [Some(group.shard), group.momentum])
            .flatten()
    }
}

/// Why bytes are not the document that they were fetched as.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of the document's shape.
    #[error("{kind} cannot be read")]
    Json {
        /// Which document.
        kind: &'static str,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Written by another version.
    #[error("{kind} has format {format}, expected {FORMAT}")]
    Format {
        /// Which document.
        kind: &'static str,
        /// The version found.
        format: u32,
    },
    /// The same facts in another spelling would have another name.
    #[error("{kind} is not in canonical form")]
    NotCanonical {
        /// Which document.
        kind: &'static str,
    },
}

/// Why a task cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A rule is out of range.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The partition has a hole or an overlap.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The first task counts from another cycle than 0.
    #[error("the first task begins with cycle {cycle}, must be cycle 0")]
    FirstCycle {
        /// The cycle that it names.
        cycle: Cycle,
    },
    /// Neither a first state nor a task to take it over from.
    #[error("the first task has no first state")]
    NoFirstState,
    /// It begins with a block that no chain will have.
    #[error("the task begins with block {starts}, must be at most {LAST_START}")]
    Starts {
        /// The block.
        starts: Block,
    },
    /// The first block is not the first one of the cycle that it names.
    #[error("block {starts} is not the first block of cycle {cycle}")]
    NotACycle {
        /// The block.
        starts: Block,
        /// The cycle.
        cycle: Cycle,
    },
    /// It replaces another task than the one that is worked on.
    #[error("the task does not follow {expected}, which is worked on")]
    FollowsAnother {
        /// The task in force.
        expected: BlobId,
    },
    /// It is for another subnet.
    #[error("the task is for subnet {netuid}")]
    OtherSubnet {
        /// The subnet that it names.
        netuid: Netuid,
    },
    /// The state before is of another model.
    #[error("the task changes the model or its partition and has no first state")]
    OtherModel,
    /// More experts are to be trained than a group has.
    #[error("rule selection.top takes {wanted} experts, group {group} has {size}")]
    SmallGroup {
        /// Experts to take.
        wanted: u32,
        /// The group.
        group: GroupId,
        /// Its experts in a layer.
        size: usize,
    },
    /// Tickets that cannot be used.
    #[error(transparent)]
    Tickets(#[from] TicketsError),
    /// A domain names a group that does not exist.
    #[error("domain {domain} is for group {group}, which does not exist")]
    UnknownGroup {
        /// The domain.
        domain: String,
        /// The group that it names.
        group: GroupId,
    },
    /// Nothing to train a group on.
    #[error("group {group} has no domain")]
    NoDomain {
        /// The group.
        group: GroupId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> StateManifest {
        StateManifest {
            format: StateManifest::FORMAT,
            cycle: Cycle(0),
            parent: None,
            archive: None,
            groups: vec![GroupState {
                group: GroupId(0),
                shard: BlobId([1; 32]),
                bytes: 8,
                momentum: None,
                reference_norm: Some(0.1),
            }],
            merged: Vec::new(),
            excluded: BTreeMap::new(),
        }
    }

    #[test]
    fn a_state_reads_back_from_its_own_bytes_under_the_same_name() {
        let read = StateManifest::from_bytes(&state().to_bytes()).unwrap();
        assert_eq!(read, state());
        assert_eq!(read.id().manifest_blob(), BlobId::of(&state().to_bytes()));
    }

    /// One more blank would be the same state under a second name, and so would a list of nobody.
    #[test]
    fn another_spelling_of_the_same_state_is_refused() {
        let text = String::from_utf8(state().to_bytes()).unwrap();
        let spelled_out = text.replace(r#""merged":[]"#, r#""merged":[],"excluded":{}"#);
        assert_ne!(text, spelled_out);
        for spelling in [format!("{text} "), spelled_out] {
            assert!(matches!(
                StateManifest::from_bytes(spelling.as_bytes()),
                Err(DocumentError::NotCanonical { .. })
            ));
        }
    }
}
