//! Wallets as they lie on disk. What the official tools make of them is checked by
//! `tools/check_wallets.py`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn pair(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

#[test]
fn a_wallet_is_laid_out_as_other_tools_expect_it() {
    let folder = tempfile::tempdir().unwrap();
    let wallets = Wallets::at(folder.path().join("wallets"));
    assert!(wallets.list().unwrap().is_empty());
    let wallet = wallets.wallet("mine").unwrap();
    wallet.create_coldkey(&pair(1), None).unwrap();
    wallet.create_hotkey("first", &pair(2), None).unwrap();

    let base = folder.path().join("wallets");
    for folder in ["", "mine", "mine/hotkeys"] {
        assert_eq!(mode(&base.join(folder)), 0o700, "{folder}");
    }
    for file in [
        "mine/coldkey",
        "mine/coldkeypub.txt",
        "mine/hotkeys/first",
        "mine/hotkeys/firstpub.txt",
    ] {
        assert_eq!(mode(&base.join(file)), 0o600, "{file}");
    }
    let state = wallet.state().unwrap();
    let coldkey = state.coldkey.unwrap();
    assert_eq!(coldkey.protection, Protection::None);
    assert_eq!(coldkey.address, Some(pair(1).hotkey()));
    let [(name, hotkey)] = state.hotkeys.as_slice() else {
        panic!("{:?}", state.hotkeys);
    };
    assert_eq!(name, "first");
    assert_eq!(hotkey.address, Some(pair(2).hotkey()));
    assert_eq!(wallets.list().unwrap()[0].name(), "mine");
}

/// What should not happen: a second key in the place of the first, or half of a new wallet.
#[test]
fn a_key_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let wallet = Wallets::at(folder.path()).wallet("mine").unwrap();
    wallet.create_coldkey(&pair(1), None).unwrap();
    let again = wallet.create_coldkey(&pair(2), None);
    assert!(matches!(again, Err(WalletError::Taken { path }) if path == wallet.coldkey()));
    fs::remove_file(wallet.coldkey()).unwrap();
    let beside = wallet.create_coldkey(&pair(2), None);
    assert!(matches!(beside, Err(WalletError::Taken { path }) if path == wallet.coldkey_public()));
    assert!(!wallet.coldkey().exists());
}

#[test]
fn a_key_that_cannot_be_used_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let wallet = Wallets::at(folder.path()).wallet("mine").unwrap();
    wallet.create_coldkey(&pair(1), None).unwrap();
    for (name, seed) in [("b", 2), ("a", 3)] {
        wallet.create_hotkey(name, &pair(seed), None).unwrap();
    }
    fs::remove_file(wallet.coldkey()).unwrap();
    let exposed = wallet.hotkey("b").unwrap();
    fs::set_permissions(&exposed, Permissions::from_mode(0o644)).unwrap();

    let state = wallet.state().unwrap();
    let coldkey = state.coldkey.unwrap();
    assert_eq!(coldkey.protection, Protection::Elsewhere);
    assert_eq!(coldkey.address, Some(pair(1).hotkey()));
    assert_eq!(coldkey.mode, None);
    let names: Vec<&str> = state
        .hotkeys
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let (_, b) = &state.hotkeys[1];
    assert_eq!((b.mode, b.protection), (Some(0o644), Protection::Unknown));
    assert_eq!(b.address, Some(pair(2).hotkey()));
    let problem = b.problem.as_ref().unwrap().to_string();
    assert!(
        problem.ends_with("has mode 0644; set it to 0600"),
        "{problem}"
    );
}

#[test]
fn a_missing_wallet_is_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let wallet = Wallets::at(folder.path()).wallet("mine").unwrap();
    assert!(matches!(wallet.state(), Err(WalletError::Folder { .. })));
}

#[test]
fn a_name_is_the_name_of_one_file() {
    let wallets = Wallets::at("wallets");
    for name in ["", ".", "..", "a/b", "/etc", ".hidden", "a\nb", "a\0"] {
        let refused = wallets.wallet(name).unwrap_err().to_string();
        assert!(
            refused.contains("cannot be the name of a wallet"),
            "{refused}"
        );
    }
    let wallet = wallets.wallet("pub.txt").unwrap();
    for name in ["xpub.txt", "x.lock", "../coldkey", &"x".repeat(300)] {
        assert!(
            matches!(wallet.hotkey(name), Err(WalletError::Name { .. })),
            "{name}"
        );
    }
    assert!(wallet.hotkey("x 1-ä.txt").is_ok());
}
