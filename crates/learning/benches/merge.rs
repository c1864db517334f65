//! How fast states are merged, beside how fast this machine copies memory:
//! `cargo bench -p connito-learning --bench merge`.
//!
//! One group of matrices as large as those of a 16 B model's experts takes an outer step over several
//! updates. Counted is every byte that is read and written: parameters and momentum each way, and the
//! updates twice, once for their norms and once for the sum (`once` counts them once, for what a reader
//! might expect). A copy counts as reading and writing too. Inputs lie in memory; results go through a
//! buffer to a sink that takes no time, as a disk's or a hash's would. Both are measured in turns and
//! the best of each is told, for what else the machine does only ever slows down.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use connito_engine::Tensor;
use connito_learning::aggregate::{Accepted, Group, Sinks, outer_step};
use connito_learning::shard::{Layout, Shard};
use connito_learning::store::{BlobSink, StoreError};
use connito_learning::wire::{Encoded, encode};
use connito_protocol::ids::BlobId;
use connito_protocol::rules::{Codec, Rules};

const ROUNDS: usize = 9;
/// Matrices of an expert of 2,048 × 1,408.
const SHAPE: [usize; 2] = [1408, 2048];
const MATRICES: usize = 12;

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn main() {
    // Cargo says so; a test that only builds and starts this should not measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("updates  codec  merge GB/s  once GB/s  copy GB/s  ratio  once");
    for (codec, name) in [(Codec::F32, "f32"), (Codec::Bf16, "bf16")] {
        for updates in [1, 3, 8, 32] {
            let [merge, once, copy] = measure(updates, codec);
            let (ratio, ratio_once) = (merge / copy, once / copy);
            println!(
                "{updates:>7}  {name:>5}  {merge:>10.1}  {once:>9.1}  {copy:>9.1}  {ratio:>5.2}  {ratio_once:>4.2}"
            );
        }
    }
}

/// Bytes a second of merging, of merging with the updates counted once, and of copying; in units of 10⁹.
fn measure(updates: usize, codec: Codec) -> [f64; 3] {
    let layout: Layout = (0..MATRICES)
        .map(|matrix| {
            (
                format!("experts.{}.w{}.weight", matrix / 3, matrix % 3),
                SHAPE.to_vec(),
            )
        })
        .collect();
    let (parameters, momentum) = (shard(&layout, 1), shard(&layout, 2));
    let (parameters, momentum) = (
        encode(&parameters, Codec::F32),
        encode(&momentum, Codec::F32),
    );
    let updates: Vec<Vec<u8>> = (0..updates)
        .map(|seed| encode(&shard(&layout, seed as u32 + 3), codec))
        .collect();
    let open = |bytes| Encoded::open(bytes, &layout).expect("what was just encoded");
    let opened: Vec<Encoded<'_>> = updates.iter().map(|bytes| open(bytes)).collect();
    let accepted: Vec<_> = opened
        .iter()
        .map(|update| Accepted {
            update,
            weight: 0.01,
        })
        .collect();
    let (phi, v) = (open(&parameters), open(&momentum));
    let group = Group {
        parameters: &phi,
        momentum: Some(&v),
        reference_norm: Some(1.0),
    };
    let rules = Rules::default().outer;
    let state = 2 * (parameters.len() + momentum.len());
    let read: usize = updates.iter().map(Vec::len).sum();
    let mut copied = vec![1u8; parameters.len()];
    let (mut merge, mut copy) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut sinks = Sinks {
            parameters: &mut Nowhere,
            momentum: &mut Nowhere,
        };
        let reference = outer_step(&group, &accepted, (&layout, &rules), &mut sinks);
        black_box(reference.expect("nothing can fail"));
        merge = started.elapsed().as_secs_f64().min(merge);
        let started = Instant::now();
        black_box(&mut copied).copy_from_slice(black_box(&parameters));
        copy = started.elapsed().as_secs_f64().min(copy);
    }
    [
        (state + 2 * read) as f64 / 1e9 / merge,
        (state + read) as f64 / 1e9 / merge,
        2.0 * copied.len() as f64 / 1e9 / copy,
    ]
}

fn shard(layout: &Layout, seed: u32) -> Shard {
    let mut state = seed.wrapping_mul(0x9e37_79b9);
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let tensor = |shape: &Vec<usize>| Tensor {
        shape: shape.clone(),
        values: (0..shape.iter().product()).map(|_| value()).collect(),
    };
    let tensors = layout.iter().map({
        let mut tensor = tensor;
        move |(name, shape)| (name.clone(), tensor(shape))
    });
    Shard(tensors.collect::<BTreeMap<_, _>>())
}

/// A sink that takes no time.
struct Nowhere;

impl BlobSink for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        black_box(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<BlobId, StoreError> {
        Ok(BlobId([0; 32]))
    }
}
