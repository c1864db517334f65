//! Key files: who may read them, and what becomes of a password.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::keys::Signer;

/// A key file of eleven times `abandon` and `about`, encrypted by `bittensor_core` 0.1.5.
const NACL_FILE: &str = "244e41434cb85bf6c25e57a795fdda444d396a0345a3ee69798d28a5e11976f75ffcc3d9d1a99851141afcd606\
     ba7b454b5e200386fb6e26f83a27ad165f51416182e3fb117ea6c2c66c80a7da94277c8faac1fbb00a09cf0d56\
     0ddf89a52bee71356c685f8f75ed5f2776eb0bc352e3159f776dbf54cec3970186cf983c7336dc630ff1d8c673\
     14323ebbd6e8baf2939d5390a4a5ac8f3e4f7f10292febf7426bff6ca02be7727102c3d29e723196fe20696d4d\
     66741c6210df24cfa6323694d4";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join("key");
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }
}

fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
}

#[test]
fn a_written_key_reads_back_and_only_its_owner_may_read_it() {
    let folder = Folder::new();
    let path = folder.0.path().join("hotkey");
    let pair = Keypair::generate().unwrap();
    write(&path, &pair).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, OWNER_ONLY);
    assert_eq!(read(&path).unwrap().hotkey(), pair.hotkey());
    assert!(matches!(
        write(&path, &pair),
        Err(KeyFileError::Unwritable { .. })
    ));
    assert_eq!(read(&path).unwrap().hotkey(), pair.hotkey());
}

/// What is encrypted here opens again: `keys/encrypted` has that with keys that are cheaper to make.
#[test]
fn an_encrypted_key_shows_nothing_of_itself() {
    let folder = Folder::new();
    let path = folder.0.path().join("coldkey");
    let pair = Keypair::generate().unwrap();
    write_encrypted(&path, &pair, &password("correct horse")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, OWNER_ONLY);
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"$NACL"));
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    let refused = read(&path).unwrap_err().to_string();
    assert!(refused.ends_with("coldkey is encrypted"), "{refused}");
}

#[test]
fn a_file_that_the_official_implementation_encrypted_opens() {
    let folder = Folder::new();
    let file = folder.file(hex::decode(NACL_FILE).unwrap());
    let Stored::Locked(locked) = open(&file).unwrap() else {
        panic!("not encrypted");
    };
    assert_eq!(locked.encryption(), Encryption::Nacl);
    let opened = locked.unlock(&password("golden-test-password")).unwrap();
    let address = "5EPCUjPxiHAcNooYipQFWr9NmmXJKpNG5RhcntXwbtUySrgH";
    assert_eq!(opened.hotkey().to_string(), address);
}

#[test]
fn a_password_that_does_not_open_the_file_says_so() {
    let folder = Folder::new();
    let vault = "$ANSIBLE_VAULT;1.1;AES256\n\
                 33306465303538663961313438653463323266373864303638623066303135306266316538633431\n\
                 3030306663386661613736346338356338336264613865630a343634373965623034356365313530\n\
                 38386365386162356635306531623766303534613230316531303038333333336236616638316330\n\
                 3832323366383136650a356164623464643332363033346134336131323732666537376335393237\n\
                 6530\n";
    let Stored::Locked(locked) = open(&folder.file(vault)).unwrap() else {
        panic!("not encrypted");
    };
    let wrong = locked.unlock(&password("hunter2")).unwrap_err().to_string();
    assert!(wrong.starts_with("the password does not open"), "{wrong}");
    assert!(!wrong.contains("hunter2"));
    // It opens, and holds no key.
    let empty = locked.unlock(&password("golden-test-password"));
    assert!(matches!(empty, Err(KeyFileError::Unusable { .. })));

    let Stored::Locked(cut) = open(&folder.file("$NACLcut")).unwrap() else {
        panic!("not encrypted");
    };
    let damaged = cut.unlock(&password("any")).unwrap_err().to_string();
    assert!(damaged.ends_with("is encrypted and damaged"), "{damaged}");
}

#[test]
fn a_secret_that_others_may_read_is_refused_and_an_address_is_not() {
    let folder = Folder::new();
    let address = Keypair::from_seed(&[1; 32]).hotkey();
    let public = format!(r#"{{"ss58Address": "{address}"}}"#);
    let seed = "01".repeat(32);
    for secret in [seed.as_str(), "$NACL", "mistyped phrase"] {
        let path = folder.file(secret);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let problem = open(&path).unwrap_err().to_string();
        assert!(
            problem.ends_with("has mode 0640; set it to 0600"),
            "{problem}"
        );
    }
    let path = folder.file(&public);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(open(&path), Ok(Stored::Public(found)) if found == address));
    let refused = read(&path).unwrap_err().to_string();
    assert!(refused.ends_with("only, and no secret"), "{refused}");
}

#[test]
fn each_unusable_file_is_named() {
    let folder = Folder::new();
    let cases: [(&[u8], &str); 4] = [
        (b"sec-ret", "is not a key file"),
        (b"{sec-ret", "is not a JSON key file"),
        (b"\xff\xfe", "is not text"),
        (
            b"{\"secretPhrase\": \"sec-ret\"}",
            "no phrase that can be used",
        ),
    ];
    for (contents, expected) in cases {
        let problem = read(&folder.file(contents)).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
        assert!(problem.contains("/key "), "{problem}");
        assert!(!problem.contains("sec-ret"), "{problem}");
    }
    let missing = read(Path::new("/nonexistent/key")).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read key file /nonexistent/key");
    let huge = folder.file(vec![b'a'; 1 << 20]);
    assert!(matches!(read(&huge), Err(KeyFileError::Unusable { .. })));
    assert!(matches!(
        read(folder.0.path()),
        Err(KeyFileError::Unreadable { .. })
    ));
}
