//! Phrases: a seed as twelve to twenty-four English words (BIP-39).
//!
//! The seed follows Substrate's rule, which differs from the one that wallets of other chains have:
//! PBKDF2-HMAC-SHA512 over the *entropy* that the words encode, not over the words, with the salt
//! `mnemonic` and an optional password behind it, 2,048 rounds, the first 32 bytes.

use std::fmt;

use bip39::{Language, Mnemonic};
use sha2::Sha512;
use zeroize::{Zeroize, Zeroizing};

use super::NoRandomness;

/// Entropy of a new phrase: twelve words.
const ENTROPY_BYTES: usize = 16;
const ROUNDS: u32 = 2_048;

/// A phrase whose words are known and whose checksum holds. Wiped when dropped; no `Debug` output.
#[derive(Clone)]
pub struct Phrase(Mnemonic);

/// Why a text is no phrase. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// Not one of the lengths that phrases have.
    #[error("a phrase has 12, 15, 18, 21 or 24 words, not {words}")]
    Length {
        /// Its words.
        words: usize,
    },
    /// A word outside the list.
    #[error("word {number} of the phrase is not in the English list")]
    Word {
        /// Which one, counted from 1.
        number: usize,
    },
    /// All words are known, but they do not belong together.
    #[error("the words of the phrase do not belong together: one is wrong or out of place")]
    Checksum,
}

impl Phrase {
    /// A new phrase of twelve words from the operating system's randomness.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
        getrandom::fill(entropy.as_mut()).map_err(NoRandomness)?;
        #[expect(
            clippy::expect_used,
            reason = "refuses only lengths that phrases do not have"
        )]
        let words = Mnemonic::from_entropy(entropy.as_slice()).expect("16 bytes are twelve words");
        Ok(Self(words))
    }

    /// Reads a phrase. The space between its words does not matter.
    ///
    /// # Errors
    /// Not a phrase of the English list, or one whose checksum does not hold.
    pub fn parse(text: &str) -> Result<Self, PhraseError> {
        use bip39::Error;
        let words = text.split_whitespace().count();
        Mnemonic::parse_in(Language::English, text)
            .map(Self)
            .map_err(|error| match error {
                Error::UnknownWord(index) => PhraseError::Word { number: index + 1 },
                Error::InvalidChecksum | Error::AmbiguousLanguages(_) => PhraseError::Checksum,
                Error::BadWordCount(_) | Error::BadEntropyBitCount(_) => {
                    PhraseError::Length { words }
                }
            })
    }

    /// The words, separated by single spaces.
    #[must_use]
    pub fn words(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string())
    }

    /// The seed of this phrase under a password, which is usually empty.
    #[must_use]
    pub fn seed(&self, password: &str) -> Zeroizing<[u8; 32]> {
        let (mut entropy, length) = self.0.to_entropy_array();
        let salt = Zeroizing::new(["mnemonic", password].concat());
        let mut long = Zeroizing::new([0; 64]);
        pbkdf2::pbkdf2_hmac::<Sha512>(
            &entropy[..length],
            salt.as_bytes(),
            ROUNDS,
            long.as_mut_slice(),
        );
        entropy.zeroize();
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(&long[..32]);
        seed
    }
}

impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phrase").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABANDON: &str = "abandon abandon abandon abandon abandon abandon \
                           abandon abandon abandon abandon abandon about";

    #[test]
    fn a_phrase_gives_the_seed_that_substrate_derives() {
        let seed = Phrase::parse(ABANDON).unwrap().seed("");
        let expected = "4ed8d4b17698ddeaa1f1559f152f87b5d472f725ca86d341bd0276f1b61197e2";
        assert_eq!(hex::encode(seed.as_slice()), expected);
        // The vector of Substrate's own implementation, which has a password.
        let seed = Phrase::parse(ABANDON).unwrap().seed("Substrate");
        let expected = "44e9d125f037ac1d51f0a7d3649689d422c2af8b1ec8e00d71db4d7bf6d127e3";
        assert_eq!(hex::encode(seed.as_slice()), expected);
    }

    #[test]
    fn a_new_phrase_has_twelve_words_and_reads_back() {
        let phrase = Phrase::generate().unwrap();
        let words = phrase.words();
        assert_eq!(words.split(' ').count(), 12);
        let spaced = format!(" {}\n", words.replace(' ', "\n  "));
        assert_eq!(*Phrase::parse(&spaced).unwrap().seed(""), *phrase.seed(""));
        assert_ne!(*Phrase::generate().unwrap().seed(""), *phrase.seed(""));
    }

    #[test]
    fn what_is_no_phrase_is_refused_without_being_quoted() {
        let cases = [
            ("", PhraseError::Length { words: 0 }),
            ("abandon about", PhraseError::Length { words: 2 }),
            (
                &ABANDON.replace("about", "sec-ret"),
                PhraseError::Word { number: 12 },
            ),
            (&ABANDON.replace("about", "abandon"), PhraseError::Checksum),
        ];
        for (text, expected) in cases {
            assert_eq!(Phrase::parse(text).unwrap_err(), expected);
            assert!(!expected.to_string().contains("sec-ret"));
        }
        assert_eq!(
            format!("{:?}", Phrase::parse(ABANDON).unwrap()),
            "Phrase { .. }"
        );
    }
}
