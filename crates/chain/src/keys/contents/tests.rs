//! Every shape of file that other tools leave behind, and every one that is of no use.

use proptest::prelude::*;

use super::*;

const PHRASE: &str = "abandon abandon abandon abandon abandon abandon \
                      abandon abandon abandon abandon abandon about";
const ADDRESS: &str = "5EPCUjPxiHAcNooYipQFWr9NmmXJKpNG5RhcntXwbtUySrgH";
const ED25519_ADDRESS: &str = "5FM25N8HGtacre9TnWQGRK32d1kUp1Gs6Dd7YiYpSPZLjmj6";
const SEED: &str = "4ed8d4b17698ddeaa1f1559f152f87b5d472f725ca86d341bd0276f1b61197e2";
const EXPANDED: &str = "2ec306fc1c5bc2f0e3a2c7a6ec6014ca4a0823a7d7d42ad5e9d7f376a1c36c0d\
                        14a2ddb1ef1df4adba49f3a4d8c0f6205117907265f09a53ccf07a4e8616dfd8";

fn pair_of(text: &str) -> Keypair {
    match parse(text) {
        Ok(Contents::Pair(pair)) => *pair,
        other => panic!("{text:?} gives {other:?}"),
    }
}

fn problem(text: &str) -> String {
    match parse(text).expect_err(text) {
        Problem::Unusable(problem) => problem.to_owned(),
        Problem::Phrase(error) => error.to_string(),
        Problem::OtherAddress { written, derived } => format!("{written} is not {derived}"),
    }
}

/// A file as `bittensor_core` 0.1.5 writes it, with these of its fields.
fn official(fields: &[&str]) -> String {
    let all = [
        ("secretPhrase", PHRASE.to_owned()),
        ("secretSeed", format!("0x{SEED}")),
        ("privateKey", format!("0x{EXPANDED}")),
        ("ss58Address", ADDRESS.to_owned()),
    ];
    let chosen = all.into_iter().filter(|(name, _)| fields.contains(name));
    let mut object: serde_json::Map<_, _> = chosen
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    object.insert("cryptoType".to_owned(), 1.into());
    serde_json::Value::Object(object).to_string()
}

#[test]
fn phrase_seed_and_expanded_secret_give_the_same_key() {
    for secret in ["secretPhrase", "secretSeed", "privateKey"] {
        let pair = pair_of(&official(&[secret, "ss58Address"]));
        assert_eq!(pair.hotkey().to_string(), ADDRESS, "{secret}");
    }
}

/// The first that is there decides, even if a later one would fit the address.
#[test]
fn the_phrase_comes_before_the_seed_and_the_seed_before_the_expanded_secret() {
    let all = official(&["secretPhrase", "secretSeed", "privateKey", "ss58Address"]);
    assert_eq!(pair_of(&all).hotkey().to_string(), ADDRESS);
    assert!(problem(&all.replace(PHRASE, "sec-ret")).contains("12, 15"));
    let other = all.replace(SEED, &"01".repeat(32));
    assert_eq!(pair_of(&other).hotkey().to_string(), ADDRESS);
    let seed = official(&["secretSeed", "privateKey", "ss58Address"]);
    assert!(problem(&seed.replace(SEED, &"01".repeat(32))).contains(ADDRESS));
}

#[test]
fn a_file_without_a_secret_tells_its_address() {
    let public = parse(&official(&["ss58Address"]));
    assert!(matches!(public, Ok(Contents::Public(address)) if address.to_string() == ADDRESS));
}

#[test]
fn a_seed_an_expanded_secret_or_a_phrase_may_stand_alone() {
    for text in [
        SEED.to_owned(),
        format!("0x{SEED}\n"),
        EXPANDED.to_owned(),
        PHRASE.to_owned(),
        format!(" {PHRASE}\n"),
    ] {
        assert_eq!(pair_of(&text).hotkey().to_string(), ADDRESS, "{text}");
    }
}

#[test]
fn spellings_of_other_tools_are_read() {
    let file = official(&["secretSeed", "ss58Address"]);
    for variant in [
        file.replace("\"ss58Address", "\" ss58Address"),
        file.replace("\"cryptoType\":1", "\"cryptoType\":\"1\""),
        file.replace("\"cryptoType\":1", "\"cryptoType\":\"SR25519\""),
        file.replace("\"cryptoType\":1", "\"crypto_type\":1"),
        file.replace("\"cryptoType\":1", "\"cryptoType\":null"),
        file.replace("\"cryptoType\":1", "\"secretPhrase\":null"),
        // The address decides which scheme a seed is for, whatever the file says.
        file.replace("\"cryptoType\":1", "\"cryptoType\":0"),
        file.replace("0x", ""),
    ] {
        assert_eq!(pair_of(&variant).hotkey().to_string(), ADDRESS, "{variant}");
    }
}

#[test]
fn an_ed25519_key_is_refused_by_name() {
    let file = official(&["secretSeed", "ss58Address"]).replace(ADDRESS, ED25519_ADDRESS);
    let phrase = official(&["secretPhrase", "ss58Address"]).replace(ADDRESS, ED25519_ADDRESS);
    let unaddressed = official(&["secretSeed"]).replace("\"cryptoType\":1", "\"cryptoType\":0");
    let official_ed25519 = file
        .replace("\"cryptoType\":1", "\"cryptoType\":0")
        .replace("secretSeed", "privateKey");
    for text in [file, phrase, unaddressed, official_ed25519] {
        assert_eq!(problem(&text), ED25519, "{text}");
    }
}

#[test]
fn a_secret_beside_the_wrong_address_is_refused() {
    let file = official(&["secretSeed", "ss58Address"]);
    let wrong = file.replace(ADDRESS, &Hotkey([2; 32]).to_string());
    assert!(problem(&wrong).ends_with(&format!("is not {ADDRESS}")));
    let wrong = wrong.replace("\"ss58Address", "\" ss58Address");
    assert!(problem(&wrong).ends_with(&format!("is not {ADDRESS}")));
}

#[test]
fn what_cannot_be_used_is_refused_without_being_quoted() {
    let cases = [
        ("", "is not a key file"),
        ("not a key but sec-ret", "is not a key file"),
        ("{sec-ret", "is not a JSON key file"),
        ("{}", "neither a secret nor an address"),
        ("0x", "is not a key file"),
        ("0x0102", "neither a seed"),
        (&"f".repeat(128), "neither a seed"),
        (r#"{"secretSeed": "0xsec-ret"}"#, "secretSeed"),
        (r#"{"privateKey": "0x1234"}"#, "privateKey"),
        (r#"{"secretPhrase": "sec-ret"}"#, "12, 15"),
        (r#"{"secretPhrase": ""}"#, "12, 15"),
        (r#"{"secretSeed": 7}"#, "is not a JSON key file"),
        (r#"{"ss58Address": "5EPC"}"#, "ss58Address"),
        (&PHRASE.replace("about", "sec-ret"), "word 12"),
        (
            &official(&["secretSeed"]).replace("\"cryptoType\":1", "\"cryptoType\":9"),
            "unknown cryptoType",
        ),
        (
            &format!(r#"{{"privateKey": "{}"}}"#, "ff".repeat(64)),
            "no sr25519 secret",
        ),
    ];
    for (text, expected) in cases {
        let problem = problem(text);
        assert!(problem.contains(expected), "{text}: {problem}");
        assert!(!problem.contains("sec-ret"), "{problem}");
    }
}

#[test]
fn a_written_file_holds_what_is_known_of_the_key_and_reads_back() {
    let phrase = Keypair::from_phrase(Phrase::parse(PHRASE).unwrap());
    let text = String::from_utf8(of_pair(&phrase).unwrap().to_vec()).unwrap();
    for known in [PHRASE, SEED, EXPANDED, ADDRESS] {
        assert!(text.contains(known), "{known}");
    }
    assert_eq!(pair_of(&text).hotkey(), phrase.hotkey());

    let seed = Keypair::from_seed(&[1; 32]);
    let text = String::from_utf8(of_pair(&seed).unwrap().to_vec()).unwrap();
    assert!(!text.contains("secretPhrase") && !text.contains("null"));
    assert_eq!(pair_of(&text).hotkey(), seed.hotkey());

    let text = String::from_utf8(of_public(seed.hotkey()).unwrap()).unwrap();
    assert!(!text.contains("secret") && !text.contains("private"));
    assert!(matches!(parse(&text), Ok(Contents::Public(address)) if address == seed.hotkey()));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        text in "\\PC*|[0-9a-f]{60,130}|\\{\"(secretSeed|privateKey|ss58Address)\": ?\"\\PC*\"\\}"
    ) {
        let _ = parse(&text);
    }
}
