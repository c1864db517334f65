//! What stands in a key file once it is open: JSON with the fields of a Bittensor key file, or just
//! a seed, an expanded secret or a phrase.
//!
//! The first of phrase, seed and expanded secret that is there is the key; a file without any tells
//! an address only. A secret that does not belong to the address beside it is refused, and an
//! ed25519 key is refused by name: which of the two schemes a seed is for shows in the address.

use connito_protocol::ids::Hotkey;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::phrase::{Phrase, PhraseError};
use super::{Keypair, Origin, Signer};
use crate::hex_text;

/// What an open key file gives.
#[derive(Debug)]
pub(super) enum Contents {
    /// A key that can sign.
    Pair(Box<Keypair>),
    /// An address.
    Public(Hotkey),
}

/// Why a file's contents are of no use. Never quotes a secret.
#[derive(Debug)]
pub(super) enum Problem {
    /// The rest of a sentence that begins with the file.
    Unusable(&'static str),
    Phrase(PhraseError),
    OtherAddress {
        written: String,
        derived: Hotkey,
    },
}

/// More than the contents of any file written here.
const FILE_BYTES: usize = 2048;

const ED25519: &str = "holds an ed25519 key; only sr25519 keys sign here";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_phrase: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_seed: Option<String>,
    // Some versions of the wallet write the name with a space in front.
    #[serde(alias = " ss58Address", skip_serializing_if = "Option::is_none")]
    ss58_address: Option<String>,
    #[serde(alias = "crypto_type", skip_serializing_if = "Option::is_none")]
    crypto_type: Option<serde_json::Value>,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.private_key.zeroize();
        self.secret_phrase.zeroize();
        self.secret_seed.zeroize();
    }
}

/// A secret as it stands in a file, before it is known what it is for.
enum Secret {
    Phrase(Phrase),
    Seed(Zeroizing<[u8; 32]>),
    Expanded(Zeroizing<[u8; 64]>),
}

/// Reads the contents of an open key file.
pub(super) fn parse(text: &str) -> Result<Contents, Problem> {
    let text = text.trim();
    if !text.starts_with('{') {
        return bare(text).map(|pair| Contents::Pair(Box::new(pair)));
    }
    // The cause is not kept: a JSON error can quote what it read.
    let fields: Fields =
        serde_json::from_str(text).map_err(|_| Problem::Unusable("is not a JSON key file"))?;
    match secret(&fields)? {
        Some(secret) => pair(secret, &fields).map(|pair| Contents::Pair(Box::new(pair))),
        None => public(&fields).map(Contents::Public),
    }
}

/// A file that is nothing but the secret.
fn bare(text: &str) -> Result<Keypair, Problem> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return match (secret_bytes(text), secret_bytes(text)) {
            (Some(seed), _) => Some(Keypair::from_seed(&seed)),
            (None, Some(expanded)) => Keypair::from_expanded(&expanded),
            (None, None) => None,
        }
        .ok_or(Problem::Unusable(
            "holds hexadecimal that is neither a seed of 32 bytes nor an sr25519 secret of 64",
        ));
    }
    match Phrase::parse(text) {
        Ok(phrase) => Ok(Keypair::from_phrase(phrase)),
        // As many words as a phrase has: meant as one, and worth saying what is wrong with it.
        Err(error @ (PhraseError::Word { .. } | PhraseError::Checksum)) => {
            Err(Problem::Phrase(error))
        }
        Err(PhraseError::Length { .. }) => Err(Problem::Unusable(
            "is not a key file: neither JSON nor a seed nor a phrase",
        )),
    }
}

fn secret(fields: &Fields) -> Result<Option<Secret>, Problem> {
    if let Some(text) = &fields.secret_phrase {
        return Phrase::parse(text)
            .map(|phrase| Some(Secret::Phrase(phrase)))
            .map_err(Problem::Phrase);
    }
    if let Some(text) = &fields.secret_seed {
        return secret_bytes(text)
            .map(|seed| Some(Secret::Seed(seed)))
            .ok_or(Problem::Unusable(
                "has a secretSeed that is not 32 bytes in hexadecimal",
            ));
    }
    let Some(text) = &fields.private_key else {
        return Ok(None);
    };
    if let Some(expanded) = secret_bytes(text) {
        return Ok(Some(Secret::Expanded(expanded)));
    }
    // The private key of an ed25519 pair is its seed.
    match secret_bytes(text) {
        Some(seed) if scheme(fields) == Scheme::Ed25519 => Ok(Some(Secret::Seed(seed))),
        _ => Err(Problem::Unusable(
            "has a privateKey that is not 64 bytes in hexadecimal",
        )),
    }
}

/// The pair of a secret, if it belongs to the address beside it.
fn pair(secret: Secret, fields: &Fields) -> Result<Keypair, Problem> {
    let seed = match &secret {
        Secret::Phrase(phrase) => Some(phrase.seed("")),
        Secret::Seed(seed) => Some(seed.clone()),
        Secret::Expanded(_) => None,
    };
    let pair = match secret {
        Secret::Phrase(phrase) => Keypair::from_phrase(phrase),
        Secret::Seed(seed) => Keypair::from_seed(&seed),
        Secret::Expanded(expanded) => Keypair::from_expanded(&expanded).ok_or(
            Problem::Unusable("has a privateKey that is no sr25519 secret"),
        )?,
    };
    let Some(written) = &fields.ss58_address else {
        return match scheme(fields) {
            Scheme::Sr25519 => Ok(pair),
            other => Err(Problem::Unusable(other.refusal())),
        };
    };
    let written = written.trim();
    let derived = pair.hotkey();
    if written.parse() == Ok(derived) {
        return Ok(pair);
    }
    let ed25519 = seed.map(|seed| SigningKey::from_bytes(&seed).verifying_key());
    if ed25519.is_some_and(|key| written.parse() == Ok(Hotkey(key.to_bytes()))) {
        return Err(Problem::Unusable(ED25519));
    }
    Err(Problem::OtherAddress {
        written: written.chars().take(64).collect(),
        derived,
    })
}

fn public(fields: &Fields) -> Result<Hotkey, Problem> {
    match &fields.ss58_address {
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| Problem::Unusable("has an ss58Address that is none")),
        None => Err(Problem::Unusable("holds neither a secret nor an address")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Sr25519,
    Ed25519,
    Unknown,
}

impl Scheme {
    fn refusal(self) -> &'static str {
        match self {
            Self::Ed25519 => ED25519,
            Self::Sr25519 | Self::Unknown => "holds a key of an unknown cryptoType",
        }
    }
}

/// The scheme is a number or a name, and sr25519 where it is not written at all.
fn scheme(fields: &Fields) -> Scheme {
    let written = match &fields.crypto_type {
        None | Some(serde_json::Value::Null) => return Scheme::Sr25519,
        Some(serde_json::Value::String(name)) => name.to_ascii_lowercase(),
        Some(other) => other.to_string(),
    };
    match written.as_str() {
        "1" | "sr25519" => Scheme::Sr25519,
        "0" | "ed25519" => Scheme::Ed25519,
        _ => Scheme::Unknown,
    }
}

fn secret_bytes<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let digits = text.strip_prefix("0x").unwrap_or(text);
    hex::decode_to_slice(digits, bytes.as_mut_slice()).ok()?;
    Some(bytes)
}

/// The contents of a file for this pair, with everything that is known of it.
pub(super) fn of_pair(pair: &Keypair) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let expanded = Zeroizing::new(pair.pair.secret.to_bytes());
    let mut fields = of_address(pair.hotkey());
    fields.private_key = Some(hex_text::encode(expanded.as_slice()));
    if let Origin::Phrase(phrase) = &pair.origin {
        fields.secret_phrase = Some(phrase.words().to_string());
    }
    if let Some(seed) = pair.origin.seed() {
        fields.secret_seed = Some(hex_text::encode(seed.as_slice()));
    }
    // Room for all of it, so that growing leaves no copies behind.
    let mut json = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
    serde_json::to_writer_pretty(&mut *json, &fields)?;
    Ok(json)
}

/// The contents of a file that tells an address and nothing else.
pub(super) fn of_public(address: Hotkey) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&of_address(address))
}

fn of_address(address: Hotkey) -> Fields {
    let public = hex_text::encode(&address.0);
    Fields {
        account_id: Some(public.clone()),
        public_key: Some(public),
        private_key: None,
        secret_phrase: None,
        secret_seed: None,
        ss58_address: Some(address.to_string()),
        crypto_type: Some(1.into()),
    }
}

#[cfg(test)]
mod tests;
