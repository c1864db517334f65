//! What benchmarks tell: the account of a memory plan beside the measured peak, as a table for people.

use connito_engine::memory::MemoryAccount;

/// The most memory that this process has ever held, in bytes; `None` where the system does not say.
pub(super) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The parts of the account, their sum and what was measured, one a line, in units of 10⁶ bytes.
pub(super) fn account_lines(account: &MemoryAccount, peak: Option<u64>) -> Vec<String> {
    let parts = [
        ("frozen weights", account.frozen_weights),
        ("trained weights", account.trained_weights),
        ("gradients", account.gradients),
        ("moments", account.moments),
        ("activations", account.activations),
        ("working", account.working),
        ("logits", account.logits),
        ("program", account.program),
        ("predicted peak", account.total()),
    ];
    let line = |name: &str, bytes: u64| format!("{name:<16} {:>10.1} MB", bytes as f64 / 1e6);
    let parts = parts.iter().map(|(name, bytes)| line(name, *bytes));
    let measured = peak.map(|bytes| line("measured peak", bytes));
    parts.chain(measured).collect()
}

/// The middle value; between two, their mean.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (at(low) + at(high)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
