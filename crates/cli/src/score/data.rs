//! What to measure on where the user names the files: text, or pools as validators hold them.
//!
//! A file is a pool of its own, and its shape is told by how it begins:
//!
//! | begins with | is | becomes |
//! |---|---|---|
//! | a length and a brace, which no text does | a pool | what it holds |
//! | a line `{"ids": [...]}`, other keys ignored | sequences, as in `heldout.jsonl` | what it holds |
//! | any other line | text | what an owner would make of it: every document cut into sequences |

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_engine::data::documents::Limits;
use connito_engine::data::reader::{self, LONGEST_LINE_BYTES};
use connito_engine::data::{Pieces, TokenDocuments};
use connito_learning::scorer::{draw, each_of};
use connito_protocol::ids::BlobId;
use connito_protocol::rules::Rules;
use serde::Deserialize;

use super::Setting;
use super::state::State;
use crate::args::score::ScoreArguments;
use crate::base;
use crate::corpus::DOCUMENTS_PER_FILE;
use crate::exit::{Blame, Failure};
use crate::text_file;

/// Most bytes of a pool that is read: far more than any of tokens that a machine could hold in text.
const LONGEST_POOL: u64 = 4 << 30;

/// Draws from the files.
pub(super) fn setting(arguments: &ScoreArguments, state: &State) -> Result<Setting, Failure> {
    let rules = Rules::default().scoring;
    let sequence_length = sequence_length(arguments, state, rules.sequence_length as usize)?;
    let limits = Limits {
        vocabulary: state.config().vocab_size,
        sequence_length,
    };
    let each = each_of(f64::from(arguments.sequences), arguments.data.len());
    let of_file = |path: &PathBuf| {
        let bytes = match Shape::of(path)? {
            Shape::Pool => read_pool(path)?,
            Shape::Tokens => read_tokens(path)?.to_bytes(),
            Shape::Text => tokenize(path, arguments, (state, sequence_length))?.to_bytes(),
        };
        let documents = TokenDocuments::from_bytes(&bytes, limits)
            .with_context(|| path.display().to_string())
            .input()?;
        Ok(draw(
            &documents,
            (BlobId::of(&bytes), each),
            &arguments.seed,
        ))
    };
    let sequences: Result<_, Failure> = arguments.data.iter().map(of_file).collect();
    Ok(Setting {
        sequences: sequences?,
        sequence_length,
        significance: rules.significance,
    })
}

fn sequence_length(
    arguments: &ScoreArguments,
    state: &State,
    usual: usize,
) -> Result<usize, Failure> {
    let positions = state.config().max_position_embeddings;
    match arguments.sequence_length.map(|length| length as usize) {
        None => Ok(usual.min(positions)),
        Some(length) if length <= positions => Ok(length),
        Some(length) => Err(Failure::Input(anyhow!(
            "--sequence-length {length} exceeds the {positions} positions of {}",
            state.shown()
        ))),
    }
}

/// What a file holds.
enum Shape {
    Pool,
    Tokens,
    Text,
}

impl Shape {
    fn of(path: &Path) -> Result<Self, Failure> {
        let unreadable = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(unreadable).input()?;
        let mut start = BufReader::new(file.take(LONGEST_LINE_BYTES as u64));
        let first = start.fill_buf().with_context(unreadable).input()?;
        if matches!(first, [_, _, _, 0, 0, 0, 0, 0, b'{', ..]) {
            return Ok(Self::Pool);
        }
        let mut line = Vec::new();
        let read = start.read_until(b'\n', &mut line);
        read.with_context(unreadable).input()?;
        let is_tokens = serde_json::from_slice::<TokenLine>(&line).is_ok();
        Ok(if is_tokens { Self::Tokens } else { Self::Text })
    }
}

/// A sequence as a line of JSON.
#[derive(Deserialize)]
struct TokenLine {
    ids: Vec<u32>,
}

fn read_pool(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(unreadable).input()?;
    let mut bytes = Vec::new();
    let read = file.take(LONGEST_POOL + 1).read_to_end(&mut bytes);
    if read.with_context(unreadable).input()? as u64 > LONGEST_POOL {
        return Err(Failure::Input(anyhow!(
            "{} is longer than {LONGEST_POOL} bytes, which no pool is",
            path.display()
        )));
    }
    Ok(bytes)
}

fn read_tokens(path: &Path) -> Result<TokenDocuments, Failure> {
    let text = text_file::read(path)?;
    let lines = (1..).zip(text.lines());
    let sequences = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let named = || format!("{}, line {number}", path.display());
            let parsed = serde_json::from_str::<TokenLine>(line);
            parsed.map(|line| line.ids).with_context(named).input()
        });
    let sequences: Vec<Vec<u32>> = sequences.collect::<Result<_, Failure>>()?;
    TokenDocuments::from_sequences(sequences)
        .with_context(|| path.display().to_string())
        .input()
}

fn tokenize(
    path: &Path,
    arguments: &ScoreArguments,
    (state, sequence_length): (&State, usize),
) -> Result<TokenDocuments, Failure> {
    let texts = reader::read_documents(path, Some(DOCUMENTS_PER_FILE)).input()?;
    let folder = arguments.base.as_deref().context("text needs --base");
    let (tokenizer, _) = base::tokenizer(folder.input()?, state.config())?;
    let documents = TokenDocuments::tokenize(&tokenizer, &texts, sequence_length, Pieces::All);
    let documents = documents.input()?;
    if documents.is_empty() {
        return Err(Failure::Input(anyhow!(
            "{}: no text of two tokens to measure on",
            path.display()
        )));
    }
    Ok(documents)
}
