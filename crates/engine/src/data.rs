//! Where a model's text comes from, and how it becomes sequences of token ids.
//!
//! ```text
//! reader ──┐                       ┌─ Training ── tokenised, cut, shuffled into batches
//!          ├─ Domain ── pools ─────┼─ Scoring ─┐
//! builtin ─┘  (name, documents)    ├─ Gate ────┼─ tokenised, first piece only, sampled by seed
//!                                  └─ Heldout ─┘
//! ```
//!
//! A *domain* is a named list of text documents, either read from a JSONL file ([`reader`]) or
//! generated here ([`builtin`]). [`pools`] splits it by content into four disjoint pools, and
//! [`documents`] holds a pool as token ids in bytes that are the same on every machine.
//! Everything is a pure function of its input and a seed ([`random`]): two owners that start from
//! the same files arrive at the same bytes. Nothing here knows of models, losses or peers.

pub mod builtin;
pub mod documents;
mod error;
pub mod pools;
pub mod random;
pub mod reader;

pub use documents::{Batches, Limits, Pieces, TokenDocuments};
pub use error::{DataError, DocumentsFault, LineFault};
pub use pools::{Pool, Pools};

/// A named body of text: what one expert group is trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Short name in `[a-z0-9_-]`, unique within a run; used in file names, logs and tables.
    pub name: String,
    /// The texts, in the order in which they were read or generated.
    pub documents: Vec<String>,
}
