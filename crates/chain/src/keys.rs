//! Hotkeys: sr25519 pairs that sign chain operations and requests.
//!
//! A pair is derived from a 32-byte seed exactly as Substrate tools derive it (`MiniSecretKey`
//! expanded in Ed25519 mode, signing context `substrate`), so a key made here works there and the
//! other way round. Secrets are wiped when dropped and have no `Debug`. Key files and the folders of
//! wallets are those of Bittensor's own tools, which read what is written here and the other way
//! round.

mod contents;
mod development;
mod encrypted;
mod file;
mod password;
mod phrase;
mod wallet;

use std::fmt;

use connito_protocol::ids::Hotkey;
use ed25519_dalek::VerifyingKey;
use schnorrkel::{ExpansionMode, MiniSecretKey, PublicKey, SecretKey, Signature};
use zeroize::Zeroizing;

pub use encrypted::Encryption;
pub use file::{KeyFileError, Locked, Stored, open, read, write, write_encrypted, write_public};
pub use password::{NotScrambled, Password};
pub use phrase::{Phrase, PhraseError};
pub use wallet::{KeyState, Protection, Wallet, WalletError, WalletState, Wallets};

/// Bytes of an sr25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

const CONTEXT: &[u8] = b"substrate";

/// Something that can sign as one hotkey: a key in memory, or later one on another device.
pub trait Signer: Send + Sync {
    /// Who signs.
    fn hotkey(&self) -> Hotkey;
    /// An sr25519 signature over `message` in the context `substrate`. Randomised.
    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES];
}

/// A hotkey with its secret.
#[derive(Clone)]
pub struct Keypair {
    pair: schnorrkel::Keypair,
    origin: Origin,
}

/// What a pair was made of, which its file keeps.
#[derive(Clone)]
enum Origin {
    Phrase(Phrase),
    Seed(Zeroizing<[u8; 32]>),
    /// Its expanded secret alone; there is no way back to a seed.
    Expanded,
}

impl Origin {
    fn seed(&self) -> Option<Zeroizing<[u8; 32]>> {
        match self {
            Self::Phrase(phrase) => Some(phrase.seed("")),
            Self::Seed(seed) => Some(seed.clone()),
            Self::Expanded => None,
        }
    }
}

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no randomness for a new key")]
pub struct NoRandomness(#[source] getrandom::Error);

impl Keypair {
    /// The pair of this seed. Every seed has one.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "refuses only other lengths than 32")]
        let mini = MiniSecretKey::from_bytes(seed).expect("a seed has 32 bytes");
        let pair = mini.expand_to_keypair(ExpansionMode::Ed25519);
        Self {
            pair,
            origin: Origin::Seed(Zeroizing::new(*seed)),
        }
    }

    /// The pair of this phrase without a password, as every wallet derives it.
    #[must_use]
    pub fn from_phrase(phrase: Phrase) -> Self {
        Self {
            origin: Origin::Phrase(phrase.clone()),
            ..Self::from_seed(&phrase.seed(""))
        }
    }

    /// A new pair from the operating system's randomness.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(NoRandomness)?;
        Ok(Self::from_seed(&seed))
    }

    /// The pair of an expanded secret, or nothing if the bytes are none.
    fn from_expanded(secret: &[u8; 64]) -> Option<Self> {
        let pair = SecretKey::from_bytes(secret).ok()?.to_keypair();
        let origin = Origin::Expanded;
        Some(Self { pair, origin })
    }
}

impl Signer for Keypair {
    fn hotkey(&self) -> Hotkey {
        Hotkey(self.pair.public.to_bytes())
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.pair.sign_simple(CONTEXT, message).to_bytes()
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keypair")
            .field("hotkey", &self.hotkey())
            .finish_non_exhaustive()
    }
}

/// Whether `signature` is `hotkey`'s over `message`. Bytes that are no key or no signature are not.
#[must_use]
pub fn verify(hotkey: Hotkey, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    let Ok(public) = PublicKey::from_bytes(&hotkey.0) else {
        return false;
    };
    let Ok(signature) = Signature::from_bytes(signature) else {
        return false;
    };
    public.verify_simple(CONTEXT, message, &signature).is_ok()
}

/// The same for ed25519, in which accounts can sign too. Keys of small order, under which more than
/// one message has a given signature, verify nothing.
#[must_use]
pub fn verify_ed25519(account: Hotkey, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    VerifyingKey::from_bytes(&account.0)
        .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "4ed8d4b17698ddeaa1f1559f152f87b5d472f725ca86d341bd0276f1b61197e2";
    const HELLO: &str = "48f7fccd7c329f87c9095d4b2bc1c4d5bf23eb4b8bc5c740bab3157d32aef604\
                         ef151abae89d61671b2dd3dd481c4f0537fd837111fe7ae4ca892c405682c28a";

    fn array<const N: usize>(hex: &str) -> [u8; N] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    /// The well-known test phrase, and a signature made by another implementation.
    #[test]
    fn a_seed_gives_the_key_that_other_tools_derive() {
        let pair = Keypair::from_seed(&array(SEED));
        let address = "5EPCUjPxiHAcNooYipQFWr9NmmXJKpNG5RhcntXwbtUySrgH";
        assert_eq!(pair.hotkey().to_string(), address);
        assert!(verify(pair.hotkey(), b"hello", &array(HELLO)));
        assert!(!verify(pair.hotkey(), b"hullo", &array(HELLO)));
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        let (one, other) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
        let signature = one.sign(b"message");
        assert!(verify(one.hotkey(), b"message", &signature));
        assert!(!verify(other.hotkey(), b"message", &signature));
        assert!(!verify(one.hotkey(), b"massage", &signature));
    }

    #[test]
    fn bytes_that_are_no_key_or_no_signature_verify_nothing() {
        assert!(!verify(Hotkey([0xff; 32]), b"", &[0; 64]));
        assert!(!verify(
            Keypair::from_seed(&[1; 32]).hotkey(),
            b"",
            &[0xff; 64]
        ));
    }

    #[test]
    fn debug_output_shows_the_address_and_nothing_else() {
        let pair = Keypair::from_seed(&array(SEED));
        let shown = format!("{pair:?}");
        assert_eq!(shown, "Keypair { hotkey: Hotkey(5EPCUjPx), .. }");
    }
}
