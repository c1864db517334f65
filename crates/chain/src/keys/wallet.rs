//! Wallets: folders of key files, laid out as Bittensor's own tools lay them out.
//!
//! ```text
//! WALLETS/NAME/coldkey                 owns; usually encrypted
//! WALLETS/NAME/coldkeypub.txt          its address
//! WALLETS/NAME/hotkeys/HOTKEY          signs day by day; usually not encrypted
//! WALLETS/NAME/hotkeys/HOTKEYpub.txt   its address
//! ```
//!
//! Folders are made with mode 0700 and files with 0600. A wallet may lack any of the files: the
//! machine of a miner has no business with the coldkey.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use connito_protocol::ids::Hotkey;

use super::file::{self, KeyFileError, Stored};
use super::{Encryption, Keypair, Password, Signer};

const OWNER_ONLY: u32 = 0o700;
/// What the names of files that accompany a key end with.
const COMPANIONS: [&str; 2] = ["pub.txt", ".lock"];

/// Why a wallet cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// A name that is no name of a file.
    #[error("{name:?} cannot be the name of a {what}: {reason}")]
    Name {
        /// The name, perhaps cut short.
        name: String,
        /// A wallet or a hotkey.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A folder cannot be listed or made.
    #[error("the folder {} cannot be used", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key, or the address of one, is there already and would be lost.
    #[error("{} is there already, and a key is never overwritten", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
    /// A key file.
    #[error(transparent)]
    File(#[from] KeyFileError),
}

/// A folder of wallets, which need not exist.
#[derive(Debug, Clone)]
pub struct Wallets {
    folder: PathBuf,
}

/// One wallet, which need not exist.
#[derive(Debug, Clone)]
pub struct Wallet {
    name: String,
    folder: PathBuf,
}

/// What lies in a wallet.
#[derive(Debug)]
pub struct WalletState {
    /// Its name.
    pub name: String,
    /// The key that owns; absent where neither it nor its address is there.
    pub coldkey: Option<KeyState>,
    /// Its hotkeys with their names, in the order of the names.
    pub hotkeys: Vec<(String, KeyState)>,
}

/// What is known of a key without any password.
#[derive(Debug)]
pub struct KeyState {
    /// Where the key is, or would be.
    pub file: PathBuf,
    /// The permission bits of that file; absent where there is only the address.
    pub mode: Option<u32>,
    /// How the key is protected.
    pub protection: Protection,
    /// Its address, if any file tells it.
    pub address: Option<Hotkey>,
    /// Why the key cannot be used, if that is so.
    pub problem: Option<KeyFileError>,
}

/// How a key is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// By the file's mode alone.
    None,
    /// By a password too.
    Encrypted(Encryption),
    /// There is only the address here.
    Elsewhere,
    /// The file cannot be used, so that one cannot tell.
    Unknown,
}

impl Wallets {
    /// The wallets in this folder.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The wallet of this name.
    ///
    /// # Errors
    /// The name cannot be that of a folder.
    pub fn wallet(&self, name: &str) -> Result<Wallet, WalletError> {
        check_name(name, "wallet")?;
        Ok(Wallet {
            name: name.to_owned(),
            folder: self.folder.join(name),
        })
    }

    /// All wallets, in the order of their names. None where the folder does not exist.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(&self) -> Result<Vec<Wallet>, WalletError> {
        let names = names_in(&self.folder, Path::is_dir)?;
        let wallets = names.iter().filter_map(|name| self.wallet(name).ok());
        Ok(wallets.collect())
    }
}

impl Wallet {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of the key that owns.
    #[must_use]
    pub fn coldkey(&self) -> PathBuf {
        self.folder.join("coldkey")
    }

    /// The file that tells the coldkey's address.
    #[must_use]
    pub fn coldkey_public(&self) -> PathBuf {
        self.folder.join("coldkeypub.txt")
    }

    /// The file of a hotkey.
    ///
    /// # Errors
    /// The name cannot be that of a hotkey's file.
    pub fn hotkey(&self, name: &str) -> Result<PathBuf, WalletError> {
        check_name(name, "hotkey")?;
        Ok(self.hotkeys().join(name))
    }

    /// The file that tells a hotkey's address.
    ///
    /// # Errors
    /// As [`Wallet::hotkey`].
    pub fn hotkey_public(&self, name: &str) -> Result<PathBuf, WalletError> {
        check_name(name, "hotkey")?;
        Ok(self.hotkeys().join(format!("{name}pub.txt")))
    }

    fn hotkeys(&self) -> PathBuf {
        self.folder.join("hotkeys")
    }

    /// Writes the coldkey and the file with its address; encrypted where there is a password.
    ///
    /// # Errors
    /// One of the files is there already, or cannot be made.
    pub fn create_coldkey(
        &self,
        pair: &Keypair,
        password: Option<&Password>,
    ) -> Result<(), WalletError> {
        create(&self.coldkey(), &self.coldkey_public(), pair, password)
    }

    /// Writes a hotkey and the file with its address; encrypted where there is a password.
    ///
    /// # Errors
    /// The name cannot be that of a file, one of the files is there already, or cannot be made.
    pub fn create_hotkey(
        &self,
        name: &str,
        pair: &Keypair,
        password: Option<&Password>,
    ) -> Result<(), WalletError> {
        create(
            &self.hotkey(name)?,
            &self.hotkey_public(name)?,
            pair,
            password,
        )
    }

    /// What lies in it, without any password.
    ///
    /// # Errors
    /// Its folder is not there or cannot be listed. A key that cannot be used is none: its state
    /// says so.
    pub fn state(&self) -> Result<WalletState, WalletError> {
        // Asked first: a missing wallet is not an empty one.
        fs::read_dir(&self.folder).map_err(|source| folder_error(&self.folder, source))?;
        let hotkeys = names_in(&self.hotkeys(), Path::is_file)?;
        let hotkeys = hotkeys.into_iter().filter_map(|name| {
            let (file, public) = (self.hotkey(&name).ok()?, self.hotkey_public(&name).ok()?);
            Some((name, KeyState::of(file, &public)?))
        });
        Ok(WalletState {
            name: self.name.clone(),
            coldkey: KeyState::of(self.coldkey(), &self.coldkey_public()),
            hotkeys: hotkeys.collect(),
        })
    }
}

impl KeyState {
    /// The state of a key; nothing if neither it nor its address is there.
    fn of(file: PathBuf, public: &Path) -> Option<Self> {
        let beside = match file::open(public) {
            Ok(Stored::Public(address)) => Some(address),
            _ => None,
        };
        let Ok(metadata) = fs::metadata(&file) else {
            return beside.map(|address| Self {
                file,
                mode: None,
                protection: Protection::Elsewhere,
                address: Some(address),
                problem: None,
            });
        };
        let (protection, address, problem) = match file::open(&file) {
            Ok(Stored::Pair(pair)) => (Protection::None, Some(pair.hotkey()), None),
            Ok(Stored::Locked(locked)) => {
                let encryption = Protection::Encrypted(locked.encryption());
                (encryption, beside, None)
            }
            Ok(Stored::Public(address)) => (Protection::Elsewhere, Some(address), None),
            Err(problem) => (Protection::Unknown, beside, Some(problem)),
        };
        Some(Self {
            file,
            mode: Some(metadata.mode() & 0o7777),
            protection,
            address,
            problem,
        })
    }
}

fn create(
    file: &Path,
    public: &Path,
    pair: &Keypair,
    password: Option<&Password>,
) -> Result<(), WalletError> {
    // Before anything is made; creating fails in any case where a file has come in between.
    for path in [file, public] {
        if path.symlink_metadata().is_ok() {
            return Err(WalletError::Taken {
                path: path.to_owned(),
            });
        }
    }
    if let Some(folder) = file.parent() {
        make_folder(folder).map_err(|source| folder_error(folder, source))?;
    }
    match password {
        Some(password) => file::write_encrypted(file, pair, password)?,
        None => file::write(file, pair)?,
    }
    Ok(file::write_public(public, pair.hotkey())?)
}

/// Makes a folder and those above it where missing, each for its owner alone, and makes them durable.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent().filter(|path| !path.as_os_str().is_empty()) {
        make_folder(above)?;
    }
    match DirBuilder::new().mode(OWNER_ONLY).create(folder) {
        // Somebody else has made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made.and_then(|()| file::sync_parent(folder)),
    }
}

/// The names in a folder that such an entry has, in order. None where the folder does not exist.
fn names_in(folder: &Path, such: fn(&Path) -> bool) -> Result<Vec<String>, WalletError> {
    let refused = |source| folder_error(folder, source);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(refused)?;
        // A name that is not text is not one that these tools gave.
        if let (Ok(name), true) = (entry.file_name().into_string(), such(&entry.path())) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn folder_error(folder: &Path, source: io::Error) -> WalletError {
    WalletError::Folder {
        path: folder.to_owned(),
        source,
    }
}

fn check_name(name: &str, what: &'static str) -> Result<(), WalletError> {
    let companion = what == "hotkey" && COMPANIONS.iter().any(|end| name.ends_with(end));
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.contains(['/', '\0']) {
        "it is no single name"
    } else if name.starts_with('.') {
        "it begins with a dot"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else if name.len() > 200 {
        "it is longer than 200 bytes"
    } else if companion {
        "files beside a key end so"
    } else {
        return Ok(());
    };
    Err(WalletError::Name {
        name: name.chars().take(60).collect(),
        what,
        reason,
    })
}

#[cfg(test)]
mod tests;
