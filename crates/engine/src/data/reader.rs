//! Reads a JSONL file into a [`Domain`]: one document a line, three shapes of line.
//!
//! | line | document |
//! |---|---|
//! | `{"text": t}` | `t` as it stands |
//! | `{"question": q, "answer": a}` | `Question: q⏎Answer: a⏎` |
//! | `{"messages": [{"role": r, "content": c}, …]}` | `R: c⏎` for each message |
//!
//! The first shape that fits counts, other keys are ignored, blank lines are skipped. The file is
//! read once, line by line: memory is bounded by the longest line and by what is kept. Every error
//! names the file and, where there is one, the line. Nothing here knows of tokens or pools.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{DataError, Domain, LineFault};

/// The longest line that is read, in bytes. A document is later cut to a few thousand tokens, so a
/// longer line is a file of another kind, not a document.
pub const LONGEST_LINE_BYTES: usize = 1 << 20;

/// Reads each file as one domain, named after its file stem.
///
/// Names are made safe (`[a-z0-9_-]`), and a name that is taken gets `-2`, `-3` and so on, in the
/// order of `paths`. `limit` bounds the documents of each file, see [`read_documents`].
///
/// # Errors
/// The first file that is missing, holds a malformed line or holds no document.
pub fn read_domains(
    paths: &[PathBuf],
    limit: Option<NonZeroUsize>,
) -> Result<Vec<Domain>, DataError> {
    domain_names(paths)
        .into_iter()
        .zip(paths)
        .map(|(name, path)| {
            let documents = read_documents(path, limit)?;
            Ok(Domain { name, documents })
        })
        .collect()
}

/// The names that [`read_domains`] gives, without reading anything.
pub fn domain_names(paths: &[PathBuf]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let names = paths.iter().map(|path| domain_name(path));
    names.map(|name| free_name(name, &mut taken)).collect()
}

/// Reads the documents of one JSONL file.
///
/// With a `limit` at most that many are kept, spread evenly over the file. Lines that are not kept
/// are checked all the same, so whether a file is accepted does not depend on the limit.
///
/// # Errors
/// The file is missing or unreadable; a line is too long, not UTF-8, not JSON, of no known shape
/// or empty; or there is no document at all.
pub fn read_documents(path: &Path, limit: Option<NonZeroUsize>) -> Result<Vec<String>, DataError> {
    let unreadable = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let mut input = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut sample = EvenSample::new(limit);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        // One byte more than allowed tells a line that is too long from one that just fits.
        let most = LONGEST_LINE_BYTES as u64 + 1;
        if input
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut bytes)
            .map_err(unreadable)?
            == 0
        {
            break;
        }
        match document(&bytes, line == 1) {
            Ok(Some(text)) => sample.push(text),
            Ok(None) => {}
            Err(source) => {
                return Err(DataError::Line {
                    path: path.to_owned(),
                    line,
                    source,
                });
            }
        }
    }
    let documents = sample.finish();
    if documents.is_empty() {
        return Err(DataError::NoDocuments {
            path: path.to_owned(),
        });
    }
    Ok(documents)
}

/// The document of one line; none if the line is blank.
fn document(bytes: &[u8], first: bool) -> Result<Option<String>, LineFault> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.len() > LONGEST_LINE_BYTES {
        return Err(LineFault::TooLong {
            limit: LONGEST_LINE_BYTES,
        });
    }
    let line = std::str::from_utf8(bytes).map_err(|error| LineFault::NotUtf8 {
        byte: error.valid_up_to(),
    })?;
    // Some editors begin a file with a byte order mark, which JSON does not allow.
    let line = if first {
        line.strip_prefix('\u{feff}').unwrap_or(line)
    } else {
        line
    };
    if line.trim().is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(line).map_err(|error| LineFault::NotJson {
        column: error.column(),
    })?;
    let Value::Object(object) = value else {
        return Err(LineFault::NoKnownShape);
    };
    text_of(&object).map(Some)
}

fn text_of(object: &Map<String, Value>) -> Result<String, LineFault> {
    if object.contains_key("text") {
        return Ok(string(object, "text")?.to_owned());
    }
    if object.contains_key("question") && object.contains_key("answer") {
        let question = string(object, "question")?.trim();
        let answer = string(object, "answer")?.trim();
        return Ok(format!("Question: {question}\nAnswer: {answer}\n"));
    }
    match object.get("messages") {
        Some(Value::Array(messages)) => conversation(messages),
        Some(_) => Err(LineFault::WrongType {
            key: "messages",
            expected: "a list",
        }),
        None => Err(LineFault::NoKnownShape),
    }
}

fn conversation(messages: &[Value]) -> Result<String, LineFault> {
    if messages.is_empty() {
        return Err(LineFault::Empty { key: "messages" });
    }
    // The template of ESFT; its end of text after the answer is what ends every document.
    let mut text = String::new();
    for message in messages {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        let expected = "a list of objects with \"role\" and \"content\"";
        let object = message.as_object().ok_or(LineFault::WrongType {
            key: "messages",
            expected,
        })?;
        let role = string(object, "role")?.trim();
        let mut letters = role.chars();
        text.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        text.push_str(letters.as_str());
        text.push_str(": ");
        text.push_str(string(object, "content")?.trim());
    }
    Ok(text)
}

/// A string of `object` with something in it besides white space.
fn string<'a>(object: &'a Map<String, Value>, key: &'static str) -> Result<&'a str, LineFault> {
    let Some(Value::String(text)) = object.get(key) else {
        return Err(LineFault::WrongType {
            key,
            expected: "a string",
        });
    };
    if text.trim().is_empty() {
        Err(LineFault::Empty { key })
    } else {
        Ok(text)
    }
}

/// The file's stem in lower case, every run of characters outside `[a-z0-9_]` as one hyphen.
pub fn domain_name(path: &Path) -> String {
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words: Vec<&str> = stem
        .split(|c| !safe(c))
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        "domain".to_owned()
    } else {
        words.join("-")
    }
}

/// `name`, or the first of `name-2`, `name-3` … that is not taken yet; taken from now on.
fn free_name(name: String, taken: &mut BTreeSet<String>) -> String {
    let mut free = name.clone();
    let mut number = 2;
    while !taken.insert(free.clone()) {
        free = format!("{name}-{number}");
        number += 1;
    }
    free
}

/// Keeps an evenly spaced selection of a stream whose length is not known beforehand.
///
/// Every `stride`-th item is kept; when twice the limit is held, every other one is dropped and the
/// stride doubles. So memory is bounded by the limit, not by the file.
struct EvenSample {
    limit: Option<NonZeroUsize>,
    stride: usize,
    seen: usize,
    kept: Vec<String>,
}

impl EvenSample {
    fn new(limit: Option<NonZeroUsize>) -> Self {
        Self {
            limit,
            stride: 1,
            seen: 0,
            kept: Vec::new(),
        }
    }

    fn push(&mut self, text: String) {
        if self.seen.is_multiple_of(self.stride) {
            self.kept.push(text);
        }
        self.seen += 1;
        if self
            .limit
            .is_some_and(|limit| self.kept.len() / 2 >= limit.get())
        {
            let mut even = false;
            self.kept.retain(|_| {
                even = !even;
                even
            });
            self.stride *= 2;
        }
    }

    fn finish(self) -> Vec<String> {
        let total = self.kept.len();
        let wanted = self.limit.map_or(total, |limit| limit.get().min(total));
        // Item i of the selection is item floor(i · total / wanted): the ratio is at least one, so
        // no two are the same. In 128 bits, because the limit is the caller's.
        let chosen = |i: usize| i as u128 * total as u128 / wanted.max(1) as u128;
        let mut next = 0;
        let keep = |(position, text): (usize, String)| {
            let keep = next < wanted && chosen(next) == position as u128;
            next += usize::from(keep);
            keep.then_some(text)
        };
        self.kept.into_iter().enumerate().filter_map(keep).collect()
    }
}

#[cfg(test)]
mod tests;
