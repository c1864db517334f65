//! Sequences as the model reads them: checked, laid end to end without padding, and divided into
//! passes that fit a cache and shares that occupy the threads.

use std::ops::Range;

use crate::config::ModelConfig;
use crate::error::EngineError;

/// Tokens of one forward pass. Larger ones give the experts more rows per product; smaller ones keep a
/// layer's activations (512 bytes a token and buffer at width 128) in the second-level cache.
const PASS_TOKENS: usize = 1024;

/// Several sequences, one after the other.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Token ids of all sequences.
    pub(crate) ids: Vec<u32>,
    /// Position of every token in its sequence.
    pub(crate) positions: Vec<u32>,
    /// Tokens of every sequence.
    pub(crate) sequences: Vec<Range<usize>>,
}

impl Batch {
    /// Lays out sequences that [`check`] has accepted.
    pub(crate) fn new(sequences: &[&[u32]]) -> Self {
        let ids = sequences.concat();
        let mut batch = Self {
            positions: Vec::with_capacity(ids.len()),
            sequences: Vec::with_capacity(sequences.len()),
            ids,
        };
        for sequence in sequences {
            let start = batch.positions.len();
            batch.positions.extend(0..sequence.len() as u32);
            batch.sequences.push(start..batch.positions.len());
        }
        batch
    }

    /// The tokens that predict: all but the last of every sequence.
    pub(crate) fn predicting(&self) -> Vec<u32> {
        self.sequences
            .iter()
            .flat_map(|sequence| sequence.start as u32..sequence.end as u32 - 1)
            .collect()
    }

    /// What they should predict.
    pub(crate) fn targets(&self) -> Vec<u32> {
        self.sequences
            .iter()
            .flat_map(|sequence| &self.ids[sequence.start + 1..sequence.end])
            .copied()
            .collect()
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

/// Consecutive sequences, together about [`PASS_TOKENS`] long.
pub(crate) fn passes<'a, 's>(sequences: &'a [&'s [u32]]) -> impl Iterator<Item = &'a [&'s [u32]]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|sequence| {
            tokens += sequence.len();
            tokens <= PASS_TOKENS
        });
        let count = fitting.count().max(1).min(rest.len());
        let (pass, remaining) = rest.split_at(count);
        rest = remaining;
        (!pass.is_empty()).then_some(pass)
    })
}

/// Divides sequences into at most `shares` consecutive runs of about equally many tokens.
pub(crate) fn shares<'a, 's>(sequences: &'a [&'s [u32]], shares: usize) -> Vec<&'a [&'s [u32]]> {
    let total: usize = sequences.iter().map(|sequence| sequence.len()).sum();
    let shares = shares.max(1);
    let mut runs = Vec::with_capacity(shares);
    let (mut start, mut tokens) = (0, 0);
    for (index, sequence) in sequences.iter().enumerate() {
        tokens += sequence.len();
        // The run ends where the cumulative count reaches its part of the total.
        if tokens * shares >= total * (runs.len() + 1) {
            runs.push(&sequences[start..=index]);
            start = index + 1;
        }
    }
    runs
}

/// Runs `work` on every share, each on its own thread, and returns the results in order.
pub(crate) fn on_threads<S: Send, T: Send>(shares: Vec<S>, work: impl Fn(S) -> T + Sync) -> Vec<T> {
    if shares.len() <= 1 {
        return shares.into_iter().map(work).collect();
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(|| work(share)))
            .collect();
        running
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sequence is in exactly one run, in order, and no run is empty, whatever the lengths.
    #[test]
    fn shares_and_passes_cover_every_sequence_once() {
        let storage: Vec<Vec<u32>> = (0..40)
            .map(|index| vec![index; 2 + (index as usize * 37) % 200])
            .collect();
        let sequences: Vec<&[u32]> = storage.iter().map(Vec::as_slice).collect();
        for count in [0, 1, 2, 3, 7, 39, 40, 100] {
            let runs = shares(&sequences, count);
            assert!(runs.len() <= count.max(1) && runs.iter().all(|run| !run.is_empty()));
            assert_eq!(runs.concat(), sequences);
        }
        let passes: Vec<_> = passes(&sequences).collect();
        assert_eq!(passes.concat(), sequences);
        let tokens = |pass: &&[&[u32]]| pass.iter().map(|sequence| sequence.len()).sum::<usize>();
        assert!(
            passes
                .iter()
                .map(tokens)
                .all(|tokens| tokens <= PASS_TOKENS)
        );
    }
}
