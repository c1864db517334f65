//! What is going to happen, in order: by simulated time, and at one time in the order in which it was
//! put in. Time is whole microseconds since the run began; nothing is ever put into the past.
//!
//! ```text
//! soon: the current bucket, sorted     added: what has been put into it since     later: unsorted lists
//! ```
//!
//! A hundred thousand things wait, most of them for a while: only those that are due next are put in
//! order, all at once, and they fit into the cache.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// Microseconds since the run began.
pub(crate) type Micros = u64;

/// Microseconds in a second.
pub(crate) const SECOND: Micros = 1_000_000;

/// A span of seconds in microseconds; nothing for what is negative or no number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion from f64 saturates, and no run lasts that long"
)]
pub(crate) fn micros(seconds: f64) -> Micros {
    (seconds * SECOND as f64).round() as Micros
}

/// Time in a bucket: of ten thousand nodes that hear of a block, a few hundred do within it.
const BUCKET: Micros = 4_096;

/// Things that are due at some time.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// The earliest last.
    soon: Vec<Entry<T>>,
    added: BinaryHeap<Entry<T>>,
    /// By bucket, all of them after the current one.
    later: BTreeMap<u64, Vec<Entry<T>>>,
    bucket: u64,
    now: Micros,
    sequence: u64,
    waiting: usize,
    longest: usize,
}

#[derive(Debug)]
struct Entry<T> {
    due: Micros,
    sequence: u64,
    what: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            soon: Vec::new(),
            added: BinaryHeap::new(),
            later: BTreeMap::new(),
            bucket: 0,
            now: 0,
            sequence: 0,
            waiting: 0,
            longest: 0,
        }
    }
}

impl<T> Queue<T> {
    /// The time of what was taken out last.
    pub(crate) fn now(&self) -> Micros {
        self.now
    }

    /// The most that was ever waiting.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// Puts something in, `delay` from now.
    pub(crate) fn after(&mut self, delay: Micros, what: T) {
        self.at(self.now.saturating_add(delay), what);
    }

    /// Puts something in for a time; for now if that has passed.
    pub(crate) fn at(&mut self, due: Micros, what: T) {
        self.sequence += 1;
        let entry = Entry {
            due: due.max(self.now),
            sequence: self.sequence,
            what,
        };
        let bucket = entry.due / BUCKET;
        match bucket > self.bucket {
            true => self.later.entry(bucket).or_default().push(entry),
            false => self.added.push(entry),
        }
        self.waiting += 1;
        self.longest = self.longest.max(self.waiting);
    }

    /// Takes out what is due next, and moves on to its time.
    pub(crate) fn next(&mut self) -> Option<T> {
        if self.soon.is_empty() && self.added.is_empty() {
            (self.bucket, self.soon) = self.later.pop_first()?;
            self.soon.sort_unstable();
        }
        let Entry { due, what, .. } = match (self.soon.last(), self.added.peek()) {
            (Some(soon), Some(added)) if soon < added => self.added.pop()?,
            (None, _) => self.added.pop()?,
            _ => self.soon.pop()?,
        };
        self.now = due;
        self.waiting -= 1;
        Some(what)
    }
}

impl<T> Ord for Entry<T> {
    /// The greatest entry is given out first: the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What should not happen: that time runs backwards, or that two things of one time change
        /// places.
        #[test]
        fn what_is_due_comes_out_in_order_of_time_and_then_of_arrival(
            delays in proptest::collection::vec(0..5_u64, 1..60),
            scale in prop_oneof![Just(1_u64), Just(1_500)],
        ) {
            let mut queue = Queue::default();
            // Half of them at once, the others one by one as the first come out.
            let delays: Vec<u64> = delays.iter().map(|delay| scale * delay).collect();
            let (first, others) = delays.split_at(delays.len() / 2);
            for (number, delay) in first.iter().enumerate() {
                queue.after(*delay, (*delay, number));
            }
            let mut others = others.iter().zip(first.len()..);
            let (mut last, mut taken) = ((0, 0), 0);
            loop {
                if let Some((delay, number)) = others.next() {
                    queue.after(*delay, (queue.now() + delay, number));
                }
                let Some((due, number)) = queue.next() else { break };
                prop_assert_eq!(queue.now(), due);
                prop_assert!((due, number) >= last);
                (last, taken) = ((due, number), taken + 1);
            }
            prop_assert_eq!(taken, delays.len());
            prop_assert!(queue.longest() >= first.len());
        }
    }

    #[test]
    fn what_is_put_in_for_the_past_is_due_now() {
        let mut queue = Queue::default();
        queue.after(10, "first");
        assert_eq!(queue.next(), Some("first"));
        queue.at(3, "late");
        assert_eq!((queue.next(), queue.now()), (Some("late"), 10));
        assert_eq!(micros(-1.0), 0);
        assert_eq!(micros(f64::NAN), 0);
    }
}
