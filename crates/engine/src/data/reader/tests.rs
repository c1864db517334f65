//! Reading files as people have them: three shapes, sloppy white space, and every way to be wrong.

use std::error::Error;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn file(content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sample.jsonl");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn read(content: impl AsRef<[u8]>) -> Result<Vec<String>, DataError> {
    let (_folder, path) = file(content);
    read_documents(&path, None)
}

/// The whole sentence a person would see, without the folder.
fn complaint(content: impl AsRef<[u8]>) -> String {
    let error = read(content).unwrap_err();
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence += &format!(": {error}");
        cause = error.source();
    }
    sentence.rsplit('/').next().unwrap().to_owned()
}

#[test]
fn reads_the_three_shapes_and_ignores_other_keys() {
    let documents = read(concat!(
        "\u{feff}{\"text\": \" as it stands\\n\", \"id\": 3}\r\n",
        "\n   \n",
        "{\"answer\": \"two\\n#### 2\\n\", \"question\": \" one and one? \"}\n",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"你好\"},",
        " {\"role\": \"assistant\", \"content\": \"Hello.\\n\\n\", \"name\": null}]}",
    ))
    .unwrap();
    assert_eq!(
        documents,
        [
            " as it stands\n",
            "Question: one and one?\nAnswer: two\n#### 2\n",
            "User: 你好\n\nAssistant: Hello.",
        ]
    );
}

/// What should happen: one sentence with the file, the line and the fault.
/// What should not happen: a line counted from zero, or blank lines not counted.
#[test]
fn names_the_line_and_what_is_wrong_with_it() {
    let good = "{\"text\": \"a\"}\n\n";
    let after_good = |line: &str| complaint(format!("{good}{line}\n{good}"));
    assert_eq!(
        after_good("{\"text\": "),
        "sample.jsonl, line 3: not JSON at column 9"
    );
    assert_eq!(
        after_good("{\"question\": \"why?\"}"),
        "sample.jsonl, line 3: expected an object with \"text\", with \"question\" and \
         \"answer\", or with \"messages\""
    );
    assert!(after_good("[\"text\"]").contains("line 3: expected an object"));
    assert_eq!(
        after_good("{\"text\": \" \\n\"}"),
        "sample.jsonl, line 3: \"text\" is empty"
    );
    assert_eq!(
        after_good("{\"text\": 3}"),
        "sample.jsonl, line 3: \"text\" is not a string"
    );
    assert_eq!(
        after_good("{\"messages\": []}"),
        "sample.jsonl, line 3: \"messages\" is empty"
    );
    assert_eq!(
        after_good("{\"messages\": [{\"role\": \"user\"}]}"),
        "sample.jsonl, line 3: \"content\" is not a string"
    );
    assert!(after_good("{\"messages\": {}}").ends_with("\"messages\" is not a list"));
    assert_eq!(
        complaint(b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n"),
        "sample.jsonl, line 2: not UTF-8 at byte 10"
    );
}

#[test]
fn names_a_file_that_is_missing_or_has_no_documents() {
    let error = read_documents(Path::new("no/such/file.jsonl"), None).unwrap_err();
    assert_eq!(error.to_string(), "cannot read no/such/file.jsonl");
    assert!(error.source().is_some());
    assert_eq!(complaint(""), "sample.jsonl contains no documents");
    assert_eq!(complaint("\n  \n"), "sample.jsonl contains no documents");
}

/// What should happen: the longest allowed line is read, with or without a final line break.
/// What should not happen: one more byte accepted.
#[test]
fn refuses_a_line_beyond_the_bound() {
    let frame = "{\"text\": \"\"}".len();
    let line = |bytes: usize| format!("{{\"text\": \"{}\"}}", "a".repeat(bytes - frame));
    assert_eq!(read(line(LONGEST_LINE_BYTES)).unwrap().len(), 1);
    assert_eq!(
        read(line(LONGEST_LINE_BYTES) + "\n" + &line(20))
            .unwrap()
            .len(),
        2
    );
    let sentence = complaint(line(30) + "\n" + &line(LONGEST_LINE_BYTES + 1) + "\n");
    assert_eq!(sentence, "sample.jsonl, line 2: longer than 1048576 bytes");
}

#[test]
fn names_domains_safely_and_never_twice() {
    assert_eq!(
        domain_name(Path::new("/data/My Law (2024).jsonl")),
        "my-law-2024"
    );
    assert_eq!(domain_name(Path::new("gsm_8k.train.jsonl")), "gsm_8k-train");
    assert_eq!(domain_name(Path::new("法律.jsonl")), "domain");

    let (folder, path) = file("{\"text\": \"a\"}");
    let twin = folder.path().join("Sample.json");
    let trap = folder.path().join("sample-2.jsonl");
    std::fs::copy(&path, &twin).unwrap();
    std::fs::copy(&path, &trap).unwrap();
    let domains = read_domains(&[path.clone(), twin, trap, path], None).unwrap();
    let names: Vec<_> = domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(names, ["sample", "sample-2", "sample-2-2", "sample-3"]);
}

/// A malformed line is an error even where the limit would have skipped it.
#[test]
fn checks_lines_it_does_not_keep() {
    let (_folder, path) = file("{\"text\": \"a\"}\n".repeat(50) + "{}\n");
    let error = read_documents(&path, NonZeroUsize::new(1)).unwrap_err();
    assert!(matches!(error, DataError::Line { line: 51, .. }));
}

/// Real files, where this machine has them.
#[test]
fn reads_public_data_sets() {
    for (name, documents) in [
        ("gsm8k/train", 7_473),
        ("esft/train/law", 927),
        ("esft/train/intent", 7_280),
    ] {
        let path = PathBuf::from(format!(
            "{}/../../../shared/data/{name}.jsonl",
            env!("CARGO_MANIFEST_DIR")
        ));
        if !path.exists() {
            eprintln!("skipped: {} is not here", path.display());
            continue;
        }
        assert_eq!(
            read_documents(&path, None).unwrap().len(),
            documents,
            "{name}"
        );
    }
}

proptest! {
    /// What should happen: exactly the limit, in file order, the first document included, gaps
    /// that differ by at most a factor of about two.
    /// What should not happen: a document twice, or the tail of the file never reached.
    #[test]
    fn a_limit_takes_an_even_selection(total in 1usize..400, limit in 1usize..60) {
        let mut sample = EvenSample::new(NonZeroUsize::new(limit));
        for i in 0..total {
            sample.push(i.to_string());
            prop_assert!(sample.kept.len() < 2 * limit + 1);
        }
        let kept: Vec<usize> =
            sample.finish().iter().map(|text| text.parse().unwrap()).collect();
        prop_assert_eq!(kept.len(), limit.min(total));
        prop_assert_eq!(kept[0], 0);
        let gaps: Vec<usize> =
            kept.windows(2).map(|pair| pair[1] - pair[0]).chain([total - kept[kept.len() - 1]]).collect();
        prop_assert!(gaps.iter().all(|&gap| gap >= 1));
        prop_assert!(gaps.iter().all(|&gap| gap <= 3 * total.div_ceil(limit)), "{:?}", gaps);
    }

    /// Whatever a line holds, reading ends in a document, a blank or a fault.
    #[test]
    fn arbitrary_lines_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = document(&bytes, true);
    }
}
