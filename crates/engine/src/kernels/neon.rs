//! NEON: tiles of up to 6 rows, 16 columns at a time, and 4 × 4 transposes.
//!
//! 24 sums, four panel vectors and the left factors fit the 32 registers.

use std::arch::aarch64::*;

use super::multiply::{Kernel, PANEL, Tile, Write};
use super::transpose::Transposer;

/// See the module.
pub(super) struct Neon;

impl Kernel for Neon {
    const ROWS: usize = 6;

    #[expect(unsafe_code, reason = "raw operands, checked by the caller")]
    unsafe fn tile(rows: usize, tile: Tile) {
        // SAFETY: passes its own conditions on; each arm computes the rows that it was asked for, and
        // the two halves are the panel's columns.
        unsafe {
            for half in [0, 16] {
                match rows {
                    1 => multiply::<1>(tile, half),
                    2 => multiply::<2>(tile, half),
                    3 => multiply::<3>(tile, half),
                    4 => multiply::<4>(tile, half),
                    5 => multiply::<5>(tile, half),
                    _ => multiply::<6>(tile, half),
                }
            }
        }
    }
}

/// [`Kernel::tile`] of exactly `ROWS` rows and of the sixteen columns from `first` on.
#[expect(unsafe_code, reason = "loads and stores through pointers")]
#[target_feature(enable = "neon")]
unsafe fn multiply<const ROWS: usize>(tile: Tile, first: usize) {
    let mut sums = [[vdupq_n_f32(0.0); 4]; ROWS];
    let (mut left, mut panel) = (tile.left, tile.panel.wrapping_add(first));
    for _ in 0..tile.depth {
        // SAFETY: this is one of `depth` terms, whose panel row and left column can be read.
        unsafe {
            let right = [
                vld1q_f32(panel),
                vld1q_f32(panel.add(4)),
                vld1q_f32(panel.add(8)),
                vld1q_f32(panel.add(12)),
            ];
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = *left.add(row * tile.row_stride);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = vfmaq_n_f32(*sum, right, factor);
                }
            }
        }
        left = left.wrapping_add(tile.depth_stride);
        panel = panel.wrapping_add(PANEL);
    }
    for (row, sums) in sums.iter().enumerate() {
        for (quarter, &sum) in sums.iter().enumerate() {
            // SAFETY: the tile's rows have room for a panel's columns.
            unsafe {
                let into = tile.into.add(row * tile.into_stride + first + quarter * 4);
                let values = match tile.write {
                    Write::Overwrite => sum,
                    Write::Add => vaddq_f32(vld1q_f32(into), sum),
                };
                vst1q_f32(into, values);
            }
        }
    }
}

impl Transposer for Neon {
    const SIDE: usize = 4;

    #[expect(unsafe_code, reason = "raw operands, checked by the caller")]
    unsafe fn block(source: *const f32, row_stride: usize, into: *mut f32, into_stride: usize) {
        // SAFETY: passes its own conditions on.
        unsafe { transpose(source, row_stride, into, into_stride) }
    }
}

/// [`Transposer::block`]: pairs of rows zipped, then pairs of pairs.
#[expect(unsafe_code, reason = "loads and stores through pointers")]
#[target_feature(enable = "neon")]
unsafe fn transpose(source: *const f32, row_stride: usize, into: *mut f32, into_stride: usize) {
    // SAFETY: four rows of four values can be read.
    let [a, b, c, d] = [0, 1, 2, 3].map(|row| unsafe { vld1q_f32(source.add(row * row_stride)) });
    let (even_low, even_high) = (vzip1q_f32(a, c), vzip2q_f32(a, c));
    let (odd_low, odd_high) = (vzip1q_f32(b, d), vzip2q_f32(b, d));
    let columns = [
        vzip1q_f32(even_low, odd_low),
        vzip2q_f32(even_low, odd_low),
        vzip1q_f32(even_high, odd_high),
        vzip2q_f32(even_high, odd_high),
    ];
    for (column, values) in columns.into_iter().enumerate() {
        // SAFETY: four rows of four values can be written.
        unsafe { vst1q_f32(into.add(column * into_stride), values) };
    }
}
