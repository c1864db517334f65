//! What can be wrong with text, pools, token documents and tokenizers, each error naming the file,
//! line, domain or tensor at fault. Causes are reported through `source()` only.

use std::path::PathBuf;

use super::pools::Pool;

/// Why data could not be read, split, tokenised or decoded.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file is missing or cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// One line of a JSONL file is not a document.
    #[error("{}, line {line}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// What is wrong with it.
        source: LineFault,
    },
    /// The file has no line that is not blank.
    #[error("{} contains no documents", path.display())]
    NoDocuments {
        /// The file.
        path: PathBuf,
    },
    /// A domain is too small for every pool to have a document.
    #[error(
        "domain {domain} has too few documents: none of its {documents} distinct ones falls into \
         the {pool} pool (a hundred or more are usually enough)"
    )]
    EmptyPool {
        /// The domain.
        domain: String,
        /// The first pool that would be empty.
        pool: Pool,
        /// How many different documents the domain has.
        documents: usize,
    },
    /// A vocabulary too small to hold every byte and the two boundary tokens.
    #[error("a vocabulary of {asked} tokens is too small: {least} are needed")]
    VocabularyTooSmall {
        /// The size asked for.
        asked: usize,
        /// The least size that works.
        least: usize,
    },
    /// The tokenizer could not be trained, read or applied.
    #[error("{subject}: {problem}")]
    Tokenizer {
        /// The file, or what was being done.
        subject: String,
        /// What is wrong.
        problem: &'static str,
        /// The tokenizer library's own account, if it gave one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Bytes that should hold token documents do not.
    #[error("malformed token documents")]
    Documents {
        /// What is wrong with them.
        #[from]
        source: DocumentsFault,
    },
}

/// Why one line of a JSONL file is not a document.
#[derive(Debug, thiserror::Error)]
pub enum LineFault {
    /// The line is longer than [`super::reader::LONGEST_LINE_BYTES`].
    #[error("longer than {limit} bytes")]
    TooLong {
        /// The bound, in bytes.
        limit: usize,
    },
    /// The line is not UTF-8.
    #[error("not UTF-8 at byte {byte}")]
    NotUtf8 {
        /// Offset of the first invalid byte within the line, counted from zero.
        byte: usize,
    },
    /// The line is not JSON.
    #[error("not JSON at column {column}")]
    NotJson {
        /// Column of the error, counted from one.
        column: usize,
    },
    /// The line is JSON of another shape.
    #[error(
        "expected an object with \"text\", with \"question\" and \"answer\", or with \"messages\""
    )]
    NoKnownShape,
    /// A key of a known shape holds something else than is expected there.
    #[error("\"{key}\" is not {expected}")]
    WrongType {
        /// The key at fault.
        key: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
    /// A key of a known shape holds nothing but white space.
    #[error("\"{key}\" is empty")]
    Empty {
        /// The key at fault.
        key: &'static str,
    },
}

/// Why bytes are not token documents, or sequences cannot become some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentsFault {
    /// Not a safetensors file, or its header is longer than two tensors need.
    #[error("not a safetensors file with a short header")]
    NotSafetensors,
    /// The file does not consist of the two tensors `ids` and `offsets`.
    #[error("expected exactly the tensors ids and offsets, each with one axis")]
    WrongTensors,
    /// A tensor has another element type than the format says.
    #[error("tensor {tensor} is not of type {expected}")]
    WrongType {
        /// The tensor.
        tensor: &'static str,
        /// The type it should have.
        expected: &'static str,
    },
    /// The offsets do not cut `ids` from its beginning to its end.
    #[error("offset {index} is out of order: offsets rise from 0 to the number of ids")]
    OffsetOutOfOrder {
        /// Index into the tensor `offsets`.
        index: usize,
    },
    /// A sequence of fewer than two tokens predicts nothing.
    #[error("sequence {index} has fewer than two tokens")]
    TooShort {
        /// Index of the sequence.
        index: usize,
    },
    /// A sequence is longer than the model accepts.
    #[error("sequence {index} has more than {longest} tokens")]
    TooLong {
        /// Index of the sequence.
        index: usize,
        /// The most tokens a sequence may have.
        longest: usize,
    },
    /// A token id the model has no embedding for.
    #[error("token id {id} at position {position} is not below the vocabulary of {vocabulary}")]
    IdOutOfVocabulary {
        /// Index into the tensor `ids`.
        position: usize,
        /// The id found there.
        id: i64,
        /// Number of ids the model knows.
        vocabulary: usize,
    },
}
