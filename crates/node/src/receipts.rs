//! What participants were told about their submissions: one small JSON file for each.
//!
//! ```text
//! root/17/5Grwva….json      the receipt of one hotkey for cycle 17
//! ```
//!
//! Written whole or not at all. Paths are built from parsed ids only (A-159). Knows nothing of what
//! a receipt says.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use connito_protocol::ids::{Cycle, Hotkey};
use serde::Serialize;

/// Why a receipt could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The receipt has no JSON form.
    #[error("the receipt of {hotkey} for cycle {cycle} cannot be written as JSON")]
    Unwritable {
        /// Whose receipt.
        hotkey: Hotkey,
        /// For which cycle.
        cycle: Cycle,
        /// What serde_json objects to.
        source: serde_json::Error,
    },
    /// The disk refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A folder of receipts.
#[derive(Debug, Clone)]
pub struct Receipts {
    root: PathBuf,
}

impl Receipts {
    /// Opens the folder, creating it if need be.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ReceiptError> {
        let root = root.into();
        std::fs::create_dir_all(&root).map_err(io(&root, "create"))?;
        Ok(Self { root })
    }

    /// Keeps a receipt, durably. The same receipt may be kept again, as a replayed driver does.
    ///
    /// # Errors
    /// When it has no JSON form or the disk refuses; an earlier receipt is intact then.
    pub fn put(
        &self,
        cycle: Cycle,
        hotkey: &Hotkey,
        receipt: &impl Serialize,
    ) -> Result<(), ReceiptError> {
        let json = serde_json::to_vec(receipt).map_err(|source| ReceiptError::Unwritable {
            hotkey: *hotkey,
            cycle,
            source,
        })?;
        let path = self.path(cycle, hotkey);
        let folder = self.root.join(cycle.to_string());
        std::fs::create_dir_all(&folder).map_err(io(&folder, "create"))?;
        let temporary = path.with_extension("temporary");
        let mut file = File::create(&temporary).map_err(io(&temporary, "create"))?;
        file.write_all(&json)
            .and_then(|()| file.sync_all())
            .map_err(io(&temporary, "write"))?;
        std::fs::rename(&temporary, &path).map_err(io(&path, "rename a finished file to"))?;
        File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io(&folder, "sync"))
    }

    /// The JSON of a receipt, if there is one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn get(&self, cycle: Cycle, hotkey: &Hotkey) -> Result<Option<Vec<u8>>, ReceiptError> {
        let path = self.path(cycle, hotkey);
        match std::fs::read(&path) {
            Ok(json) => Ok(Some(json)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(&path, "read")(error)),
        }
    }

    fn path(&self, cycle: Cycle, hotkey: &Hotkey) -> PathBuf {
        self.root
            .join(cycle.to_string())
            .join(format!("{hotkey}.json"))
    }
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> ReceiptError {
    move |source| ReceiptError::Io {
        path: path.to_path_buf(),
        action,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_found_by_cycle_and_hotkey_and_by_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let receipts = Receipts::open(folder.path().join("receipts")).unwrap();
        let (alice, bob) = (Hotkey([1; 32]), Hotkey([2; 32]));
        receipts.put(Cycle(3), &alice, &"accepted").unwrap();
        receipts.put(Cycle(3), &alice, &"accepted").unwrap();
        let found = receipts.get(Cycle(3), &alice).unwrap();
        assert_eq!(found.unwrap(), b"\"accepted\"");
        assert!(receipts.get(Cycle(3), &bob).unwrap().is_none());
        assert!(receipts.get(Cycle(4), &alice).unwrap().is_none());
    }
}
