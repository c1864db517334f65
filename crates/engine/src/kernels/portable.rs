//! Plain Rust for any processor: tiles of up to 4 rows, 8 columns at a time, and 8 × 8 transposes.
//!
//! Arrays small enough for sixteen 128-bit registers, in loops that compilers turn into vectors.
//! Products are rounded before they are added: a fused multiply-add without its instruction is slow.

use super::multiply::{Kernel, PANEL, Tile, Write};
use super::transpose::Transposer;

/// See the module.
pub(super) struct Portable;

/// Columns of a step through the depth.
const COLUMNS: usize = 8;

impl Kernel for Portable {
    const ROWS: usize = 4;

    #[expect(unsafe_code, reason = "raw operands, checked by the caller")]
    unsafe fn tile(rows: usize, tile: Tile) {
        // SAFETY: passes its own conditions on; each arm computes the rows that it was asked for, and
        // the steps are the panel's columns.
        unsafe {
            for first in (0..PANEL).step_by(COLUMNS) {
                match rows {
                    1 => multiply::<1>(tile, first),
                    2 => multiply::<2>(tile, first),
                    3 => multiply::<3>(tile, first),
                    _ => multiply::<4>(tile, first),
                }
            }
        }
    }
}

/// [`Kernel::tile`] of exactly `ROWS` rows and of [`COLUMNS`] columns from `first` on.
#[expect(unsafe_code, reason = "reads and writes through pointers")]
unsafe fn multiply<const ROWS: usize>(tile: Tile, first: usize) {
    let mut sums = [[0.0f32; COLUMNS]; ROWS];
    let (mut left, mut panel) = (tile.left, tile.panel.wrapping_add(first));
    for _ in 0..tile.depth {
        // SAFETY: this is one of `depth` terms, whose panel row and left column can be read.
        unsafe {
            let right: [f32; COLUMNS] = panel.cast::<[f32; COLUMNS]>().read();
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = *left.add(row * tile.row_stride);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum += factor * right;
                }
            }
        }
        left = left.wrapping_add(tile.depth_stride);
        panel = panel.wrapping_add(PANEL);
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: the tile's rows have room for a panel's columns.
        let into: &mut [f32; COLUMNS] =
            unsafe { &mut *tile.into.add(row * tile.into_stride + first).cast() };
        match tile.write {
            Write::Overwrite => *into = *sums,
            Write::Add => into
                .iter_mut()
                .zip(sums)
                .for_each(|(value, sum)| *value += sum),
        }
    }
}

impl Transposer for Portable {
    const SIDE: usize = 8;

    #[expect(unsafe_code, reason = "reads and writes through pointers")]
    unsafe fn block(source: *const f32, row_stride: usize, into: *mut f32, into_stride: usize) {
        for column in 0..Self::SIDE {
            for row in 0..Self::SIDE {
                // SAFETY: a square of this side can be read, and another can be written.
                unsafe {
                    *into.add(column * into_stride + row) = *source.add(row * row_stride + column);
                }
            }
        }
    }
}
