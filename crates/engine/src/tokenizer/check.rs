//! What a `tokenizer.json` must satisfy before the library may read it.
//!
//! The library indexes by what the file claims: a merge whose result is longer than every token of
//! the vocabulary is a panic there, not an error. A file may also ask for dropout, which makes the
//! same text different tokens each time. Both are refused here, as is every model other than BPE.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Cause;

/// The part of the file that is looked at; the library judges the rest.
#[derive(Deserialize)]
struct File {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    vocab: Tokens,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    /// How older versions wrote it: both parts in one string, a blank between them.
    Joined(String),
}

impl Merge {
    fn result(&self) -> Option<String> {
        let (left, right) = match self {
            Self::Pair(left, right) => (left.as_str(), right.as_str()),
            Self::Joined(both) => both.split_once(' ')?,
        };
        Some(format!("{left}{right}"))
    }
}

/// The keys of the vocabulary.
struct Tokens(BTreeSet<String>);

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Tokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tokens, A::Error> {
                let mut tokens = BTreeSet::new();
                while let Some((token, _)) = map.next_entry::<String, IgnoredAny>()? {
                    tokens.insert(token);
                }
                Ok(Tokens(tokens))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Whether the library can be given this file: the problem, and where the syntax breaks, if not.
pub(super) fn check(bytes: &[u8]) -> Result<(), (&'static str, Option<Cause>)> {
    let file: File = serde_json::from_slice(bytes)
        .map_err(|source| ("not a tokenizer with a BPE model", Some(source.into())))?;
    let model = file.model;
    if model.kind != "BPE" {
        return Err(("its model is not BPE", None));
    }
    if model.dropout.is_some_and(|rate| rate != 0.0) {
        return Err(("its dropout makes the tokens of a text random", None));
    }
    if model
        .continuing_subword_prefix
        .is_some_and(|prefix| !prefix.is_empty())
    {
        return Err(("its continuing_subword_prefix is not supported", None));
    }
    let known = |merge: &Merge| {
        merge
            .result()
            .is_some_and(|token| model.vocab.0.contains(&token))
    };
    if !model.merges.iter().all(known) {
        return Err((
            "one of its merges makes a token that is not in its vocabulary",
            None,
        ));
    }
    Ok(())
}
