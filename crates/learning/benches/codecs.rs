//! What each codec costs: `cargo bench -p connito-learning --bench codecs`.
//!
//! Bytes a second are those of the tensors in f32, so that codecs compare with each other and with a
//! plain copy of the same values. One core. Values are like those of an update with error feedback:
//! many small ones, a few large ones, no order.

use std::hint::black_box;

use connito_engine::Tensor;
use connito_learning::shard::Shard;
use connito_learning::wire::encoded::{CHUNK, Encoded};
use connito_learning::wire::{decode, encode};
use connito_protocol::rules::Codec;
use divan::Bencher;
use divan::counter::BytesCount;

/// One matrix of an expert of DeepSeek-V2-Lite.
const SHAPE: [usize; 2] = [1_408, 2_048];

fn main() {
    divan::main();
}

/// Cubes of evenly distributed numbers: a distribution with heavy tails.
fn values() -> Vec<f32> {
    let mut bytes = vec![0; SHAPE[0] * SHAPE[1] * 2];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let (pairs, _) = bytes.as_chunks::<2>();
    let value = |pair: &[u8; 2]| (f32::from(i16::from_le_bytes(*pair)) / 32_768.0).powi(3) * 1e-3;
    pairs.iter().map(value).collect()
}

fn shard() -> Shard {
    let tensor = Tensor {
        shape: SHAPE.to_vec(),
        values: values(),
    };
    Shard([("w".to_owned(), tensor)].into())
}

fn size() -> BytesCount {
    BytesCount::of_many::<f32>(SHAPE[0] * SHAPE[1])
}

#[divan::bench]
fn copy(bencher: Bencher<'_, '_>) {
    let (from, mut to) = (values(), values());
    bencher.counter(size()).bench_local(|| {
        black_box(&mut to).copy_from_slice(black_box(&from));
    });
}

#[divan::bench(args = Codec::ALL)]
fn write(bencher: Bencher<'_, '_>, codec: Codec) {
    let shard = shard();
    bencher
        .counter(size())
        .bench_local(|| encode(black_box(&shard), codec));
}

/// Checked and copied out.
#[divan::bench(args = Codec::ALL)]
fn read(bencher: Bencher<'_, '_>, codec: Codec) {
    let (bytes, layout) = (encode(&shard(), codec), shard().layout());
    bencher
        .counter(size())
        .bench_local(|| decode(black_box(&bytes), &layout));
}

/// Checked where it lies.
#[divan::bench(args = Codec::ALL)]
fn open(bencher: Bencher<'_, '_>, codec: Codec) {
    let (bytes, layout) = (encode(&shard(), codec), shard().layout());
    bencher.counter(size()).bench_local(|| {
        let file = Encoded::open(black_box(&bytes), &layout);
        file.map(|file| file.codec())
    });
}

/// Added to a sum, chunk by chunk, as a merge does.
#[divan::bench(args = Codec::ALL)]
fn add(bencher: Bencher<'_, '_>, codec: Codec) {
    let (bytes, layout) = (encode(&shard(), codec), shard().layout());
    let file = Encoded::open(&bytes, &layout).expect("what was written can be read");
    let tensor = file.tensor("w").expect("it is listed");
    let mut sum = values();
    bencher.counter(size()).bench_local(|| {
        for (number, sum) in sum.chunks_mut(CHUNK).enumerate() {
            tensor.add_chunk(number, 0.25, sum);
        }
    });
}
