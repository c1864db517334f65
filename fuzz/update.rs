//! What every update target expects of a decoder (P-17, P-18).
//!
//! Inputs are a file's bytes and one small layout with a short chunk and one that needs two. A file is
//! refused, or it is what would be written for the values that are read of it; reading in place and
//! copying out say the same; no value is infinite, no number or subnormal.

use connito_learning::shard::{Layout, Shard};
use connito_learning::wire::encoded::{CHUNK, Encoded};
use connito_learning::wire::{self, decode, encode};
use connito_protocol::rules::Codec;

/// Values of the larger tensor: a whole chunk and 7 more.
const LONG: usize = CHUNK + 7;

/// Values of the smaller one: a chunk that keeps 3, with bits to spare.
const SHORT: usize = 130;

/// The expected tensors of the large layout.
#[must_use]
pub fn long_layout() -> Layout {
    Layout::from([("long".to_owned(), vec![LONG])])
}

/// Those of the small one.
#[must_use]
pub fn short_layout() -> Layout {
    Layout::from([
        ("a.gate.weight".to_owned(), vec![SHORT]),
        ("b".to_owned(), vec![1, 3]),
    ])
}

/// Reads a file of the small layout.
pub fn check_file(bytes: &[u8]) {
    check(bytes, &short_layout());
}

/// Reads a file with a sound header and these bytes for values, as many as there are or have to be. The
/// first byte chooses the layout.
pub fn check_values(codec: Codec, input: &[u8]) {
    let Some((choice, values)) = input.split_first() else {
        return;
    };
    let layout = if choice % 8 == 0 {
        long_layout()
    } else {
        short_layout()
    };
    let mut bytes = encode(&Shard::zeros(&layout), codec);
    let header = bytes.len() - body_bytes(&layout, codec);
    let given = values.len().min(bytes.len() - header);
    bytes[header..header + given].copy_from_slice(&values[..given]);
    check(&bytes, &layout);
}

/// Bytes of a complete file that are values.
#[must_use]
pub fn body_bytes(layout: &Layout, codec: Codec) -> usize {
    // The header's length stands before it, in eight bytes.
    let bytes = encode(&Shard::zeros(layout), codec);
    let length = bytes
        .first_chunk::<8>()
        .map_or(0, |length| u64::from_le_bytes(*length));
    bytes.len() - 8 - usize::try_from(length).unwrap_or(0)
}

fn check(bytes: &[u8], layout: &Layout) {
    let Ok(file) = Encoded::open(bytes, layout) else {
        assert!(decode(bytes, layout).is_err());
        return;
    };
    let (codec, shard) = decode(bytes, layout).expect("what can be opened can be read");
    assert_eq!(file.codec(), codec);
    for (name, tensor) in &shard.0 {
        let encoded = file.tensor(name).expect("it is listed");
        for (number, values) in tensor.values.chunks(CHUNK).enumerate() {
            assert!(
                values
                    .iter()
                    .all(|value| value.is_finite() && !value.is_subnormal())
            );
            let mut sum = vec![0.5_f32; values.len()];
            encoded.add_chunk(number, 2.0, &mut sum);
            assert!(
                sum.iter()
                    .zip(values)
                    .all(|(sum, value)| *sum == 0.5 + 2.0 * value)
            );
        }
    }
    let again = encode(&shard, codec);
    // Dense files may hold subnormal values, which are read as zero.
    if matches!(codec, Codec::Int8 | Codec::Sparse) {
        assert_eq!(again, bytes, "one update, two files");
    }
    assert_eq!(wire::decode(&again, layout), Ok((codec, shard)));
}
