//! Results that the roles of one process share: computed once from something that they hold in common,
//! and kept beside it under everything else that went in.
//!
//! A process may hold many validators (the simulator does), and all of them read the same thousands of
//! records to the same end. Inputs are a key and a pure function; what is computed is decided elsewhere.
//! A role that shares nothing with others finds nothing here and computes for itself.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Results kept of one computation: whoever knows the same comes to the same, and few know something
/// else.
const KEPT: usize = 4;

/// Results of one computation on whatever holds this, by what else they depend on.
pub(crate) struct Memo<Key, Value>(Mutex<VecDeque<(Key, Value)>>);

impl<Key: PartialEq, Value: Clone + PartialEq> Memo<Key, Value> {
    /// The result under this key. It may depend on the key and on what holds the memo, and on nothing
    /// else: debug builds compute it again and compare.
    pub(crate) fn get(&self, key: Key, compute: impl Fn(&Key) -> Value) -> Value {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, value)) = kept.iter().find(|(of, _)| *of == key) {
            debug_assert!(
                *value == compute(of),
                "a key leaves out what its result depends on"
            );
            return value.clone();
        }
        let value = compute(&key);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((key, value.clone()));
        value
    }
}

impl<Key, Value> Default for Memo<Key, Value> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A copy is something of its own, and may be changed.
impl<Key, Value> Clone for Memo<Key, Value> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// What was computed says nothing that the values it came from do not say.
impl<Key, Value> PartialEq for Memo<Key, Value> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<Key, Value> fmt::Debug for Memo<Key, Value> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Memo")
    }
}

/// A shared value in a key: equal at once if it is the same one.
#[derive(Debug, Clone)]
pub(crate) struct SharedKey<T>(pub(crate) Arc<T>);

impl<T: PartialEq> PartialEq for SharedKey<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Computed once for each key, as far as debug builds do not check it.
    #[test]
    fn equal_keys_have_one_result_and_a_copy_begins_anew() {
        let memo = Memo::default();
        let computed = Cell::new(0);
        let double = |of: &Memo<u32, Arc<u32>>, key: u32| {
            of.get(key, |_| {
                computed.set(computed.get() + 1);
                Arc::new(2 * key)
            })
        };
        let first = double(&memo, 1);
        assert!(Arc::ptr_eq(&first, &double(&memo, 1)));
        assert_eq!(*double(&memo, 2), 4);
        assert!(!Arc::ptr_eq(&first, &double(&memo.clone(), 1)));
    }

    #[test]
    fn only_the_newest_results_are_kept() {
        let memo = Memo::default();
        let of = |key: usize| memo.get(key, |_| Arc::new(key));
        let first = of(0);
        for key in 1..=KEPT {
            of(key);
        }
        assert!(!Arc::ptr_eq(&first, &of(0)));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "a key leaves out what its result depends on")]
    fn a_key_that_leaves_something_out_is_found() {
        let memo = Memo::default();
        memo.get((), |_| 1);
        memo.get((), |_| 2);
    }
}
