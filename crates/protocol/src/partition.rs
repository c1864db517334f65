//! How a model's routed experts are divided into groups (P-5).
//!
//! Inputs: which layers have experts, how many, and what their tensors are called. The result is
//! checked where it is made: every expert in exactly one group, every group across every layer,
//! every parameter key known once. Knows neither shapes nor values.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, Hotkey};

/// One group: a vertical slice of the model, the same expert indices in every layer that has experts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertMapping {
    /// The group that this entry describes.
    pub group_id: GroupId,
    /// Expert indices, in each layer, that belong to the group; ascending.
    pub expert_indices: Vec<usize>,
    /// Transformer layers with experts; ascending.
    pub layer_indices: Vec<usize>,
    /// Hotkeys of the miners assigned to the group, where the writer knew them.
    pub miner_hotkeys: Vec<Hotkey>,
    /// Exact tensor names of the group's parameters; sorted.
    pub param_keys: Vec<String>,
}

/// What there is to divide.
#[derive(Debug, Clone, Copy)]
pub struct Experts<'a> {
    /// Layers with experts, ascending.
    pub layers: &'a [usize],
    /// Routed experts in each of them.
    pub count: usize,
    /// The tensor names of (layer, expert).
    pub names: fn(usize, usize) -> Vec<String>,
}

/// Experts 0…n−1 to group 0, the next n to group 1 and so on. Where the number does not divide, the
/// first groups hold one expert more.
///
/// # Errors
/// No groups, or more groups than experts.
pub fn contiguous(experts: Experts<'_>, groups: u16) -> Result<Vec<ExpertMapping>, PartitionError> {
    let wanted = usize::from(groups);
    if wanted == 0 || wanted > experts.count {
        return Err(PartitionError::Groups {
            groups,
            experts: experts.count,
        });
    }
    let (base, remainder) = (experts.count / wanted, experts.count % wanted);
    let mut next = 0;
    let mappings: Vec<_> = (0..groups)
        .map(|group| {
            let size = base + usize::from(usize::from(group) < remainder);
            let expert_indices: Vec<usize> = (next..next + size).collect();
            next += size;
            let mut param_keys: Vec<String> = experts
                .layers
                .iter()
                .flat_map(|layer| expert_indices.iter().map(move |expert| (*layer, *expert)))
                .flat_map(|(layer, expert)| (experts.names)(layer, expert))
                .collect();
            param_keys.sort();
            ExpertMapping {
                group_id: GroupId(group),
                expert_indices,
                layer_indices: experts.layers.to_vec(),
                miner_hotkeys: Vec::new(),
                param_keys,
            }
        })
        .collect();
    check(&mappings)?;
    Ok(mappings)
}

/// Checks a partition that came from elsewhere.
///
/// # Errors
/// Names the first group, expert or key that breaks an invariant of P-5.
pub fn check(mappings: &[ExpertMapping]) -> Result<(), PartitionError> {
    let mut owned = BTreeSet::new();
    let mut keys = BTreeSet::new();
    let Some(first) = mappings.first() else {
        return Err(PartitionError::Groups {
            groups: 0,
            experts: 0,
        });
    };
    for (position, mapping) in mappings.iter().enumerate() {
        let group = mapping.group_id;
        if usize::from(group.0) != position {
            return Err(PartitionError::Numbering { group, position });
        }
        if mapping.expert_indices.is_empty() || mapping.layer_indices.is_empty() {
            return Err(PartitionError::Empty { group });
        }
        if mapping.layer_indices != first.layer_indices {
            return Err(PartitionError::Layers { group });
        }
        for expert in &mapping.expert_indices {
            if !owned.insert(*expert) {
                return Err(PartitionError::OwnedTwice {
                    group,
                    expert: *expert,
                });
            }
        }
        for key in &mapping.param_keys {
            if !keys.insert(key.as_str()) {
                return Err(PartitionError::KeyTwice {
                    group,
                    key: key.clone(),
                });
            }
        }
    }
    match owned.iter().enumerate().find(|(index, id)| index != *id) {
        Some((expert, _)) => Err(PartitionError::Unowned { expert }),
        None => Ok(()),
    }
}

/// Which invariant of a partition is broken, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// Groups and experts cannot be matched.
    #[error("cannot divide {experts} experts into {groups} groups")]
    Groups {
        /// Groups asked for.
        groups: u16,
        /// Experts in a layer.
        experts: usize,
    },
    /// Groups are not numbered from 0 in order.
    #[error("group {group} stands at position {position}")]
    Numbering {
        /// The group's number.
        group: GroupId,
        /// Where it stands.
        position: usize,
    },
    /// A group without experts or layers.
    #[error("group {group} has no experts")]
    Empty {
        /// The group at fault.
        group: GroupId,
    },
    /// A group that does not span every layer with experts.
    #[error("group {group} does not span the same layers as group 0")]
    Layers {
        /// The group at fault.
        group: GroupId,
    },
    /// An expert in two groups.
    #[error("expert {expert} belongs to group {group} and to an earlier one")]
    OwnedTwice {
        /// The later group.
        group: GroupId,
        /// The expert.
        expert: usize,
    },
    /// An expert in no group.
    #[error("expert {expert} belongs to no group")]
    Unowned {
        /// The expert.
        expert: usize,
    },
    /// A tensor name listed twice.
    #[error("parameter {key} is listed twice, last in group {group}")]
    KeyTwice {
        /// The later group.
        group: GroupId,
        /// The tensor name.
        key: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(layer: usize, expert: usize) -> Vec<String> {
        vec![format!("layers.{layer}.experts.{expert}.w")]
    }

    proptest! {
        #[test]
        fn every_expert_is_owned_once_whatever_the_numbers(count in 1..200_usize, groups in 1..40_u16) {
            let result = contiguous(Experts { layers: &[1, 2, 3], count, names }, groups);
            if usize::from(groups) > count {
                prop_assert!(result.is_err());
            } else {
                let mappings = result.unwrap();
                let owned: Vec<_> = mappings.iter().flat_map(|m| m.expert_indices.clone()).collect();
                prop_assert_eq!(owned, (0..count).collect::<Vec<_>>());
                let sizes: Vec<_> = mappings.iter().map(|m| m.expert_indices.len()).collect();
                prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            }
        }
    }

    /// The example of the design: 64 experts in 8 groups.
    #[test]
    fn experts_0_to_7_make_group_0_in_every_layer() {
        let mappings = contiguous(
            Experts {
                layers: &[1, 2],
                count: 64,
                names,
            },
            8,
        )
        .unwrap();
        assert_eq!(mappings[0].expert_indices, (0..8).collect::<Vec<_>>());
        assert_eq!(mappings[1].expert_indices, (8..16).collect::<Vec<_>>());
        assert_eq!(mappings[0].param_keys.len(), 16);
    }

    #[test]
    fn an_expert_in_two_groups_or_in_none_is_named() {
        let mut mappings = contiguous(
            Experts {
                layers: &[1],
                count: 4,
                names,
            },
            2,
        )
        .unwrap();
        mappings[1].expert_indices = vec![1, 3];
        assert_eq!(
            check(&mappings),
            Err(PartitionError::OwnedTwice {
                group: GroupId(1),
                expert: 1
            })
        );
        mappings[1].expert_indices = vec![3];
        assert_eq!(check(&mappings), Err(PartitionError::Unowned { expert: 2 }));
    }
}
