//! Files of other implementations, and damage. Keys are made cheaply here; `keys/file` has a file with
//! a real one, and `tools/check_wallets.py` has one of each kind.

use proptest::prelude::*;

use super::*;

/// A text encrypted by the `cryptography` package, with a thousand rounds instead of ten million.
const QUICK_FERNET_TOKEN: &str = "gAAAAABrAhTudKHzEa_izXp3xRvXyH1Q84CWu0G_R4Lx0vfjkBckxGkgrpEPEnN1y1m-d5AoVZEvrA6m9I1FkUv8vU\
     2LEJ0wVQ==";
/// A text that the official implementation opens.
const ANSIBLE_VAULT: &str = "$ANSIBLE_VAULT;1.1;AES256\n\
     33306465303538663961313438653463323266373864303638623066303135306266316538633431\n\
     3030306663386661613736346338356338336264613865630a343634373965623034356365313530\n\
     38386365386162356635306531623766303534613230316531303038333333336236616638316330\n\
     3832323366383136650a356164623464643332363033346134336131323732666537376335393237\n\
     6530\n";

const QUICK: Cost = Cost {
    memory_kib: 8,
    passes: 1,
};

fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
}

fn golden() -> Password {
    password("golden-test-password")
}

#[test]
fn an_ansible_vault_opens_with_its_password_only() {
    let file = ANSIBLE_VAULT.as_bytes();
    assert_eq!(Encryption::of(file), Some(Encryption::Ansible));
    let opened = Encryption::Ansible.open(file, &golden()).unwrap();
    assert_eq!(opened.as_slice(), b"a short text");
    assert_eq!(
        Encryption::Ansible.open(file, &password("other")),
        Err(Refusal::WrongPassword)
    );
}

#[test]
fn a_fernet_token_opens_with_its_password_only() {
    let file = QUICK_FERNET_TOKEN.as_bytes();
    assert_eq!(Encryption::of(file), Some(Encryption::Fernet));
    let opened = earlier::open_fernet(file, &golden(), 1_000).unwrap();
    assert_eq!(opened.as_slice(), b"a short text");
    assert_eq!(
        earlier::open_fernet(file, &password("other"), 1_000),
        Err(Refusal::WrongPassword)
    );
}

#[test]
fn what_is_not_encrypted_is_not_taken_for_it() {
    for plain in [&b"{}"[..], b"", b"$", b"NACL", b"abandon"] {
        assert_eq!(Encryption::of(plain), None);
    }
}

#[test]
fn a_file_cut_short_is_damaged() {
    let marks: [(Encryption, &[u8]); 3] = [
        (Encryption::Nacl, b"$NACL and not twenty-four"),
        (Encryption::Ansible, b"$ANSIBLE_VAULT;1.1;AES256\n61620a"),
        (Encryption::Fernet, b"gAAAAAB"),
    ];
    for (kind, bytes) in marks {
        assert_eq!(
            kind.open(bytes, &golden()),
            Err(Refusal::Damaged),
            "{kind:?}"
        );
    }
}

proptest! {
    #[test]
    fn what_is_encrypted_opens_again_and_no_changed_byte_goes_unnoticed(
        text in proptest::collection::vec(any::<u8>(), 0..200),
        nonce in any::<[u8; NONCE_BYTES]>(),
        word in "\\PC{1,20}",
        position in any::<proptest::sample::Index>(),
    ) {
        let mut sealed = seal_nacl(&text, &password(&word), nonce, &QUICK).unwrap();
        let opened = open_nacl(&sealed, &password(&word), &QUICK).unwrap();
        prop_assert_eq!(opened.as_slice(), text.as_slice());
        let wrong = password(&format!("{word}x"));
        prop_assert_eq!(open_nacl(&sealed, &wrong, &QUICK), Err(Refusal::WrongPassword));
        let position = position.index(sealed.len());
        sealed[position] ^= 1;
        prop_assert!(open_nacl(&sealed, &password(&word), &QUICK).is_err());
    }

    #[test]
    fn damaged_files_of_the_earlier_formats_never_panic(
        position in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in 0..300_usize,
    ) {
        let mut token = QUICK_FERNET_TOKEN.as_bytes().to_vec();
        let place = position.index(token.len());
        token[place] = byte;
        token.truncate(cut);
        let _ = earlier::open_fernet(&token, &golden(), 1);
        let mut vault = ANSIBLE_VAULT.as_bytes().to_vec();
        let place = position.index(vault.len());
        vault[place] = byte;
        vault.truncate(2 * cut);
        let _ = earlier::open_ansible(&vault, &golden());
    }
}
