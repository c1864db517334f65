//! What a copier may do to an update so that it looks like another.

use std::collections::BTreeMap;

use connito_engine::Tensor;
use connito_engine::data::random::Random;
use connito_learning::shard::Shard;

/// Every value by a function of it and a random number from −1 to 1, evenly spread.
fn each(update: &Shard, seed: u64, mut change: impl FnMut(f32, f32) -> f32) -> Shard {
    let mut random = Random::named("disguise", seed, 0);
    let mut disguised = update.clone();
    for value in disguised
        .0
        .values_mut()
        .flat_map(|tensor| &mut tensor.values)
    {
        let number = random.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0;
        *value = change(*value, number);
    }
    disguised
}

/// Noise in the places of the values, as long as the update is: what no training has seen.
pub(crate) fn unrelated(update: &Shard, seed: u64) -> Shard {
    let noise = each(update, seed, |_, random| random);
    mixture(&[(&noise, update.norm() / noise.norm())])
}

/// The sum of updates with their factors, over the tensors of the first.
pub(crate) fn mixture(parts: &[(&Shard, f64)]) -> Shard {
    let tensors = parts[0].0.0.iter().map(|(name, first)| {
        let mut values = vec![0.0; first.values.len()];
        for (part, factor) in parts {
            for (value, other) in values
                .iter_mut()
                .zip(part.0.get(name).map_or(&[][..], |t| &t.values))
            {
                *value += *factor as f32 * other;
            }
        }
        (
            name.clone(),
            Tensor {
                shape: first.shape.clone(),
                values,
            },
        )
    });
    Shard(tensors.collect())
}

/// With noise of this length, in lengths of the update.
pub(crate) fn noisy(update: &Shard, length: f64, seed: u64) -> Shard {
    mixture(&[(update, 1.0), (&unrelated(update, seed), length)])
}

/// With this share of the signs turned.
pub(crate) fn flipped(update: &Shard, share: f64, seed: u64) -> Shard {
    let turn = |value: f32, random: f32| {
        if f64::from(random) < 2.0 * share - 1.0 {
            -value
        } else {
            value
        }
    };
    each(update, seed, turn)
}

/// With this share of the experts, and the others of another update.
pub(crate) fn partly(update: &Shard, other: &Shard, share: f64) -> Shard {
    let mut experts: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for name in update.0.keys() {
        experts
            .entry(name.rsplitn(3, '.').nth(2).unwrap())
            .or_default()
            .push(name);
    }
    let copied = (share * experts.len() as f64).round() as usize;
    let names: Vec<&String> = experts.values().take(copied).flatten().copied().collect();
    let mut mixed = other.clone();
    for name in names {
        mixed.0.insert(name.clone(), update.0[name].clone());
    }
    mixed
}

/// As the sparse codec would send it: 64 values of every 4,096, each its sign and one of two sizes.
pub(crate) fn sparse(update: &Shard) -> Shard {
    let mut sparse = update.clone();
    for chunk in sparse
        .0
        .values_mut()
        .flat_map(|tensor| tensor.values.chunks_mut(4096))
    {
        let mut sizes: Vec<f32> = chunk.iter().map(|value| value.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let kept = &sizes[sizes.len().saturating_sub(64)..];
        let mean = |sizes: &[f32]| sizes.iter().sum::<f32>() / sizes.len().max(1) as f32;
        let middle = kept.partition_point(|size| *size <= mean(kept));
        let (small, large) = (mean(&kept[..middle]), mean(&kept[middle..]));
        let (least, bound) = (kept[0], mean(kept));
        for value in chunk {
            let size = if value.abs() < least {
                0.0
            } else if value.abs() <= bound {
                small
            } else {
                large
            };
            *value = size * value.signum();
        }
    }
    sparse
}

/// The same function with its neurons in another order, or with one matrix larger and the next smaller.
pub(crate) fn rearranged(base: &Shard, update: &Shard, how: Rearrangement) -> Shard {
    let mut after = base.plus(update);
    for (name, tensor) in &mut after.0 {
        if update.0.contains_key(name) {
            rearrange(name, tensor, how);
        }
    }
    let mut rearranged = after.difference(base);
    rearranged.0.retain(|name, _| update.0.contains_key(name));
    rearranged
}

#[derive(Clone, Copy)]
pub(crate) enum Rearrangement {
    /// Every neuron takes the place of the one before.
    Permuted,
    /// `up` times this, `down` divided by it.
    Rescaled(f32),
}

fn rearrange(name: &str, tensor: &mut Tensor, how: Rearrangement) {
    let width = tensor.shape[1];
    let (up, down) = (name.contains("up_proj"), name.contains("down_proj"));
    match how {
        // Neurons are rows of gate and up, columns of down.
        Rearrangement::Permuted if down => {
            tensor
                .values
                .chunks_mut(width)
                .for_each(|row| row.rotate_left(1));
        }
        Rearrangement::Permuted => tensor.values.rotate_left(width),
        Rearrangement::Rescaled(factor) if up => {
            tensor.values.iter_mut().for_each(|v| *v *= factor)
        }
        Rearrangement::Rescaled(factor) if down => {
            tensor.values.iter_mut().for_each(|v| *v /= factor)
        }
        Rearrangement::Rescaled(_) => {}
    }
}
