//! What is held in memory, counted by the allocator. A binary of its own, for the allocator is the whole
//! process's; for the same reason one test measures at a time.

#![expect(
    clippy::unwrap_used,
    reason = "a harness that fails to build its inputs has failed"
)]
#![expect(
    unsafe_code,
    reason = "an allocator that counts has to be one, and hands everything on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "memory/merging.rs"]
mod merging;
#[path = "memory/reading.rs"]
mod reading;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        let held = HELD.fetch_add(memory.size(), Ordering::Relaxed) + memory.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        HELD.fetch_sub(memory.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, memory) }
    }
}

/// Held by whoever measures. One that failed has nothing to spoil for the next.
fn alone() -> MutexGuard<'static, ()> {
    static MEASURING: Mutex<()> = Mutex::new(());
    MEASURING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most that was allocated at once during some work, beyond what was before.
fn most_held<T>(work: impl FnOnce() -> T) -> usize {
    let held = HELD.load(Ordering::Relaxed);
    MOST.store(held, Ordering::Relaxed);
    drop(work());
    MOST.load(Ordering::Relaxed) - held
}
