//! Which updates are copies of others: the same bytes, or the same direction (P-24, A-2 to A-4).
//!
//! Noise and scale, also negative, change neither. A norm is computed once, so that a comparison costs
//! one product. Groups have no tensors in common and are not compared. Knows no miners and no cycles:
//! whoever was here first is the original.

use connito_protocol::ids::{BlobId, GroupId};
use connito_protocol::job::Candidate;

use crate::shard::Shard;

/// An update that has been read.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) group: GroupId,
    pub(crate) update: Shard,
    pub(crate) norm: f64,
    blob: BlobId,
}

impl Examined {
    pub(crate) fn new(candidate: &Candidate, update: Shard) -> Self {
        Self {
            group: candidate.group,
            norm: update.norm(),
            blob: candidate.update,
            update,
        }
    }

    /// Cosine of the angle to another update, over the tensors that both have; 0 if either is zero.
    fn cosine(&self, other: &Self) -> f64 {
        let norms = self.norm * other.norm;
        if norms > 0.0 {
            self.update.product(&other.update) / norms
        } else {
            0.0
        }
    }
}

/// The updates that later ones are held against.
#[derive(Debug, Default)]
pub(crate) struct Originals(Vec<Examined>);

impl Originals {
    pub(crate) fn remember(&mut self, examined: Examined) {
        self.0.push(examined);
    }

    /// Whether the very same bytes are here, which needs no reading.
    pub(crate) fn have_bytes_of(&self, candidate: &Candidate) -> bool {
        let mut same_group = self.of_group(candidate.group);
        same_group.any(|other| other.blob == candidate.update)
    }

    /// Whether an update here has an absolute cosine of at least `bound` with the new one.
    pub(crate) fn resemble(&self, examined: &Examined, bound: f64) -> bool {
        let mut same_group = self.of_group(examined.group);
        same_group.any(|other| examined.cosine(other).abs() >= bound)
    }

    fn of_group(&self, group: GroupId) -> impl Iterator<Item = &Examined> {
        self.0.iter().filter(move |other| other.group == group)
    }
}

#[cfg(test)]
mod tests {
    use connito_engine::Tensor;
    use connito_protocol::ids::Hotkey;

    use super::*;

    fn examined(group: u16, values: &[f32]) -> Examined {
        let tensor = Tensor {
            shape: vec![values.len()],
            values: values.to_vec(),
        };
        let candidate = Candidate {
            hotkey: Hotkey([1; 32]),
            group: GroupId(group),
            update: BlobId::of(&values[0].to_le_bytes()),
        };
        Examined::new(&candidate, Shard([("w".to_owned(), tensor)].into()))
    }

    #[test]
    fn a_copy_is_known_by_its_direction_whatever_its_length_and_sign() {
        let mut originals = Originals::default();
        originals.remember(examined(0, &[3.0, 4.0]));
        for (copy, values) in [
            (true, [-6.0, -8.0]),
            (true, [0.3, 0.401]),
            (false, [4.0, -3.0]),
            (false, [0.0, 0.0]),
        ] {
            assert_eq!(originals.resemble(&examined(0, &values), 0.95), copy);
        }
        let elsewhere = examined(1, &[3.0, 4.0]);
        assert!(!originals.resemble(&elsewhere, 0.95), "groups are apart");
    }
}
