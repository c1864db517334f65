//! Whether a benchmark fits the machine: what its plan is predicted to take against all memory there is.
//!
//! The prediction is within a tenth of the peak, and other programs need memory too, so that what passes
//! here may still be too much. What does not pass cannot be run.

use anyhow::anyhow;
use connito_engine::memory::MemoryAccount;

use super::BatchSize;
use crate::exit::Failure;

/// Refuses what needs more memory than the machine has; asks nothing where the system does not say how
/// much that is.
pub(super) fn check(account: &MemoryAccount, batch: BatchSize) -> Result<(), Failure> {
    let needed = account.total().saturating_add(batch_bytes(batch));
    match memory_bytes() {
        Some(memory) if needed > memory => Err(Failure::Environment(anyhow!(
            "this needs about {} of memory, the machine has {}",
            shown(needed),
            shown(memory)
        ))),
        _ => Ok(()),
    }
}

/// Token ids, and the lists that hold them.
fn batch_bytes(batch: BatchSize) -> u64 {
    let ids = batch.tokens().saturating_mul(size_of::<u32>());
    let lists = batch.sequences.saturating_mul(size_of::<Vec<u32>>());
    ids.saturating_add(lists) as u64
}

/// The machine's memory; `None` where the system does not say.
fn memory_bytes() -> Option<u64> {
    total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Bytes in the largest decimal unit of which there is one.
fn shown(bytes: u64) -> String {
    let units = [(1e18, "EB"), (1e15, "PB"), (1e12, "TB"), (1e9, "GB")];
    let bytes = bytes as f64;
    let fits = |&(size, _): &(f64, &str)| bytes >= size;
    let (size, unit) = units.into_iter().find(fits).unwrap_or((1e6, "MB"));
    format!("{:.1} {unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_the_largest_unit_of_which_there_is_one() {
        assert_eq!(shown(4_410_000_000_000), "4.4 TB");
        assert_eq!(shown(25_300_000_000), "25.3 GB");
        assert_eq!(shown(1_000_000), "1.0 MB");
        assert_eq!(shown(u64::MAX), "18.4 EB");
    }

    #[test]
    fn the_machine_is_taken_at_its_word_and_silence_is_no_word() {
        let told = "MemTotal:       24596468 kB\nMemFree:          513296 kB\n";
        assert_eq!(total(told), Some(24_596_468 * 1024));
        assert_eq!(total("MemFree: 513296 kB\n"), None);
        assert_eq!(total("MemTotal: much\n"), None);
    }
}
