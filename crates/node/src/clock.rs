//! The wall clock, for the age of signatures and for nothing else: protocol time is the block number.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970; 64 bits suffice until the year 2554.
pub(crate) fn now_ns() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}
