//! Encrypted key files: three generations of them, of which the newest is also written.
//!
//! | begins with | cipher | key from the password |
//! |---|---|---|
//! | `$NACL` | XSalsa20-Poly1305, 24-byte nonce in front | argon2i, 8 passes over 512 MiB |
//! | `$ANSIBLE_VAULT` | AES-256-CTR, HMAC-SHA256 | PBKDF2-SHA256, 10,000 rounds |
//! | `gAAAAA` | Fernet: AES-128-CBC, HMAC-SHA256 | PBKDF2-SHA256, 10,000,000 rounds |
//!
//! Making the key takes about two seconds for the first and the last, which is their purpose. The
//! salts of those two are the same for everybody; that is the format's choice and cannot be mended.

mod earlier;

use argon2::{Algorithm, Argon2, Params, Version};
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use zeroize::Zeroizing;

use super::NoRandomness;
use super::password::Password;

const NACL: &[u8] = b"$NACL";
const ANSIBLE: &[u8] = b"$ANSIBLE_VAULT";
const FERNET: &[u8] = b"gAAAAA";

const NONCE_BYTES: usize = 24;
const SALT: [u8; 16] = [
    0x13, 0x71, 0x83, 0xdf, 0xf1, 0x5a, 0x09, 0xbc, 0x9c, 0x90, 0xb5, 0x51, 0x87, 0x39, 0xe9, 0xb1,
];

/// How a key file is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// What is written today.
    Nacl,
    /// Older: an Ansible vault.
    Ansible,
    /// Oldest: a Fernet token.
    Fernet,
}

/// Why an encrypted file does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The password is another one, or the bytes were changed: the ciphers cannot tell which.
    WrongPassword,
    /// Not laid out as its first bytes say.
    Damaged,
    /// The machine has not the memory that making the key takes.
    NoMemory,
}

/// The work that turns a password into a key.
struct Cost {
    memory_kib: u32,
    passes: u32,
}

/// What libsodium calls sensitive.
const COST: Cost = Cost {
    memory_kib: 512 * 1024,
    passes: 8,
};

impl Encryption {
    /// How these bytes are encrypted, if they are.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let kinds = [
            (NACL, Self::Nacl),
            (ANSIBLE, Self::Ansible),
            (FERNET, Self::Fernet),
        ];
        let kind = kinds.into_iter().find(|(mark, _)| bytes.starts_with(mark));
        kind.map(|(_, kind)| kind)
    }

    /// The name that the official tools have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nacl => "NaCl",
            Self::Ansible => "Ansible Vault",
            Self::Fernet => "Fernet",
        }
    }

    pub(super) fn open(
        self,
        bytes: &[u8],
        password: &Password,
    ) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        match self {
            Self::Nacl => open_nacl(bytes, password, &COST),
            Self::Ansible => earlier::open_ansible(bytes, password),
            Self::Fernet => earlier::open_fernet(bytes, password, earlier::FERNET_ROUNDS),
        }
    }
}

/// Why a key cannot be encrypted.
#[derive(Debug)]
pub(super) enum Unsealable {
    NoRandomness(NoRandomness),
    NoMemory,
}

/// Encrypts the contents of a key file.
pub(super) fn seal(plaintext: &[u8], password: &Password) -> Result<Vec<u8>, Unsealable> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| Unsealable::NoRandomness(NoRandomness(error)))?;
    seal_nacl(plaintext, password, nonce, &COST).ok_or(Unsealable::NoMemory)
}

fn seal_nacl(
    plaintext: &[u8],
    password: &Password,
    nonce: [u8; NONCE_BYTES],
    cost: &Cost,
) -> Option<Vec<u8>> {
    let cipher = XSalsa20Poly1305::new(key(password, cost)?.as_ref().into());
    let sealed = cipher.encrypt(&nonce.into(), plaintext).ok()?;
    Some([NACL, &nonce, &sealed].concat())
}

fn open_nacl(
    bytes: &[u8],
    password: &Password,
    cost: &Cost,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let rest = bytes.strip_prefix(NACL).ok_or(Refusal::Damaged)?;
    let (nonce, sealed) = rest
        .split_first_chunk::<NONCE_BYTES>()
        .ok_or(Refusal::Damaged)?;
    let key = key(password, cost).ok_or(Refusal::NoMemory)?;
    XSalsa20Poly1305::new(key.as_ref().into())
        .decrypt(nonce.into(), sealed)
        .map(Zeroizing::new)
        .map_err(|_| Refusal::WrongPassword)
}

/// The key of a password; nothing if there is not the memory for it.
fn key(password: &Password, cost: &Cost) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(key.len())).ok()?;
    Argon2::new(Algorithm::Argon2i, Version::V0x13, params)
        .hash_password_into(password.bytes(), &SALT, key.as_mut_slice())
        .ok()?;
    Some(key)
}

#[cfg(test)]
mod tests;
