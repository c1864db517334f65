//! How a model's routed experts are divided into groups (P-5).
//!
//! ```text
//! Inventory ──┐
//!             ├──▶ Partition::divide ──▶ Partition ──▶ [ExpertMapping], JSON, hash
//! Division ───┘                             ▲
//!                        JSON ──▶ read, verify against an Inventory
//! ```
//!
//! A partition is checked where it is made and where it is read: every expert in exactly one group,
//! every group across every layer, groups of one size (unless they may differ), every tensor known and
//! listed once. Its hash depends on the model alone, not on who trains what. Knows neither shapes nor
//! values, and of names only which expert has which.

mod coactivation;
mod division;
mod error;
mod explicit;
mod inventory;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use coactivation::{CoActivation, CoActivationError};
pub use division::{Division, Sizes, Strategy, Uneven};
pub use error::PartitionError;
pub use explicit::{ExpertAssignment, ExpertAssignmentError};
pub use inventory::{Inventory, InventoryError, ParameterKeys};

use crate::assignment::assigned_group;
use crate::ids::{GroupId, Hotkey, PartitionId};
use division::Members;

/// One group: a vertical slice of the model.
///
/// Most often the same experts in every layer. A group made from lists may hold different experts in
/// different layers; then `expert_indices` is their union, and `param_keys` says which are meant where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertMapping {
    /// The group that this entry describes.
    pub group_id: GroupId,
    /// Expert indices, in any layer, that belong to the group; ascending.
    pub expert_indices: Vec<usize>,
    /// Transformer layers in which the group has experts; ascending.
    pub layer_indices: Vec<usize>,
    /// Hotkeys of the miners assigned to the group, where the writer knew them.
    pub miner_hotkeys: Vec<Hotkey>,
    /// Exact tensor names of the group's parameters; sorted.
    pub param_keys: Vec<String>,
}

/// A division of all experts of a model, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Partition {
    groups: Vec<ExpertMapping>,
}

/// A partition as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    groups: Vec<ExpertMapping>,
    hash: PartitionId,
}

impl From<Partition> for Written {
    fn from(partition: Partition) -> Self {
        let hash = partition.hash();
        let groups = partition.groups;
        Self { groups, hash }
    }
}

impl TryFrom<Written> for Partition {
    type Error = PartitionError;

    fn try_from(Written { groups, hash }: Written) -> Result<Self, PartitionError> {
        check(&groups)?;
        let partition = Self { groups };
        let found = partition.hash();
        if found != hash {
            let written = hash;
            return Err(PartitionError::Hash { written, found });
        }
        Ok(partition)
    }
}

impl Partition {
    /// Divides an inventory.
    ///
    /// # Errors
    /// The division cannot be made of this inventory, or breaks an invariant of P-5; both by name.
    pub fn divide(inventory: &Inventory, division: &Division<'_>) -> Result<Self, PartitionError> {
        let members = division.members(inventory)?;
        disjoint(&members)?;
        // Sizes that differ because they were spelled out are allowed by that.
        let uneven = match (&division.strategy, &division.sizes) {
            (Strategy::Explicit([_, _, ..]), _) | (_, Sizes::Groups(_)) => division.uneven,
            (_, Sizes::Given(_)) => Uneven::Allowed,
        };
        let groups = (0..=u16::MAX).map(GroupId).zip(&members);
        let groups = groups.map(|(group, members)| mapping(inventory, group, members));
        let partition = Self {
            groups: groups.collect::<Result<_, _>>()?,
        };
        partition.verify(inventory, uneven)?;
        Ok(partition)
    }

    /// The groups, in order.
    #[must_use]
    pub fn groups(&self) -> &[ExpertMapping] {
        &self.groups
    }

    /// The groups, in order.
    #[must_use]
    pub fn into_groups(self) -> Vec<ExpertMapping> {
        self.groups
    }

    /// The partition's name: BLAKE3 of the groups' canonical JSON without hotkeys. It depends on the
    /// model and the division only.
    #[must_use]
    pub fn hash(&self) -> PartitionId {
        let nameless = |mapping: &ExpertMapping| ExpertMapping {
            miner_hotkeys: Vec::new(),
            ..mapping.clone()
        };
        let groups: Vec<_> = self.groups.iter().map(nameless).collect();
        let json = serde_json::to_vec(&groups).expect("numbers and text are JSON");
        let mut hasher = blake3::Hasher::new_derive_key("connito/1 partition");
        hasher.update(&json);
        PartitionId(*hasher.finalize().as_bytes())
    }

    /// Writes each hotkey into the group that it is assigned to (P-6), in the given order, in place of
    /// those written before.
    pub fn assign(&mut self, hotkeys: &[Hotkey], tickets: &[u16]) {
        for mapping in &mut self.groups {
            mapping.miner_hotkeys.clear();
        }
        for hotkey in hotkeys {
            let group = assigned_group(*hotkey, tickets);
            let mapping = group.and_then(|group| self.groups.get_mut(usize::from(group.0)));
            if let Some(mapping) = mapping {
                mapping.miner_hotkeys.push(*hotkey);
            }
        }
    }

    /// Holds the groups against the model that they should divide.
    ///
    /// # Errors
    /// The first invariant that is broken: groups out of order; a tensor listed twice, or that the model
    /// does not have, or that no group has; an expert in two groups or in none; indices that are not
    /// those of the tensors; and, unless groups may differ, a group that lacks a layer or has another
    /// size.
    pub fn verify(&self, inventory: &Inventory, uneven: Uneven) -> Result<(), PartitionError> {
        check_entries(&self.groups)?;
        let places = inventory.places();
        let mut owners: BTreeMap<(usize, usize), GroupId> = BTreeMap::new();
        let mut listed = BTreeSet::new();
        for mapping in &self.groups {
            let members = own(mapping, &places, &mut owners)?;
            agrees(mapping, &members)?;
            listed.extend(mapping.param_keys.iter().map(String::as_str));
        }
        if let Some((key, (layer, expert))) = places.iter().find(|(key, _)| !listed.contains(*key))
        {
            return Err(match owners.contains_key(&(*layer, *expert)) {
                true => PartitionError::MissingKey {
                    key: (*key).to_owned(),
                },
                false => PartitionError::LeftOut {
                    layer: *layer,
                    expert: *expert,
                },
            });
        }
        match uneven {
            Uneven::Allowed => Ok(()),
            Uneven::Refused => even(inventory, &owners),
        }
    }
}

/// Whether no expert is in two groups.
fn disjoint(groups: &[Members]) -> Result<(), PartitionError> {
    let mut owned = BTreeSet::new();
    for (group, members) in (0..=u16::MAX).map(GroupId).zip(groups) {
        for (&layer, experts) in members {
            if let Some(&expert) = experts
                .iter()
                .find(|expert| !owned.insert((layer, **expert)))
            {
                return Err(PartitionError::Shared {
                    group,
                    layer,
                    expert,
                });
            }
        }
    }
    Ok(())
}

/// The entry of a group with these experts.
fn mapping(
    inventory: &Inventory,
    group: GroupId,
    members: &Members,
) -> Result<ExpertMapping, PartitionError> {
    let mut param_keys = Vec::new();
    for (&layer, experts) in members {
        for &expert in experts {
            let keys = inventory.keys(layer, expert);
            param_keys.extend_from_slice(keys.ok_or(PartitionError::NoSuchExpert {
                group,
                layer,
                expert,
            })?);
        }
    }
    param_keys.sort();
    let expert_indices: BTreeSet<usize> = members.values().flatten().copied().collect();
    Ok(ExpertMapping {
        group_id: group,
        expert_indices: expert_indices.into_iter().collect(),
        layer_indices: members.keys().copied().collect(),
        miner_hotkeys: Vec::new(),
        param_keys,
    })
}

/// The experts whose tensors a group lists; none of them may have an owner already.
fn own(
    mapping: &ExpertMapping,
    places: &BTreeMap<&str, (usize, usize)>,
    owners: &mut BTreeMap<(usize, usize), GroupId>,
) -> Result<Members, PartitionError> {
    let group = mapping.group_id;
    let mut members = Members::new();
    for key in &mapping.param_keys {
        let Some(&(layer, expert)) = places.get(key.as_str()) else {
            let key = key.clone();
            return Err(PartitionError::UnknownKey { group, key });
        };
        if *owners.entry((layer, expert)).or_insert(group) != group {
            return Err(PartitionError::Shared {
                group,
                layer,
                expert,
            });
        }
        members.entry(layer).or_default().insert(expert);
    }
    Ok(members)
}

/// Whether a group's indices are those of its tensors.
fn agrees(mapping: &ExpertMapping, members: &Members) -> Result<(), PartitionError> {
    let group = mapping.group_id;
    let experts: BTreeSet<usize> = members.values().flatten().copied().collect();
    let differ = |what| Err(PartitionError::Indices { group, what });
    if !mapping.layer_indices.iter().eq(members.keys()) {
        return differ("layer indices");
    }
    if !mapping.expert_indices.iter().eq(&experts) {
        return differ("expert indices");
    }
    Ok(())
}

/// Whether all groups have the same number of experts in every layer.
fn even(
    inventory: &Inventory,
    owners: &BTreeMap<(usize, usize), GroupId>,
) -> Result<(), PartitionError> {
    let mut sizes: BTreeMap<(GroupId, usize), usize> = BTreeMap::new();
    for ((layer, _), group) in owners {
        *sizes.entry((*group, *layer)).or_default() += 1;
    }
    let expected = sizes.values().next().copied().unwrap_or(0);
    let groups: BTreeSet<GroupId> = owners.values().copied().collect();
    for group in groups {
        for layer in inventory.layers() {
            match sizes.get(&(group, layer)) {
                None => return Err(PartitionError::Layer { group, layer }),
                Some(&found) if found != expected => {
                    return Err(PartitionError::Size {
                        group,
                        layer,
                        found,
                        expected,
                    });
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Whether two lists of groups divide the same tensors in the same way. Hotkeys written into them do
/// not matter.
#[must_use]
pub fn same(one: &[ExpertMapping], other: &[ExpertMapping]) -> bool {
    let divides = |mapping: &ExpertMapping, as_other: &ExpertMapping| {
        mapping.group_id == as_other.group_id
            && mapping.expert_indices == as_other.expert_indices
            && mapping.layer_indices == as_other.layer_indices
            && mapping.param_keys == as_other.param_keys
    };
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| divides(one, other))
}

/// Checks a partition that came from elsewhere, without the model: as far as the entries alone tell.
///
/// All experts of a model have equally many tensors, so their number tells whether a group has every
/// one of its experts in every one of its layers. If it has, nobody else may list those; experts that
/// vary from layer to layer are told apart by their tensors.
///
/// # Errors
/// Names the first group, expert or key that breaks an invariant of P-5.
pub fn check(mappings: &[ExpertMapping]) -> Result<(), PartitionError> {
    let parameters = check_entries(mappings)?;
    let indices = |list: fn(&ExpertMapping) -> &Vec<usize>| -> BTreeSet<usize> {
        mappings.iter().flat_map(list).copied().collect()
    };
    let experts = indices(|mapping| &mapping.expert_indices);
    let layers = indices(|mapping| &mapping.layer_indices);
    if let Some((expert, _)) = experts.iter().enumerate().find(|(index, id)| index != *id) {
        return Err(PartitionError::Unowned { expert });
    }
    // No list is empty, so this is no division by zero.
    owned_once(mappings, parameters / (experts.len() * layers.len()))
}

/// Whether groups are numbered, their lists sorted and not empty, and no tensor listed twice. Gives the
/// number of tensors.
fn check_entries(mappings: &[ExpertMapping]) -> Result<usize, PartitionError> {
    if mappings.is_empty() {
        return Err(PartitionError::NoGroups);
    }
    let mut keys = BTreeSet::new();
    for (position, mapping) in mappings.iter().enumerate() {
        let group = mapping.group_id;
        if usize::from(group.0) != position {
            return Err(PartitionError::Numbering { group, position });
        }
        ascending(group, "expert indices", &mapping.expert_indices)?;
        ascending(group, "layer indices", &mapping.layer_indices)?;
        if let Some(key) = mapping.param_keys.iter().find(|key| !keys.insert(*key)) {
            let key = key.clone();
            return Err(PartitionError::KeyTwice { group, key });
        }
        ascending(group, "parameters", &mapping.param_keys)?;
    }
    Ok(keys.len())
}

/// Whether groups can own what they list. `each` is the number of tensors of an expert in one layer.
fn owned_once(mappings: &[ExpertMapping], each: usize) -> Result<(), PartitionError> {
    let mut owned: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut varying = Vec::new();
    for mapping in mappings {
        let group = mapping.group_id;
        let (experts, layers) = (&mapping.expert_indices, &mapping.layer_indices);
        let found = mapping.param_keys.len();
        let (least, most) = (
            experts.len().max(layers.len()) * each,
            experts.len() * layers.len() * each,
        );
        if each == 0 || found % each != 0 || !(least..=most).contains(&found) {
            return Err(PartitionError::KeyCount { group, found });
        }
        if found < most {
            varying.push(mapping);
            continue;
        }
        for &expert in experts {
            if layers.iter().any(|layer| !owned.insert((*layer, expert))) {
                return Err(PartitionError::OwnedTwice { group, expert });
            }
        }
    }
    for mapping in varying {
        let group = mapping.group_id;
        let layers = &mapping.layer_indices;
        let taken = |expert: &&usize| {
            layers
                .iter()
                .all(|layer| owned.contains(&(*layer, **expert)))
        };
        if let Some(&expert) = mapping.expert_indices.iter().find(taken) {
            return Err(PartitionError::OwnedTwice { group, expert });
        }
    }
    Ok(())
}

fn ascending<T: Ord>(group: GroupId, what: &'static str, list: &[T]) -> Result<(), PartitionError> {
    if list.is_empty() {
        return Err(PartitionError::Empty { group, what });
    }
    match list.is_sorted_by(|a, b| a < b) {
        true => Ok(()),
        false => Err(PartitionError::Unsorted { group, what }),
    }
}

#[cfg(test)]
mod tests;
