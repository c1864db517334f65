//! What every update target expects of a decoder (P-17, P-18).
//!
//! Inputs are a file's bytes and one small layout with a short chunk and one that needs two. A file is
//! refused, or it is what would be written for the values that are read of it; reading in place and
//! copying out say the same; no value is infinite, no number or subnormal. Whatever does not depend on
//! the input is made once a process.

use connito_learning::shard::{Layout, Shard};
use connito_learning::wire::encoded::{CHUNK, Encoded};
use connito_learning::wire::{decode, encode};
use connito_protocol::rules::Codec;

/// Values of the larger tensor: a whole chunk and 7 more.
const LONG: usize = CHUNK + 7;

/// Values of the smaller one: a chunk that keeps 3, with bits to spare.
const SHORT: usize = 130;

/// One first byte in so many chooses the large layout, which has thirty times the values.
const RARELY: u8 = 64;

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

/// What reads inputs as the values of files of one codec.
pub struct Values {
    long: Frame,
    short: Frame,
}

/// A layout, and a file of zeros of which `header` bytes come before the values.
struct Frame {
    layout: Layout,
    zeros: Vec<u8>,
    header: usize,
}

impl Values {
    /// Both layouts in this codec.
    #[must_use]
    pub fn of(codec: Codec) -> Self {
        Self {
            long: Frame::new(long_layout(), codec),
            short: Frame::new(short_layout(), codec),
        }
    }

    /// Reads a file with a sound header and these bytes for values, as many as there are or have to be.
    /// The first byte chooses the layout.
    pub fn check(&self, input: &[u8]) {
        let Some((choice, values)) = input.split_first() else {
            return;
        };
        let frame = if choice % RARELY == 0 {
            &self.long
        } else {
            &self.short
        };
        let mut bytes = frame.zeros.clone();
        let body = &mut bytes[frame.header..];
        let given = values.len().min(body.len());
        body[..given].copy_from_slice(&values[..given]);
        check_file(&bytes, &frame.layout);
    }
}

impl Frame {
    fn new(layout: Layout, codec: Codec) -> Self {
        let zeros = encode(&Shard::zeros(&layout), codec);
        let header = zeros.len() - body_bytes(&layout, codec);
        Self {
            layout,
            zeros,
            header,
        }
    }
}

/// Reads a whole file.
pub fn check_file(bytes: &[u8], layout: &Layout) {
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
    if again != bytes {
        // Dense files may hold subnormal values, which are read as zero.
        let dense = matches!(codec, Codec::F32 | Codec::Bf16);
        assert!(dense, "one update, two files");
        assert_eq!(decode(&again, layout), Ok((codec, shard)));
    }
}
