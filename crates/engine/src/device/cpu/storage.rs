//! Memory: aligned to cache lines, and given out again when it is freed.
//!
//! A vector that straddles two lines costs two loads, so everything that kernels read begins with a line.
//! A step allocates the same sizes over and over. Fresh pages cost a fault and a clearing each, which at
//! these sizes is a tenth of the arithmetic, so a buffer that is dropped returns to the [`Spare`] of its
//! device. Contents are stale: whoever takes a buffer fills it.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Values that begin with a cache line.
#[derive(Debug)]
pub(super) struct Aligned<T> {
    /// Longer than needed by less than a line.
    values: Vec<T>,
    start: usize,
    length: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// Zeros; clean pages of the operating system, which take no memory before they are touched.
    pub(super) fn zeros(length: usize) -> Self {
        let values = vec![T::default(); length + LINE / size_of::<T>()];
        let start = values.as_ptr().align_offset(LINE);
        Self {
            // Where an address has no aligned neighbour, being slower is all that happens.
            start: if start > LINE / size_of::<T>() {
                0
            } else {
                start
            },
            values,
            length,
        }
    }
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            start: 0,
            length: 0,
        }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.start..self.start + self.length]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..self.start + self.length]
    }
}

/// What is kept at most; more goes back to the operating system at once.
const MOST_KEPT_BYTES: usize = 1 << 30;

/// Freed memory of one device, by capacity.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_capacity: BTreeMap<usize, Vec<Aligned<f32>>>,
    bytes: usize,
}

impl Spare {
    /// `length` values that hold anything.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Values {
        let capacity = size_class(length);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.by_capacity.get_mut(&capacity).and_then(Vec::pop);
        if found.is_some() {
            kept.bytes -= capacity * size_of::<f32>();
        }
        drop(kept);
        Values {
            values: found.unwrap_or_else(|| Aligned::zeros(capacity)),
            length,
            spare: Arc::clone(self),
        }
    }

    /// `length` zeros.
    pub(super) fn zeros(self: &Arc<Self>, length: usize) -> Values {
        let mut values = self.take(length);
        values.as_mut().fill(0.0);
        values
    }

    fn put(&self, values: Aligned<f32>) {
        let bytes = values.len() * size_of::<f32>();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + bytes <= MOST_KEPT_BYTES {
            kept.bytes += bytes;
            kept.by_capacity
                .entry(values.len())
                .or_default()
                .push(values);
        }
    }
}

/// The next of 1, 1.25, 1.5, 1.75 times a power of two, so that lengths that differ a little share.
fn size_class(length: usize) -> usize {
    const SMALLEST: usize = 64;
    if length <= SMALLEST {
        return SMALLEST;
    }
    let quarter = (length.next_power_of_two() / 8).max(1);
    length.next_multiple_of(quarter)
}

/// Values that return to their [`Spare`] when dropped.
#[derive(Debug)]
pub(super) struct Values {
    /// As long as its size class.
    values: Aligned<f32>,
    length: usize,
    spare: Arc<Spare>,
}

impl AsRef<[f32]> for Values {
    fn as_ref(&self) -> &[f32] {
        &self.values[..self.length]
    }
}

impl AsMut<[f32]> for Values {
    fn as_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.length]
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        self.spare.put(std::mem::take(&mut self.values));
    }
}

/// Activations on the CPU: row-major f32.
#[derive(Debug)]
pub struct Buffer {
    rows: usize,
    width: usize,
    values: Values,
}

impl Buffer {
    pub(super) fn new(rows: usize, width: usize, values: Values) -> Self {
        debug_assert_eq!(values.length, rows * width);
        Self {
            rows,
            width,
            values,
        }
    }

    /// One per token.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    pub(super) fn values(&self) -> &[f32] {
        self.values.as_ref()
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        self.values.as_mut()
    }

    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.values()[index * self.width..(index + 1) * self.width]
    }

    /// Consecutive rows.
    pub(super) fn rows_of(&self, rows: std::ops::Range<usize>) -> &[f32] {
        &self.values()[rows.start * self.width..rows.end * self.width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_memory_is_given_out_again() {
        let spare = Arc::new(Spare::default());
        let mut first = spare.take(1000);
        first.as_mut().fill(7.0);
        let place = first.as_ref().as_ptr();
        drop(first);
        let second = spare.take(990); // the same size class
        assert_eq!(second.as_ref().as_ptr(), place);
        assert_eq!(second.as_ref().len(), 990);
        assert!(spare.zeros(1000).as_ref().iter().all(|value| *value == 0.0));
    }

    /// What should happen: never too small, and at most a quarter of waste.
    #[test]
    fn size_classes_hold_what_is_asked_for() {
        for length in (0..10_000).chain([1 << 20, (1 << 20) + 1]) {
            let class = size_class(length);
            assert!(class >= length);
            assert!(
                class == 64 || class <= length + length / 4,
                "{length} in {class}"
            );
        }
    }
}
