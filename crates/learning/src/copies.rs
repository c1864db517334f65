//! Which updates are copies of others: the same bytes, the same direction, the same experts, a mixture of
//! others, or the same function (P-24, A-2 to A-14).
//!
//! ```text
//! against each original   |cosine| of the whole            noise, scale, sign              A-3, A-4
//!                         |cosine| of every expert         some experts only               A-5
//!                         regression on what is kept       a dense update sent sparsely
//! against all together    residual of a projection         blends, the momentum            A-9, A-10
//! of the measurement      per-sequence changes of loss     permuted, rescaled neurons      A-6, A-7
//! ```
//!
//! Originals are what was sealed before, what is remembered of the last cycles, and the group's momentum.
//! An update that is found to be a copy is no original itself, so that likeness does not spread from one to
//! the next (A-14). Only sketches are kept; comparing costs the sketches of the group's originals, once
//! each. Groups have no tensors in common and are not compared. Knows no miners and no cycles: whoever was
//! here first is the original.

use std::collections::BTreeMap;

use connito_protocol::ids::{BlobId, GroupId};
use connito_protocol::job::Original;
use connito_protocol::rules::ScoringRules;

use crate::sketch::Sketch;

/// Originals that a mixture is looked for among, the most telling first; more would explain honest
/// updates, too, where there are few samples.
const BLEND_SOURCES: usize = 32;

/// Samples of an update for each original that may be projected on.
const SAMPLES_PER_SOURCE: usize = 16;

/// What of an original's length must be new, beside those projected on before, to project on it as well.
const INDEPENDENT: f64 = 1e-6;

/// Sequences from which a correlation of their losses means anything: two numbers always lie on a line.
const TELLING_SEQUENCES: usize = 16;

/// The updates that later ones are held against.
#[derive(Debug, Default)]
pub struct Originals(BTreeMap<GroupId, Vec<Known>>);

#[derive(Debug)]
struct Known {
    name: Original,
    sketch: Sketch,
    energy: f64,
    /// With every original before it.
    products: Vec<f64>,
    /// Its changes of the losses of this cycle's sequences, if it was measured.
    changes: Option<Vec<f64>>,
}

/// How much of an update others account for. All from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resemblance {
    /// Largest |cosine| with one original.
    pub cosine: f64,
    /// Share of the energy that lies in experts which are copies of some original's.
    pub copied: f64,
    /// The cosine with the nearest mixture of originals.
    pub blend: f64,
    /// The largest correlation with an original of which this may be a sparse form.
    pub kept: f64,
    /// Whose update it is most alike: the earliest that the rules would call its original.
    pub original: Option<Original>,
}

/// An update that was compared and may become an original.
#[derive(Debug)]
pub struct Compared {
    /// What was found.
    pub resemblance: Resemblance,
    sketch: Sketch,
    products: Vec<f64>,
}

impl Originals {
    /// Whether the very same bytes are here, which needs no reading.
    #[must_use]
    pub fn with_bytes(&self, group: GroupId, blob: BlobId) -> Option<Original> {
        let same = |known: &&Known| matches!(known.name, Original::Update { update, .. } if update == blob);
        self.of_group(group)
            .iter()
            .find(same)
            .map(|known| known.name)
    }

    /// Holds an update against everything that is here for its group.
    #[must_use]
    pub fn compare(&self, group: GroupId, sketch: Sketch, rules: &ScoringRules) -> Compared {
        let known = self.of_group(group);
        let mut copied_from = vec![None; sketch.energies().count()];
        let (mut products, mut cosine, mut kept) =
            (Vec::new(), Nearest::default(), Nearest::default());
        for (index, original) in known.iter().enumerate() {
            let mut product = 0.0;
            for (expert, likeness) in sketch.likeness(&original.sketch).enumerate() {
                product += likeness.product;
                if likeness.cosine >= rules.duplicate_cosine && copied_from[expert].is_none() {
                    copied_from[expert] = Some(index);
                }
            }
            products.push(product);
            let norms = (sketch.energy() * original.energy).sqrt();
            let bound = rules.duplicate_cosine;
            cosine.note(
                index,
                if norms > 0.0 {
                    product.abs() / norms
                } else {
                    0.0
                },
                bound,
            );
            kept.note(index, sketch.told_by_kept(&original.sketch), bound);
        }
        let copied = Copied::new(&sketch, &copied_from);
        let blend = self.blend(group, &sketch, &products);
        let named = [
            cosine.first,
            kept.first,
            copied.most.filter(|_| copied.share > rules.copied_share),
            blend
                .nearest
                .filter(|_| blend.cosine >= rules.duplicate_cosine),
        ];
        let resemblance = Resemblance {
            cosine: cosine.largest,
            copied: copied.share,
            blend: blend.cosine,
            kept: kept.largest,
            original: named
                .into_iter()
                .flatten()
                .next()
                .map(|index| known[index].name),
        };
        Compared {
            resemblance,
            sketch,
            products,
        }
    }

    /// The original that changes the losses of the sequences as these changes do: the same function under
    /// other numbers.
    #[must_use]
    pub fn same_function(&self, group: GroupId, changes: &[f64], bound: f64) -> Option<Original> {
        let same = |known: &&Known| {
            let other = known.changes.as_deref();
            other.is_some_and(|other| correlation(changes, other) >= bound)
        };
        self.of_group(group)
            .iter()
            .find(same)
            .map(|known| known.name)
    }

    /// Makes an original of an update. `changes` are those of the losses of this cycle's sequences, of an
    /// update that was measured on them.
    pub fn remember(
        &mut self,
        (group, name): (GroupId, Original),
        compared: Compared,
        changes: Option<Vec<f64>>,
    ) {
        let Compared {
            sketch, products, ..
        } = compared;
        let energy = sketch.energy();
        self.0.entry(group).or_default().push(Known {
            name,
            sketch,
            energy,
            products,
            changes,
        });
    }

    fn of_group(&self, group: GroupId) -> &[Known] {
        self.0.get(&group).map_or(&[], Vec::as_slice)
    }

    /// Projects an update on originals, one after the other, each time on the one that explains most of
    /// what is left: a pivoted Cholesky factorisation of their products, which are known already.
    fn blend(&self, group: GroupId, sketch: &Sketch, products: &[f64]) -> Blend {
        let known = self.of_group(group);
        let energy = sketch.energy();
        let mut blend = Blend {
            nearest: None,
            cosine: 0.0,
        };
        if energy <= 0.0 {
            return blend;
        }
        // Of every original: its product with what is left, the square of what is new in it, and its
        // coordinates along the directions that have been projected on.
        let mut left = products.to_vec();
        let mut fresh: Vec<f64> = known.iter().map(|known| known.energy).collect();
        let mut along: Vec<Vec<f64>> = vec![Vec::new(); known.len()];
        let mut explained = 0.0;
        let sources = BLEND_SOURCES.min(sketch.samples() / SAMPLES_PER_SOURCE);
        for _ in 0..sources.min(known.len()) {
            let independent = |index: &usize| fresh[*index] > INDEPENDENT * known[*index].energy;
            let gain = |index: usize| left[index] * left[index] / fresh[index];
            let by_gain = |a: &usize, b: &usize| gain(*a).total_cmp(&gain(*b)).then(b.cmp(a));
            let Some(pivot) = (0..known.len()).filter(independent).max_by(by_gain) else {
                break;
            };
            explained += gain(pivot);
            blend.nearest.get_or_insert(pivot);
            let (length, of_left, of_pivot) =
                (fresh[pivot].sqrt(), left[pivot], along[pivot].clone());
            for index in 0..known.len() {
                let (earlier, later) = (index.min(pivot), index.max(pivot));
                let whole = match earlier == later {
                    true => known[index].energy,
                    false => known[later].products[earlier],
                };
                let before: f64 = along[index].iter().zip(&of_pivot).map(|(a, b)| a * b).sum();
                let coordinate = (whole - before) / length;
                along[index].push(coordinate);
                fresh[index] -= coordinate * coordinate;
                left[index] -= coordinate * of_left / length;
            }
        }
        blend.cosine = (explained / energy).min(1.0).sqrt();
        blend
    }
}

/// The largest value, and the first original whose value reaches a bound.
#[derive(Default)]
struct Nearest {
    largest: f64,
    first: Option<usize>,
}

impl Nearest {
    fn note(&mut self, index: usize, value: f64, bound: f64) {
        self.largest = self.largest.max(value.min(1.0));
        if value >= bound {
            self.first.get_or_insert(index);
        }
    }
}

struct Blend {
    nearest: Option<usize>,
    cosine: f64,
}

/// What part of an update is somebody else's experts.
struct Copied {
    share: f64,
    /// The original that most of it is from.
    most: Option<usize>,
}

impl Copied {
    fn new(sketch: &Sketch, from: &[Option<usize>]) -> Self {
        let mut energies: BTreeMap<usize, f64> = BTreeMap::new();
        for (energy, original) in sketch.energies().zip(from) {
            if let Some(original) = original {
                *energies.entry(*original).or_default() += energy;
            }
        }
        let whole = sketch.energy();
        let copied = energies.values().fold(0.0, |sum, energy| sum + energy);
        let larger = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0));
        Self {
            share: if whole > 0.0 { copied / whole } else { 0.0 },
            most: energies
                .into_iter()
                .max_by(larger)
                .map(|(original, _)| original),
        }
    }
}

/// The correlation of two updates' changes of the same losses; 0 where there are too few, or where one
/// changes all alike.
#[must_use]
pub fn correlation(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() || a.len() < TELLING_SEQUENCES {
        return 0.0;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let (mut product, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - of_a, b - of_b);
        (product, square_a, square_b) = (product + a * b, square_a + a * a, square_b + b * b);
    }
    let lengths = (square_a * square_b).sqrt();
    if lengths > 0.0 {
        product / lengths
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests;
