//! Matrices turned into panels: transposes in square blocks, and copies with zero padding.
//!
//! A weight `[out, in]` or the keys of an attention become panels of a product with their transpose;
//! a block of a panel is transposed for the product with the matrix itself.

use super::level::{Instructions, Level};
use super::multiply::{PANEL, fits};
use super::portable::Portable;

#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;

/// A row-major matrix: row i begins at `i·row_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// Where the rows lie.
    pub(crate) values: &'a [f32],
    /// How many rows there are.
    pub(crate) rows: usize,
    /// Values of a row.
    pub(crate) columns: usize,
    /// From one row to the next.
    pub(crate) row_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row `index`.
    fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.row_stride..][..self.columns]
    }
}

/// What an instruction set provides to transposes.
pub(super) trait Transposer {
    /// Rows and columns of one block.
    const SIDE: usize;

    /// `into[j·into_stride + i] = source[i·row_stride + j]` for i, j < [`Self::SIDE`].
    ///
    /// # Safety
    ///
    /// The processor has the instruction set; all of these can be read and written, and the two
    /// squares do not overlap.
    #[expect(unsafe_code, reason = "raw operands, checked once for all blocks")]
    unsafe fn block(source: *const f32, row_stride: usize, into: *mut f32, into_stride: usize);
}

/// Rows whose blocks are done together: what fills a panel's row is written in one go.
const BAND: usize = PANEL;

/// `into[j·into_stride + i] = source[i][j]`.
///
/// # Panics
///
/// When an operand reaches past its slice, or the destination's rows overlap: a defect of the caller.
pub(crate) fn transpose(level: Level, source: Matrix<'_>, into: &mut [f32], into_stride: usize) {
    let Matrix {
        values,
        rows,
        columns,
        row_stride,
    } = source;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(
        fits(rows, row_stride, columns, values.len()),
        "the source reaches past its slice"
    );
    assert!(
        (columns == 1 || rows <= into_stride) && fits(columns, into_stride, rows, into.len()),
        "the transpose's rows overlap or reach past their slice"
    );
    match level.instructions() {
        Instructions::Portable => transpose_with::<Portable>(source, into, into_stride),
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => transpose_with::<Neon>(source, into, into_stride),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => transpose_with::<Avx2>(source, into, into_stride),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => transpose_with::<Avx512>(source, into, into_stride),
    }
}

/// Block by block; what is left at the edges value by value.
fn transpose_with<T: Transposer>(source: Matrix<'_>, into: &mut [f32], into_stride: usize) {
    let whole_columns = source.columns - source.columns % T::SIDE;
    for band in (0..source.rows).step_by(BAND) {
        let band_end = source.rows.min(band + BAND);
        let whole_end = band_end - (band_end - band) % T::SIDE;
        for column in (0..whole_columns).step_by(T::SIDE) {
            for row in (band..whole_end).step_by(T::SIDE) {
                let from = &source.values[row * source.row_stride + column..];
                let to = &mut into[column * into_stride + row..];
                #[expect(unsafe_code, reason = "calls a transpose in registers")]
                // SAFETY: the level proves the instruction set; the block lies inside both matrices,
                // whose extents were checked, and a unique borrow overlaps nothing.
                unsafe {
                    T::block(
                        from.as_ptr(),
                        source.row_stride,
                        to.as_mut_ptr(),
                        into_stride,
                    );
                }
            }
        }
        for row in band..band_end {
            let first = if row < whole_end { whole_columns } else { 0 };
            for (column, &value) in source.row(row).iter().enumerate().skip(first) {
                into[column * into_stride + row] = value;
            }
        }
    }
}

/// `panel[t][r] = rows[r][t]`, zero where there is no row r: at most [`PANEL`] rows become the columns
/// of a panel as deep as they are long.
///
/// # Panics
///
/// When there are more rows, or the panel is too short: a defect of the caller.
pub(crate) fn pack_rows(level: Level, rows: Matrix<'_>, panel: &mut [f32]) {
    let panel = &mut panel[..rows.columns * PANEL];
    if rows.rows < PANEL {
        panel.fill(0.0);
    }
    transpose(level, rows, panel, PANEL);
}

/// `panel[t][j] = source[t][j]`, zero where there is no column j: at most [`PANEL`] columns become a
/// panel as deep as there are rows.
///
/// # Panics
///
/// When there are more columns, or the panel is too short: a defect of the caller.
pub(crate) fn pack_columns(source: Matrix<'_>, panel: &mut [f32]) {
    let (rows, _) = panel[..source.rows * PANEL].as_chunks_mut::<PANEL>();
    for (index, row) in rows.iter_mut().enumerate() {
        let (filled, padding) = row.split_at_mut(source.columns);
        filled.copy_from_slice(source.row(index));
        padding.fill(0.0);
    }
}

/// `into[j][t] = block[t][j]`, zero for t ≥ `depth`: up to 32 rows of a panel as rows of 32.
///
/// # Panics
///
/// When there are more rows than 32, or either slice is shorter: a defect of the caller.
pub(crate) fn transpose_panel(level: Level, block: &[f32], depth: usize, into: &mut [f32]) {
    let rows = Matrix {
        values: block,
        rows: depth,
        columns: PANEL,
        row_stride: PANEL,
    };
    pack_rows(level, rows, into);
}
