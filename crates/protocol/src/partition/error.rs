//! Which invariant of a partition is broken, and where.

use super::inventory::InventoryError;
use crate::ids::{GroupId, PartitionId};

/// Why experts cannot be divided as asked, or why a partition is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// There is nothing to divide.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// Groups and experts cannot be matched.
    #[error("cannot divide {experts} experts into {groups} groups")]
    Groups {
        /// Groups asked for.
        groups: u16,
        /// Experts in a layer.
        experts: usize,
    },
    /// The number does not divide, and groups of different sizes are not allowed.
    #[error("{experts} experts do not divide by {groups} groups: there would be {sizes}")]
    Remainder {
        /// Groups asked for.
        groups: u16,
        /// Experts in a layer.
        experts: usize,
        /// What the groups would be, as text.
        sizes: String,
    },
    /// Sizes that were spelled out cannot be met.
    #[error("sizes {sizes} are not the parts of {experts} experts")]
    Sizes {
        /// The sizes, as text.
        sizes: String,
        /// Experts in a layer.
        experts: usize,
    },
    /// Lists of experts and groups do not match.
    #[error("{lists} lists of experts cannot make {groups} groups")]
    Lists {
        /// Lists given.
        lists: usize,
        /// Groups asked for.
        groups: usize,
    },
    /// Counts of another model.
    #[error("co-activation was counted for {found} experts, a layer has {expected}")]
    Matrix {
        /// Experts counted.
        found: usize,
        /// Experts in a layer.
        expected: usize,
    },
    /// A list names an expert that the model does not have.
    #[error("group {group} lists expert {expert} of layer {layer}, which the model does not have")]
    NoSuchExpert {
        /// The group.
        group: GroupId,
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
    },
    /// There are no groups.
    #[error("there are no groups")]
    NoGroups,
    /// Groups are not numbered from 0 in order.
    #[error("group {group} stands at position {position}")]
    Numbering {
        /// The group's number.
        group: GroupId,
        /// Where it stands.
        position: usize,
    },
    /// A group without experts, layers or parameters.
    #[error("group {group} has no {what}")]
    Empty {
        /// The group at fault.
        group: GroupId,
        /// Which of its lists is empty.
        what: &'static str,
    },
    /// A list that is not strictly ascending.
    #[error("the {what} of group {group} are not in ascending order, each once")]
    Unsorted {
        /// The group at fault.
        group: GroupId,
        /// Which of its lists.
        what: &'static str,
    },
    /// A group that does not span every layer with experts, where groups may not differ.
    #[error("group {group} has no experts in layer {layer}")]
    Layer {
        /// The group at fault.
        group: GroupId,
        /// The first layer that it lacks.
        layer: usize,
    },
    /// Groups that differ in size, where they may not.
    #[error("group {group} has {found} experts in layer {layer}, group 0 has {expected}")]
    Size {
        /// The group at fault.
        group: GroupId,
        /// The layer.
        layer: usize,
        /// Its experts there.
        found: usize,
        /// The experts of group 0 in its first layer.
        expected: usize,
    },
    /// An expert in two groups.
    #[error("expert {expert} belongs to group {group} and to another one")]
    OwnedTwice {
        /// One of them.
        group: GroupId,
        /// The expert.
        expert: usize,
    },
    /// An expert of one layer in two groups.
    #[error("expert {expert} of layer {layer} belongs to group {group} and to an earlier one")]
    Shared {
        /// The later group.
        group: GroupId,
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
    },
    /// An expert in no group.
    #[error("expert {expert} belongs to no group")]
    Unowned {
        /// The expert.
        expert: usize,
    },
    /// An expert of one layer in no group.
    #[error("expert {expert} of layer {layer} belongs to no group")]
    LeftOut {
        /// The layer.
        layer: usize,
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
    /// A tensor that no expert of the model has.
    #[error("group {group} lists parameter {key}, which no expert of the model has")]
    UnknownKey {
        /// The group.
        group: GroupId,
        /// The tensor name.
        key: String,
    },
    /// A tensor of an expert that its group does not list.
    #[error("parameter {key} is listed in no group")]
    MissingKey {
        /// The tensor name.
        key: String,
    },
    /// A group's number of tensors cannot be that of its experts.
    #[error("the {found} parameters of group {group} are not those of its experts and layers")]
    KeyCount {
        /// The group.
        group: GroupId,
        /// How many it lists.
        found: usize,
    },
    /// A group's indices are not those of its tensors.
    #[error("the {what} of group {group} are not those of its parameters")]
    Indices {
        /// The group.
        group: GroupId,
        /// Which of its lists.
        what: &'static str,
    },
    /// A partition under a name that is another's.
    #[error("the groups have hash {found}, not {written}")]
    Hash {
        /// What was written.
        written: PartitionId,
        /// What the groups hash to.
        found: PartitionId,
    },
}
