//! The accounts of development chains: `//Alice`, `//Bob`, and any other name.
//!
//! Substrate derives them from a phrase that is printed in its documentation, one hard junction a
//! name. Everybody has their secrets, so they are of use only on a chain that nobody else can reach.

use schnorrkel::derive::ChainCode;
use zeroize::Zeroizing;

use super::{Keypair, Phrase};
use crate::hash::blake2_256;

const PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

impl Keypair {
    /// The development account of a path such as `//Alice` or `//Alice//stash`; nothing where the
    /// text is no such path.
    #[must_use]
    pub fn development(path: &str) -> Option<Self> {
        let names = path.strip_prefix("//")?;
        let root = Self::from_phrase(Phrase::parse(PHRASE).ok()?);
        names.split("//").try_fold(root, |parent, name| {
            let is_junction = !name.is_empty() && !name.contains('/');
            is_junction.then(|| parent.hard(chain_code(name)))
        })
    }

    fn hard(&self, code: [u8; 32]) -> Self {
        let derived = self
            .pair
            .secret
            .hard_derive_mini_secret_key(Some(ChainCode(code)), b"");
        Self::from_seed(&Zeroizing::new(derived.0.to_bytes()))
    }
}

/// A name as Substrate makes a junction of it: a number is 64 bits, any other text carries its
/// length, and what is longer than the code is hashed.
fn chain_code(name: &str) -> [u8; 32] {
    use parity_scale_codec::Encode;
    let bytes = match name.parse::<u64>() {
        Ok(number) => number.encode(),
        Err(_) => name.encode(),
    };
    let mut code = [0; 32];
    match code.get_mut(..bytes.len()) {
        Some(start) => start.copy_from_slice(&bytes),
        None => code = blake2_256(&bytes),
    }
    code
}

#[cfg(test)]
mod tests {
    use super::super::Signer;
    use super::*;

    fn address(path: &str) -> String {
        Keypair::development(path).unwrap().hotkey().to_string()
    }

    #[test]
    fn names_give_the_accounts_that_every_development_chain_has() {
        for (path, expected) in [
            (
                "//Alice",
                "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
            ),
            ("//Bob", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"),
            (
                "//Alice//stash",
                "5GNJqTPyNqANBkUVMN1LPPrxXnFouWXoe2wNSmmEoLctxiZY",
            ),
            // Out of the official codec: a number, one with leading zeros, and a name that is hashed.
            ("//42", "5Ckt3gjwpdWMWAsc8jKng97ADm8ApCQrWcsmb3jZSVcvEncr"),
            ("//007", "5GHJzqvG6tXnngCpG7B12qjUvbo5e4e9z8Xjidk3CQZHxTPZ"),
            (
                "//a_very_long_name_that_is_more_than_thirty_two_bytes_long",
                "5ENU8fi1HAbbq8FFQBX66htfbkwVGZu4YuhEjoizQEGe3AyA",
            ),
        ] {
            assert_eq!(address(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_of_names_is_no_account() {
        for text in [
            "",
            "/",
            "//",
            "Alice",
            "/Alice",
            "//Alice/stash",
            "//Alice//",
            "///Alice",
        ] {
            assert!(Keypair::development(text).is_none(), "{text}");
        }
    }
}
