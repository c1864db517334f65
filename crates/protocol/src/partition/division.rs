//! How experts are dealt into groups: sizes first, then who goes where.
//!
//! | strategy | group of an expert |
//! |---|---|
//! | contiguous | experts 0…n−1 to group 0, the next n to group 1 |
//! | strided | dealt like cards: expert i to group i mod G, full groups passed over |
//! | explicit | as lists say, which may differ from layer to layer |
//! | coactivation | experts that tokens visit together, together (`coactivation.rs`) |
//!
//! Groups are of one size unless other sizes are spelled out or a remainder is allowed; then the first
//! groups hold one expert more. Knows no tensor names.

use std::collections::{BTreeMap, BTreeSet};

use super::coactivation::{self, CoActivation};
use super::error::PartitionError;
use super::explicit::ExpertAssignment;
use super::inventory::Inventory;

/// How many groups there are and how large they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// So many groups of one size.
    Groups(u16),
    /// Experts of each group, in each layer. Whoever spells out different sizes allows them.
    Given(Vec<usize>),
}

/// Whether groups may differ in size, or lack a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uneven {
    /// All groups hold the same number of experts in every layer that has experts.
    Refused,
    /// Groups may differ.
    Allowed,
}

/// Who goes where.
#[derive(Debug, Clone, Copy)]
pub enum Strategy<'a> {
    /// Consecutive experts.
    Contiguous,
    /// Every G-th expert.
    Strided,
    /// As lists say: one for each group, or a single one of all experts that is cut into runs of slots.
    Explicit(&'a [ExpertAssignment]),
    /// Experts that tokens visit together.
    Coactivation(&'a CoActivation),
}

/// A whole decision about a partition.
#[derive(Debug, Clone)]
pub struct Division<'a> {
    /// Who goes where.
    pub strategy: Strategy<'a>,
    /// How many groups of which sizes.
    pub sizes: Sizes,
    /// Whether they may differ.
    pub uneven: Uneven,
}

/// One group's experts by layer.
pub(super) type Members = BTreeMap<usize, BTreeSet<usize>>;

impl Division<'_> {
    /// The experts of each group.
    pub(super) fn members(&self, inventory: &Inventory) -> Result<Vec<Members>, PartitionError> {
        let experts = inventory.experts();
        let in_all_layers = |indices: Vec<usize>| -> Members {
            let layers = inventory.layers();
            layers
                .map(|layer| (layer, indices.iter().copied().collect()))
                .collect()
        };
        let groups = match self.strategy {
            Strategy::Contiguous => contiguous(&self.sizes(experts)?),
            Strategy::Strided => strided(&self.sizes(experts)?),
            Strategy::Coactivation(matrix) if matrix.experts() != experts => {
                return Err(PartitionError::Matrix {
                    found: matrix.experts(),
                    expected: experts,
                });
            }
            Strategy::Coactivation(matrix) => coactivation::clusters(matrix, &self.sizes(experts)?),
            Strategy::Explicit(lists) => return self.explicit(lists, inventory),
        };
        Ok(groups.into_iter().map(in_all_layers).collect())
    }

    fn explicit(
        &self,
        lists: &[ExpertAssignment],
        inventory: &Inventory,
    ) -> Result<Vec<Members>, PartitionError> {
        match lists {
            [all] => {
                let sizes = self.sizes(inventory.experts())?;
                covers(all, inventory)?;
                Ok(all.cut(&sizes))
            }
            lists if self.sizes == Sizes::Groups(u16::try_from(lists.len()).unwrap_or(0)) => {
                Ok(lists.iter().map(ExpertAssignment::members).collect())
            }
            lists => Err(PartitionError::Lists {
                lists: lists.len(),
                groups: match &self.sizes {
                    Sizes::Groups(groups) => usize::from(*groups),
                    Sizes::Given(sizes) => sizes.len(),
                },
            }),
        }
    }

    /// Experts of each group, which together are all.
    fn sizes(&self, experts: usize) -> Result<Vec<usize>, PartitionError> {
        match &self.sizes {
            Sizes::Groups(groups) => equal(experts, *groups, self.uneven),
            Sizes::Given(sizes) => {
                let sum = sizes
                    .iter()
                    .try_fold(0_usize, |sum, size| sum.checked_add(*size));
                let numbered = u16::try_from(sizes.len()).is_ok();
                if sum != Some(experts) || sizes.contains(&0) || !numbered {
                    return Err(PartitionError::Sizes {
                        sizes: listed(sizes),
                        experts,
                    });
                }
                Ok(sizes.clone())
            }
        }
    }
}

/// Whether a list of everything lists everything; a list that ends early would leave groups empty.
fn covers(all: &ExpertAssignment, inventory: &Inventory) -> Result<(), PartitionError> {
    let listed = all.members();
    for layer in inventory.layers() {
        let of_layer = listed.get(&layer);
        let absent = |expert: &usize| of_layer.is_none_or(|listed| !listed.contains(expert));
        if let Some(expert) = (0..inventory.experts()).find(absent) {
            return Err(PartitionError::LeftOut { layer, expert });
        }
    }
    Ok(())
}

fn equal(experts: usize, groups: u16, uneven: Uneven) -> Result<Vec<usize>, PartitionError> {
    let count = usize::from(groups);
    if count == 0 || count > experts {
        return Err(PartitionError::Groups { groups, experts });
    }
    let (base, remainder) = (experts / count, experts % count);
    if remainder > 0 && uneven == Uneven::Refused {
        let sizes = format!(
            "{remainder} of {} and {} of {base}",
            base + 1,
            count - remainder
        );
        return Err(PartitionError::Remainder {
            groups,
            experts,
            sizes,
        });
    }
    let one_more = |group| usize::from(group < remainder);
    Ok((0..count).map(|group| base + one_more(group)).collect())
}

pub(super) fn contiguous(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut next = 0;
    let run = |size: &usize| {
        let from = next;
        next += size;
        (from..next).collect()
    };
    sizes.iter().map(run).collect()
}

pub(super) fn strided(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); sizes.len()];
    let mut next = 0;
    // One round a turn; the largest group takes part in all of them.
    for round in 0..sizes.iter().copied().max().unwrap_or(0) {
        for (group, size) in groups.iter_mut().zip(sizes) {
            if round < *size {
                group.push(next);
                next += 1;
            }
        }
    }
    groups
}

/// The first sizes of a list that may be long.
fn listed(sizes: &[usize]) -> String {
    const SHOWN: usize = 16;
    let shown = sizes.iter().take(SHOWN).map(usize::to_string);
    let mut text = shown.collect::<Vec<_>>().join(",");
    if sizes.len() > SHOWN {
        text.push_str(",…");
    }
    text
}
