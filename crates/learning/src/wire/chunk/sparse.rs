//! `sparse`: the largest 64 of every 4,096 values, at 14 bits each.
//!
//! ```text
//! scale: bf16 │ words of 14 bits, four in seven bytes, one for each kept value, by ascending index
//! word: index in the chunk (12 bits) │ small or large (1 bit) │ negative (1 bit)
//! value: scale if small, 1.5·scale if large, with the sign; everything that is not kept is zero
//! ```
//!
//! A chunk of `n` values keeps `⌈n/64⌉`, which is 64 of 4,096. Zero is never kept: where fewer values
//! differ from zero, the words that are left are zero, and a chunk of zeros is all zeros, scale
//! included. Which values are kept is `selection`'s, which scale fits them `fit`'s. Writing what was
//! read gives the same bytes; `check` refuses whatever would not (A-48 to A-51).

mod fit;
mod selection;

use super::{ChunkRules, Fault, Scale, check_scale, from_bf16, malformed, split_scale, to_bf16};
use fit::Fit;

/// The large magnitude, in multiples of the small one. Two magnitudes are enough for what is left of a
/// distribution above a threshold; that they are close is what such a tail looks like, and the ratio is
/// the one of least squared error on updates of the reference task, within a tenth of it from 1.4 to 1.7.
const LARGE: f32 = 1.5;

/// The largest bf16 of which [`LARGE`] times is finite.
const LARGEST_SCALE: u16 = 0x7f2a;

/// The smallest bf16 that is not subnormal.
const SMALLEST_SCALE: u16 = 0x0080;

/// Values of which one is kept.
const OUT_OF: usize = 64;

const INDEX: u16 = 0x0fff;
const IS_LARGE: u16 = 0x1000;
const IS_NEGATIVE: u16 = 0x2000;

/// Bits in a word, words in a block, and bytes that these take.
const WORD_BITS: usize = 14;
const BLOCK_WORDS: usize = 4;
const BLOCK_BYTES: usize = 7;

/// The largest few.
#[derive(Debug)]
pub(super) struct Sparse;

impl ChunkRules for Sparse {
    fn dtype(&self) -> &'static str {
        "S64"
    }

    fn bytes(&self, values: usize) -> usize {
        2 + (kept(values) * WORD_BITS).div_ceil(8)
    }

    fn encode(&self, values: &[f32], into: &mut [u8]) {
        into.fill(0);
        let Some((scale, blocks)) = into.split_first_chunk_mut::<2>() else {
            return;
        };
        let Some(chosen) = selection::largest(values, kept(values.len())) else {
            *scale = to_bf16(f32::NAN).to_le_bytes();
            return;
        };
        if chosen.is_empty() {
            return;
        }
        let magnitude = |index: &u16| values[usize::from(*index)].abs();
        let Fit { scale: bits, large } = fit::fit(chosen.iter().map(magnitude));
        *scale = bits.to_le_bytes();
        let words = chosen.iter().map(|index| {
            let value = values[usize::from(*index)];
            let large = if value.abs() >= large { IS_LARGE } else { 0 };
            let negative = if value < 0.0 { IS_NEGATIVE } else { 0 };
            index | large | negative
        });
        write_words(words, blocks);
    }

    fn check(&self, bytes: &[u8], values: usize) -> Result<(), Fault> {
        let (scale, blocks) = split_scale(bytes);
        if let Scale::Zero = check_scale(scale, LARGE)? {
            let zero = blocks.iter().all(|byte| *byte == 0);
            return if zero {
                Ok(())
            } else {
                Err(malformed("a scale is zero and a word is not"))
            };
        }
        let (mut before, mut ended, mut has_small) = (None, false, false);
        for (number, word) in words(blocks).enumerate() {
            // Index 0 can only come first, so a zero further on is what chunks are filled up with.
            ended |= number >= kept(values) || (word == 0 && number > 0);
            if ended && word != 0 {
                return Err(malformed("something follows the last kept value"));
            }
            if ended {
                continue;
            }
            let index = word & INDEX;
            if usize::from(index) >= values {
                return Err(malformed("an index lies beyond the chunk"));
            }
            if before.is_some_and(|before| before >= index) {
                return Err(malformed("indices do not ascend"));
            }
            before = Some(index);
            has_small |= word & IS_LARGE == 0;
        }
        if has_small {
            Ok(())
        } else {
            Err(malformed("no kept value is small"))
        }
    }

    fn read(&self, bytes: &[u8], out: &mut [f32]) {
        out.fill(0.0);
        for_each_kept(bytes, out.len(), |index, value| out[index] = value);
    }

    fn add(&self, bytes: &[u8], factor: f32, sum: &mut [f32]) {
        for_each_kept(bytes, sum.len(), |index, value| {
            sum[index] += factor * value
        });
    }
}

/// How many of a chunk's values are kept at most.
fn kept(values: usize) -> usize {
    values.div_ceil(OUT_OF)
}

/// Index and value of everything that a checked chunk keeps.
#[inline]
fn for_each_kept(bytes: &[u8], values: usize, mut each: impl FnMut(usize, f32)) {
    let (scale, blocks) = split_scale(bytes);
    if scale == 0 {
        return;
    }
    let small = from_bf16(scale);
    for (number, word) in words(blocks).take(kept(values)).enumerate() {
        if word == 0 && number > 0 {
            return;
        }
        let magnitude = if word & IS_LARGE == 0 {
            small
        } else {
            small * LARGE
        };
        let value = if word & IS_NEGATIVE == 0 {
            magnitude
        } else {
            -magnitude
        };
        each(usize::from(word & INDEX), value);
    }
}

fn write_words(words: impl Iterator<Item = u16>, blocks: &mut [u8]) {
    let mut words = words.fuse();
    for block in blocks.chunks_mut(BLOCK_BYTES) {
        let four = words.by_ref().take(BLOCK_WORDS).enumerate();
        let bits = four.fold(0_u64, |bits, (number, word)| {
            bits | u64::from(word) << (number * WORD_BITS)
        });
        block.copy_from_slice(&bits.to_le_bytes()[..block.len()]);
    }
}

/// The words of a chunk; the last block is filled up with zeros, and bits of it that belong to no word
/// come as further words.
#[inline]
fn words(blocks: &[u8]) -> impl Iterator<Item = u16> {
    blocks.chunks(BLOCK_BYTES).flat_map(|block| {
        let mut bits = [0; 8];
        bits[..block.len()].copy_from_slice(block);
        let bits = u64::from_le_bytes(bits);
        #[expect(clippy::cast_possible_truncation, reason = "a word has 14 bits")]
        let word = move |number| (bits >> (number * WORD_BITS)) as u16 & 0x3fff;
        (0..BLOCK_WORDS).map(word)
    })
}
