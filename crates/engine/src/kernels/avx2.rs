//! AVX2 with fused multiply-add: tiles of up to 6 rows, 16 columns at a time, and 8 × 8 transposes.
//!
//! Twelve sums, two panel vectors and one broadcast fill 15 of the 16 registers.

use std::arch::x86_64::*;

use super::multiply::{Kernel, PANEL, PREFETCH, Tile, Write};
use super::transpose::Transposer;

/// See the module.
pub(super) struct Avx2;

impl Kernel for Avx2 {
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
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const ROWS: usize>(tile: Tile, first: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let (mut left, mut panel) = (tile.left, tile.panel.wrapping_add(first));
    for _ in 0..tile.depth {
        // SAFETY: this is one of `depth` terms, whose panel row and left column can be read.
        unsafe {
            let low = _mm256_loadu_ps(panel);
            let high = _mm256_loadu_ps(panel.add(8));
            // A hint never faults, wherever it points.
            _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(PREFETCH).cast());
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = _mm256_broadcast_ss(&*left.add(row * tile.row_stride));
                sums[0] = _mm256_fmadd_ps(factor, low, sums[0]);
                sums[1] = _mm256_fmadd_ps(factor, high, sums[1]);
            }
        }
        left = left.wrapping_add(tile.depth_stride);
        panel = panel.wrapping_add(PANEL);
    }
    for (row, &[low, high]) in sums.iter().enumerate() {
        // SAFETY: the tile's rows have room for a panel's columns.
        unsafe {
            let into = tile.into.add(row * tile.into_stride + first);
            store(into, low, tile.write);
            store(into.add(8), high, tile.write);
        }
    }
}

/// Writes or adds eight sums.
#[expect(unsafe_code, reason = "loads and stores through pointers")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(into: *mut f32, sums: __m256, write: Write) {
    // SAFETY: eight values can be read and written.
    unsafe {
        let values = match write {
            Write::Overwrite => sums,
            Write::Add => _mm256_add_ps(_mm256_loadu_ps(into), sums),
        };
        _mm256_storeu_ps(into, values);
    }
}

impl Transposer for Avx2 {
    const SIDE: usize = 8;

    #[expect(unsafe_code, reason = "raw operands, checked by the caller")]
    unsafe fn block(source: *const f32, row_stride: usize, into: *mut f32, into_stride: usize) {
        // SAFETY: passes its own conditions on.
        unsafe { transpose(source, row_stride, into, into_stride) }
    }
}

/// [`Transposer::block`] in three rounds, which interleave rows 1, 2 and 4 apart.
#[expect(unsafe_code, reason = "loads and stores through pointers")]
#[target_feature(enable = "avx2")]
unsafe fn transpose(source: *const f32, row_stride: usize, into: *mut f32, into_stride: usize) {
    let mut rows = [_mm256_setzero_ps(); 8];
    for (index, row) in rows.iter_mut().enumerate() {
        // SAFETY: eight rows of eight values can be read.
        *row = unsafe { _mm256_loadu_ps(source.add(index * row_stride)) };
    }
    let mut pairs = rows;
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // After this round, lane l of `fours[4g + j]` is column 4l + j of rows 4g to 4g + 3.
    let mut fours = pairs;
    for i in (0..8).step_by(4) {
        let [a, b, c, d] = [pairs[i], pairs[i + 1], pairs[i + 2], pairs[i + 3]];
        fours[i] = _mm256_shuffle_ps::<0b01_00_01_00>(a, c);
        fours[i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, c);
        fours[i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(b, d);
        fours[i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(b, d);
    }
    for j in 0..4 {
        let low = _mm256_permute2f128_ps::<0x20>(fours[j], fours[j + 4]);
        let high = _mm256_permute2f128_ps::<0x31>(fours[j], fours[j + 4]);
        // SAFETY: eight rows of eight values can be written.
        unsafe {
            _mm256_storeu_ps(into.add(j * into_stride), low);
            _mm256_storeu_ps(into.add((j + 4) * into_stride), high);
        }
    }
}
