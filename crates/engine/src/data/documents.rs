//! Documents as token ids: cut to length, kept in canonical bytes, sampled and batched by seed.
//!
//! A sequence is one document, or a piece of one, of 2 to `sequence_length` tokens. The bytes are a
//! safetensors file with `offsets` (I64, `[sequences + 1]`) and `ids` (I32, `[tokens]`), sequence
//! `i` being `ids[offsets[i]..offsets[i + 1]]`. The header is written here, character by character,
//! so that equal documents have equal bytes, and hence one name, whatever library wrote or will
//! write them. Reading trusts nothing: the bytes may come from a stranger.
//!
//! Which documents a validator scores on is drawn by [`TokenDocuments::sample`], which every
//! validator must be able to repeat exactly. Nothing here knows what the ids mean.

use safetensors::{Dtype, SafeTensors};

use super::random::Random;
use super::{DataError, DocumentsFault};
use crate::tokenizer::Tokenizer;

/// Room for a header with two tensors of any size; what is longer holds something else.
const LONGEST_HEADER_BYTES: u64 = 1024;

/// What becomes of a document that is longer than a sequence may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// Only its beginning is kept: each document counts once, as evaluation needs it.
    First,
    /// It is cut into consecutive sequences: no text is wasted, as training wants it.
    All,
}

/// What a model accepts; token documents from elsewhere are checked against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Every token id must be below this.
    pub vocabulary: usize,
    /// No sequence may have more tokens than this.
    pub sequence_length: usize,
}

/// Sequences of token ids, each of at least two tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenDocuments {
    /// All sequences, one after the other.
    ids: Vec<u32>,
    /// Where each sequence begins, and where the last one ends: sequences + 1 entries.
    offsets: Vec<usize>,
}

impl Default for TokenDocuments {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            offsets: vec![0],
        }
    }
}

impl TokenDocuments {
    /// Tokenises documents and cuts them to at most `sequence_length` tokens.
    ///
    /// A piece of fewer than two tokens is dropped: it predicts nothing.
    ///
    /// # Errors
    /// The tokenizer cannot encode one of the texts.
    pub fn tokenize(
        tokenizer: &Tokenizer,
        texts: &[String],
        sequence_length: usize,
        pieces: Pieces,
    ) -> Result<Self, DataError> {
        let mut documents = Self::default();
        for text in texts {
            let ids = tokenizer.encode_document(text)?;
            let cut = match pieces {
                Pieces::First => 1,
                Pieces::All => usize::MAX,
            };
            for piece in ids.chunks(sequence_length.max(1)).take(cut) {
                if piece.len() >= 2 {
                    documents.push(piece);
                }
            }
        }
        Ok(documents)
    }

    /// Takes sequences as they are.
    ///
    /// # Errors
    /// [`DocumentsFault::TooShort`] for a sequence of fewer than two tokens.
    pub fn from_sequences<S: AsRef<[u32]>>(
        sequences: impl IntoIterator<Item = S>,
    ) -> Result<Self, DocumentsFault> {
        let mut documents = Self::default();
        for (index, sequence) in sequences.into_iter().enumerate() {
            if sequence.as_ref().len() < 2 {
                return Err(DocumentsFault::TooShort { index });
            }
            documents.push(sequence.as_ref());
        }
        Ok(documents)
    }

    fn push(&mut self, sequence: &[u32]) {
        self.ids.extend_from_slice(sequence);
        self.offsets.push(self.ids.len());
    }

    /// Appends all sequences of `other`: how several domains become one mixture.
    pub fn append(&mut self, other: &Self) {
        other.iter().for_each(|sequence| self.push(sequence));
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens in all sequences together.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The sequence at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&[u32]> {
        self.ids
            .get(*self.offsets.get(index)?..*self.offsets.get(index + 1)?)
    }

    /// All sequences in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.offsets
            .windows(2)
            .map(|ends| &self.ids[ends[0]..ends[1]])
    }

    /// The sequences at `indices`, in that order; an index out of range is left out.
    pub fn select(&self, indices: &[usize]) -> Vec<&[u32]> {
        indices
            .iter()
            .filter_map(|&index| self.get(index))
            .collect()
    }

    /// Draws `count` different sequences without replacement; all of them if there are fewer.
    ///
    /// SHA-256 of the seed and a label starts a splitmix64 stream, which drives the first `count`
    /// steps of a Fisher–Yates shuffle of `0..len`: every ordered selection is equally likely. Where
    /// `count` is at least the number of sequences the result is a permutation of all of them.
    pub fn sample(&self, seed: &[u8; 32], count: usize) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..self.len()).collect();
        Random::from_bytes("sample of token documents", seed).shuffle_front(&mut indices, count);
        indices.truncate(count);
        indices
    }

    /// The canonical bytes: a safetensors file, the same for equal documents on every machine.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (entries, tokens) = (self.offsets.len(), self.ids.len());
        let (split, end) = (entries * 8, entries * 8 + tokens * 4);
        let mut header = format!(
            r#"{{"offsets":{{"dtype":"I64","shape":[{entries}],"data_offsets":[0,{split}]}},"ids":{{"dtype":"I32","shape":[{tokens}],"data_offsets":[{split},{end}]}}}}"#
        );
        // The format pads with blanks so that the values begin on a multiple of eight bytes.
        let padded = header.len().next_multiple_of(8);
        header.extend(std::iter::repeat_n(' ', padded - header.len()));

        let mut bytes = Vec::with_capacity(8 + header.len() + end);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(
            self.offsets
                .iter()
                .flat_map(|&offset| (offset as u64).to_le_bytes()),
        );
        bytes.extend(self.ids.iter().flat_map(|id| id.to_le_bytes()));
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote, or another safetensors file with the same two tensors.
    ///
    /// Allocates no more than a small multiple of `bytes`, whatever sizes the header claims.
    ///
    /// # Errors
    /// Any deviation from the format, an id the vocabulary does not have, a sequence of fewer than
    /// two tokens or of more than the limit.
    pub fn from_bytes(bytes: &[u8], limits: Limits) -> Result<Self, DocumentsFault> {
        let header = bytes
            .first_chunk()
            .map(|length| u64::from_le_bytes(*length));
        if header.is_none_or(|length| length > LONGEST_HEADER_BYTES) {
            return Err(DocumentsFault::NotSafetensors);
        }
        let file = SafeTensors::deserialize(bytes).map_err(|_| DocumentsFault::NotSafetensors)?;
        if file.len() != 2 {
            return Err(DocumentsFault::WrongTensors);
        }
        let ids = words::<4>(&file, "ids", Dtype::I32, "I32")?.map(i32::from_le_bytes);
        let ids = checked_ids(ids, limits.vocabulary)?;
        let offsets = words::<8>(&file, "offsets", Dtype::I64, "I64")?.map(u64::from_le_bytes);
        let offsets = checked_offsets(offsets, ids.len(), limits.sequence_length)?;
        Ok(Self { ids, offsets })
    }
}

/// The values of a one-axis tensor as little-endian words of `N` bytes.
fn words<'a, const N: usize>(
    file: &SafeTensors<'a>,
    tensor: &'static str,
    dtype: Dtype,
    expected: &'static str,
) -> Result<impl Iterator<Item = [u8; N]> + use<'a, N>, DocumentsFault> {
    let view = file
        .tensor(tensor)
        .map_err(|_| DocumentsFault::WrongTensors)?;
    if view.shape().len() != 1 {
        return Err(DocumentsFault::WrongTensors);
    }
    if view.dtype() != dtype {
        return Err(DocumentsFault::WrongType { tensor, expected });
    }
    Ok(view
        .data()
        .chunks_exact(N)
        .filter_map(|word| word.try_into().ok()))
}

fn checked_ids(
    ids: impl Iterator<Item = i32>,
    vocabulary: usize,
) -> Result<Vec<u32>, DocumentsFault> {
    ids.enumerate()
        .map(|(position, id)| {
            u32::try_from(id)
                .ok()
                .filter(|&id| (id as usize) < vocabulary)
                .ok_or(DocumentsFault::IdOutOfVocabulary {
                    position,
                    id: i64::from(id),
                    vocabulary,
                })
        })
        .collect()
}

/// Offsets that cut `tokens` ids into sequences of 2 to `longest` tokens.
fn checked_offsets(
    offsets: impl Iterator<Item = u64>,
    tokens: usize,
    longest: usize,
) -> Result<Vec<usize>, DocumentsFault> {
    let mut checked: Vec<usize> = Vec::new();
    for (index, offset) in offsets.enumerate() {
        let in_range = usize::try_from(offset)
            .ok()
            .filter(|&offset| offset <= tokens);
        let offset = in_range.ok_or(DocumentsFault::OffsetOutOfOrder { index })?;
        match checked.last().map(|&last| offset.checked_sub(last)) {
            None if offset == 0 => {}
            Some(Some(length)) if length > longest => {
                return Err(DocumentsFault::TooLong {
                    index: index - 1,
                    longest,
                });
            }
            Some(Some(length)) if length >= 2 => {}
            Some(Some(_)) => return Err(DocumentsFault::TooShort { index: index - 1 }),
            None | Some(None) => return Err(DocumentsFault::OffsetOutOfOrder { index }),
        }
        checked.push(offset);
    }
    if checked.last() != Some(&tokens) {
        return Err(DocumentsFault::OffsetOutOfOrder {
            index: checked.len().saturating_sub(1),
        });
    }
    Ok(checked)
}

/// An endless sequence of batches of document indices for training.
///
/// Each pass over the documents is a fresh shuffle, and every document comes up once per pass; a
/// batch may reach from one pass into the next, so all batches have the same size. Only an empty
/// set of documents or an empty batch size ends it, at once.
#[derive(Debug, Clone)]
pub struct Batches {
    random: Random,
    order: Vec<usize>,
    next: usize,
    size: usize,
}

impl Batches {
    /// Batches of `size` indices below `documents`, in an order that depends on the seed alone.
    pub fn new(documents: usize, size: usize, seed: u64) -> Self {
        let random = Random::named("batches of token documents", seed, 0);
        Self {
            random,
            order: (0..documents).collect(),
            next: documents,
            size,
        }
    }
}

impl Iterator for Batches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        if self.order.is_empty() || self.size == 0 {
            return None;
        }
        let mut batch = Vec::with_capacity(self.size);
        while batch.len() < self.size {
            if self.next == self.order.len() {
                self.random.shuffle_front(&mut self.order, usize::MAX);
                self.next = 0;
            }
            batch.push(self.order[self.next]);
            self.next += 1;
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests;
