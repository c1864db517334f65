//! Whole local networks, run by the real binary as a user would: what they print, what they leave
//! behind, and that processes may be killed at any moment.
//!
//! One network runs at a time: two would measure each other's machine. The base model is made once,
//! by whichever test comes first. Waits for lines and for processes to end, never for a time to pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod localnet;
mod progress;
mod restarts;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use connito_node::journal::Journal;
use connito_protocol::machine::{Character, Step};

/// Where all networks of this test program are set: one cache, one folder for results.
struct Stage {
    folder: PathBuf,
    turn: Mutex<()>,
    /// Locked while this program lives, so that it has the folder to itself.
    _lock: File,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("network");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    // What an earlier test run left; the first network here has to make its own base model.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    Stage {
        folder,
        turn: Mutex::new(()),
        _lock: lock,
    }
});

impl Stage {
    /// Waits until no other network runs. A test that failed does not stop the others.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder for results of this name.
    fn out(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The command with this stage's cache.
fn connito(arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connito"));
    command
        .args(arguments)
        .env("XDG_CACHE_HOME", STAGE.folder.join("cache"))
        .env_remove("CONNITO_LOG");
    command
}

/// The roles of the default cast.
fn cast() -> Vec<String> {
    let validators = (0..3).map(|number| format!("validator-{number}"));
    let miners = (0..6).map(|number| format!("miner-{number}"));
    std::iter::once("owner".to_owned())
        .chain(validators)
        .chain(miners)
        .collect()
}

/// The steps of a role's journal.
fn steps(out: &Path, name: &str) -> Vec<Step> {
    let path = out.join("journal").join(format!("{name}.journal"));
    let (_, steps): (Character, Vec<Step>) = Journal::read(path).unwrap();
    steps
}

/// What should happen: every role of the cast left a journal that asks for the same effects again.
fn assert_every_journal_replays(out: &Path) {
    for name in cast() {
        let journal = out.join("journal").join(format!("{name}.journal"));
        let replayed = connito([OsStr::new("replay"), journal.as_os_str()])
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&replayed.stderr);
        assert!(replayed.status.success(), "{name}: {complaint}");
    }
}
