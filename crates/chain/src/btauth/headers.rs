//! The headers of a signed request, parsed once into a value that cannot be malformed.
//!
//! Names are compared without case. What is signed has one spelling: a nonce without leading zeros,
//! addresses as ss58; the scheme has several, of which the signed text has the usual one. A header
//! given twice is refused, so that two parties never read two different ones.

use connito_protocol::ids::Hotkey;

use super::AuthError;

const VERSION: &str = "X-Bittensor-Version";
const HOTKEY: &str = "X-Bittensor-Hotkey";
const RECEIVER: &str = "X-Bittensor-Receiver";
const NONCE: &str = "X-Bittensor-Nonce";
const CRYPTO: &str = "X-Bittensor-Crypto";
const SIGNATURE: &str = "X-Bittensor-Signature";

/// Who sends, to whom, when, and the signature that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// The sender, as claimed until verified.
    pub sender: Hotkey,
    /// The receiver; absent when the request is addressed to nobody in particular.
    pub receiver: Option<Hotkey>,
    /// Nanoseconds since 1970 on the sender's clock.
    pub nonce: u64,
    /// How the sender signs.
    pub scheme: Scheme,
    /// The sender's signature.
    pub signature: [u8; 64],
}

/// A signature scheme of the dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// What is meant where no scheme is named.
    Sr25519,
    /// Always named.
    Ed25519,
}

impl Scheme {
    /// Its name in the signed text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sr25519 => "sr25519",
            Self::Ed25519 => "ed25519",
        }
    }

    /// A scheme by its name in any case or by its number.
    fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "sr25519" | "1" => Some(Self::Sr25519),
            "ed25519" | "0" => Some(Self::Ed25519),
            _ => None,
        }
    }
}

impl Headers {
    /// The headers to send, as names and values.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            (VERSION, "1".to_owned()),
            (HOTKEY, self.sender.to_string()),
            (NONCE, self.nonce.to_string()),
            (SIGNATURE, format!("0x{}", hex::encode(self.signature))),
        ];
        if self.scheme != Scheme::Sr25519 {
            pairs.push((CRYPTO, self.scheme.name().to_owned()));
        }
        pairs.extend(
            self.receiver
                .map(|receiver| (RECEIVER, receiver.to_string())),
        );
        pairs
    }

    /// Finds and parses the headers among all those of a request.
    ///
    /// # Errors
    /// [`AuthError::Malformed`] for a header that is missing, given twice or unparsable, a version
    /// other than 1, and an unknown scheme.
    pub fn parse<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, AuthError> {
        let mut found = Found::default();
        for (name, value) in all {
            if let Some(slot) = found.slot(name)
                && slot.replace(value).is_some()
            {
                return Err(AuthError::Malformed("a header is given twice"));
            }
        }
        found.parse()
    }
}

#[derive(Default)]
struct Found<'a> {
    version: Option<&'a str>,
    hotkey: Option<&'a str>,
    receiver: Option<&'a str>,
    nonce: Option<&'a str>,
    crypto: Option<&'a str>,
    signature: Option<&'a str>,
}

impl<'a> Found<'a> {
    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        let slots = [
            (VERSION, &mut self.version),
            (HOTKEY, &mut self.hotkey),
            (RECEIVER, &mut self.receiver),
            (NONCE, &mut self.nonce),
            (CRYPTO, &mut self.crypto),
            (SIGNATURE, &mut self.signature),
        ];
        slots
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, slot)| slot)
    }

    fn parse(&self) -> Result<Headers, AuthError> {
        use AuthError::Malformed;
        if self.version.ok_or(Malformed("the version is missing"))? != "1" {
            return Err(Malformed("the version is not 1"));
        }
        let scheme = match self.crypto {
            None => Scheme::Sr25519,
            Some(named) => {
                Scheme::parse(named).ok_or(Malformed("the signature scheme is unknown"))?
            }
        };
        let sender = self.hotkey.ok_or(Malformed("the hotkey is missing"))?;
        let nonce = self.nonce.ok_or(Malformed("the nonce is missing"))?;
        let signature = self
            .signature
            .ok_or(Malformed("the signature is missing"))?;
        let receiver = self.receiver.map(str::parse).transpose();
        Ok(Headers {
            sender: sender
                .parse()
                .map_err(|_| Malformed("the hotkey is not an ss58 address"))?,
            receiver: receiver.map_err(|_| Malformed("the receiver is not an ss58 address"))?,
            nonce: parse_nonce(nonce).ok_or(Malformed("the nonce is not a decimal number"))?,
            scheme,
            signature: parse_signature(signature)
                .ok_or(Malformed("the signature is not 128 hexadecimal digits"))?,
        })
    }
}

fn parse_nonce(text: &str) -> Option<u64> {
    // `parse` alone would take a sign and leading zeros, which the signed line does not have.
    text.parse::<u64>()
        .ok()
        .filter(|nonce| nonce.to_string() == text)
}

fn parse_signature(text: &str) -> Option<[u8; 64]> {
    let mut signature = [0; 64];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut signature).ok()?;
    Some(signature)
}
