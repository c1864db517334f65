//! What the generated text promises: determinism, size, variety and truth.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::*;

/// Documents are named by (domain, seed, index) all over a network: if one changes, the tokenizer,
/// base model and pools made from it change too. This must be a decision, never an accident.
#[test]
fn documents_are_the_recorded_ones() {
    let digests = BuiltinDomain::ALL.map(|domain| {
        let text = domain.generate(100, 1).documents.concat();
        let digest = Sha256::digest(text);
        digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    });
    assert_eq!(digests, ["df3842da", "494abbc7", "14cc31bc"]);
}

#[test]
fn a_document_depends_on_domain_seed_and_index_only() {
    for domain in BuiltinDomain::ALL {
        let document = domain.document(5, 1);
        assert_eq!(domain.generate(6, 1).documents[5], document);
        assert_ne!(domain.document(5, 2), document);
        assert_ne!(domain.document(6, 1), document);
        assert_eq!(BuiltinDomain::named(domain.name()), Some(domain));
    }
    assert_eq!(BuiltinDomain::named("poetry"), None);
}

/// What should happen: ASCII of a few hundred bytes, hardly ever the same twice.
/// What should not happen: a blank left open.
#[test]
fn documents_are_short_varied_and_complete() {
    for domain in BuiltinDomain::ALL {
        let documents = domain.generate(2_000, 3).documents;
        for text in &documents {
            assert!(
                (150..=650).contains(&text.len()),
                "{} bytes:\n{text}",
                text.len()
            );
            assert!(
                text.is_ascii() && text.ends_with('\n') && !text.contains('{'),
                "{text}"
            );
        }
        let mean = documents.iter().map(String::len).sum::<usize>() / documents.len();
        assert!(
            (220..=460).contains(&mean),
            "{}: mean of {mean} bytes",
            domain.name()
        );
        let distinct: BTreeSet<_> = documents.iter().collect();
        assert!(
            distinct.len() >= 1_999,
            "{}: {} of 2000",
            domain.name(),
            distinct.len()
        );
    }
}

/// The value of `left operator right`.
fn compute(left: i64, operator: &str, right: i64) -> i64 {
    match operator {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        "/" if left % right == 0 => left / right,
        _ => panic!("{left} {operator} {right}"),
    }
}

/// Reads every `a o b = c` of the solution back and follows the amount from line to line.
#[test]
fn arithmetic_is_right_from_the_first_line_to_the_answer() {
    for text in BuiltinDomain::Arithmetic.generate(3_000, 9).documents {
        let (_, solution) = text.split_once("\nAnswer: ").unwrap();
        let (working, answer) = solution.split_once("#### ").unwrap();
        let mut lines = working.lines();
        let first = lines.next().unwrap();
        let mut amount: i64 = first.split(' ').find_map(|word| word.parse().ok()).unwrap();
        for line in lines {
            for equation in line.trim_end_matches('.').split(", and ") {
                let words: Vec<&str> = equation.split(' ').collect();
                let [left, operator, right, "=", value] = words[..] else {
                    panic!("{text}")
                };
                let [left, right, value] = [left, right, value].map(|n| n.parse().unwrap());
                assert_eq!(compute(left, operator, right), value, "{text}");
                let last = line.ends_with(&format!("{equation}."));
                assert!(!last || left == amount, "{text}");
                amount = if last { value } else { amount };
            }
        }
        assert!((1..1_000).contains(&amount), "{text}");
        assert_eq!(answer.trim().parse(), Ok(amount), "{text}");
    }
}

/// Runs the code, where there is a Python to run it.
#[test]
fn code_passes_its_own_assertions() {
    let python = Command::new("python3")
        .arg("-")
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        eprintln!("skipped: there is no python3 here");
        return;
    };
    let source = BuiltinDomain::Code.generate(3_000, 9).documents.concat();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(source.as_bytes())
        .unwrap();
    assert!(python.wait().unwrap().success());
}
