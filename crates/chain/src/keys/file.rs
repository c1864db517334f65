//! Key files: plain JSON with the fields of a Bittensor hotkey file, readable by its owner alone.
//!
//! A file that others may read is refused, and so is one whose secret does not belong to the
//! address written beside it. The seed is preferred to the expanded secret when both are there.
//! Encrypted files, bare phrases and ed25519 keys are recognised and refused by name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use connito_protocol::ids::Hotkey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{Keypair, Signer};
use crate::hex_text;

/// A key file holds a few hundred bytes; whatever is larger is something else.
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
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyFile {
    #[serde(default)]
    account_id: Option<String>,
    #[serde(default)]
    public_key: Option<String>,
    #[serde(default)]
    private_key: Option<String>,
    #[serde(default)]
    secret_phrase: Option<String>,
    #[serde(default)]
    secret_seed: Option<String>,
    // Some versions of the wallet write the name with a space in front.
    #[serde(default, alias = " ss58Address")]
    ss58_address: Option<String>,
    #[serde(default)]
    crypto_type: Option<serde_json::Value>,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.private_key.zeroize();
        self.secret_phrase.zeroize();
        self.secret_seed.zeroize();
    }
}

/// Reads the pair in a key file.
///
/// # Errors
/// The file is missing or unreadable, others may read it, it holds no usable sr25519 secret, or its
/// secret belongs to another address than the file says.
pub fn read(path: &Path) -> Result<Keypair, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let unusable = |problem| KeyFileError::Unusable {
        path: path.to_owned(),
        problem,
    };
    let file = File::open(path).map_err(unreadable)?;
    // Asked of the open file, so that it cannot be exchanged in between.
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.starts_with('$') || text.starts_with("gAAAAA") {
        return Err(unusable("is encrypted, which is not supported"));
    }
    // The cause is not kept: a JSON error can quote what it read.
    let parsed: KeyFile =
        serde_json::from_str(&text).map_err(|_| unusable("is not a JSON key file"))?;
    if !is_sr25519(parsed.crypto_type.as_ref()) {
        return Err(unusable("holds a key that is not sr25519"));
    }
    let pair = secret(&parsed).map_err(unusable)?;
    match &parsed.ss58_address {
        Some(written) if written.parse() != Ok(pair.hotkey()) => Err(KeyFileError::OtherAddress {
            path: path.to_owned(),
            written: written.chars().take(64).collect(),
            derived: pair.hotkey(),
        }),
        _ => Ok(pair),
    }
}

/// The scheme is a number or a name, and sr25519 where it is not written at all.
fn is_sr25519(crypto_type: Option<&serde_json::Value>) -> bool {
    match crypto_type {
        None | Some(serde_json::Value::Null) => true,
        Some(serde_json::Value::Number(number)) => number.as_u64() == Some(1),
        Some(serde_json::Value::String(name)) => {
            name == "1" || name.eq_ignore_ascii_case("sr25519")
        }
        Some(_) => false,
    }
}

fn secret(file: &KeyFile) -> Result<Keypair, &'static str> {
    if let Some(text) = &file.secret_seed {
        let seed = secret_bytes(text).ok_or("has a secretSeed that is not 0x and 32 bytes")?;
        return Ok(Keypair::from_seed(&seed));
    }
    if let Some(text) = &file.private_key {
        return secret_bytes(text)
            .and_then(|secret| Keypair::from_expanded(&secret))
            .ok_or("has a privateKey that is not 0x and an sr25519 secret of 64 bytes");
    }
    Err(if file.secret_phrase.is_some() {
        "holds only a phrase; add its secretSeed"
    } else {
        "holds no secret"
    })
}

fn secret_bytes<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let bytes = Zeroizing::new(hex_text::decode(text)?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

/// Writes a new key file, readable by its owner alone, and makes it durable.
///
/// # Errors
/// The file exists already, or cannot be created or written.
pub fn write(path: &Path, pair: &Keypair) -> Result<(), KeyFileError> {
    let unwritable = |source| KeyFileError::Unwritable {
        path: path.to_owned(),
        source,
    };
    let public = hex_text::encode(&pair.hotkey().0);
    let expanded = Zeroizing::new(pair.pair.secret.to_bytes());
    let contents = KeyFile {
        account_id: Some(public.clone()),
        public_key: Some(public),
        private_key: Some(hex_text::encode(expanded.as_slice())),
        secret_phrase: None,
        secret_seed: pair
            .seed
            .as_ref()
            .map(|seed| hex_text::encode(seed.as_slice())),
        ss58_address: Some(pair.hotkey().to_string()),
        crypto_type: Some(1.into()),
    };
    let json = serde_json::to_vec_pretty(&contents).map_err(|source| unwritable(source.into()))?;
    let json = Zeroizing::new(json);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(path)
        .map_err(unwritable)?;
    file.write_all(&json)
        .and_then(|()| file.sync_all())
        .map_err(unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, contents: &str) -> PathBuf {
            let path = self.0.path().join("key");
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            path
        }

        fn problem(&self, contents: &str) -> String {
            read(&self.file(contents)).unwrap_err().to_string()
        }
    }

    #[test]
    fn a_written_key_reads_back_and_only_its_owner_may_read_it() {
        let folder = Folder::new();
        let path = folder.0.path().join("hotkey");
        let pair = Keypair::generate().unwrap();
        write(&path, &pair).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(read(&path).unwrap().hotkey(), pair.hotkey());
        assert!(matches!(
            write(&path, &pair),
            Err(KeyFileError::Unwritable { .. })
        ));

        // Without its seed the same pair comes from the expanded secret.
        let mut json: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json.as_object_mut().unwrap().remove("secretSeed");
        let expanded = read(&folder.file(&json.to_string())).unwrap();
        assert_eq!(expanded.hotkey(), pair.hotkey());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = Folder::new();
        let path = folder.file("{}");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let problem = read(&path).unwrap_err().to_string();
        assert!(
            problem.ends_with("has mode 0640; set it to 0600"),
            "{problem}"
        );
    }

    #[test]
    fn each_unusable_file_is_refused_with_its_reason_and_never_its_secret() {
        let folder = Folder::new();
        let cases = [
            ("$NACL…", "is encrypted"),
            ("not json, but sec-ret", "is not a JSON key file"),
            (r#"{"cryptoType": 0, "secretSeed": "0x00"}"#, "not sr25519"),
            (r#"{"secretSeed": "0xsec-ret"}"#, "secretSeed"),
            (r#"{"privateKey": "0x1234"}"#, "privateKey"),
            (r#"{"secretPhrase": "sec-ret"}"#, "only a phrase"),
            (r#"{"ss58Address": "5EPC"}"#, "holds no secret"),
        ];
        for (contents, expected) in cases {
            let problem = folder.problem(contents);
            assert!(problem.contains(expected), "{problem}");
            assert!(!problem.contains("sec-ret"), "{problem}");
        }
        let missing = read(Path::new("/nonexistent/key")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read key file /nonexistent/key");
    }

    #[test]
    fn a_secret_beside_the_wrong_address_is_refused() {
        let folder = Folder::new();
        let seed = "01".repeat(32);
        let address = Keypair::from_seed(&[1; 32]).hotkey();
        let file = |name, address: Hotkey| {
            format!(
                r#"{{"secretSeed": "0x{seed}", "{name}": "{address}", "cryptoType": "sr25519"}}"#
            )
        };
        assert!(read(&folder.file(&file("ss58Address", address))).is_ok());
        for name in ["ss58Address", " ss58Address"] {
            let wrong = file(name, Hotkey([2; 32]));
            assert!(matches!(
                read(&folder.file(&wrong)),
                Err(KeyFileError::OtherAddress { .. })
            ));
        }
    }
}
