//! What is going to happen, in order: by simulated time, and at one time in the order in which it was
//! put in. Time is whole microseconds since the run began; nothing is ever put into the past.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

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

/// Things that are due at some time.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    now: Micros,
    sequence: u64,
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
            heap: BinaryHeap::new(),
            now: 0,
            sequence: 0,
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
        self.heap.push(Entry {
            due: due.max(self.now),
            sequence: self.sequence,
            what,
        });
        self.longest = self.longest.max(self.heap.len());
    }

    /// Takes out what is due next, and moves on to its time.
    pub(crate) fn next(&mut self) -> Option<T> {
        let Entry { due, what, .. } = self.heap.pop()?;
        self.now = due;
        Some(what)
    }
}

impl<T> Ord for Entry<T> {
    /// The heap gives out its greatest entry first: the earliest is the greatest.
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
            delays in proptest::collection::vec(0..20_u64, 1..60),
        ) {
            let mut queue = Queue::default();
            for (number, delay) in delays.iter().enumerate() {
                queue.after(*delay, number);
            }
            let mut last = (0, 0);
            while let Some(number) = queue.next() {
                prop_assert_eq!(queue.now(), delays[number]);
                prop_assert!((queue.now(), number) >= last);
                last = (queue.now(), number);
            }
            prop_assert_eq!(queue.longest(), delays.len());
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
