//! The arithmetic of the merge: by hand, against a naive reference, and bit for bit.

use connito_engine::Tensor;
use connito_protocol::ids::BlobId;
use connito_protocol::rules::Codec;
use proptest::prelude::*;

use super::*;
use crate::shard::Shard;
use crate::wire::{self, encode};

const RULES: OuterRules = OuterRules {
    learning_rate: 0.7,
    momentum: 0.9,
    clip_floor: 0.25,
};

/// A group's parameters and momentum, and the reference norm behind them.
#[derive(Debug, Clone, PartialEq)]
struct State {
    parameters: Shard,
    momentum: Shard,
    reference: Option<f64>,
}

/// Tensors of one dimension.
fn shard(tensors: &[(&str, &[f32])]) -> Shard {
    let tensor = |values: &[f32]| Tensor {
        shape: vec![values.len()],
        values: values.to_vec(),
    };
    let named = tensors
        .iter()
        .map(|(name, values)| ((*name).to_owned(), tensor(values)));
    Shard(named.collect())
}

fn only(values: &[f32]) -> Shard {
    shard(&[("w", values)])
}

fn start(parameters: Shard) -> State {
    State {
        momentum: Shard::zeros(&parameters.layout()),
        parameters,
        reference: None,
    }
}

struct Bytes(Vec<u8>);

impl BlobSink for Bytes {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<BlobId, StoreError> {
        Ok(BlobId::of(&self.0))
    }
}

/// One outer step, from tensors to tensors. Momentum is handed over only where there is any.
fn stepped(state: &State, updates: &[(Shard, f64)], rules: &OuterRules, codec: Codec) -> State {
    let layout = state.parameters.layout();
    let parameters = encode(&state.parameters, Codec::F32);
    let momentum = encode(&state.momentum, Codec::F32);
    let parameters = wire::open_shard(&parameters, &layout).unwrap();
    let momentum = wire::open_shard(&momentum, &layout).unwrap();
    let is_zero = state.momentum == Shard::zeros(&layout);
    let encoded: Vec<Vec<u8>> = updates.iter().map(|(u, _)| encode(u, codec)).collect();
    let opened: Vec<_> = encoded
        .iter()
        .map(|bytes| Encoded::open(bytes, &layout).unwrap())
        .collect();
    let accepted: Vec<_> = opened
        .iter()
        .zip(updates)
        .map(|(update, (_, weight))| Accepted {
            update,
            weight: *weight,
        })
        .collect();
    let group = Group {
        parameters: &parameters,
        momentum: (!is_zero).then_some(&momentum),
        reference_norm: state.reference,
    };
    let header = wire::shard_header(&layout);
    let (mut phi, mut v) = (Bytes(header.clone()), Bytes(header));
    let mut sinks = Sinks {
        parameters: &mut phi,
        momentum: &mut v,
    };
    let reference = outer_step(&group, &accepted, (&layout, rules), &mut sinks).unwrap();
    State {
        parameters: wire::decode_shard(&phi.0, &layout).unwrap(),
        momentum: wire::decode_shard(&v.0, &layout).unwrap(),
        reference,
    }
}

fn assert_close(shard: &Shard, expected: &[f32]) {
    for (value, expected) in shard.0["w"].values.iter().zip(expected) {
        assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
    }
}

/// By hand. Norms 0.1, 0.2, 0.5 with weights 0.5, 0.3, 0.2: half of the weight is reached at 0.1
/// already, so the second update is halved and the third scaled by a fifth.
/// G = 0.5·(0.06, 0.08) + 0.3·(0.06, 0.08) + 0.2·(−0.08, 0.06) = (0.032, 0.076);
/// v = G; Φ = (1, −2) + 0.7·1.9·G = (1.04256, −1.89892).
/// Then one update of (0.01, −0.02): v = 0.9·v + Δ = (0.0388, 0.0484),
/// Φ = Φ + 0.7·(0.9·v + Δ) = (1.074004, −1.882428).
#[test]
fn two_outer_steps_agree_with_the_hand_computed_ones() {
    let updates = [
        (only(&[0.06, 0.08]), 0.5),
        (only(&[0.12, 0.16]), 0.3),
        (only(&[-0.4, 0.3]), 0.2),
    ];
    let first = stepped(&start(only(&[1.0, -2.0])), &updates, &RULES, Codec::F32);
    assert_close(&first.momentum, &[0.032, 0.076]);
    assert_close(&first.parameters, &[1.042_56, -1.898_92]);
    assert!((first.reference.unwrap() - 0.1).abs() < 1e-6);

    let updates = [(only(&[0.01, -0.02]), 1.0)];
    let second = stepped(&first, &updates, &RULES, Codec::F32);
    assert_close(&second.momentum, &[0.0388, 0.0484]);
    assert_close(&second.parameters, &[1.074_004, -1.882_428]);
}

/// The published vector of DiLoCo's step, whose median is that of the values: with equal weights
/// norms 0.1, 0.2, 0.5 have the median 0.2, and the third update becomes (−0.16, 0.12).
/// G = ((0.06, 0.08) + (0.12, 0.16) + (−0.16, 0.12)) / 3 = (0.02/3, 0.12).
#[test]
fn equal_weights_clip_to_the_plain_median() {
    let updates = [[0.06, 0.08], [0.12, 0.16], [-0.4, 0.3]].map(|values| (only(&values), 0.2));
    let next = stepped(&start(only(&[1.0, -2.0])), &updates, &RULES, Codec::F32);
    assert_close(&next.momentum, &[0.02 / 3.0, 0.12]);
    assert_close(
        &next.parameters,
        &[1.0 + 1.33 * 0.02 / 3.0, -2.0 + 1.33 * 0.12],
    );
}

/// Two scalar steps: G = 0.125, then 0.04. v = 0.125, 0.1525; Φ = 1.16625, 1.290325.
#[test]
fn momentum_carries_over_to_the_next_cycle_and_is_halved_when_damped() {
    let mut state = start(only(&[1.0]));
    for (gradient, v, phi) in [(0.125, 0.125, 1.166_25), (0.04, 0.152_5, 1.290_325)] {
        state = stepped(&state, &[(only(&[gradient]), 0.01)], &RULES, Codec::F32);
        assert_close(&state.momentum, &[v]);
        assert_close(&state.parameters, &[phi]);
    }
    let layout = state.momentum.layout();
    let bytes = encode(&state.momentum, Codec::F32);
    let mut halved = Bytes(wire::shard_header(&layout));
    let momentum = wire::open_shard(&bytes, &layout).unwrap();
    damped(&momentum, &layout, &mut halved).unwrap();
    assert_close(
        &wire::decode_shard(&halved.0, &layout).unwrap(),
        &[0.076_25],
    );
}

/// An update that leaves a tensor out counts as zero in it, and not as absent: the other one moves it
/// by its share of all weight.
#[test]
fn a_tensor_that_an_update_does_not_list_is_zero_there() {
    let state = start(shard(&[("a", &[0.0]), ("b", &[0.0])]));
    let updates = [
        (shard(&[("a", &[0.3]), ("b", &[0.3])]), 1.0),
        (shard(&[("a", &[0.3])]), 2.0),
    ];
    let next = stepped(&state, &updates, &RULES, Codec::F32);
    assert!((next.momentum.0["a"].values[0] - 0.3).abs() < 1e-6);
    assert!((next.momentum.0["b"].values[0] - 0.1).abs() < 1e-6);
}

/// A crowd with nearly all of the weight sends next to nothing, cycle after cycle. What should happen:
/// the honest update of the usual length keeps a quarter of it, and the reference norm takes as many
/// cycles to halve as there are. What should not: that it is clipped to the crowd's length.
#[test]
fn a_weighty_crowd_of_tiny_updates_cannot_drag_the_clip_to_nothing() {
    let mut state = start(only(&[0.0, 0.0]));
    state.reference = Some(1.0);
    let crowd = (only(&[0.0, 1e-6]), 99.0);
    let honest = (only(&[1.0, 0.0]), 1.0);
    for kept in [0.25, 0.125, 0.0625] {
        let before = state.momentum.0["w"].values[0];
        state = stepped(&state, &[crowd.clone(), honest.clone()], &RULES, Codec::F32);
        let gained = state.momentum.0["w"].values[0] - 0.9 * before;
        assert!(
            (f64::from(gained) - kept * 0.01).abs() < 1e-6,
            "{gained} for {kept}"
        );
    }
    assert_eq!(state.reference, Some(0.125));

    let unguarded = OuterRules {
        clip_floor: 0.0,
        ..RULES
    };
    let mut state = start(only(&[0.0, 0.0]));
    state.reference = Some(1.0);
    let next = stepped(&state, &[crowd, honest], &unguarded, Codec::F32);
    assert!(next.momentum.0["w"].values[0] < 1e-7, "as without the rule");
}

/// The floor is spread over the group's values, so a small tensor has a small one.
#[test]
fn the_floor_of_a_tensor_is_its_even_part_of_the_reference_norm() {
    let zeros = [0.0; 9];
    let mut state = start(shard(&[("large", &zeros), ("small", &[0.0])]));
    state.reference = Some(1.0);
    let mut one = [0.0; 9];
    one[0] = 1.0;
    let (tiny, loud) = (
        (shard(&[("large", &[0.0; 9]), ("small", &[0.0])]), 3.0),
        (shard(&[("large", &one), ("small", &[1.0])]), 1.0),
    );
    let next = stepped(&state, &[tiny, loud], &RULES, Codec::F32);
    let moved = |name: &str| f64::from(next.momentum.0[name].values[0]);
    assert!((moved("large") - 0.25 * 0.25 * (0.9_f64).sqrt()).abs() < 1e-6);
    assert!((moved("small") - 0.25 * 0.25 * (0.1_f64).sqrt()).abs() < 1e-6);
}

/// The definition, tensor by tensor in f64, without chunks, streams or threads.
fn naive(state: &State, updates: &[(Shard, f64)], rules: &OuterRules) -> (Shard, Shard) {
    let total: f64 = updates.iter().map(|(_, weight)| weight).sum();
    let values: usize = state.parameters.0.values().map(|t| t.values.len()).sum();
    let mut next = state.clone();
    for (name, parameters) in &mut next.parameters.0 {
        let momentum = next.momentum.0.get_mut(name).unwrap();
        let listed: Vec<(&[f32], f64, f64)> = updates
            .iter()
            .filter_map(|(update, weight)| {
                let values = update.0.get(name)?.values.as_slice();
                let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
                Some((values, *weight, square.sqrt()))
            })
            .collect();
        let mut norms: Vec<_> = listed
            .iter()
            .map(|(_, weight, norm)| (*norm, *weight))
            .collect();
        norms.sort_by(|a, b| a.0.total_cmp(&b.0));
        let half = norms.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
        let mut below = 0.0;
        let median = norms.iter().find(|(_, weight)| {
            below += weight;
            below >= half
        });
        let share = (parameters.values.len() as f64 / values as f64).sqrt();
        let floor = rules.clip_floor * state.reference.unwrap_or(0.0) * share;
        let most = median.map_or(floor, |(norm, _)| norm.max(floor));
        for (at, (phi, v)) in parameters
            .values
            .iter_mut()
            .zip(&mut momentum.values)
            .enumerate()
        {
            let g: f64 = listed
                .iter()
                .map(|(values, weight, norm)| {
                    weight / total * (most / norm).min(1.0) * f64::from(values[at])
                })
                .sum();
            let (eta, mu) = (f64::from(rules.learning_rate), f64::from(rules.momentum));
            let after = mu * f64::from(*v) + g;
            *phi = (f64::from(*phi) + eta * (mu * after + g)) as f32;
            *v = after as f32;
        }
    }
    (next.parameters, next.momentum)
}

/// Numbers of every size that is no trouble, the same for the same seed.
fn noise(seed: u64, count: usize, reach: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * reach
        })
        .collect()
}

/// A group of three tensors, one shorter than a chunk, one that ends inside of one, and one of several
/// blocks, with momentum and a reference norm, and `updates` updates, each second of which leaves the
/// second tensor out.
fn workload(seed: u64, updates: u64) -> (State, Vec<(Shard, f64)>) {
    let lengths = [
        ("a", 5),
        ("b", CHUNK + 17),
        ("c", (BLOCK_CHUNKS + 2) * CHUNK + 1),
    ];
    let noisy = |seed: u64, reach: f32| {
        let tensors =
            lengths.map(|(name, length)| (name, noise(seed ^ length as u64, length, reach)));
        shard(
            &tensors
                .each_ref()
                .map(|(name, values)| (*name, values.as_slice())),
        )
    };
    let state = State {
        parameters: noisy(seed, 2.0),
        momentum: noisy(seed + 1, 0.1),
        reference: Some(0.8),
    };
    let update = |number: u64| {
        let mut update = noisy(seed + 100 + number, 0.01 * (number + 1) as f32);
        if number % 2 == 1 {
            update.0.remove("b");
        }
        (update, 0.001 * (number % 5 + 1) as f64)
    };
    (state, (0..updates).map(update).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// What should not happen: that chunks, blocks, threads or streams show in the result.
    #[test]
    fn the_stream_computes_what_the_definition_says(seed in any::<u32>(), updates in 1..7_u64) {
        let (state, updates) = workload(u64::from(seed), updates);
        let next = stepped(&state, &updates, &RULES, Codec::F32);
        let (parameters, momentum) = naive(&state, &updates, &RULES);
        for (found, expected) in [(&next.parameters, &parameters), (&next.momentum, &momentum)] {
            for (name, expected) in &expected.0 {
                let pairs = found.0[name].values.iter().zip(&expected.values);
                for (found, expected) in pairs {
                    prop_assert!((found - expected).abs() < 2e-6, "{name}: {found}, not {expected}");
                }
            }
        }
    }

    /// However large one update is, it moves the mean by no more than its share of the median norm
    ///
    #[test]
    fn an_amplified_update_gains_no_influence(scale in 1.0..1e6_f32) {
        let honest = [only(&[0.1, 0.0]), only(&[0.0, 0.1])];
        let loud = only(&[0.1 * scale, 0.1 * scale]);
        let updates: Vec<_> = honest.into_iter().chain([loud]).map(|update| (update, 1.0)).collect();
        let mean = stepped(&start(only(&[0.0, 0.0])), &updates, &RULES, Codec::F32).momentum;
        let mean = &mean.0["w"].values;
        prop_assert!((mean[0] * mean[0] + mean[1] * mean[1]).sqrt() <= 0.1 + 1e-6);
    }
}

/// Hashes of parameters and momentum after two steps over seven updates. They were computed on x86-64
/// and are the same on AArch64 (`tools/merge_on_aarch64.sh`), the encoding of the updates included; whoever changes them changes the protocol.
#[test]
fn the_merged_bytes_are_those_that_every_machine_computes() {
    let name = |shard: &Shard| BlobId::of(&encode(shard, Codec::F32)).to_string();
    let codecs = [Codec::F32, Codec::Bf16, Codec::Int8, Codec::Sparse];
    let found = codecs.map(|codec| {
        let (state, updates) = workload(2026, 7);
        let once = stepped(&state, &updates, &RULES, codec);
        let twice = stepped(&once, &updates[2..], &RULES, codec);
        [name(&twice.parameters), name(&twice.momentum)]
    });
    let expected = [
        [
            "480f37fb19782a565b18fc3ba54859aecdb6c675c65db340a06b8cefdc7fddeb",
            "3a110296f577937f77893f305c98baf4046b54be5cdcb74d85264bd62880dec2",
        ],
        [
            "3e803ca5768de178057bb43a39852e3ef037eeded683ff749eb3de9f36338faf",
            "b3729eb33d550417814cfb834455397304eb3bbd15e7e141fe05f0f26c3af274",
        ],
        [
            "22b3f36430e8f428805acd914f25585ed0aa50613c07a90446f342cc63b49d7f",
            "5e59a971bb1c18b56b685cde5b49d2744d5e97e966a40b1ba763034e097f2e30",
        ],
        [
            "7bd7d4759904048614fdc19feeb62eb5cff9643183c4f49c10f49c12a9d890bb",
            "3b293529d2e7fd40971a48fda055cc085880aa2fefd5d91e22bb7d6e7eeda224",
        ],
    ];
    assert_eq!(found, expected);
}
