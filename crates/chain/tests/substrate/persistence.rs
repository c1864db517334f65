//! The folder: a chain continues where it was, whatever happened to its process or its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use connito_chain::BlockRef;
use connito_chain::embedded::{EmbeddedChain, EmbeddedError, KEPT_BLOCKS};
use serde_json::json;
use tempfile::TempDir;

use crate::network::*;

const FRAME_HEADER: usize = 12;

fn log(folder: &Path) -> PathBuf {
    folder.join("blocks.log")
}

fn open(folder: &Path) -> Arc<EmbeddedChain> {
    EmbeddedChain::open(folder, spec()).unwrap()
}

/// Five blocks, the second and the fifth with an extrinsic. Gives every block that was shown.
fn written(folder: &Path) -> Vec<BlockRef> {
    let chain = open(folder);
    let mut network = Network::on(Arc::clone(&chain));
    let mut shown = vec![chain.head()];
    for number in 1..=5 {
        if number == 2 || number == 5 {
            network.send(MINER, &commit("kept")).unwrap();
        }
        shown.push(chain.advance(1).unwrap());
    }
    shown
}

/// Where each frame starts, and the length of the file.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    while let Some(at) = starts
        .last()
        .copied()
        .filter(|at| at + FRAME_HEADER <= bytes.len())
    {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        starts.push(at + FRAME_HEADER + length as usize);
    }
    starts
}

fn copy_of(bytes: &[u8]) -> TempDir {
    let folder = fast_folder();
    fs::write(log(folder.path()), bytes).unwrap();
    folder
}

#[test]
fn a_reopened_chain_continues_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let shown = written(folder.path());
    let uninterrupted = {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        open(folder.path()).advance(3).unwrap()
    };
    for _ in 0..3 {
        let before = open(folder.path()).head();
        assert_eq!(open(folder.path()).advance(1).unwrap().parent, before.hash);
    }
    let network = Network::on(open(folder.path()));
    assert_eq!(network.chain.head(), uninterrupted);
    for block in shown {
        let hash = network.result("chain_getBlockHash", json!([block.number]));
        assert_eq!(hash, hex(&block.hash.0));
    }
    // The nonces are part of the state: an old extrinsic cannot be sent again.
    let info = network.value("System", "Account", &[account(MINER)]);
    assert_eq!(info.unwrap().field("nonce"), Some(&2_u32.into()));
}

/// A process killed while writing leaves a prefix of what it wrote. Whatever the prefix, the chain
/// opens with every block that was complete, goes on, and opens again.
#[test]
fn killed_at_any_byte_of_the_last_blocks_it_keeps_every_complete_one() {
    let folder = tempfile::tempdir().unwrap();
    let shown = written(folder.path());
    let bytes = fs::read(log(folder.path())).unwrap();
    let starts = frames(&bytes);
    assert_eq!((starts.len(), starts.last()), (7, Some(&bytes.len())));

    // The first frame holds the specification: a log cut inside it starts from nothing.
    let in_first = (0..starts[1]).step_by(97);
    let in_last = (starts[4]..=bytes.len()).step_by(5).chain([bytes.len()]);
    for length in in_first.chain(in_last) {
        let torn = copy_of(&bytes[..length]);
        let whole = starts.iter().filter(|start| **start <= length).count();
        let blocks = whole.saturating_sub(2);
        let chain = open(torn.path());
        assert_eq!(chain.head(), shown[blocks], "cut at byte {length}");
        let next = chain.advance(1).unwrap();
        drop(chain);
        assert_eq!(open(torn.path()).head(), next, "cut at byte {length}");
    }
}

/// After a power cut a file may have grown by zeros that were never written.
#[test]
fn zeros_after_the_last_block_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let shown = written(folder.path());
    let mut bytes = fs::read(log(folder.path())).unwrap();
    let length = bytes.len();
    bytes.extend_from_slice(&[0; 5_000]);
    let folder = copy_of(&bytes);
    assert_eq!(open(folder.path()).head(), shown[5]);
    assert_eq!(
        fs::metadata(log(folder.path())).unwrap().len(),
        length as u64
    );
}

/// Two pages may meet in a frame's header, and a power cut leave the second one unwritten.
#[test]
fn a_last_header_of_which_only_the_first_bytes_were_written_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let shown = written(folder.path());
    let bytes = fs::read(log(folder.path())).unwrap();
    let last = frames(&bytes)[5];
    for cut in 1..FRAME_HEADER {
        let mut torn = bytes.clone();
        torn[last + cut..].fill(0);
        let folder = copy_of(&torn);
        let chain = open(folder.path());
        assert_eq!(chain.head(), shown[4], "cut at byte {cut} of the header");
        assert_eq!(chain.advance(1).unwrap().number.0, 5);
    }
    // What should not happen: a header taken for unwritten although something stands behind it.
    let mut damaged = bytes;
    damaged[last + 4..last + FRAME_HEADER].fill(0);
    let folder = copy_of(&damaged);
    let error = EmbeddedChain::open(folder.path(), spec()).unwrap_err();
    assert!(matches!(error, EmbeddedError::Damaged { .. }), "{error}");
}

/// What should not happen: a damaged block in the middle taken for the end of the chain.
#[test]
fn any_damaged_byte_before_the_last_block_is_an_error_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let bytes = fs::read(log(folder.path())).unwrap();
    let starts = frames(&bytes);
    for position in (starts[1]..starts[5]).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        let folder = copy_of(&damaged);
        let error = EmbeddedChain::open(folder.path(), spec()).unwrap_err();
        let frame = starts.iter().rev().find(|start| **start <= position);
        let EmbeddedError::Damaged { path, offset, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (path, *offset),
            (&log(folder.path()), *frame.unwrap() as u64),
            "byte {position}"
        );
        let left = fs::read(log(folder.path())).unwrap();
        assert_eq!(left, damaged, "nothing is repaired silently");
    }
}

/// Checksums find accidents; carrying the blocks out again finds what was changed on purpose.
#[test]
fn a_block_removed_or_altered_with_a_right_checksum_is_found() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let bytes = fs::read(log(folder.path())).unwrap();
    let starts = frames(&bytes);
    let problem = |bytes: &[u8]| {
        let folder = copy_of(bytes);
        let error = EmbeddedChain::open(folder.path(), spec()).unwrap_err();
        error.to_string()
    };

    let removed = [&bytes[..starts[2]], &bytes[starts[3]..]].concat();
    let error = problem(&removed);
    assert!(error.ends_with("block 3 where block 2 belongs"), "{error}");

    let payload = |block: usize| starts[block] + FRAME_HEADER..starts[block + 1];
    let altered = |block: usize, at: usize| {
        let mut altered = bytes.clone();
        altered[payload(block).start + at] ^= 1;
        let sum = crc32fast::hash(&altered[payload(block)]).to_le_bytes();
        altered[starts[block] + 8..payload(block).start].copy_from_slice(&sum);
        altered
    };
    // The first block's state root, then the parent that the last one names.
    let error = problem(&altered(1, 33));
    assert!(
        error.ends_with("block 2 does not follow the one before it"),
        "{error}"
    );
    let error = problem(&altered(5, 33));
    assert!(
        error.ends_with("block 5 does not have its recorded hash when replayed"),
        "{error}"
    );
    let error = problem(&altered(5, payload(5).len() - 1));
    assert!(error.contains("block 5: "), "{error}");
}

#[test]
fn a_folder_is_used_by_one_chain_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let second = EmbeddedChain::open(folder.path(), spec());
    assert!(matches!(second, Err(EmbeddedError::Locked { .. })));
    drop(first);
    open(folder.path());
}

#[test]
fn a_folder_belongs_to_the_specification_it_was_started_with() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(EmbeddedChain::stored_genesis(folder.path()).unwrap(), None);
    drop(open(folder.path()));
    let mut other = spec();
    other.tempo += 1;
    let error = EmbeddedChain::open(folder.path(), other).unwrap_err();
    assert!(matches!(error, EmbeddedError::OtherGenesis { .. }));
    let stored = EmbeddedChain::stored_genesis(folder.path()).unwrap();
    assert_eq!(stored, Some(spec()));
}

/// What should not happen: a chain whose rules have changed since called damaged, or carried on by other rules.
#[test]
fn a_chain_of_another_version_says_so_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let bytes = fs::read(log(folder.path())).unwrap();
    let first = FRAME_HEADER..frames(&bytes)[1];
    for version in ["1", "2", "99999999999999999999"] {
        let text = String::from_utf8(bytes[first.clone()].to_vec()).unwrap();
        let text = text.replace("log/3{", &format!("log/{version}{{"));
        let length = (text.len() as u32).to_le_bytes();
        let sums = [&length[..], text.as_bytes()].map(|bytes| crc32fast::hash(bytes).to_le_bytes());
        let other = [
            &length,
            &sums[0],
            &sums[1],
            text.as_bytes(),
            &bytes[first.end..],
        ]
        .concat();
        let folder = copy_of(&other);
        let expected = format!(
            "chain folder {} was made by another version of this program (chain version {version}, here 3)",
            folder.path().display()
        );
        for error in [
            EmbeddedChain::open(folder.path(), spec()).unwrap_err(),
            EmbeddedChain::stored_genesis(folder.path()).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(fs::read(log(folder.path())).unwrap(), other);
    }
}

/// Blocks that were made once must be made again by whoever says to have the same rules. If this fails, a rule
/// has changed: raise `VERSION` in `embedded/log.rs`, and write the new version and hash here.
#[test]
fn the_rules_of_a_version_give_the_hashes_they_always_gave() {
    let folder = tempfile::tempdir().unwrap();
    let head = written(folder.path()).pop().unwrap();
    let bytes = fs::read(log(folder.path())).unwrap();
    let start = String::from_utf8_lossy(&bytes[FRAME_HEADER..]).into_owned();
    assert!(start.starts_with("connito-chain-log/3{"));
    assert_eq!(
        hex(&head.hash.0),
        "0x4f7c2b7f70d1bff279ad0ee173f9f5dc22d6cf9ee69690a0125268fc348ea40d"
    );
}

#[test]
fn a_file_that_is_no_block_log_is_left_alone() {
    let contents = b"these are somebody's notes, not a block log at all";
    let folder = copy_of(contents);
    let error = EmbeddedChain::open(folder.path(), spec()).unwrap_err();
    let EmbeddedError::Damaged { offset: 0, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(fs::read(log(folder.path())).unwrap(), contents);
}

/// A full-length last frame may lack pages after a power cut, so the chain itself goes on without it. What
/// should not happen: that whoever only reads the log takes a byte changed there for such a cut.
#[test]
fn a_changed_byte_of_the_last_block_is_damage_to_a_reader_and_a_cut_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let shown = written(folder.path());
    let bytes = fs::read(log(folder.path())).unwrap();
    let last = frames(&bytes)[5];
    for position in (last..bytes.len()).step_by(3) {
        let mut changed = bytes.clone();
        changed[position] ^= 0x10;
        let folder = copy_of(&changed);
        let (read, damage) = EmbeddedChain::recorded(folder.path(), spec()).unwrap();
        let damage = damage.map(|damage| damage.to_string()).unwrap_or_default();
        let where_from = format!("damaged at byte {last}");
        assert!(damage.contains(&where_from), "byte {position}: {damage}");
        assert_eq!(read.head(), shown[4]);
        if position >= last + FRAME_HEADER {
            assert_eq!(open(folder.path()).head(), shown[4]);
        }
    }
    for length in (last..bytes.len()).step_by(3) {
        let folder = copy_of(&bytes[..length]);
        let (read, damage) = EmbeddedChain::recorded(folder.path(), spec()).unwrap();
        assert!(damage.is_none(), "cut at byte {length}");
        assert_eq!(read.head(), shown[4]);
    }
}

/// A folder in memory where the system has one: a chain that makes thousands of blocks durable waits for the
/// disk otherwise, and these tests are not about the disk.
fn fast_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn snapshots(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("state")).collect();
    names.sort();
    names
}

/// What should happen: a start from a snapshot and one from block 0 lead to one state. What should not: a
/// snapshot believed because its checksum is right.
#[test]
fn a_chain_starts_from_a_snapshot_and_needs_none() {
    let folder = fast_folder();
    let mut network = Network::on(open(folder.path()));
    network.run(MINER, &commit("before the first snapshot"));
    network.chain.advance(2 * KEPT_BLOCKS as u64).unwrap();
    network.run(MINER, &commit("after the second"));
    let head = network.chain.head();
    drop(network);
    let names = ["state-2400.snapshot", "state-4800.snapshot"];
    assert_eq!(snapshots(folder.path()), names);

    let network = Network::on(open(folder.path()));
    assert_eq!(network.chain.head(), head);
    let oldest = head.number.0 + 1 - KEPT_BLOCKS as u64;
    let read = |number| {
        let at = network.result("chain_getBlockHash", json!([number]));
        network.ask("state_getStorage", json!(["0x00", at]))
    };
    assert!(read(oldest).is_ok());
    assert_eq!(read(oldest - 1).unwrap_err()["code"], 4003);
    drop(network);

    // A byte of the state, with a checksum that fits.
    let usable = folder.path().join(names[0]);
    let mut bytes = fs::read(&usable).unwrap();
    let content = bytes.len() - 4;
    bytes[content - 16] ^= 1;
    let sum = crc32fast::hash(&bytes[..content]).to_le_bytes();
    bytes[content..].copy_from_slice(&sum);
    fs::write(&usable, &bytes).unwrap();
    assert_eq!(open(folder.path()).head(), head);
}
