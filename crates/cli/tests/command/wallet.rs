//! `connito wallet`: keys made, listed, restored and signed with, and what is refused.
//!
//! Every test has a folder of wallets of its own. Making the key of a password takes seconds, so that one
//! test does all that needs one.

use std::path::{Path, PathBuf};
use std::process::Output;

use connito_chain::keys::{self, Keypair, Password, Signer};
use serde_json::Value;
use tempfile::TempDir;

use super::connito;

const PHRASE: &str = "abandon abandon abandon abandon abandon abandon \
                      abandon abandon abandon abandon abandon about";
const ADDRESS: &str = "5EPCUjPxiHAcNooYipQFWr9NmmXJKpNG5RhcntXwbtUySrgH";
/// Of that address over `hello`, by another implementation.
const SIGNATURE: &str = "48f7fccd7c329f87c9095d4b2bc1c4d5bf23eb4b8bc5c740bab3157d32aef604\
                         ef151abae89d61671b2dd3dd481c4f0537fd837111fe7ae4ca892c405682c28a";

struct Ground(TempDir);

impl Ground {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Runs `wallet` with this folder's wallets, which the environment names.
    fn run(&self, arguments: &[&str], passwords: &[(&Path, &str)]) -> Output {
        let mut command = connito(["wallet"]);
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("BT_WALLET_PATH", self.path("wallets"));
        for (file, password) in passwords {
            let variable = Password::variable(file);
            let password = Password::new(password.as_bytes().to_vec().into()).unwrap();
            command.env(&variable, password.scramble(&variable));
        }
        command.output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, &[]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// What a command that is refused says, which never goes with a result.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, &[]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{arguments:?} printed a result");
        told
    }
}

#[test]
fn a_restored_key_has_the_address_of_its_phrase_and_shows_no_secret() {
    let ground = Ground::new();
    ground.write("phrase", format!("{PHRASE}\n"));
    let new = [
        "new",
        "mine",
        "--only",
        "hotkey",
        "--phrase-from",
        "phrase",
        "--json",
    ];
    let output = ground.run(&new, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["hotkey"]["address"], ADDRESS);
    assert_eq!(made["hotkey"]["name"], "default");
    assert_eq!(made["hotkey"]["encrypted"], false);
    assert_eq!(made.get("coldkey"), None);

    let file = ground.path("wallets/mine/hotkeys/default");
    assert_eq!(keys::read(&file).unwrap().hotkey().to_string(), ADDRESS);
    for arguments in [
        &["show", "mine"][..],
        &["show", "mine", "--json"],
        &["list"],
    ] {
        let shown = ground.ok(arguments);
        assert!(shown.contains(ADDRESS), "{shown}");
        assert!(
            !shown.contains("abandon") && !shown.contains("4ed8d4b1"),
            "{shown}"
        );
    }
}

/// The phrase is told to whoever watches, and is not part of the result.
#[test]
fn a_new_key_comes_with_its_phrase_once() {
    let ground = Ground::new();
    let output = ground.run(&["new", "mine", "--no-password", "--hotkey", "first"], &[]);
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    let phrases: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    assert_eq!(phrases.len(), 2, "{told}");
    let result = String::from_utf8(output.stdout).unwrap();
    assert_eq!(result.lines().count(), 2, "{result}");
    assert!(!result.contains(phrases[0]) && !result.contains(phrases[1]));

    // The phrase is worth what it is said to be.
    ground.write("phrase", phrases[0]);
    let again = [
        "new",
        "again",
        "--only",
        "coldkey",
        "--no-password",
        "--phrase-from",
        "phrase",
        "--json",
    ];
    let restored = ground.json(&again);
    let shown = ground.json(&["show", "mine", "--json"]);
    assert_eq!(restored["coldkey"]["address"], shown["coldkey"]["address"]);
    assert_eq!(shown["coldkey"]["mode"], "0600");
    assert_eq!(shown["coldkey"]["protection"], "none");
    assert_eq!(shown["hotkeys"][0]["name"], "first");
    let listed = ground.json(&["list", "--json"]);
    let names: Vec<&Value> = listed["wallets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|wallet| &wallet["name"])
        .collect();
    assert_eq!(names, ["again", "mine"]);
}

/// Making, signing and refusing with one password; each takes its seconds.
#[test]
fn an_encrypted_coldkey_signs_with_its_password_and_with_no_other() {
    let ground = Ground::new();
    let coldkey = ground.path("wallets/mine/coldkey");
    let password = [(coldkey.as_path(), "correct horse")];
    let made = ground.run(&["new", "mine"], &password);
    assert!(made.status.success());
    assert!(std::fs::read(&coldkey).unwrap().starts_with(b"$NACL"));
    let shown = ground.json(&["show", "mine", "--json"]);
    assert_eq!(shown["coldkey"]["protection"], "encrypted");
    assert_eq!(shown["coldkey"]["encryption"], "NaCl");

    let signed = ground.run(&["sign", "mine", "--message", "hello", "--json"], &password);
    let signed: Value = serde_json::from_slice(&signed.stdout).unwrap();
    let address = shown["coldkey"]["address"].as_str().unwrap();
    assert_eq!(signed["address"], address);
    let signature = signed["signature"].as_str().unwrap();
    ground.ok(&["verify", address, signature, "--message", "hello"]);

    let wrong = [(coldkey.as_path(), "wrong horse")];
    let refused = ground.run(&["sign", "mine", "--message", "hello"], &wrong);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        told.contains("the password does not open key file"),
        "{told}"
    );
    assert!(!told.contains("horse"), "{told}");

    // Without a terminal nobody can be asked.
    let told = ground.refusal(&["sign", "mine", "--message", "hello"]);
    let variable = Password::variable(&coldkey);
    assert!(told.contains(&variable), "{told}");
}

#[test]
fn a_signature_holds_for_its_address_and_message_only() {
    let ground = Ground::new();
    ground.write("message", "hello");
    for message in [["--message", "hello"], ["--file", "message"]] {
        let [option, value] = message;
        ground.ok(&["verify", ADDRESS, SIGNATURE, option, value]);
        let prefixed = format!("0x{SIGNATURE}");
        let verified = ground.json(&["verify", ADDRESS, &prefixed, option, value, "--json"]);
        assert_eq!(verified["holds"], true);
    }
    let other = Keypair::from_seed(&[1; 32]).hotkey().to_string();
    for (address, message) in [(ADDRESS, "hullo"), (&other, "hello")] {
        let arguments = ["verify", address, SIGNATURE, "--message", message];
        let output = ground.run(&arguments, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(address), "{told}");
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let output = ground.run(&arguments, &[]);
        assert_eq!(output.status.code(), Some(1));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["holds"], false);
    }
}

#[test]
fn a_hotkey_signs_a_file_of_any_bytes() {
    let ground = Ground::new();
    ground.write("bytes", [0, 255, 10, 13]);
    ground.ok(&["new", "mine", "--only", "hotkey"]);
    let signed = ground.ok(&["sign", "mine", "--hotkey", "default", "--file", "bytes"]);
    let shown = ground.json(&["show", "mine", "--json"]);
    let address = shown["hotkeys"][0]["address"].as_str().unwrap();
    ground.ok(&["verify", address, signed.trim(), "--file", "bytes"]);
}

/// What should not happen: a key lost, or half of a wallet left behind by a run that was refused.
#[test]
fn what_is_there_stays_and_what_is_refused_leaves_nothing() {
    let ground = Ground::new();
    ground.ok(&["new", "mine", "--only", "coldkey", "--no-password"]);
    let before = std::fs::read(ground.path("wallets/mine/coldkey")).unwrap();
    let told = ground.refusal(&["new", "mine", "--no-password"]);
    assert!(told.contains("mine/coldkey is there already"), "{told}");
    assert!(told.contains("--only hotkey"), "{told}");
    assert_eq!(
        std::fs::read(ground.path("wallets/mine/coldkey")).unwrap(),
        before
    );
    assert!(!ground.path("wallets/mine/hotkeys").exists());

    ground.ok(&["new", "mine", "--only", "hotkey"]);
    let told = ground.refusal(&["new", "mine", "--only", "hotkey"]);
    assert!(told.contains("hotkeys/default is there already"), "{told}");
    // Nobody there to choose a password.
    let told = ground.refusal(&["new", "other"]);
    assert!(told.contains("BT_PW_"), "{told}");
    assert!(!ground.path("wallets/other").exists());
}

#[test]
fn what_cannot_be_used_is_named() {
    let ground = Ground::new();
    ground.write("words", "abandon about");
    ground.write("wallets-file", "");
    ground.ok(&["new", "mine", "--only", "hotkey"]);
    let cases: [(&[&str], &str); 15] = [
        (&["new", "../mine", "--no-password"], "\"../mine\""),
        (&["new", "", "--no-password"], "it is empty"),
        (
            &["new", "mine", "--hotkey", "a/b", "--no-password"],
            "\"a/b\"",
        ),
        (
            &["new", "mine", "--hotkey", "apub.txt", "--no-password"],
            "apub.txt",
        ),
        (&["new", "x", "--phrase-from", "words"], "--only"),
        (
            &["new", "x", "--only", "hotkey", "--phrase-from", "words"],
            "words: a phrase has 12",
        ),
        (
            &["new", "x", "--only", "hotkey", "--phrase-from", "none"],
            "cannot read none",
        ),
        (&["show", "nobody"], "wallets/nobody"),
        (&["list", "--wallet-dir", "wallets-file"], "wallets-file"),
        (&["sign", "mine", "--message", "x"], "mine/coldkey"),
        (
            &["sign", "mine", "--hotkey", "other", "--message", "x"],
            "hotkeys/other",
        ),
        (
            &["sign", "mine", "--hotkey", "default", "--file", "."],
            "cannot read .",
        ),
        (&["sign", "mine", "--hotkey", "default"], "--message"),
        (&["verify", "5EPC", SIGNATURE, "--message", "x"], "5EPC"),
        (&["verify", ADDRESS, "0xno", "--message", "x"], "0xno"),
    ];
    for (arguments, expected) in cases {
        let told = ground.refusal(arguments);
        assert!(told.contains(expected), "{arguments:?}: {told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}

#[test]
fn a_wallet_that_is_partly_unusable_is_listed_all_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let ground = Ground::new();
    assert_eq!(ground.ok(&["list"]), "");
    ground.ok(&["new", "mine", "--no-password"]);
    let exposed = ground.path("wallets/mine/hotkeys/default");
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let listed = ground.ok(&["list"]);
    assert!(listed.contains("has mode 0644; set it to 0600"), "{listed}");
    let shown = ground.json(&["show", "mine", "--json"]);
    assert_eq!(shown["hotkeys"][0]["protection"], "unusable");
    assert!(shown["hotkeys"][0]["address"].is_string());
}

/// The vault holds no key but a few words, so that a role that has opened it says just that. It is an
/// older kind of file, whose password is checked in no time.
#[test]
fn a_role_opens_an_encrypted_hotkey_with_the_password_of_the_environment() {
    use std::os::unix::fs::PermissionsExt;
    let ground = Ground::new();
    let vault = "$ANSIBLE_VAULT;1.1;AES256\n\
        33306465303538663961313438653463323266373864303638623066303135306266316538633431\n\
        3030306663386661613736346338356338336264613865630a343634373965623034356365313530\n\
        38386365386162356635306531623766303534613230316531303038333333336236616638316330\n\
        3832323366383136650a356164623464643332363033346134336131323732666537376335393237\n\
        6530\n";
    ground.write("hotkey", vault);
    let hotkey = ground.path("hotkey");
    std::fs::set_permissions(&hotkey, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = "chain = \"http://127.0.0.1:9\"\nhotkey = \"hotkey\"\nfolder = \"data\"\n\
                  journal = \"journal\"\n";
    ground.write("miner.toml", config);
    let variable = Password::variable(&hotkey);
    let cases = [
        (None, variable.as_str()),
        (Some("another"), "the password does not open key file"),
        (Some("golden-test-password"), "hotkey is not a key file"),
    ];
    for (password, expected) in cases {
        let mut command = connito(["miner", "--config"]);
        command.arg(ground.path("miner.toml"));
        if let Some(password) = password {
            let password = Password::new(password.as_bytes().to_vec().into()).unwrap();
            command.env(&variable, password.scramble(&variable));
        }
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(expected), "{told}");
    }
}
