//! Snapshots: the whole state after one block, so that a start need not carry out the whole past again.
//!
//! ```text
//! state-<number>.snapshot = "connito-chain-state/1" ‖ SCALE (header, Vec<(key, value)>) ‖ crc32
//! ```
//!
//! Written beside the log every [`EVERY`] blocks, to another name first and renamed when durable. A
//! snapshot proves nothing by itself: its header must be the log's for that block and its state must hash
//! to that header's root. One that does not is passed over, as one that is missing is; the log alone is
//! what the chain is made from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parity_scale_codec::{Decode, Encode};

use super::block::Header;
use super::history::KEPT_BLOCKS;
use super::set_hash::SetHash;
use super::storage::Key;
use super::store::View;

/// Blocks between two snapshots.
pub(super) const EVERY: u64 = KEPT_BLOCKS as u64;
/// Snapshots that stay: a start wants one that is at least [`EVERY`] blocks old.
const STAY: usize = 3;
const MAGIC: &[u8] = b"connito-chain-state/1";

/// A state as it was read back.
pub(super) struct Snapshot {
    pub(super) header: Header,
    pub(super) state: BTreeMap<Key, Vec<u8>>,
}

/// The bytes of a snapshot of this state.
pub(super) fn encode(header: &Header, state: View<'_>) -> Vec<u8> {
    let pairs: Vec<(&Key, &[u8])> = state.keys(&[], None).collect();
    let mut bytes = MAGIC.to_vec();
    header.encode_to(&mut bytes);
    pairs.encode_to(&mut bytes);
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Makes a snapshot durable and removes those that no start will want.
pub(super) fn write(folder: &Path, number: u64, bytes: &[u8]) -> io::Result<()> {
    let partial = folder.join("state.partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path(folder, number))?;
    File::open(folder)?.sync_all()?;
    for outlived in numbers(folder).into_iter().rev().skip(STAY) {
        fs::remove_file(path(folder, outlived))?;
    }
    Ok(())
}

/// The newest usable snapshot of a block up to `newest` that the log knows under the hash `known` gives.
pub(super) fn load(
    folder: &Path,
    newest: u64,
    known: impl Fn(u64) -> Option<[u8; 32]>,
) -> Option<Snapshot> {
    let old_enough = numbers(folder).into_iter().rev().filter(|n| *n <= newest);
    for number in old_enough {
        let path = path(folder, number);
        let read = fs::read(&path).ok().and_then(|bytes| decode(&bytes));
        let usable = read.filter(|snapshot| {
            snapshot.header.number == number && Some(snapshot.header.hash()) == known(number)
        });
        match usable {
            Some(snapshot) => return Some(snapshot),
            None => {
                tracing::warn!(target: "chain::embedded", path = %path.display(), "unusable snapshot passed over");
            }
        }
    }
    None
}

/// The snapshot in these bytes, if they are one and its state is that of its header.
fn decode(bytes: &[u8]) -> Option<Snapshot> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
        return None;
    }
    let input = &mut content.strip_prefix(MAGIC)?;
    let header = Header::decode(input).ok()?;
    let state = <Vec<(Key, Vec<u8>)>>::decode(input).ok()?;
    let mut hash = SetHash::default();
    for (key, value) in &state {
        hash.add(key, value);
    }
    let state: BTreeMap<_, _> = state.into_iter().collect();
    let is_whole = input.is_empty() && hash.root() == header.state_root;
    is_whole.then_some(Snapshot { header, state })
}

/// The blocks there are snapshots of, ascending.
fn numbers(folder: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let number = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        let number = name.to_str()?.strip_prefix("state-")?;
        number.strip_suffix(".snapshot")?.parse().ok()
    };
    let mut numbers: Vec<u64> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("state-{number}.snapshot"))
}

#[cfg(test)]
mod tests {
    use super::super::execute;
    use super::super::genesis::GenesisSpec;
    use super::super::store::Store;
    use super::*;
    use connito_protocol::ids::{Hotkey, Netuid};

    fn written(folder: &Path, number: u64) -> Header {
        let spec = GenesisSpec::new(Netuid(1), Hotkey([9; 32]));
        let (block, state) = execute::genesis(&spec);
        let store = Store::new(0, state, 1);
        let header = Header {
            number,
            ..block.header
        };
        write(folder, number, &encode(&header, store.head())).unwrap();
        header
    }

    #[test]
    fn the_newest_snapshot_that_is_old_enough_and_known_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let headers = [10, 20, 30].map(|number| written(folder.path(), number));
        let known = |number: u64| {
            let header = headers.iter().find(|header| header.number == number);
            header.map(Header::hash)
        };
        let loaded = |newest| load(folder.path(), newest, known).map(|found| found.header.number);
        assert_eq!(loaded(29), Some(20));
        assert_eq!(loaded(9), None);
        let other = |number| known(number).filter(|_| number != 20);
        let found = load(folder.path(), 29, other).unwrap();
        assert_eq!(found.header, headers[0]);
        assert!(!found.state.is_empty());
    }

    #[test]
    fn no_changed_or_missing_byte_makes_another_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 10);
        let bytes = fs::read(path(folder.path(), 10)).unwrap();
        assert!(decode(&bytes).is_some());
        for position in (0..bytes.len()).step_by(37) {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(decode(&changed).is_none(), "byte {position}");
            assert!(decode(&bytes[..position]).is_none(), "cut at {position}");
        }
    }

    #[test]
    fn only_as_many_stay_as_a_start_may_want() {
        let folder = tempfile::tempdir().unwrap();
        for number in [10, 20, 30, 40, 100] {
            written(folder.path(), number);
        }
        assert_eq!(numbers(folder.path()), [30, 40, 100]);
        assert!(!folder.path().join("state.partial").exists());
    }
}
