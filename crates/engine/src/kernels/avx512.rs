//! AVX-512: tiles of up to 14 rows by 32 columns, and 16 × 16 transposes in registers.
//!
//! 28 sums, two panel vectors and one broadcast fill 31 of the 32 registers; 28 independent chains are
//! more than enough to hide the latency of a multiply-add.

use std::arch::x86_64::*;

use super::multiply::{Kernel, PANEL, PREFETCH, Tile, Write};
use super::transpose::Transposer;

/// See the module.
pub(super) struct Avx512;

impl Kernel for Avx512 {
    const ROWS: usize = 14;

    #[expect(unsafe_code, reason = "raw operands, checked by the caller")]
    unsafe fn tile(rows: usize, tile: Tile) {
        // SAFETY: passes its own conditions on; each arm computes the rows that it was asked for.
        unsafe {
            match rows {
                1 => multiply::<1>(tile),
                2 => multiply::<2>(tile),
                3 => multiply::<3>(tile),
                4 => multiply::<4>(tile),
                5 => multiply::<5>(tile),
                6 => multiply::<6>(tile),
                7 => multiply::<7>(tile),
                8 => multiply::<8>(tile),
                9 => multiply::<9>(tile),
                10 => multiply::<10>(tile),
                11 => multiply::<11>(tile),
                12 => multiply::<12>(tile),
                13 => multiply::<13>(tile),
                _ => multiply::<14>(tile),
            }
        }
    }
}

/// [`Kernel::tile`] of exactly `ROWS` rows.
#[expect(unsafe_code, reason = "loads and stores through pointers")]
#[target_feature(enable = "avx512f")]
unsafe fn multiply<const ROWS: usize>(tile: Tile) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let (mut left, mut panel) = (tile.left, tile.panel);
    for _ in 0..tile.depth {
        // SAFETY: this is one of `depth` terms, whose panel row and left column can be read.
        unsafe {
            let low = _mm512_loadu_ps(panel);
            let high = _mm512_loadu_ps(panel.add(16));
            // Hints never fault, wherever they point.
            _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(PREFETCH).cast());
            _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(PREFETCH + 16).cast());
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = _mm512_set1_ps(*left.add(row * tile.row_stride));
                sums[0] = _mm512_fmadd_ps(factor, low, sums[0]);
                sums[1] = _mm512_fmadd_ps(factor, high, sums[1]);
            }
        }
        left = left.wrapping_add(tile.depth_stride);
        panel = panel.wrapping_add(PANEL);
    }
    for (row, &[low, high]) in sums.iter().enumerate() {
        // SAFETY: the tile's rows have room for a panel's columns.
        unsafe {
            let into = tile.into.add(row * tile.into_stride);
            store(into, low, tile.write);
            store(into.add(16), high, tile.write);
        }
    }
}

/// Writes or adds sixteen sums.
#[expect(unsafe_code, reason = "loads and stores through pointers")]
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(into: *mut f32, sums: __m512, write: Write) {
    // SAFETY: sixteen values can be read and written.
    unsafe {
        let values = match write {
            Write::Overwrite => sums,
            Write::Add => _mm512_add_ps(_mm512_loadu_ps(into), sums),
        };
        _mm512_storeu_ps(into, values);
    }
}

impl Transposer for Avx512 {
    const SIDE: usize = 16;

    #[expect(unsafe_code, reason = "raw operands, checked by the caller")]
    unsafe fn block(source: *const f32, row_stride: usize, into: *mut f32, into_stride: usize) {
        // SAFETY: passes its own conditions on.
        unsafe { transpose(source, row_stride, into, into_stride) }
    }
}

/// [`Transposer::block`] in four rounds, which interleave rows 1, 2, 4 and 8 apart.
#[expect(unsafe_code, reason = "loads and stores through pointers")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose(source: *const f32, row_stride: usize, into: *mut f32, into_stride: usize) {
    let mut rows = [_mm512_setzero_ps(); 16];
    for (index, row) in rows.iter_mut().enumerate() {
        // SAFETY: sixteen rows of sixteen values can be read.
        *row = unsafe { _mm512_loadu_ps(source.add(index * row_stride)) };
    }
    let mut pairs = rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // After this round, lane l of `fours[4g + j]` is column 4l + j of rows 4g to 4g + 3.
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        let [a, b, c, d] = [pairs[i], pairs[i + 1], pairs[i + 2], pairs[i + 3]];
        fours[i] = _mm512_shuffle_ps::<0b01_00_01_00>(a, c);
        fours[i + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(a, c);
        fours[i + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(b, d);
        fours[i + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(b, d);
    }
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[j + 4], fours[j + 8], fours[j + 12]];
        let even_low = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
        let odd_low = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
        let even_high = _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d);
        let odd_high = _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d);
        let columns = [
            (
                j,
                _mm512_shuffle_f32x4::<0b10_00_10_00>(even_low, even_high),
            ),
            (
                j + 8,
                _mm512_shuffle_f32x4::<0b11_01_11_01>(even_low, even_high),
            ),
            (
                j + 4,
                _mm512_shuffle_f32x4::<0b10_00_10_00>(odd_low, odd_high),
            ),
            (
                j + 12,
                _mm512_shuffle_f32x4::<0b11_01_11_01>(odd_low, odd_high),
            ),
        ];
        for (column, values) in columns {
            // SAFETY: sixteen rows of sixteen values can be written.
            unsafe { _mm512_storeu_ps(into.add(column * into_stride), values) };
        }
    }
}
