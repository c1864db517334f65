//! Splits a domain's documents into four disjoint pools by what they say.
//!
//! A document's pool is a function of its text alone: SHA-256 of the text, reduced to a number
//! from 0 to 99, falls into one of four ranges. Hence the split is the same whatever the order of
//! the documents, does not move when documents are added, and a text that occurs in two domains is
//! never trained on in one and held out in the other. Copies within a domain are dropped.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::{DataError, Domain};

/// What a document may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    /// Miners train on it; base model and tokenizer are made from it.
    Training,
    /// Validators measure each update's utility on samples of it.
    Scoring,
    /// Validators decide on samples of it whether a new state becomes canonical.
    Gate,
    /// Never used to decide anything; the published loss is measured on it.
    Heldout,
}

impl Pool {
    /// All pools, in the order in which they partition the numbers 0 to 99.
    pub const ALL: [Self; 4] = [Self::Training, Self::Scoring, Self::Gate, Self::Heldout];

    /// How many of a hundred documents belong here, on average.
    ///
    /// Training dominates because that is what the others are there to judge; scoring needs the
    /// most of the rest, since a new sample is drawn from it for every update of every cycle.
    pub const fn percent(self) -> u8 {
        match self {
            Self::Training => 80,
            Self::Scoring => 8,
            Self::Gate | Self::Heldout => 6,
        }
    }

    /// The pool of a document with this content hash.
    fn of(hash: &[u8; 32]) -> Self {
        // Eight of the 32 bytes: the remainder's bias is below 2⁻⁵⁷.
        let number = hash
            .iter()
            .take(8)
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
            % 100;
        let mut end = 0;
        for pool in Self::ALL {
            end += u64::from(pool.percent());
            if number < end {
                return pool;
            }
        }
        Self::Heldout
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Training => "training",
            Self::Scoring => "scoring",
            Self::Gate => "gate",
            Self::Heldout => "held-out",
        })
    }
}

/// A domain's distinct documents, by pool. No pool is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools {
    /// The domain's name.
    pub domain: String,
    /// Indexed by `Pool`; within a pool in the order of their content hashes.
    documents: [Vec<String>; 4],
}

impl Pools {
    /// Splits a domain. The result does not depend on the order or repetition of its documents.
    ///
    /// # Errors
    /// Some pool would be empty, because the domain has too few distinct documents.
    pub fn split(domain: Domain) -> Result<Self, DataError> {
        let distinct: BTreeMap<[u8; 32], String> = domain
            .documents
            .into_iter()
            .map(|text| (Sha256::digest(&text).into(), text))
            .collect();
        let count = distinct.len();
        let mut documents: [Vec<String>; 4] = Default::default();
        for (hash, text) in distinct {
            documents[Pool::of(&hash) as usize].push(text);
        }
        let split = Self {
            domain: domain.name,
            documents,
        };
        match Pool::ALL
            .into_iter()
            .find(|&pool| split.documents(pool).is_empty())
        {
            Some(pool) => Err(DataError::EmptyPool {
                domain: split.domain,
                pool,
                documents: count,
            }),
            None => Ok(split),
        }
    }

    /// The documents of one pool: at least one, in the order of their content hashes.
    pub fn documents(&self, pool: Pool) -> &[String] {
        &self.documents[pool as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn domain(documents: Vec<String>) -> Domain {
        Domain {
            name: "letters".to_owned(),
            documents,
        }
    }

    /// A change of the rule cannot go unnoticed: it would turn held-out documents of running
    /// networks into training documents. Expected pools come from an independent program.
    #[test]
    fn keeps_known_texts_in_their_pools() {
        let pools = ["text 0", "text 13", "text 26", "text 10"]
            .map(|text| Pool::of(&Sha256::digest(text).into()));
        assert_eq!(pools, Pool::ALL);
    }

    #[test]
    fn gives_each_pool_its_share() {
        let split = Pools::split(domain((0..20_000).map(|i| format!("text {i}")).collect()));
        let split = split.unwrap();
        for pool in Pool::ALL {
            let expected = 200.0 * f64::from(pool.percent());
            let error = (split.documents(pool).len() as f64 - expected).abs();
            // Five standard errors of a binomial count.
            assert!(
                error < 5.0 * expected.sqrt(),
                "{pool}: off by {error} from {expected}"
            );
        }
    }

    #[test]
    fn names_the_domain_and_the_pool_that_would_be_empty() {
        let error = Pools::split(domain(vec!["the same".to_owned(); 1_000])).unwrap_err();
        let sentence = error.to_string();
        assert!(
            sentence.starts_with("domain letters has too few documents"),
            "{sentence}"
        );
        assert!(
            sentence.contains("none of its 1 distinct ones"),
            "{sentence}"
        );
    }

    proptest! {
        /// What should happen: every distinct document in exactly one pool.
        /// What should not happen: a pool that depends on order, repetition or the other documents.
        #[test]
        fn pools_are_disjoint_complete_and_stable(
            mut documents in prop::collection::vec("[a-z]{1,3}", 300..600),
            rotation in 0usize..300,
            extra in "[A-Z]{4}",
        ) {
            let split = Pools::split(domain(documents.clone())).unwrap();
            let distinct: BTreeSet<&String> = documents.iter().collect();
            let pooled: Vec<&String> =
                Pool::ALL.iter().flat_map(|&pool| split.documents(pool)).collect();
            prop_assert_eq!(pooled.len(), distinct.len());
            prop_assert_eq!(pooled.into_iter().collect::<BTreeSet<_>>(), distinct);

            documents.rotate_left(rotation);
            documents.push(documents[0].clone());
            prop_assert_eq!(&Pools::split(domain(documents.clone())).unwrap(), &split);

            documents.push(extra.clone());
            let grown = Pools::split(domain(documents)).unwrap();
            for pool in Pool::ALL {
                let without: Vec<_> =
                    grown.documents(pool).iter().filter(|text| **text != extra).collect();
                prop_assert_eq!(without, split.documents(pool).iter().collect::<Vec<_>>());
            }
        }
    }
}
