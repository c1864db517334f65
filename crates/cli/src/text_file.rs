//! Small text files that a user names: configurations, lists, partitions.
//!
//! Reads no more than such a file can have, so that a weights file or a device that is named by mistake
//! costs a sentence and not the machine's memory. Knows nothing of what the text means.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::exit::{Blame, Failure};

const MIB: u64 = 1 << 20;

/// Twenty times the partition of the largest published model, which names every tensor of every expert.
const LONGEST: u64 = 64 * MIB;

/// Reads a small text file.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let unreadable = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(unreadable).input()?;
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    if read.with_context(unreadable).input()? as u64 > LONGEST {
        return Err(Failure::Input(anyhow!(
            "{} is longer than {} MiB, which no such file is",
            path.display(),
            LONGEST / MIB
        )));
    }
    Ok(text)
}
