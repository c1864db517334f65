//! Sequences as the model reads them: checked, laid end to end without padding, divided into passes.

use std::ops::Range;

use crate::config::ModelConfig;
use crate::device::Device;
use crate::error::EngineError;

/// Several sequences, one after the other, on a device.
#[derive(Debug)]
pub(crate) struct Batch<D: Device> {
    /// Token ids of all sequences.
    pub(crate) ids: D::Indices,
    /// Position of every token in its sequence.
    pub(crate) positions: D::Indices,
    /// The tokens that predict: all but the last of every sequence.
    pub(crate) predicting: D::Indices,
    /// What they should predict.
    pub(crate) targets: D::Indices,
    /// Tokens of every sequence.
    pub(crate) sequences: Vec<Range<usize>>,
    /// Tokens of all sequences.
    pub(crate) tokens: usize,
}

impl<D: Device> Batch<D> {
    /// Lays out sequences that [`check`] has accepted.
    pub(crate) fn new(device: &D, sequences: &[&[u32]]) -> Self {
        let ids = sequences.concat();
        let mut positions = Vec::with_capacity(ids.len());
        let mut ranges = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let start = positions.len();
            positions.extend(0..sequence.len() as u32);
            ranges.push(start..positions.len());
        }
        let predicting: Vec<u32> = ranges
            .iter()
            .flat_map(|range| range.start as u32..range.end as u32 - 1)
            .collect();
        let targets: Vec<u32> = sequences
            .iter()
            .flat_map(|sequence| &sequence[1..])
            .copied()
            .collect();
        Self {
            ids: device.indices(&ids),
            positions: device.indices(&positions),
            predicting: device.indices(&predicting),
            targets: device.indices(&targets),
            sequences: ranges,
            tokens: ids.len(),
        }
    }
}

/// Refuses what the model cannot read: no sequences, ids outside the vocabulary, lengths outside
/// `shortest..=max_position_embeddings`.
pub(crate) fn check(
    sequences: &[&[u32]],
    shortest: usize,
    config: &ModelConfig,
) -> Result<(), EngineError> {
    if sequences.is_empty() {
        return Err(EngineError::NoSequences);
    }
    let (vocabulary, longest) = (config.vocab_size, config.max_position_embeddings);
    for (index, sequence) in sequences.iter().enumerate() {
        if !(shortest..=longest).contains(&sequence.len()) {
            let length = sequence.len();
            return Err(EngineError::SequenceLength {
                index,
                length,
                shortest,
                longest,
            });
        }
        if let Some(&id) = sequence.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(EngineError::TokenId {
                index,
                id,
                vocabulary,
            });
        }
    }
    Ok(())
}

/// Consecutive sequences, together at most `tokens` long unless one alone is longer.
pub(crate) fn passes<'a, 's>(
    sequences: &'a [&'s [u32]],
    tokens: usize,
) -> impl Iterator<Item = &'a [&'s [u32]]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fitting = rest.iter().take_while(|sequence| {
            sum += sequence.len();
            sum <= tokens
        });
        let count = fitting.count().max(1).min(rest.len());
        let (pass, remaining) = rest.split_at(count);
        rest = remaining;
        (!pass.is_empty()).then_some(pass)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sequence is in exactly one pass, in order, whatever the lengths.
    #[test]
    fn passes_cover_every_sequence_once() {
        let storage: Vec<Vec<u32>> = (0..40)
            .map(|index| vec![index; 2 + (index as usize * 37) % 200])
            .collect();
        let sequences: Vec<&[u32]> = storage.iter().map(Vec::as_slice).collect();
        for tokens in [1, 100, 500, 100_000] {
            let passes: Vec<_> = passes(&sequences, tokens).collect();
            assert_eq!(passes.concat(), sequences);
            for pass in passes {
                let sum: usize = pass.iter().map(|sequence| sequence.len()).sum();
                assert!(pass.len() == 1 || sum <= tokens);
            }
        }
    }
}
