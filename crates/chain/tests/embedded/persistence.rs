//! The block log: a chain continues where it was, whatever happened to its process or its file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use connito_chain::BlockRef;
use connito_chain::local::{LocalChain, LocalError};
use tempfile::TempDir;

use crate::network::*;

const FRAME_HEADER: usize = 12;

fn log(folder: &Path) -> PathBuf {
    folder.join("blocks.log")
}

fn open(folder: &Path) -> Arc<LocalChain> {
    LocalChain::open(folder, spec()).unwrap()
}

/// Five blocks, the second and the fifth with an operation. Gives every block that was shown.
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
    let folder = tempfile::tempdir().unwrap();
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
    let chain = open(folder.path());
    assert_eq!(chain.head(), uninterrupted);
    let network = Network::on(chain);
    for block in shown {
        let at = serde_json::json!({ "at": { "number": block.number } });
        let again = network.ask("chain_block", at).unwrap();
        assert_eq!(serde_json::from_value::<BlockRef>(again).unwrap(), block);
    }
    // The nonces are part of the state: an old operation cannot be sent again.
    let account = serde_json::json!({ "account": connito_chain::keys::Signer::hotkey(&pair(MINER)), "at": "head" });
    assert_eq!(network.ask("chain_account", account).unwrap()["nonce"], 2);
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
    for length in (0..starts[1]).step_by(7).chain(starts[4]..=bytes.len()) {
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

/// What should not happen: a damaged block in the middle taken for the end of the chain.
#[test]
fn any_damaged_byte_before_the_last_block_is_an_error_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let bytes = fs::read(log(folder.path())).unwrap();
    let starts = frames(&bytes);
    for position in starts[1]..starts[5] {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        let folder = copy_of(&damaged);
        let error = LocalChain::open(folder.path(), spec()).unwrap_err();
        let frame = starts
            .iter()
            .rev()
            .find(|start| **start <= position)
            .unwrap();
        let LocalError::Damaged { path, offset, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (path, *offset),
            (&log(folder.path()), *frame as u64),
            "byte {position}"
        );
        assert_eq!(
            fs::read(log(folder.path())).unwrap(),
            damaged,
            "nothing is repaired silently"
        );
    }
}

/// Checksums find accidents; replaying finds what was changed on purpose.
#[test]
fn a_block_removed_or_altered_with_a_right_checksum_is_found_by_replaying() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let bytes = fs::read(log(folder.path())).unwrap();
    let starts = frames(&bytes);

    let removed = [&bytes[..starts[2]], &bytes[starts[3]..]].concat();
    let error = LocalChain::open(copy_of(&removed).path(), spec())
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("block 3 where block 2 belongs"), "{error}");

    let mut altered = bytes.clone();
    let payload = starts[1] + FRAME_HEADER..starts[2];
    altered[payload.start + 8] ^= 1;
    let sum = crc32fast::hash(&altered[payload.clone()]).to_le_bytes();
    altered[starts[1] + 8..payload.start].copy_from_slice(&sum);
    let error = LocalChain::open(copy_of(&altered).path(), spec())
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("block 1 does not have its recorded hash when replayed"),
        "{error}"
    );
}

#[test]
fn a_folder_is_used_by_one_chain_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let second = LocalChain::open(folder.path(), spec());
    assert!(matches!(second, Err(LocalError::Locked { .. })));
    drop(first);
    open(folder.path());
}

#[test]
fn a_folder_belongs_to_the_specification_it_was_started_with() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(LocalChain::stored_genesis(folder.path()).unwrap(), None);
    drop(open(folder.path()));
    let mut other = spec();
    other.tempo += 1;
    let error = LocalChain::open(folder.path(), other).unwrap_err();
    assert!(matches!(error, LocalError::OtherGenesis { .. }));
    assert_eq!(
        LocalChain::stored_genesis(folder.path()).unwrap(),
        Some(spec())
    );
}

#[test]
fn a_file_that_is_no_block_log_is_left_alone() {
    let contents = b"these are somebody's notes, not a block log at all";
    let folder = copy_of(contents);
    let error = LocalChain::open(folder.path(), spec()).unwrap_err();
    assert!(
        matches!(error, LocalError::Damaged { offset: 0, .. }),
        "{error}"
    );
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
    for position in last..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 0x10;
        let folder = copy_of(&changed);
        let (read, damage) = LocalChain::recorded(folder.path(), spec()).unwrap();
        let damage = damage.map(|damage| damage.to_string()).unwrap_or_default();
        assert!(
            damage.contains(&format!("damaged at byte {last}")),
            "byte {position}: {damage}"
        );
        assert_eq!(read.head(), shown[4]);
        if position >= last + FRAME_HEADER {
            assert_eq!(open(folder.path()).head(), shown[4]);
        }
    }
    for length in last..bytes.len() {
        let folder = copy_of(&bytes[..length]);
        let (read, damage) = LocalChain::recorded(folder.path(), spec()).unwrap();
        assert!(damage.is_none(), "cut at byte {length}");
        assert_eq!(read.head(), shown[4]);
    }
}
