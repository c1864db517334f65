//! Each domain's text: what is trained on, and what is judged on.
//!
//! Without held-out files a domain is split into pools, as a network splits it, of which training and
//! held-out are used. With them, all of `--data` is trained on. Every step has as many sequences of each
//! domain; where they do not divide evenly, the first domains have one more.

use std::path::PathBuf;

use anyhow::anyhow;
use connito_engine::data::{Batches, DataError, Pieces, Pool, Pools, TokenDocuments, reader};
use connito_engine::tokenizer::Tokenizer;

use crate::args::train::TrainArguments;
use crate::corpus::{Corpus, DOCUMENTS_PER_FILE};
use crate::exit::{Blame, Failure};

/// One domain in tokens.
#[derive(Debug)]
pub(super) struct DomainTokens {
    pub(super) name: String,
    pub(super) training: TokenDocuments,
    pub(super) held_out: TokenDocuments,
}

/// One domain in text.
struct DomainTexts {
    name: String,
    training: Vec<String>,
    held_out: Vec<String>,
}

/// All domains of the command line.
pub(super) fn domains(
    arguments: &TrainArguments,
    tokenizer: &Tokenizer,
    sequence_length: usize,
) -> Result<Vec<DomainTokens>, Failure> {
    let tokens = |texts: &[String]| {
        TokenDocuments::tokenize(tokenizer, texts, sequence_length, Pieces::All).input()
    };
    let mut domains = Vec::new();
    for texts in texts(arguments)? {
        let domain = DomainTokens {
            training: tokens(&texts.training)?,
            held_out: tokens(&texts.held_out)?,
            name: texts.name,
        };
        let parts = [("train", &domain.training), ("judge", &domain.held_out)];
        if let Some((what, _)) = parts.into_iter().find(|(_, part)| part.is_empty()) {
            return Err(Failure::Input(anyhow!(
                "domain {} has no text of two tokens to {what} on",
                domain.name
            )));
        }
        domains.push(domain);
    }
    Ok(domains)
}

fn texts(arguments: &TrainArguments) -> Result<Vec<DomainTexts>, Failure> {
    let (data, held_out) = (&arguments.data, &arguments.held_out);
    if held_out.is_empty() {
        let corpus = Corpus::load(data, arguments.run.seed).input()?;
        let split = |pools: Pools| DomainTexts {
            training: pools.documents(Pool::Training).to_vec(),
            held_out: pools.documents(Pool::Heldout).to_vec(),
            name: pools.domain,
        };
        return Ok(corpus.domains.into_iter().map(split).collect());
    }
    if held_out.len() != data.len() {
        return Err(Failure::Input(anyhow!(
            "--held-out is given {} times, --data {} times",
            held_out.len(),
            data.len()
        )));
    }
    let read = |paths: &[PathBuf]| -> Result<_, DataError> {
        reader::read_domains(paths, Some(DOCUMENTS_PER_FILE))
    };
    let (data, held_out) = (read(data).input()?, read(held_out).input()?);
    let pairs = data.into_iter().zip(held_out);
    let texts = pairs.map(|(data, held_out)| DomainTexts {
        name: data.name,
        training: data.documents,
        held_out: held_out.documents,
    });
    Ok(texts.collect())
}

/// Batches of every domain, one step after the other.
#[derive(Debug)]
pub(super) struct Steps<'a>(Vec<(&'a TokenDocuments, Batches)>);

impl<'a> Steps<'a> {
    /// Steps of `size` sequences, in an order that depends on the seed alone.
    pub(super) fn new(
        domains: &'a [DomainTokens],
        size: usize,
        seed: u64,
    ) -> Result<Self, Failure> {
        let count = domains.len();
        if size < count {
            return Err(Failure::Input(anyhow!(
                "--batch {size} has no place for a sequence of each of {count} domains"
            )));
        }
        let each = domains.iter().enumerate().map(|(index, domain)| {
            let share = size / count + usize::from(index < size % count);
            let batches = Batches::new(
                domain.training.len(),
                share,
                seed.wrapping_add(index as u64),
            );
            (&domain.training, batches)
        });
        Ok(Self(each.collect()))
    }

    /// The sequences of the next step, domain by domain.
    pub(super) fn next(&mut self) -> Vec<Vec<&'a [u32]>> {
        let domains = self.0.iter_mut();
        let drawn = domains
            .map(|(documents, batches)| documents.select(&batches.next().unwrap_or_default()));
        drawn.collect()
    }
}
