//! Copies in every disguise, and honest updates that must not be taken for one.

use connito_engine::Tensor;
use connito_protocol::ids::{Hotkey, Seed};
use connito_protocol::rules::Rules;
use proptest::prelude::*;

use super::*;
use crate::shard::Shard;
use crate::sketch::Sampler;

const GROUP: GroupId = GroupId(0);
const EXPERTS: usize = 10;

/// Values of an expert, in two tensors: enough that a sample is a small part of them.
const VALUES: usize = 20_000;

/// An update of nothing but noise. Two of them are as independent as strangers' updates can be.
fn random(seed: u64) -> Shard {
    let expert = |index: usize| {
        let mut stream = blake3::Hasher::new();
        stream
            .update(&seed.to_le_bytes())
            .update(&index.to_le_bytes());
        let mut bytes = vec![0; VALUES * 2];
        stream.finalize_xof().fill(&mut bytes);
        let (pairs, _) = bytes.as_chunks::<2>();
        let number = |pair: &[u8; 2]| f32::from(i16::from_le_bytes(*pair)) / 32768.0;
        let values: Vec<f32> = pairs.iter().map(number).collect();
        let (gate, down) = values.split_at(VALUES / 4);
        [("gate", gate), ("down", down)].map(|(name, values)| {
            let shape = vec![values.len()];
            let values = values.to_vec();
            (
                format!("layer.experts.{index}.{name}.weight"),
                Tensor { shape, values },
            )
        })
    };
    Shard((0..EXPERTS).flat_map(expert).collect())
}

/// `Σ factor · update`.
fn mixture(parts: &[(f32, &Shard)]) -> Shard {
    let mut mixture = Shard::zeros(&parts[0].1.layout());
    for (factor, part) in parts {
        for (name, tensor) in &mut mixture.0 {
            let pairs = tensor.values.iter_mut().zip(&part.0[name].values);
            pairs.for_each(|(value, other)| *value += factor * other);
        }
    }
    mixture
}

/// The first experts of one update and the others of another.
fn spliced(copied: usize, from: &Shard, own: &Shard) -> Shard {
    let is_copied = |name: &&String| (0..copied).any(|i| name.contains(&format!("experts.{i}.")));
    let mut spliced = own.clone();
    for name in from.0.keys().filter(is_copied) {
        spliced.0.insert(name.clone(), from.0[name].clone());
    }
    spliced
}

/// As the sparse codec keeps it: the 64 largest of every 4,096.
fn sparse(update: &Shard) -> Shard {
    let mut sparse = update.clone();
    for chunk in sparse
        .0
        .values_mut()
        .flat_map(|tensor| tensor.values.chunks_mut(4096))
    {
        let mut sizes: Vec<f32> = chunk.iter().map(|value| value.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let least = sizes[sizes.len().saturating_sub(64)];
        chunk
            .iter_mut()
            .filter(|value| value.abs() < least)
            .for_each(|value| *value = 0.0);
    }
    sparse
}

fn name(number: u8) -> Original {
    Original::Update {
        hotkey: Hotkey([number; 32]),
        update: BlobId([number; 32]),
    }
}

/// Originals under the names 0, 1, 2…
struct Known {
    sampler: Sampler,
    originals: Originals,
}

impl Known {
    fn of(updates: &[&Shard]) -> Self {
        let sampler = Sampler::new(&updates[0].layout(), &Seed([7; 32]));
        let mut known = Self {
            sampler,
            originals: Originals::default(),
        };
        for (number, update) in (0..).zip(updates) {
            let compared = known.compare(update);
            known
                .originals
                .remember((GROUP, name(number)), compared, None);
        }
        known
    }

    fn compare(&self, update: &Shard) -> Compared {
        let sketch = self.sampler.sketch(update);
        self.originals
            .compare(GROUP, sketch, &Rules::default().scoring)
    }

    fn original_of(&self, update: &Shard) -> Option<Original> {
        self.compare(update).resemblance.original
    }
}

/// Cases are few because each draws hundreds of thousands of numbers.
fn few() -> ProptestConfig {
    ProptestConfig::with_cases(6)
}

proptest! {
    #![proptest_config(few())]

    /// up to three tenths of its own norm hide nothing, half of it is another update.
    #[test]
    fn noise_does_not_hide_a_copy(exponent in -6.0..-0.53_f64, seed in any::<u64>()) {
        let (original, noise) = (random(1), random(seed | 1 << 40));
        let known = Known::of(&[&original]);
        let length = 10_f64.powf(exponent) as f32;
        let copy = mixture(&[(1.0, &original), (length, &noise)]);
        prop_assert_eq!(known.original_of(&copy), Some(name(0)));
        let other = mixture(&[(1.0, &original), (0.5, &noise)]);
        prop_assert_eq!(known.original_of(&other), None);
    }

    ///
    #[test]
    fn scale_and_sign_do_not_hide_a_copy(exponent in -3.0..3.0_f64, negative in any::<bool>()) {
        let original = random(1);
        let factor = 10_f64.powf(exponent) as f32;
        let copy = mixture(&[(if negative { -factor } else { factor }, &original)]);
        prop_assert_eq!(Known::of(&[&original]).original_of(&copy), Some(name(0)));
    }

    /// up to two signs in a hundred turned, or more than half of the experts.
    #[test]
    fn turned_signs_and_own_experts_hide_a_copy_only_where_they_outweigh_it(
        turned in 0.0..0.02_f64, copied in 0..=EXPERTS,
    ) {
        let (original, own, other) = (random(1), random(2), random(3));
        let known = Known::of(&[&original]);
        let mut flipped = original.clone();
        for (name, tensor) in &mut flipped.0 {
            let chance = other.0[name].values.iter();
            let drawn = tensor.values.iter_mut().zip(chance);
            let chosen = drawn.filter(|(_, chance)| f64::from(**chance) < 2.0 * turned - 1.0);
            chosen.for_each(|(value, _)| *value = -*value);
        }
        prop_assert_eq!(known.original_of(&flipped), Some(name(0)));
        // Experts are equally long, but for sampling; exactly half is not tested.
        if copied * 2 != EXPERTS {
            let found = known.original_of(&spliced(copied, &original, &own));
            prop_assert_eq!(found.is_some(), copied * 2 > EXPERTS, "{} experts", copied);
        }
    }

    /// any mixture of two others, whatever their signs; not one with as much of its own.
    #[test]
    fn a_mixture_of_others_is_a_copy(a in 0.2..1.0_f32, b in -1.0..-0.2_f32, seed in any::<u64>()) {
        let (first, second, own) = (random(1), random(2), random(seed | 1 << 41));
        let known = Known::of(&[&random(3), &first, &second]);
        let blend = mixture(&[(a, &first), (b, &second)]);
        let nearest = if a > -b { name(1) } else { name(2) };
        prop_assert_eq!(known.original_of(&blend), Some(nearest));
        let share = (a * a + b * b).sqrt();
        let honest = mixture(&[(a, &first), (b, &second), (share, &own)]);
        prop_assert_eq!(known.original_of(&honest), None);
    }

    /// an update between two others is a copy of the earlier one and pulls nobody else down.
    #[test]
    fn a_bridge_between_two_updates_spreads_no_blame(lean in 0.29..0.32_f32, seed in any::<u64>()) {
        let (first, own) = (random(1), random(seed | 1 << 42));
        // 17 degrees from the one, 17 from the other, 34 between them.
        let bridge = mixture(&[(1.0, &first), (lean, &own)]);
        let honest = mixture(&[(1.0, &first), (0.68, &own)]);
        let mut known = Known::of(&[&first]);
        prop_assert_eq!(known.original_of(&bridge), Some(name(0)));
        prop_assert_eq!(known.original_of(&honest), None, "beside the first alone");
        let pair = Known::of(&[&bridge]);
        prop_assert_eq!(pair.original_of(&honest), Some(name(0)), "the bridge does bridge");
        // The bridge was found to be a copy, so it was not remembered; strangers may be.
        let stranger = known.compare(&random(9));
        known.originals.remember((GROUP, name(9)), stranger, None);
        prop_assert_eq!(known.original_of(&honest), None, "the bridge is no original");
    }
}

/// What should happen: a dense update sent sparsely, and a sparse one sent again, are copies. What should
/// not: that what two strangers keep looks alike.
#[test]
fn another_codec_does_not_hide_a_copy() {
    let (original, stranger) = (random(1), random(2));
    let known = Known::of(&[&original]);
    let resemblance = known.compare(&sparse(&original)).resemblance;
    assert!(
        resemblance.cosine < 0.9,
        "most of it is gone: {resemblance:?}"
    );
    assert_eq!(resemblance.original, Some(name(0)), "{resemblance:?}");
    assert_eq!(known.original_of(&sparse(&stranger)), None);
    let known = Known::of(&[&sparse(&original)]);
    assert_eq!(known.original_of(&sparse(&original)), Some(name(0)));
    assert_eq!(known.original_of(&sparse(&stranger)), None);
    assert_eq!(known.original_of(&stranger), None);
}

/// Of three equal ones the first is named; groups have nothing in common; zero is like nothing.
#[test]
fn the_earliest_original_of_the_same_group_is_named() {
    let original = random(1);
    let twin = mixture(&[(2.0, &original)]);
    let known = Known::of(&[&random(5), &original, &twin]);
    assert_eq!(known.original_of(&twin), Some(name(1)));
    let sketch = known.sampler.sketch(&twin);
    let elsewhere = known
        .originals
        .compare(GroupId(1), sketch, &Rules::default().scoring);
    assert_eq!(elsewhere.resemblance.original, None);
    let zero = known.compare(&Shard::zeros(&original.layout())).resemblance;
    let nothing = (zero.cosine, zero.copied, zero.blend, zero.kept);
    assert_eq!((nothing, zero.original), ((0.0, 0.0, 0.0, 0.0), None));
}

/// A false alarm among independent updates would be a defect: their cosines are within thousandths of 0.
#[test]
fn independent_updates_are_no_copies_one_by_one_or_together() {
    let updates: Vec<Shard> = (0..40).map(random).collect();
    let known = Known::of(&updates.iter().collect::<Vec<_>>());
    let honest = known.compare(&random(1000)).resemblance;
    assert!(honest.cosine < 0.02 && honest.blend < 0.1, "{honest:?}");
    assert_eq!((honest.copied, honest.original), (0.0, None));
}

#[test]
fn an_update_may_leave_out_experts_that_its_original_has() {
    let original = random(1);
    let mut part = original.clone();
    part.0.retain(|name, _| name.contains("experts.3."));
    assert_eq!(Known::of(&[&original]).original_of(&part), Some(name(0)));
}

/// what a function does to every sequence tells it, whatever its numbers are.
#[test]
fn the_same_changes_of_losses_are_the_same_function() {
    let changes: Vec<f64> = (0..32).map(|i| f64::from(i * 7 % 11) / 100.0).collect();
    let nearly: Vec<f64> = changes
        .iter()
        .zip(0..)
        .map(|(c, i)| c + f64::from(i % 3) * 1e-3)
        .collect();
    let other: Vec<f64> = (0..32).map(|i| f64::from(i * 5 % 13) / 100.0).collect();
    let original = random(1);
    let mut known = Known::of(&[&original]);
    let compared = known.compare(&random(2));
    known
        .originals
        .remember((GROUP, name(4)), compared, Some(changes.clone()));
    let bound = Rules::default().scoring.same_function;
    let same = |changes: &[f64]| known.originals.same_function(GROUP, changes, bound);
    assert_eq!(same(&nearly), Some(name(4)));
    assert_eq!(same(&other), None);
    assert_eq!(
        same(&[0.0; 32]),
        None,
        "nothing changes nothing in no particular way"
    );
    assert_eq!(
        same(&changes[..2]),
        None,
        "two numbers always lie on a line"
    );
}
