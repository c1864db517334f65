//! Text to token ids and back: byte-level BPE in the file format of Hugging Face `tokenizers`.
//!
//! [`Tokenizer::train`] makes one from text: each digit a token of its own (numbers then have a
//! regular form, so that a small model can learn to add), byte-level BPE over the rest, so every
//! text can be written. `<|begin|>` is id 0 and `<|end|>` id 1. [`Tokenizer::load`] takes any BPE
//! `tokenizer.json`, for models that come with theirs; such a file does not say which of its tokens
//! begin and end a document, the model's configuration does ([`Tokenizer::with_boundaries`]).
//!
//! Text is never allowed to spell a special token: a document that contains the characters
//! `<|end|>` gets ordinary tokens for them. Nothing here knows of models or sequence lengths.

use std::path::Path;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, PreTokenizerWrapper};

use crate::data::DataError;

mod check;

/// Stands before every document of a tokenizer trained here; id 0.
pub const BEGIN: &str = "<|begin|>";

/// Stands after every document of a tokenizer trained here; id 1.
pub const END: &str = "<|end|>";

/// The two boundary tokens and one token for each byte: what every vocabulary trained here holds.
pub const LEAST_VOCABULARY: usize = 2 + 256;

/// The largest file that is read. The largest vocabulary in use, of 256,000 tokens, takes 33 MB.
const LARGEST_FILE_BYTES: usize = 64 << 20;

/// Texts are trained on in pieces of this many bytes at most. The library takes time quadratic in the
/// longest word: 3 s for 100,000 letters, minutes for the mebibyte that a line may hold.
const LONGEST_PIECE_BYTES: usize = 8 << 10;

/// A tokenizer and the tokens that begin and end its documents.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    begin: Option<u32>,
    end: Option<u32>,
    vocabulary: usize,
}

impl Tokenizer {
    /// Trains a byte-level BPE of at most `vocabulary` tokens.
    ///
    /// The result depends on the texts alone, not on their order, the threads or the process. It has
    /// fewer tokens than asked only if the texts have no more pairs to merge.
    ///
    /// # Errors
    /// A vocabulary below [`LEAST_VOCABULARY`], or a failure inside the library.
    pub fn train<'a>(
        texts: impl Iterator<Item = &'a str> + Send,
        vocabulary: usize,
    ) -> Result<Self, DataError> {
        if vocabulary < LEAST_VOCABULARY {
            let least = LEAST_VOCABULARY;
            return Err(DataError::VocabularyTooSmall {
                asked: vocabulary,
                least,
            });
        }
        let special = |token: &str| AddedToken::from(token, true);
        let trainer = BpeTrainer::builder()
            .vocab_size(vocabulary)
            .show_progress(false)
            .special_tokens(vec![special(BEGIN), special(END)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        // No blank before the first word and no offsets to trim: bytes in, the same bytes out.
        let bytes = ByteLevel::new(false, false, true);
        let split: Vec<PreTokenizerWrapper> = vec![Digits::new(true).into(), bytes.into()];
        inner.with_pre_tokenizer(Some(Sequence::new(split)));
        inner.with_decoder(Some(bytes));
        let mut trainer = TrainerWrapper::from(trainer);
        inner
            .train(&mut trainer, texts.flat_map(pieces))
            .map_err(|source| fault("training a tokenizer", "the library failed", source))?;
        Ok(Self::new(inner))
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file is missing or too large, or [`Self::from_bytes`] refuses its content.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(|source| DataError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&bytes, &path.display().to_string())
    }

    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// Not JSON of that format, a model other than BPE, or merges its vocabulary does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DataError> {
        Self::parse(bytes, "tokenizer.json")
    }

    fn parse(bytes: &[u8], subject: &str) -> Result<Self, DataError> {
        if bytes.len() > LARGEST_FILE_BYTES {
            return Err(fault(subject, "larger than 64 MiB", None));
        }
        check::check(bytes).map_err(|(problem, source)| fault(subject, problem, source))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|source| fault(subject, "not a tokenizer", source))?;
        // Some files carry the settings of their last use; documents are cut here and never padded.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|source| fault(subject, "not a tokenizer", source))?;
        Ok(Self::new(inner))
    }

    fn new(mut inner: tokenizers::Tokenizer) -> Self {
        inner.set_encode_special_tokens(true);
        let begin = inner.token_to_id(BEGIN);
        let end = inner.token_to_id(END);
        let vocabulary = inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1);
        Self {
            inner,
            begin,
            end,
            vocabulary,
        }
    }

    /// Sets the tokens that begin and end a document, as a foreign model's configuration names them.
    #[must_use]
    pub fn with_boundaries(mut self, begin: Option<u32>, end: Option<u32>) -> Self {
        (self.begin, self.end) = (begin, end);
        self
    }

    /// The tokens that begin and end a document, where there are such.
    pub fn boundaries(&self) -> (Option<u32>, Option<u32>) {
        (self.begin, self.end)
    }

    /// One more than the highest token id: the least number of embeddings a model needs.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The token ids of a document: the beginning, its text, the end.
    ///
    /// # Errors
    /// The text cannot be encoded, which a byte-level tokenizer never reports.
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding
            .map_err(|source| fault("encoding a document", "the library failed", source))?;
        let text = encoding.get_ids().iter().copied();
        Ok(self.begin.into_iter().chain(text).chain(self.end).collect())
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// The library's decoder fails. Ids without a token are left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner
            .decode(ids, true)
            .map_err(|source| fault("decoding token ids", "the library failed", source))
    }

    /// The content of a `tokenizer.json`: the same bytes for the same tokenizer, always.
    ///
    /// # Errors
    /// The library cannot write this tokenizer.
    pub fn to_bytes(&self) -> Result<Vec<u8>, DataError> {
        let text = self
            .inner
            .to_string(false)
            .map_err(|source| fault("writing a tokenizer", "the library failed", source))?;
        Ok(text.into_bytes())
    }

    /// Writes a `tokenizer.json`.
    ///
    /// # Errors
    /// The library cannot write this tokenizer, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        std::fs::write(path, self.to_bytes()?).map_err(|source| DataError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

/// `text` in consecutive pieces of at most [`LONGEST_PIECE_BYTES`].
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(LONGEST_PIECE_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// What the library reports: anything at all.
type Cause = Box<dyn std::error::Error + Send + Sync>;

fn fault(subject: &str, problem: &'static str, source: impl Into<Option<Cause>>) -> DataError {
    DataError::Tokenizer {
        subject: subject.to_owned(),
        problem,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests;
