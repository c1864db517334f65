//! Text made here, so that a first run needs no download: three domains, each a grammar.
//!
//! Document `index` of a domain is a pure function of (domain, seed, index): a network of any size
//! can make its own without storing any, and two machines never disagree. The domains are as
//! different as text for different experts should be. They are regular enough that a model of a
//! million parameters learns much in minutes, and have far more different documents than it could
//! memorise. What they claim is true: sums are right, asserted code would pass.

mod arithmetic;
mod code;
mod prose;
mod template;

use super::Domain;
use super::random::Random;

/// A domain whose documents are generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltinDomain {
    /// Word problems, solved step by step, ending in `#### answer`.
    Arithmetic,
    /// Small Python functions, each with a docstring and two assertions.
    Code,
    /// Short paragraphs about weather, journeys, kitchens, letters and the like.
    Prose,
}

impl BuiltinDomain {
    /// All of them, in the order in which they are used by default.
    pub const ALL: [Self; 3] = [Self::Arithmetic, Self::Code, Self::Prose];

    /// The name of the domain, in `[a-z]`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic",
            Self::Code => "code",
            Self::Prose => "prose",
        }
    }

    /// The domain of this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|domain| domain.name() == name)
    }

    /// Document `index` under `seed`: about 200 to 500 bytes of ASCII, ending in a line break.
    pub fn document(self, index: u64, seed: u64) -> String {
        let random = &mut Random::named(self.name(), seed, index);
        match self {
            Self::Arithmetic => arithmetic::document(random),
            Self::Code => code::document(random),
            Self::Prose => prose::document(random),
        }
    }

    /// The first `documents` documents under `seed`.
    pub fn generate(self, documents: u64, seed: u64) -> Domain {
        Domain {
            name: self.name().to_owned(),
            documents: (0..documents)
                .map(|index| self.document(index, seed))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
