//! Key files on disk: found readable by their owner alone, opened, and written so.
//!
//! A file that others may read is refused unless it tells an address only, and so is one whose secret
//! does not belong to the address written beside it. What stands in a file is `contents.rs`'s, how
//! it is encrypted `encrypted.rs`'s. A file is never overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use connito_protocol::ids::Hotkey;
use zeroize::Zeroizing;

use super::contents::{self, Contents, Problem};
use super::encrypted::{self, Encryption, Refusal, Unsealable};
use super::{Keypair, NoRandomness, Password, PhraseError};

/// A key file holds a few hundred bytes, twice that when encrypted; whatever is larger is something
/// else.
const MAX_FILE_BYTES: u64 = 16 * 1024;
const OWNER_ONLY: u32 = 0o600;

/// Why a key file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be opened or read.
    #[error("cannot read key file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be created; an existing file is never overwritten.
    #[error("cannot create key file {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could read the secret.
    #[error("key file {} has mode {mode:04o}; set it to 0600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no key that can be used here.
    #[error("key file {} {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as the rest of the sentence.
        problem: &'static str,
    },
    /// The phrase in it is none.
    #[error("key file {} holds no phrase that can be used", path.display())]
    Phrase {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PhraseError,
    },
    /// Its secret belongs to another address than it says.
    #[error("key file {} says {written}, but its secret belongs to {derived}", path.display())]
    OtherAddress {
        /// The file.
        path: PathBuf,
        /// The address in the file.
        written: String,
        /// The address of the secret.
        derived: Hotkey,
    },
    /// It tells an address and has no secret.
    #[error("key file {} holds the address {address} only, and no secret", path.display())]
    PublicOnly {
        /// The file.
        path: PathBuf,
        /// The address.
        address: Hotkey,
    },
    /// It is encrypted and nobody was asked for the password.
    #[error("key file {} is encrypted", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The password is another one, or the file was changed: its cipher cannot tell which.
    #[error("the password does not open key file {}", path.display())]
    WrongPassword {
        /// The file.
        path: PathBuf,
    },
    /// Making the key of a password takes more memory than there is.
    #[error("the password of key file {} takes 512 MiB of memory to check", path.display())]
    NoMemory {
        /// The file.
        path: PathBuf,
    },
    /// No randomness to encrypt with.
    #[error("key file {} cannot be encrypted", path.display())]
    NoRandomness {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: NoRandomness,
    },
}

/// What a key file holds.
#[derive(Debug)]
pub enum Stored {
    /// A key that can sign.
    Pair(Box<Keypair>),
    /// An address without a secret.
    Public(Hotkey),
    /// Something that a password opens.
    Locked(Locked),
}

/// An encrypted key file, read and not yet opened.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    encryption: Encryption,
    bytes: Vec<u8>,
}

impl Locked {
    /// How it is encrypted.
    #[must_use]
    pub fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// The pair inside. Takes some seconds, which is the point of it.
    ///
    /// # Errors
    /// The password is another one, the file is damaged, what is inside is no sr25519 key, or there
    /// is not enough memory.
    pub fn unlock(&self, password: &Password) -> Result<Keypair, KeyFileError> {
        let path = || self.path.clone();
        let text =
            self.encryption
                .open(&self.bytes, password)
                .map_err(|refusal| match refusal {
                    Refusal::WrongPassword => KeyFileError::WrongPassword { path: path() },
                    Refusal::NoMemory => KeyFileError::NoMemory { path: path() },
                    Refusal::Damaged => KeyFileError::Unusable {
                        path: path(),
                        problem: "is encrypted and damaged",
                    },
                })?;
        pair(&self.path, contents_of(&self.path, &text)?)
    }
}

/// Reads a key file as far as that goes without a password.
///
/// # Errors
/// The file is missing or unreadable, others may read a secret in it, it holds nothing that can be
/// used, or its secret belongs to another address than the file says.
pub fn open(path: &Path) -> Result<Stored, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    // Asked of the open file, so that it cannot be exchanged in between.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize));
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let exposed = mode & 0o077 != 0;
    let refused = KeyFileError::Exposed {
        path: path.to_owned(),
        mode,
    };
    if let Some(encryption) = Encryption::of(&bytes) {
        return if exposed {
            Err(refused)
        } else {
            Ok(Stored::Locked(Locked {
                path: path.to_owned(),
                encryption,
                bytes: bytes.to_vec(),
            }))
        };
    }
    match contents_of(path, &bytes) {
        Ok(Contents::Public(address)) => Ok(Stored::Public(address)),
        // Whatever else is in it may be a secret that was mistyped.
        _ if exposed => Err(refused),
        Ok(Contents::Pair(pair)) => Ok(Stored::Pair(pair)),
        Err(error) => Err(error),
    }
}

/// Reads the pair in a key file that is not encrypted.
///
/// # Errors
/// As [`open`], and for a file that is encrypted or has no secret.
pub fn read(path: &Path) -> Result<Keypair, KeyFileError> {
    match open(path)? {
        Stored::Pair(pair) => Ok(*pair),
        Stored::Public(address) => pair(path, Contents::Public(address)),
        Stored::Locked(_) => Err(KeyFileError::Encrypted {
            path: path.to_owned(),
        }),
    }
}

fn contents_of(path: &Path, bytes: &[u8]) -> Result<Contents, KeyFileError> {
    let path = path.to_owned();
    // A byte-order mark is what an editor leaves behind.
    let text = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let parsed = match text {
        Ok(text) => contents::parse(text),
        Err(_) => Err(Problem::Unusable("is not text")),
    };
    parsed.map_err(|problem| match problem {
        Problem::Unusable(problem) => KeyFileError::Unusable { path, problem },
        Problem::Phrase(source) => KeyFileError::Phrase { path, source },
        Problem::OtherAddress { written, derived } => KeyFileError::OtherAddress {
            path,
            written,
            derived,
        },
    })
}

fn pair(path: &Path, contents: Contents) -> Result<Keypair, KeyFileError> {
    match contents {
        Contents::Pair(pair) => Ok(*pair),
        Contents::Public(address) => Err(KeyFileError::PublicOnly {
            path: path.to_owned(),
            address,
        }),
    }
}

/// Writes a new key file, readable by its owner alone, and makes it durable.
///
/// # Errors
/// The file exists already, or cannot be created or written.
pub fn write(path: &Path, pair: &Keypair) -> Result<(), KeyFileError> {
    create(path, &plain(path, pair)?)
}

/// Writes a new key file that this password opens. Takes some seconds.
///
/// # Errors
/// As [`write`], and where there is neither randomness nor memory to encrypt with.
pub fn write_encrypted(
    path: &Path,
    pair: &Keypair,
    password: &Password,
) -> Result<(), KeyFileError> {
    let sealed = encrypted::seal(&plain(path, pair)?, password);
    let path_of = || path.to_owned();
    let sealed = sealed.map_err(|error| match error {
        Unsealable::NoMemory => KeyFileError::NoMemory { path: path_of() },
        Unsealable::NoRandomness(source) => KeyFileError::NoRandomness {
            path: path_of(),
            source,
        },
    })?;
    create(path, &sealed)
}

/// Writes a new file that tells an address, so that it can be known while the key stays locked.
///
/// # Errors
/// As [`write`].
pub fn write_public(path: &Path, address: Hotkey) -> Result<(), KeyFileError> {
    let json = contents::of_public(address).map_err(|error| unwritable(path, error.into()))?;
    create(path, &json)
}

fn plain(path: &Path, pair: &Keypair) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    contents::of_pair(pair).map_err(|error| unwritable(path, error.into()))
}

fn create(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(path)
        .map_err(|source| unwritable(path, source))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| sync_parent(path)).map_err(|source| {
        // Half a key is none, and it would be in the way of the next attempt.
        let _ = fs::remove_file(path);
        unwritable(path, source)
    })
}

/// Makes a new entry of a folder durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn unwritable(path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Unwritable {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
