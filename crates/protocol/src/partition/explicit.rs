//! Groups as lists say: the `expert_assignment.json` of the existing network.
//!
//! `{"<layer>": [[slot, original id], …]}`: the experts of a layer by the slots that they take in a
//! group's own tensors. The format promises neither that slots are 0…K−1 nor that ids are unique, so
//! both are checked here; that groups do not overlap is checked where they meet (`partition.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::division::Members;

/// Original ids of experts by layer, in the order of their slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertAssignment(BTreeMap<usize, Vec<usize>>);

/// A text is no list of experts by layer.
#[derive(Debug, thiserror::Error)]
#[error("the text is no expert assignment")]
pub struct ExpertAssignmentError(#[source] serde_json::Error);

impl ExpertAssignment {
    /// Reads the text of an `expert_assignment.json`.
    ///
    /// # Errors
    /// Not JSON of that shape; no layer, or a layer twice or without experts; slots other than 0…K−1
    /// each once; an expert twice in a layer.
    pub fn from_json(text: &str) -> Result<Self, ExpertAssignmentError> {
        serde_json::from_str(text).map_err(ExpertAssignmentError)
    }

    /// All of it as one group.
    pub(super) fn members(&self) -> Members {
        let layers = self.0.iter();
        layers
            .map(|(layer, ids)| (*layer, ids.iter().copied().collect()))
            .collect()
    }

    /// Consecutive runs of slots as groups of these sizes. What is left over, which no model has, goes
    /// to the last one, to be refused with it.
    pub(super) fn cut(&self, sizes: &[usize]) -> Vec<Members> {
        let mut groups = vec![Members::new(); sizes.len()];
        for (layer, ids) in &self.0 {
            let mut left = ids.iter().copied();
            for (group, size) in groups.iter_mut().zip(sizes) {
                let run: BTreeSet<usize> = left.by_ref().take(*size).collect();
                group.insert(*layer, run);
            }
            if let Some(last) = groups.last_mut() {
                last.entry(*layer).or_default().extend(left);
            }
        }
        groups
    }
}

impl<'de> Deserialize<'de> for ExpertAssignment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Lists)
    }
}

struct Lists;

impl<'de> Visitor<'de> for Lists {
    type Value = ExpertAssignment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from layers to pairs of slot and expert")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut lists: A) -> Result<Self::Value, A::Error> {
        let mut layers = BTreeMap::new();
        while let Some((layer, pairs)) = lists.next_entry::<String, Vec<(usize, usize)>>()? {
            let number = layer.parse().ok();
            let layer: usize = number
                .filter(|number: &usize| number.to_string() == layer)
                .ok_or_else(|| A::Error::custom(format!("{layer:.80?} is no layer")))?;
            let ids = by_slot(layer, pairs).map_err(A::Error::custom)?;
            if layers.insert(layer, ids).is_some() {
                return Err(A::Error::custom(format!("layer {layer} is listed twice")));
            }
        }
        if layers.is_empty() {
            return Err(A::Error::custom("no layer is listed"));
        }
        Ok(ExpertAssignment(layers))
    }
}

fn by_slot(layer: usize, mut pairs: Vec<(usize, usize)>) -> Result<Vec<usize>, String> {
    if pairs.is_empty() {
        return Err(format!("layer {layer} lists no expert"));
    }
    pairs.sort_unstable();
    let mut seen = BTreeSet::new();
    for (expected, (slot, expert)) in pairs.iter().enumerate() {
        if *slot != expected {
            let last = pairs.len() - 1;
            return Err(format!(
                "the slots of layer {layer} are not 0 to {last}, each once: slot {slot} stands for {expected}"
            ));
        }
        if !seen.insert(*expert) {
            return Err(format!("layer {layer} lists expert {expert} twice"));
        }
    }
    Ok(pairs.into_iter().map(|(_, expert)| expert).collect())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn refused(text: &str) -> String {
        let error = ExpertAssignment::from_json(text).unwrap_err();
        error.source().unwrap().to_string()
    }

    #[test]
    fn experts_stand_in_the_order_of_their_slots() {
        let read = ExpertAssignment::from_json(r#"{"2": [[1, 5], [0, 9]], "1": [[0, 3]]}"#);
        let expected = BTreeMap::from([(1, vec![3]), (2, vec![9, 5])]);
        assert_eq!(read.unwrap(), ExpertAssignment(expected));
    }

    #[test]
    fn slots_and_experts_that_do_not_fit_are_named() {
        for (text, named) in [
            (r#"{"3": [[0, 1], [2, 5]]}"#, "slots of layer 3"),
            (r#"{"3": [[0, 1], [0, 5]]}"#, "slots of layer 3"),
            (r#"{"3": [[0, 5], [1, 5]]}"#, "layer 3 lists expert 5 twice"),
            (
                r#"{"3": [[0, 5]], "3": [[0, 6]]}"#,
                "layer 3 is listed twice",
            ),
            (r#"{"3": []}"#, "layer 3 lists no expert"),
            (r#"{"3": [[0, -5]]}"#, "-5"),
            (r#"{"three": [[0, 5]]}"#, "\"three\" is no layer"),
            (r#"{"03": [[0, 5]]}"#, "\"03\" is no layer"),
            (r#"{"3": [[0]]}"#, "length 1"),
            ("{}", "no layer"),
            ("[]", "a map from layers"),
        ] {
            let told = refused(text);
            assert!(told.contains(named), "{text}: {told}");
        }
    }
}
