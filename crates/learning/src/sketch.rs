//! What is kept of an update to recognise copies of it by: seeded coordinates of every expert (P-24).
//!
//! ```text
//! expert's values   ├──────┼──────┼──────┼──────┤   as many equal stretches as there are samples
//! samples               •     •        •     •      one in each, where the seed says
//! ```
//!
//! The seed is that of the scoring draw, which nobody knows while an update can still be changed: what
//! was altered to look new was altered without knowing where anyone would look. Products of samples
//! estimate products of updates, and samples of a sparse update keep its zeros, which sums of many
//! coordinates would not. Sums are taken in f64 in one order, so that everyone finds the same. Knows
//! nothing of miners, cycles or bounds: what is too alike is decided in `copies.rs`.

use std::collections::BTreeMap;

use connito_protocol::ids::Seed;

use crate::shard::{Layout, Shard, dot};
use crate::update::expert_of;

/// Samples of an update of a whole group, 512 KiB. The standard error of a cosine over all of them is
/// below 0.003; experts have fewer each, which is why theirs are counted only in numbers.
const SAMPLES: usize = 1 << 17;

/// Samples of an expert at least, however many share the above.
const EXPERT_SAMPLES: usize = 256;

/// Where the updates of one group are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampler(Vec<SampledExpert>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct SampledExpert {
    /// Each of its tensors, with ascending positions.
    tensors: Vec<(String, Vec<usize>)>,
    values: usize,
    samples: usize,
}

impl Sampler {
    /// Draws the coordinates of every expert of a group.
    #[must_use]
    pub fn new(layout: &Layout, seed: &Seed) -> Self {
        let mut experts: BTreeMap<&str, Vec<(&String, usize)>> = BTreeMap::new();
        for (name, shape) in layout {
            let tensors = experts.entry(expert_of(name)).or_default();
            tensors.push((name, shape.iter().product()));
        }
        let most = (SAMPLES / experts.len().max(1)).max(EXPERT_SAMPLES);
        let draw = |(expert, tensors)| SampledExpert::draw(expert, tensors, (most, seed));
        Self(experts.into_iter().map(draw).collect())
    }

    /// The samples of one update.
    #[must_use]
    pub fn sketch(&self, update: &Shard) -> Sketch {
        Sketch(self.0.iter().map(|expert| expert.sketch(update)).collect())
    }
}

impl SampledExpert {
    fn draw(expert: &str, tensors: Vec<(&String, usize)>, (most, seed): (usize, &Seed)) -> Self {
        let values: usize = tensors.iter().map(|(_, length)| length).sum();
        let samples = most.min(values);
        let mut hasher = blake3::Hasher::new_derive_key("connito/1 sketch of an expert");
        hasher.update(&seed.0).update(expert.as_bytes());
        let mut stream = hasher.finalize_xof();
        let mut positions = (0..samples).map(|index| {
            let mut word = [0; 8];
            stream.fill(&mut word);
            let (start, end) = (index * values / samples, (index + 1) * values / samples);
            start + (u64::from_le_bytes(word) % (end - start) as u64) as usize
        });
        let (mut first, mut next) = (0, positions.next());
        let place = |(name, length): (&String, usize)| {
            let mut own = Vec::new();
            while let Some(position) = next.filter(|position| *position < first + length) {
                own.push(position - first);
                next = positions.next();
            }
            first += length;
            (name.clone(), own)
        };
        Self {
            tensors: tensors.into_iter().map(place).collect(),
            values,
            samples,
        }
    }

    /// Nothing for an expert that is not listed.
    fn sketch(&self, update: &Shard) -> SketchedExpert {
        let mut values = Vec::new();
        for (name, positions) in &self.tensors {
            let Some(tensor) = update.0.get(name) else {
                continue;
            };
            values.reserve_exact(positions.len());
            values.extend(positions.iter().map(|position| tensor.values[*position]));
        }
        let weight = self.values as f64 / self.samples.max(1) as f64;
        SketchedExpert {
            weight,
            energy: weight * dot(&values, &values),
            kept: values.iter().filter(|value| **value != 0.0).count(),
            values,
        }
    }
}

/// The samples of an update, expert by expert in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch(Vec<SketchedExpert>);

#[derive(Debug, Clone, PartialEq)]
struct SketchedExpert {
    /// Empty where the update does not list the expert.
    values: Vec<f32>,
    /// Values of the expert that one sample stands for.
    weight: f64,
    /// Estimated sum of the squares of all values.
    energy: f64,
    /// Samples that are not zero.
    kept: usize,
}

/// An expert's part in the likeness of two updates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExpertLikeness {
    /// Of the first update.
    pub(crate) energy: f64,
    /// Of the two.
    pub(crate) product: f64,
    /// |cosine|; 0 where there is too little to tell.
    pub(crate) cosine: f64,
}

/// Samples that are not zero from which an expert's own cosine means anything.
const TELLING_SAMPLES: usize = 16;

impl Sketch {
    /// Estimated sum of the squares of all values.
    #[must_use]
    pub fn energy(&self) -> f64 {
        self.0.iter().map(|expert| expert.energy).sum()
    }

    /// The energy of every expert.
    pub(crate) fn energies(&self) -> impl Iterator<Item = f64> {
        self.0.iter().map(|expert| expert.energy)
    }

    /// Samples of all listed experts.
    pub(crate) fn samples(&self) -> usize {
        self.0.iter().map(|expert| expert.values.len()).sum()
    }

    /// Expert by expert, how alike two sketches of one sampler are.
    pub(crate) fn likeness(&self, other: &Self) -> impl Iterator<Item = ExpertLikeness> {
        self.0.iter().zip(&other.0).map(|(own, other)| {
            let product = match own.values.len() == other.values.len() {
                true => own.weight * dot(&own.values, &other.values),
                false => 0.0,
            };
            let norms = (own.energy * other.energy).sqrt();
            let telling = own.kept.min(other.kept) >= TELLING_SAMPLES && norms > 0.0;
            ExpertLikeness {
                energy: own.energy,
                product,
                cosine: if telling { product.abs() / norms } else { 0.0 },
            }
        })
    }

    /// How well this update's values, where it has any, tell the other's: the correlation that follows from
    /// what is left of a regression of the other on this one, measured by the other's mean square. 0 unless
    /// the other keeps many more coordinates: then the cosine is the better measure.
    #[must_use]
    pub fn told_by_kept(&self, other: &Self) -> f64 {
        let (mut kept, mut own_square, mut product, mut square) = (0, 0.0, 0.0, 0.0);
        let (mut samples, mut others_kept, mut others_square) = (0, 0, 0.0);
        for (own, other) in self.0.iter().zip(&other.0) {
            if own.values.len() != other.values.len() {
                continue;
            }
            let pairs = own.values.iter().zip(&other.values);
            for (a, b) in pairs.filter(|(a, _)| **a != 0.0) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                (own_square, product, square) =
                    (own_square + a * a, product + a * b, square + b * b);
            }
            kept += own.kept;
            samples += own.values.len();
            others_kept += other.kept;
            others_square += dot(&other.values, &other.values);
        }
        if kept < 4 * TELLING_SAMPLES || kept * SPARSER > others_kept || own_square == 0.0 {
            return 0.0;
        }
        let left = square - product * product / own_square;
        let usual = others_square / samples as f64 * kept as f64;
        (1.0 - left / usual).max(0.0).sqrt()
    }
}

/// How many times the coordinates an update has to keep so that another counts as a sparse form of it.
const SPARSER: usize = 4;
