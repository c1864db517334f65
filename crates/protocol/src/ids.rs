//! The names of things: blocks, cycles, groups, participants, bytes.
//!
//! Every identifier is a newtype, so that a cycle is never passed for a block nor a state for an
//! update. Hotkeys are written as ss58 addresses, hashes as lower-case hexadecimal; both parse back
//! from exactly that form and no other. This file knows nothing of what the ids refer to.

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2b512, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not the identifier it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not base58, or of a length no account has.
    #[error("`{0}` is not an ss58 address")]
    NotSs58(String),
    /// An address of another network than the one with prefix 42.
    #[error("ss58 address has network prefix {0}, expected 42")]
    Ss58Prefix(u8),
    /// One character is wrong, or two were exchanged.
    #[error("ss58 address `{0}` has a wrong checksum")]
    Ss58Checksum(String),
    /// Not 64 lower-case hexadecimal digits.
    #[error("`{0}` is not a hash of 64 lower-case hexadecimal digits")]
    NotHash(String),
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// A block number of the chain: the network's only clock.
    Block(u64)
}
number_id! {
    /// A round of distribute, train, commit and evaluate, counted from the task's first block.
    Cycle(u64)
}
number_id! {
    /// An expert group: the unit that a miner is assigned to.
    GroupId(u16)
}
number_id! {
    /// The subnet's number on the chain.
    Netuid(u16)
}
number_id! {
    /// A participant's slot in one snapshot of the chain. Slots are reused: identity is the hotkey.
    Uid(u16)
}

impl Block {
    /// The block after this one. The last number has none: strangers name blocks too.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Cycle {
    /// The cycle after this one, as [`Block::next`].
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Orders a name by its bytes, as text and every other program does. Two names nearly always differ in
/// their first word, and comparing numbers calls nothing.
macro_rules! byte_order {
    ($name:ident) => {
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                words(&self.0).cmp(words(&other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
    };
}

fn words(bytes: &[u8; 32]) -> impl Iterator<Item = u64> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u64::from_be_bytes(*word))
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; 32]);

        byte_order!($name);

        impl $name {
            /// The BLAKE3 hash of the given bytes.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// The first eight hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hash(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hash_id! {
    /// Bytes, named by their BLAKE3 hash.
    BlobId
}
hash_id! {
    /// A state of the model: the hash of its manifest (P-4).
    StateId
}
hash_id! {
    /// A block's hash on the chain: also the network's only source of public randomness.
    BlockHash
}
hash_id! {
    /// A sealed commitment to an update (P-12).
    Seal
}
hash_id! {
    /// A division of a model's experts into groups: the hash of its entries (P-5).
    PartitionId
}
hash_id! {
    /// The start of a pseudo-random draw, derived from a block hash and a label (P-20).
    Seed
}

impl StateId {
    /// The blob that holds this state's manifest: the same hash under its other name.
    #[must_use]
    pub fn manifest_blob(self) -> BlobId {
        BlobId(self.0)
    }
}

fn parse_hash(text: &str) -> Result<[u8; 32], IdError> {
    let refused = || IdError::NotHash(text.chars().take(80).collect());
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(refused());
    }
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| refused())?;
    Ok(hash)
}

/// A participant's sr25519 public key. Written as an ss58 address with prefix 42.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hotkey(pub [u8; 32]);

byte_order!(Hotkey);

const SS58_PREFIX: u8 = 42;
const SS58_CHECKSUM_BYTES: usize = 2;
/// Prefix, key and checksum.
const SS58_BYTES: usize = 1 + 32 + SS58_CHECKSUM_BYTES;
const SS58_DIGITS: usize = 48;

impl Hotkey {
    /// The first eight characters of the address after its constant first one, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; SS58_BYTES];
        bytes[0] = SS58_PREFIX;
        bytes[1..33].copy_from_slice(&self.0);
        let checksum = ss58_checksum(&bytes[..33]);
        bytes[33..].copy_from_slice(&checksum);
        let digits = base58(&bytes);
        f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hotkey({})", self.short())
    }
}

impl FromStr for Hotkey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let shown = || text.chars().take(80).collect::<String>();
        let bytes = bs58::decode(text)
            .into_vec()
            .map_err(|_| IdError::NotSs58(shown()))?;
        if bytes.len() != SS58_BYTES {
            return Err(IdError::NotSs58(shown()));
        }
        let (body, checksum) = bytes.split_at(33);
        if ss58_checksum(body) != checksum {
            return Err(IdError::Ss58Checksum(shown()));
        }
        if body[0] != SS58_PREFIX {
            return Err(IdError::Ss58Prefix(body[0]));
        }
        let mut key = [0; 32];
        key.copy_from_slice(&body[1..]);
        Ok(Self(key))
    }
}

impl Serialize for Hotkey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hotkey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

fn ss58_checksum(body: &[u8]) -> [u8; SS58_CHECKSUM_BYTES] {
    let mut hasher = Blake2b512::new();
    hasher.update(b"SS58PRE");
    hasher.update(body);
    let digest = hasher.finalize();
    [digest[0], digest[1]]
}

/// An address in base 58. An archive spells thousands of them, so this is not the general conversion,
/// which takes five times as long: the length is known, and five digits are divided off at a time. A
/// prefix of 42 makes it 48 digits, none of them a leading zero.
fn base58(bytes: &[u8; SS58_BYTES]) -> [u8; SS58_DIGITS] {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    const FIVE_DIGITS: u64 = 58 * 58 * 58 * 58 * 58;
    let mut limbs = [0_u32; SS58_BYTES.div_ceil(4)];
    for (place, byte) in bytes.iter().rev().enumerate() {
        limbs[place / 4] |= u32::from(*byte) << (8 * (place % 4));
    }
    let mut digits = [b'1'; SS58_DIGITS];
    for five in digits.rchunks_mut(5) {
        let mut rest = 0_u64;
        for limb in limbs.iter_mut().rev() {
            let value = rest << 32 | u64::from(*limb);
            *limb = (value / FIVE_DIGITS) as u32;
            rest = value % FIVE_DIGITS;
        }
        for digit in five.iter_mut().rev() {
            *digit = ALPHABET[(rest % 58) as usize];
            rest /= 58;
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What should hold: every key is written as the library writes it, and read back.
        #[test]
        fn addresses_are_those_of_the_general_conversion(key: [u8; 32]) {
            let mut bytes = vec![SS58_PREFIX];
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(&ss58_checksum(&bytes));
            let address = Hotkey(key).to_string();
            prop_assert_eq!(&address, &bs58::encode(bytes).into_string());
            prop_assert_eq!(address.parse(), Ok(Hotkey(key)));
        }

        /// What should hold, also of names that have most of their bytes in common.
        #[test]
        fn names_are_ordered_as_their_bytes_are(name: [u8; 32], place in 0..32_usize, byte: u8) {
            let mut other = name;
            other[place] = byte;
            prop_assert_eq!(BlobId(name).cmp(&BlobId(other)), name.cmp(&other));
            prop_assert_eq!(Hotkey(name).partial_cmp(&Hotkey(other)), name.partial_cmp(&other));
        }
    }

    /// The smallest and the largest key are as long as any other.
    #[test]
    fn every_address_has_as_many_digits() {
        for key in [[0; 32], [255; 32]] {
            let address = Hotkey(key).to_string();
            assert_eq!(address.len(), SS58_DIGITS);
            assert_eq!(address.parse(), Ok(Hotkey(key)));
        }
    }

    /// The well-known development accounts, as every Substrate tool prints them.
    #[test]
    fn hotkeys_are_written_as_other_substrate_tools_write_them() {
        let mut alice = [0; 32];
        hex::decode_to_slice(
            "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
            &mut alice,
        )
        .unwrap();
        let address = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
        assert_eq!(Hotkey(alice).to_string(), address);
        assert_eq!(address.parse(), Ok(Hotkey(alice)));
    }

    #[test]
    fn an_address_with_one_changed_character_is_refused_by_its_checksum() {
        let damaged = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ";
        assert_eq!(
            damaged.parse::<Hotkey>(),
            Err(IdError::Ss58Checksum(damaged.to_owned()))
        );
        assert!(matches!("".parse::<Hotkey>(), Err(IdError::NotSs58(_))));
    }

    /// One spelling only: a hash that can be written two ways is two names for one thing.
    #[test]
    fn a_hash_has_exactly_one_spelling() {
        let id = BlobId::of(b"connito");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<BlobId>().is_err());
        assert!(id.to_string()[1..].parse::<BlobId>().is_err());
    }
}
