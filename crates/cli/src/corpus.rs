//! The text that a network works on: domains read from files or generated, split into pools, and
//! turned into tokens.
//!
//! A document that is longer than a sequence becomes several, in every pool alike: what is judged has
//! the same mixture of beginnings and middles as what is trained.

use std::path::PathBuf;

use connito_engine::data::builtin::BuiltinDomain;
use connito_engine::data::{DataError, Domain, Pieces, Pool, Pools, TokenDocuments, reader};
use connito_engine::tokenizer::Tokenizer;
use connito_learning::task::DomainText;
use connito_protocol::ids::GroupId;

/// Documents that are taken from a file: enough for thousands of cycles of a small model, few
/// enough to be tokenised in seconds.
pub(crate) const DOCUMENTS_PER_FILE: std::num::NonZeroUsize =
    std::num::NonZeroUsize::new(6_000).expect("not zero");

/// Documents that are generated for each built-in domain.
const BUILTIN_DOCUMENTS: u64 = 2_000;

/// All domains, each in four pools.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// One entry a domain.
    pub(crate) domains: Vec<Pools>,
}

impl Corpus {
    /// Reads the given files, or generates the built-in domains if there are none.
    pub(crate) fn load(files: &[PathBuf], seed: u64) -> Result<Self, DataError> {
        let domains: Vec<Domain> = if files.is_empty() {
            BuiltinDomain::ALL
                .iter()
                .map(|domain| domain.generate(BUILTIN_DOCUMENTS, seed))
                .collect()
        } else {
            reader::read_domains(files, Some(DOCUMENTS_PER_FILE))?
        };
        let domains = domains
            .into_iter()
            .map(Pools::split)
            .collect::<Result<_, _>>()?;
        Ok(Self { domains })
    }

    /// Names the corpus: equal text has equal names.
    pub(crate) fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_derive_key("connito/1 corpus");
        for domain in &self.domains {
            frame(&mut hasher, &domain.domain);
            for document in domain.documents(Pool::Training) {
                frame(&mut hasher, document);
            }
        }
        hasher.finalize()
    }

    /// Every training text, domain after domain.
    pub(crate) fn training_texts(&self) -> impl Iterator<Item = &str> {
        self.domains
            .iter()
            .flat_map(|domain| domain.documents(Pool::Training))
            .map(String::as_str)
    }

    /// The training text of all domains as tokens, shares evened out by taking at most
    /// `documents` of each.
    pub(crate) fn training_mixture(
        &self,
        tokenizer: &Tokenizer,
        (sequence_length, documents): (usize, usize),
    ) -> Result<TokenDocuments, DataError> {
        let mut mixture = TokenDocuments::default();
        for domain in &self.domains {
            let texts = domain.documents(Pool::Training);
            let texts = &texts[..texts.len().min(documents)];
            mixture.append(&TokenDocuments::tokenize(
                tokenizer,
                texts,
                sequence_length,
                Pieces::All,
            )?);
        }
        Ok(mixture)
    }

    /// The pools that a task is made of. Domain `i` goes to group `i mod groups`.
    pub(crate) fn domain_texts(
        &self,
        tokenizer: &Tokenizer,
        sequence_length: usize,
        groups: u16,
    ) -> Result<Vec<DomainText>, DataError> {
        let tokens = |domain: &Pools, pool| {
            TokenDocuments::tokenize(
                tokenizer,
                domain.documents(pool),
                sequence_length,
                Pieces::All,
            )
        };
        (0_u16..)
            .zip(&self.domains)
            .map(|(index, domain)| {
                Ok(DomainText {
                    name: domain.domain.clone(),
                    group: GroupId(index % groups),
                    training: tokens(domain, Pool::Training)?,
                    scoring: tokens(domain, Pool::Scoring)?,
                    gate: tokens(domain, Pool::Gate)?,
                })
            })
            .collect()
    }

    /// The text that decides nothing: what the report's losses are measured on.
    pub(crate) fn heldout(
        &self,
        tokenizer: &Tokenizer,
        (sequence_length, documents): (usize, usize),
    ) -> Result<Vec<(String, TokenDocuments)>, DataError> {
        self.domains
            .iter()
            .map(|domain| {
                let texts = domain.documents(Pool::Heldout);
                let texts = &texts[..texts.len().min(documents)];
                let tokens =
                    TokenDocuments::tokenize(tokenizer, texts, sequence_length, Pieces::All)?;
                Ok((domain.domain.clone(), tokens))
            })
            .collect()
    }
}

fn frame(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}
