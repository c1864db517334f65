//! A tokenizer that is the same everywhere, loses nothing, and survives hostile files.

use std::process::Command;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::data::builtin::BuiltinDomain;

fn corpus() -> Vec<String> {
    BuiltinDomain::ALL
        .into_iter()
        .flat_map(|domain| (0..300).map(move |index| domain.document(index, 1)))
        .collect()
}

fn trained() -> Tokenizer {
    Tokenizer::train(corpus().iter().map(String::as_str), 1_024).unwrap()
}

/// Prints the digest that the test below compares; alone it only shows that training works.
#[test]
fn prints_the_digest_of_a_trained_tokenizer() {
    let digest = Sha256::digest(trained().to_bytes().unwrap());
    eprintln!("digest of tokenizer: {digest:x?}");
}

/// What should happen: the same bytes from other processes and from texts in another order.
/// What should not happen: bytes that depend on a process's hash seed or on thread timing.
#[test]
fn training_gives_the_same_bytes_in_every_process() {
    let bytes = trained().to_bytes().unwrap();
    let mut reordered = corpus();
    reordered.reverse();
    let again = Tokenizer::train(reordered.iter().map(String::as_str), 1_024).unwrap();
    assert_eq!(again.to_bytes().unwrap(), bytes);

    let expected = format!("digest of tokenizer: {:x?}", Sha256::digest(&bytes));
    for threads in ["1", "2", "4"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("tokenizer::tests::prints_the_digest_of_a_trained_tokenizer")
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(printed.contains(&expected), "{threads} threads: {printed}");
    }
}

#[test]
fn begins_and_ends_documents_with_tokens_zero_and_one() {
    let tokenizer = trained();
    assert_eq!(tokenizer.vocabulary(), 1_024);
    assert_eq!(tokenizer.boundaries(), (Some(0), Some(1)));
    let ids = tokenizer.encode_document("Maya has 17 pears.").unwrap();
    assert_eq!((ids[0], ids[ids.len() - 1]), (0, 1));
    assert_eq!(tokenizer.decode(&ids).unwrap(), "Maya has 17 pears.");
    assert_eq!(tokenizer.encode_document("").unwrap(), [0, 1]);
}

/// A document must not be able to end itself early.
#[test]
fn text_cannot_spell_a_boundary() {
    let tokenizer = trained();
    let ids = tokenizer.encode_document("a<|end|>b<|begin|>").unwrap();
    assert_eq!(ids.iter().filter(|&&id| id < 2).count(), 2, "{ids:?}");
    assert_eq!(tokenizer.decode(&ids).unwrap(), "a<|end|>b<|begin|>");
}

#[test]
fn every_digit_is_a_token_of_its_own() {
    let tokenizer = trained();
    let ids = tokenizer.encode_document("2048").unwrap();
    assert_eq!(ids.len(), 6);
}

#[test]
fn loads_what_it_saved_and_takes_other_boundaries() {
    let tokenizer = trained();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    let loaded = Tokenizer::load(&path).unwrap();
    assert_eq!(loaded.to_bytes().unwrap(), tokenizer.to_bytes().unwrap());
    let text = "def f(x):\n    return x\n";
    assert_eq!(
        loaded.encode_document(text).unwrap(),
        tokenizer.encode_document(text).unwrap()
    );

    let foreign = loaded.with_boundaries(Some(7), None);
    let ids = foreign.encode_document("x").unwrap();
    assert_eq!((ids[0], ids.len()), (7, 2));
}

#[test]
fn refuses_a_vocabulary_without_room_for_every_byte() {
    let error = Tokenizer::train(["text"].into_iter(), 257).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a vocabulary of 257 tokens is too small: 258 are needed"
    );
    assert_eq!(
        Tokenizer::train(std::iter::empty(), 258)
            .unwrap()
            .vocabulary(),
        258
    );
}

/// Uncut, this word would keep the library busy for longer than anyone waits for a test.
#[test]
fn trains_on_a_word_of_a_mebibyte() {
    let word = "äöü".repeat(1 << 18);
    assert_eq!(pieces(&word).collect::<String>(), word);
    let tokenizer = Tokenizer::train([word.as_str()].into_iter(), 270).unwrap();
    assert!(tokenizer.encode_document(&word).unwrap().len() < word.len() / 6);
}

fn file(model: &str) -> Vec<u8> {
    format!("{{\"version\": \"1.0\", \"added_tokens\": [], \"model\": {model}}}").into_bytes()
}

/// What should happen: the file named, and what is wrong with it.
/// What should not happen: a panic of the library, as for the first of these files.
#[test]
fn refuses_files_that_would_harm() {
    let refusal = |model: &str| Tokenizer::from_bytes(&file(model)).unwrap_err().to_string();
    let vocab = r#""vocab": {"ab": 0, "b": 1, "a": 2}"#;
    assert_eq!(
        refusal(&format!(
            r#"{{"type": "BPE", {vocab}, "merges": [["ab", "ab"]]}}"#
        )),
        "tokenizer.json: one of its merges makes a token that is not in its vocabulary"
    );
    assert!(
        refusal(&format!(r#"{{"type": "BPE", {vocab}, "merges": ["ab"]}}"#)).contains("merges")
    );
    assert!(
        refusal(&format!(
            r#"{{"type": "BPE", "dropout": 0.1, {vocab}, "merges": []}}"#
        ))
        .contains("dropout")
    );
    assert!(
        refusal(&format!(
            r#"{{"type": "WordLevel", {vocab}, "merges": []}}"#
        ))
        .contains("BPE")
    );
    assert!(Tokenizer::from_bytes(b"{").is_err());
    assert!(Tokenizer::load(Path::new("no/tokenizer.json")).is_err());

    let good = format!(r#"{{"type": "BPE", {vocab}, "merges": ["a b"]}}"#);
    let tokenizer = Tokenizer::from_bytes(&file(&good)).unwrap();
    assert_eq!(tokenizer.encode_document("ab").unwrap(), [0]);
}

/// A file may carry the settings of its last use.
#[test]
fn ignores_truncation_and_padding_of_a_file() {
    let text = String::from_utf8(trained().to_bytes().unwrap()).unwrap();
    let truncation =
        r#""truncation":{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0}"#;
    let padding = r#""padding":{"strategy":{"Fixed":9},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"<|begin|>"}"#;
    let text = text
        .replacen(r#""truncation":null"#, truncation, 1)
        .replacen(r#""padding":null"#, padding, 1);
    assert!(text.contains(truncation) && text.contains(padding));
    let tokenizer = Tokenizer::from_bytes(text.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode_document("2048").unwrap().len(), 6);
}

thread_local!(static TOKENIZER: Tokenizer = trained());

proptest! {
    #[test]
    fn any_text_survives_encoding_and_decoding(text in any::<String>()) {
        TOKENIZER.with(|tokenizer| {
            let ids = tokenizer.encode_document(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            Ok(())
        })?;
    }

    /// A file with one byte changed is refused, or works: it never brings the program down.
    #[test]
    fn a_damaged_file_never_panics(position in any::<prop::sample::Index>(), value in b' '..b'~') {
        let mut bytes = TOKENIZER.with(Tokenizer::to_bytes).unwrap();
        let position = position.index(bytes.len());
        bytes[position] = value;
        if let Ok(tokenizer) = Tokenizer::from_bytes(&bytes) {
            let ids = tokenizer.encode_document("Nora has 14 pears.");
            let _ = tokenizer.decode(&ids.unwrap_or_default());
        }
    }
}
