//! Transposes, packing and widening: all exact.

use proptest::prelude::*;

use super::{at_every_level, noise};
use crate::kernels::{
    Level, Matrix, PANEL, pack_columns, pack_rows, transpose::transpose, transpose_panel,
    widen_bf16, widen_fp8, widen_int8,
};

const GUARD: f32 = 7.25;

/// e4m3fn from its definition: sign · 2^(e−7) · (1 + m/8), or sign · 2⁻⁶ · m/8 where e is zero.
fn fp8_by_definition(bits: u8) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => 2f32.powi(-6) * fraction,
        _ => 2f32.powi(exponent - 7) * (1.0 + fraction),
    };
    if bits & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

proptest! {
    #[test]
    fn a_transpose_moves_every_value_and_touches_nothing_else(
        (rows, columns, padding) in (0..70usize, 0..70usize, 0..5usize),
        seed: u64,
    ) {
        let (row_stride, into_stride) = (columns + padding, rows + padding);
        let values = noise(seed, rows * row_stride);
        let source = Matrix { values: &values, rows, columns, row_stride };
        for level in Level::available() {
            let mut into = vec![GUARD; columns * into_stride + 1];
            transpose(level, source, &mut into, into_stride);
            for (index, &value) in into.iter().enumerate() {
                let (column, row) = (index / into_stride.max(1), index % into_stride.max(1));
                let inside = row < rows && column < columns;
                let expected = if inside { values[row * row_stride + column] } else { GUARD };
                prop_assert_eq!(value, expected);
            }
        }
    }

    /// Both directions, with a last panel that is not full: the missing columns are zero.
    #[test]
    fn packing_fills_a_panel_and_pads_it_with_zeros(
        (count, depth, padding) in (0..=PANEL, 0..70usize, 0..5usize),
        seed: u64,
    ) {
        let rows = noise(seed, count * (depth + padding));
        let columns = noise(seed, depth * (count + padding));
        for level in Level::available() {
            let mut panel = vec![GUARD; depth * PANEL + 1];
            let row_stride = depth + padding;
            pack_rows(level, Matrix { values: &rows, rows: count, columns: depth, row_stride }, &mut panel);
            for t in 0..depth {
                for j in 0..PANEL {
                    let expected = if j < count { rows[j * row_stride + t] } else { 0.0 };
                    prop_assert_eq!(panel[t * PANEL + j], expected);
                }
            }
            prop_assert_eq!(panel[depth * PANEL], GUARD);
        }
        let mut panel = vec![GUARD; depth * PANEL + 1];
        let row_stride = count + padding;
        pack_columns(Matrix { values: &columns, rows: depth, columns: count, row_stride }, &mut panel);
        for t in 0..depth {
            for j in 0..PANEL {
                let expected = if j < count { columns[t * row_stride + j] } else { 0.0 };
                prop_assert_eq!(panel[t * PANEL + j], expected);
            }
        }
        prop_assert_eq!(panel[depth * PANEL], GUARD);
    }

    #[test]
    fn a_block_of_a_panel_is_transposed_with_zeros_for_missing_rows(depth in 0..=PANEL, seed: u64) {
        let block = noise(seed, depth * PANEL);
        for level in Level::available() {
            let mut into = vec![GUARD; PANEL * PANEL];
            transpose_panel(level, &block, depth, &mut into);
            for j in 0..PANEL {
                for t in 0..PANEL {
                    let expected = if t < depth { block[t * PANEL + j] } else { 0.0 };
                    prop_assert_eq!(into[j * PANEL + t], expected);
                }
            }
        }
    }
}

#[test]
fn every_bf16_widens_to_the_number_that_it_is() {
    let stored: Vec<u16> = (0..=u16::MAX).collect();
    for level in Level::available() {
        let mut widened = vec![0.0; stored.len()];
        widen_bf16(level, &stored, &mut widened);
        for (&bits, &value) in stored.iter().zip(&widened) {
            assert_eq!(value.to_bits(), u32::from(bits) << 16);
        }
    }
}

/// Every code in every column, each column with its own scale.
#[test]
fn every_scaled_byte_widens_by_its_definition() {
    let codes: Vec<u8> = (0..=u8::MAX).flat_map(|code| [code; PANEL]).collect();
    let signed: Vec<i8> = codes.iter().map(|code| code.cast_signed()).collect();
    let scales = noise(3, PANEL);
    let int8 = at_every_level(|level| {
        let mut panel = vec![0.0; codes.len()];
        widen_int8(level, &signed, &scales, &mut panel);
        panel
    });
    let fp8 = at_every_level(|level| {
        let mut panel = vec![0.0; codes.len()];
        widen_fp8(level, &codes, &scales, &mut panel);
        panel
    });
    for (index, &code) in codes.iter().enumerate() {
        let scale = scales[index % PANEL];
        assert_eq!(int8[index], f32::from(code.cast_signed()) * scale);
        let expected = fp8_by_definition(code) * scale;
        let same = fp8[index].to_bits() == expected.to_bits();
        assert!(
            same || (expected.is_nan() && fp8[index].is_nan()),
            "code {code:#x}: {}",
            fp8[index]
        );
    }
}
