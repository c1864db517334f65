//! Products of a left block and a panel.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::{identical, noise};
use crate::kernels::{Destination, Left, Level, PANEL, Write, multiply_panel};

/// What lies between and behind the rows of a destination.
const GUARD: f32 = 7.25;

/// The sizes of one product and the seed of its values.
#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    depth: usize,
    columns: usize,
    /// Unused values behind each row or column.
    padding: usize,
    /// Whether the left matrix is stored column after column.
    transposed: bool,
    write: Write,
    seed: u64,
}

impl Case {
    fn any() -> impl Strategy<Value = Self> {
        let sizes = (0..40usize, 0..70usize, 1..=PANEL, 0..5usize);
        let write = prop_oneof![Just(Write::Overwrite), Just(Write::Add)];
        (sizes, any::<bool>(), write, any::<u64>()).prop_map(
            |((rows, depth, columns, padding), transposed, write, seed)| Self {
                rows,
                depth,
                columns,
                padding,
                transposed,
                write,
                seed,
            },
        )
    }

    /// From one left row to the next, and from one term to the next.
    fn left_strides(&self) -> (usize, usize) {
        if self.transposed {
            (1, self.rows + self.padding)
        } else {
            (self.depth + self.padding, 1)
        }
    }

    fn left(&self) -> Vec<f32> {
        noise(
            self.seed,
            (self.rows + self.padding) * (self.depth + self.padding),
        )
    }

    fn panel(&self) -> Vec<f32> {
        noise(self.seed ^ 1, self.depth * PANEL)
    }

    fn stride(&self) -> usize {
        self.columns + self.padding
    }

    /// The destination before: values where the product goes, the guard elsewhere.
    fn before(&self) -> Vec<f32> {
        let stride = self.stride();
        let mut values = noise(self.seed ^ 2, self.rows * stride + 3);
        for (index, value) in values.iter_mut().enumerate() {
            if index % stride >= self.columns || index / stride >= self.rows {
                *value = GUARD;
            }
        }
        values
    }

    /// The destination after rows from `first` on were computed in one call.
    fn run(&self, level: Level, first: usize, rows: usize) -> Vec<f32> {
        let (row_stride, depth_stride) = self.left_strides();
        let (left, mut into) = (self.left(), self.before());
        let left = Left {
            values: &left[(first * row_stride).min(left.len())..],
            rows,
            depth: self.depth,
            row_stride,
            depth_stride,
        };
        let destination = Destination {
            values: &mut into[first * self.stride()..],
            row_stride: self.stride(),
            columns: self.columns,
            write: self.write,
        };
        multiply_panel(level, left, &self.panel(), destination);
        into
    }

    /// The value of one element and the sum of the magnitudes that went into it.
    fn exact(&self, row: usize, column: usize) -> (f64, f64) {
        let (row_stride, depth_stride) = self.left_strides();
        let (left, panel) = (self.left(), self.panel());
        let start = match self.write {
            Write::Overwrite => 0.0,
            Write::Add => f64::from(self.before()[row * self.stride() + column]),
        };
        (0..self.depth).fold((start, start.abs()), |(sum, magnitude), t| {
            let factor = left[row * row_stride + t * depth_stride];
            let term = f64::from(factor) * f64::from(panel[t * PANEL + column]);
            (sum + term, magnitude + term.abs())
        })
    }
}

proptest! {
    /// Every element that is asked for, to the rounding of its chain; nothing else is touched.
    #[test]
    fn products_follow_the_definition_and_leave_the_rest_alone(case in Case::any()) {
        let stride = case.stride();
        let exact: Vec<_> = (0..case.rows * stride)
            .map(|index| (index % stride < case.columns).then(|| case.exact(index / stride, index % stride)))
            .collect();
        for level in Level::available() {
            let after = case.run(level, 0, case.rows);
            for (index, &value) in after.iter().enumerate() {
                match exact.get(index).copied().flatten() {
                    Some((sum, magnitude)) => {
                        let error = (f64::from(value) - sum).abs();
                        let bound = magnitude * f64::from(f32::EPSILON) * (case.depth + 2) as f64;
                        prop_assert!(error <= bound, "{level:?} at {index}: {value}, not {sum}");
                    }
                    None => prop_assert_eq!(value, GUARD, "{:?} wrote outside, at {}", level, index),
                }
            }
        }
    }

    /// What makes losses independent of batches: a row alone, or among fewer, has the bits that it has
    /// among many; a column among fewer too.
    #[test]
    fn a_value_does_not_depend_on_the_other_rows_and_columns(case in Case::any(), cut in 0..40usize) {
        let cut = cut.min(case.rows);
        let stride = case.stride();
        for level in Level::available() {
            let whole = case.run(level, 0, case.rows);
            let (head, tail) = (case.run(level, 0, cut), case.run(level, cut, case.rows - cut));
            prop_assert!(identical(&whole[..cut * stride], &head[..cut * stride]));
            prop_assert!(identical(&whole[cut * stride..], &tail[cut * stride..]));
            let one = Case { columns: 1, write: Write::Overwrite, ..case };
            let all = Case { columns: PANEL, ..one };
            let (one, all) = (one.run(level, 0, case.rows), all.run(level, 0, case.rows));
            for row in 0..case.rows {
                let (a, b) = (one[row * (1 + case.padding)], all[row * (PANEL + case.padding)]);
                prop_assert_eq!(a.to_bits(), b.to_bits());
            }
        }
    }

    /// All but the portable level fuse, and then the width of a vector does not matter.
    #[test]
    fn levels_with_fused_multiply_add_give_the_same_bits(case in Case::any()) {
        let fused = &Level::available()[1..];
        for pair in fused.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|level| case.run(level, 0, case.rows));
            prop_assert!(identical(&a, &b), "{:?}", pair);
        }
    }
}

/// A left matrix and a destination that fit each other and a panel of eight rows.
const FITTING: (Left<'_>, usize, usize) = {
    let left = Left {
        values: &[1.0; 32],
        rows: 4,
        depth: 8,
        row_stride: 8,
        depth_stride: 1,
    };
    (left, 4 * PANEL, PANEL)
};

/// Whether every level refuses the product into `len` values with rows `row_stride` apart.
fn refused(left: Left<'_>, panel: &[f32], len: usize, row_stride: usize) -> bool {
    let mut into = vec![0.0; len];
    Level::available().into_iter().all(|level| {
        let destination = Destination {
            values: &mut into,
            row_stride,
            columns: PANEL,
            write: Write::Overwrite,
        };
        let call = AssertUnwindSafe(|| multiply_panel(level, left, panel, destination));
        catch_unwind(call).is_err()
    })
}

/// The extents are all that stands between a caller's mistake and memory that is not its own.
#[test]
fn operands_that_reach_past_their_slices_are_refused() {
    let panel = noise(2, 8 * PANEL);
    let (left, len, stride) = FITTING;
    let with = |change: fn(&mut Left<'_>)| {
        let mut left = left;
        change(&mut left);
        refused(left, &panel, len, stride)
    };
    assert!(!with(|_| ()), "these fit");
    assert!(with(|left| left.rows = 5));
    assert!(with(|left| left.row_stride = 9));
    assert!(with(|left| left.row_stride = usize::MAX));
    assert!(with(|left| left.depth_stride = usize::MAX / 4));
    assert!(with(|left| left.depth = usize::MAX));
    assert!(with(|left| left.values = &left.values[1..]));
    assert!(refused(left, &panel[1..], len, stride));
    assert!(refused(left, &panel, len - 1, stride));
    assert!(refused(left, &panel, len, stride - 1));
    assert!(refused(left, &panel, len, usize::MAX));
}
