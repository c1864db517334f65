//! Files that somebody else damaged: an error that names the file, never a panic.

use std::error::Error;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::header::{self, Header};

/// Opens, checks and reads everything that can be read.
fn exercise(folder: &Path) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::open(folder)?;
    let names: Vec<String> = checkpoint.sources.keys().cloned().collect();
    for name in names {
        if let Ok(rows) = checkpoint.parameter(&name) {
            all_values(&rows);
        }
    }
    checkpoint.check(&everything)
}

/// Wherever a download broke off: in the length, in the header, between tensors, before the last byte.
#[test]
fn a_truncated_weights_file_is_named() {
    let config = small(Family::DeepseekV2);
    let folder = folder(&config, &parameters(&config), ENCODINGS[0]);
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    for length in [0, 5, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        let error = exercise(folder.path()).unwrap_err();
        let expected = format!("{} is not a complete safetensors file", file.display());
        assert_eq!(error.to_string(), expected, "cut to {length} bytes");
        assert!(error.source().is_some());
    }
    fs::write(&file, [&bytes[..], b"more"].concat()).unwrap();
    let error = exercise(folder.path()).unwrap_err();
    let source = error.source().expect("a cause").to_string();
    let (end, found) = (bytes.len(), bytes.len() + 4);
    assert_eq!(
        source,
        format!("the tensors end at byte {end}, the file at byte {found}")
    );
}

fn read(file: &[u8]) -> Result<Header, HeaderError> {
    header::read(file, file.len() as u64)
}

fn header_refusal(table: &str, data: usize) -> String {
    let mut file = (table.len() as u64).to_le_bytes().to_vec();
    file.extend(table.as_bytes());
    file.resize(file.len() + data, 0);
    match read(&file) {
        Ok(header) => panic!("accepted {header:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_table_that_says_impossible_things_is_refused() {
    let tensor = |shape: &str, range: &str| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{range}}}"#)
    };
    let gap = format!(
        r#"{{"a":{},"b":{}}}"#,
        tensor("[1]", "[0,4]"),
        tensor("[1]", "[8,12]")
    );
    assert_eq!(
        header_refusal(&gap, 12),
        "tensor b does not begin where the one before it ends"
    );
    let overlap = format!(
        r#"{{"a":{},"b":{}}}"#,
        tensor("[2]", "[0,8]"),
        tensor("[1]", "[4,8]")
    );
    assert_eq!(
        header_refusal(&overlap, 8),
        "tensor b does not begin where the one before it ends"
    );
    let backwards = format!(r#"{{"a":{}}}"#, tensor("[1]", "[0,-4]"));
    assert_eq!(
        header_refusal(&backwards, 4),
        "the header is not a table of tensors"
    );
    let small = format!(r#"{{"a":{}}}"#, tensor("[3]", "[0,4]"));
    assert_eq!(
        header_refusal(&small, 4),
        "tensor a does not fill its bytes"
    );
    let endless = format!(r#"{{"a":{}}}"#, tensor("[18446744073709551615,2]", "[0,4]"));
    assert_eq!(
        header_refusal(&endless, 4),
        "tensor a does not fill its bytes"
    );
    // Sixteen tensors of 2⁶⁰ bytes end where 64 bits do.
    let sixteenth = 1_u128 << 60;
    let huge = (0..16_u128).map(|part| {
        let end = ((part + 1) * sixteenth).min(u128::from(u64::MAX));
        format!(
            r#""t{part:02}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{end}]}}"#,
            end - part * sixteenth,
            part * sixteenth
        )
    });
    let huge = format!("{{{}}}", huge.collect::<Vec<_>>().join(","));
    assert!(header_refusal(&huge, 4).starts_with("tensor t15 "));
    assert_eq!(
        header_refusal("[]", 0),
        "the header is not a table of tensors"
    );

    let mut long = u64::MAX.to_le_bytes().to_vec();
    long.extend([0; 64]);
    let error = read(&long).unwrap_err().to_string();
    assert_eq!(
        error,
        "the header is said to be 18446744073709551615 bytes long"
    );
}

/// Of two, neither is taken for the other.
#[test]
fn a_tensor_that_a_table_lists_twice_is_named() {
    let row = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let table = format!(r#"{{"a":{row},"a":{row}}}"#);
    let mut file = (table.len() as u64).to_le_bytes().to_vec();
    file.extend(table.as_bytes());
    file.extend([0; 4]);
    let error = read(&file).unwrap_err();
    let source = error.source().expect("a cause").to_string();
    assert!(source.starts_with("tensor a is listed twice"), "{source}");
}

#[test]
fn comments_of_other_writers_are_no_tensors() {
    for metadata in [r#"{"format":"pt"}"#, "null", r#"{"nested":{"a":[1]}}"#] {
        let table = format!(r#"{{"__metadata__":{metadata}}}"#);
        let mut file = (table.len() as u64).to_le_bytes().to_vec();
        file.extend(table.as_bytes());
        assert_eq!(read(&file).unwrap().tensors, []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What should happen: the folder opens, or an error says why not. What should not happen: a panic.
    /// The header is hit more often than its share of the file.
    #[test]
    fn flipped_bytes_never_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        experts in proptest::sample::select(LAYOUTS.to_vec()),
    ) {
        let config = small(Family::Olmoe);
        let folder = folder(&config, &arranged(&config, experts), ENCODINGS[1]);
        let file = folder.path().join("model.safetensors");
        let mut bytes = fs::read(&file).expect("the file");
        let header = bytes.len().min(2_000);
        for (place, flip, anywhere) in flips {
            let range = if anywhere { bytes.len() } else { header };
            bytes[place.index(range)] ^= flip;
        }
        fs::write(&file, bytes).expect("the file is written");
        if let Err(error) = exercise(folder.path()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_table_of_tensors(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes).is_err());
    }

    /// Tables made of plausible pieces get further than arbitrary bytes.
    #[test]
    fn plausible_tables_never_panic(
        rows in proptest::collection::vec((0..3_usize, proptest::collection::vec(0..4_u64, 0..3), 0..40_u64, 0..40_u64), 0..4),
        data in 0..64_usize,
    ) {
        let types = ["F32", "BF16", "NEW"];
        let table: serde_json::Map<_, _> = rows.iter().enumerate().map(|(number, (kind, shape, begin, end))| {
            let row = serde_json::json!({"dtype": types[*kind], "shape": shape, "data_offsets": [begin, end]});
            (number.to_string(), row)
        }).collect();
        let table = serde_json::Value::Object(table).to_string();
        let mut file = (table.len() as u64).to_le_bytes().to_vec();
        file.extend(table.as_bytes());
        file.resize(file.len() + data, 0);
        if let Ok(header) = read(&file) {
            for (_, entry) in header.tensors {
                prop_assert!(file.get(entry.bytes).is_some());
            }
        }
    }
}
