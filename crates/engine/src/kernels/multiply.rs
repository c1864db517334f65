//! The one matrix product: a left block times a panel, `c[i][j] (+)= Σₜ left[i][t]·panel[t][j]`.
//!
//! Checks extents once, cuts the rows into tiles that an instruction set holds in registers, and hands
//! each tile to it. Blocking of the depth, packing and threads are the caller's.
//!
//! Invariant: a value depends on its row of `left`, its column of the panel and the depth alone. It is
//! one chain of fused multiply-adds in the order of t, then one addition where the destination is added
//! to, whatever else is in the call. AVX-512, AVX2 and NEON give the same bits; the portable tiles
//! round the product too.

use super::level::{Instructions, Level};
use super::portable::Portable;

#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;

/// Columns of a panel: a right-hand matrix is stored as `[depth][32]` blocks, 32 columns each.
pub(crate) const PANEL: usize = 32;

/// The left matrix: element (i, t) lies at `i·row_stride + t·depth_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'a> {
    /// Where the matrix lies.
    pub(crate) values: &'a [f32],
    /// Rows of the product.
    pub(crate) rows: usize,
    /// Terms of every sum.
    pub(crate) depth: usize,
    /// From one row to the next.
    pub(crate) row_stride: usize,
    /// From one term to the next.
    pub(crate) depth_stride: usize,
}

/// How far ahead of its use a panel is asked for, in values: 96 rows of it, 12 KiB. Measured over panels
/// that come from memory, where 14 rows then run as fast as from the cache and otherwise at 0.6 of it.
#[cfg(target_arch = "x86_64")]
pub(super) const PREFETCH: usize = 96 * PANEL;

/// The most rows that a tile of any instruction set has.
const MOST_ROWS: usize = 14;

/// Whether a product replaces what is there, or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// The old values are not read.
    Overwrite,
    /// Each sum is finished before it is added.
    Add,
}

/// Where a product goes: row i at `i·row_stride`, of which `columns` values are written.
#[derive(Debug)]
pub(crate) struct Destination<'a> {
    /// Where the rows lie.
    pub(crate) values: &'a mut [f32],
    /// From one row to the next; at least `columns`.
    pub(crate) row_stride: usize,
    /// The panel's leading columns that are wanted, at most [`PANEL`].
    pub(crate) columns: usize,
    /// Replace or add.
    pub(crate) write: Write,
}

/// One call of a micro-kernel: the operands of up to [`Kernel::ROWS`] rows and all columns of a panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) left: *const f32,
    pub(super) row_stride: usize,
    pub(super) depth_stride: usize,
    pub(super) depth: usize,
    pub(super) panel: *const f32,
    pub(super) into: *mut f32,
    pub(super) into_stride: usize,
    pub(super) write: Write,
}

/// What an instruction set provides to the product.
pub(super) trait Kernel {
    /// The most rows of one tile.
    const ROWS: usize;

    /// Computes `rows` rows of a panel's product, 1 to [`Self::ROWS`].
    ///
    /// # Safety
    ///
    /// The processor has the instruction set. For i < `rows`, t < `depth` and j < [`PANEL`]:
    /// `left + i·row_stride + t·depth_stride` and `panel + t·PANEL + j` can be read, and
    /// `into + i·into_stride + j` can be read and written.
    #[expect(unsafe_code, reason = "raw operands, checked once for all tiles")]
    unsafe fn tile(rows: usize, tile: Tile);
}

/// `into (+)= left·panel`; a sum without terms is zero.
///
/// # Panics
///
/// When an operand reaches past its slice: a defect of the caller.
pub(crate) fn multiply_panel(level: Level, left: Left<'_>, panel: &[f32], into: Destination<'_>) {
    if left.rows == 0 || into.columns == 0 {
        return;
    }
    check_extents(left, panel, &into);
    match level.instructions() {
        Instructions::Portable => multiply_with::<Portable>(left, panel, into),
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => multiply_with::<Neon>(left, panel, into),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => multiply_with::<Avx2>(left, panel, into),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => multiply_with::<Avx512>(left, panel, into),
    }
}

/// Everything that a tile will touch lies in its slice.
fn check_extents(left: Left<'_>, panel: &[f32], into: &Destination<'_>) {
    assert!(
        fits(left.depth, PANEL, PANEL, panel.len()),
        "the panel is shorter than the depth"
    );
    let last_row = (left.rows - 1).checked_mul(left.row_stride);
    let rest = last_row.and_then(|start| left.values.len().checked_sub(start));
    assert!(
        left.depth == 0 || rest.is_some_and(|rest| fits(left.depth, left.depth_stride, 1, rest)),
        "the left matrix reaches past its slice"
    );
    assert!(
        into.columns <= PANEL,
        "more columns are wanted than a panel has"
    );
    assert!(
        (left.rows == 1 || into.columns <= into.row_stride)
            && fits(left.rows, into.row_stride, into.columns, into.values.len()),
        "the destination's rows overlap or reach past their slice"
    );
}

/// Whether `count` runs of `width` values, `stride` apart, end within `len`.
pub(super) fn fits(count: usize, stride: usize, width: usize, len: usize) -> bool {
    count == 0
        || (count - 1)
            .checked_mul(stride)
            .and_then(|start| start.checked_add(width))
            .is_some_and(|end| end <= len)
}

/// Cuts the rows into as few tiles as possible, of sizes as equal as possible: a lone last row would
/// wait for each of its multiply-adds, two tiles of eight and seven rows hardly wait at all.
fn multiply_with<K: Kernel>(left: Left<'_>, panel: &[f32], into: Destination<'_>) {
    let tiles = left.rows.div_ceil(K::ROWS);
    let mut start = 0;
    for index in 0..tiles {
        let rows = (left.rows - start).div_ceil(tiles - index);
        let first = &mut into.values[start * into.row_stride..];
        let tile = Tile {
            left: left.values.as_ptr().wrapping_add(start * left.row_stride),
            row_stride: left.row_stride,
            depth_stride: left.depth_stride,
            depth: left.depth,
            panel: panel.as_ptr(),
            into: first.as_mut_ptr(),
            into_stride: into.row_stride,
            write: into.write,
        };
        if into.columns == PANEL {
            #[expect(unsafe_code, reason = "calls a micro-kernel")]
            // SAFETY: the level proves the instruction set. The extents were checked for all rows, of
            // which these are some, and full rows of the panel's width do not overlap.
            unsafe {
                K::tile(rows, tile);
            }
        } else {
            let narrow = Destination {
                values: first,
                ..into
            };
            multiply_narrow::<K>(rows, tile, narrow);
        }
        start += rows;
    }
}

/// A tile of fewer columns than a panel: computed beside the destination, which has no room for it.
fn multiply_narrow<K: Kernel>(rows: usize, tile: Tile, into: Destination<'_>) {
    let mut whole = [[0.0f32; PANEL]; MOST_ROWS];
    let beside = Tile {
        into: whole.as_mut_ptr().cast(),
        into_stride: PANEL,
        write: Write::Overwrite,
        ..tile
    };
    const { assert!(K::ROWS <= MOST_ROWS) };
    #[expect(unsafe_code, reason = "calls a micro-kernel")]
    // SAFETY: as for a whole tile, except that the destination is this array, which has room for the
    // rows of any tile.
    unsafe {
        K::tile(rows, beside);
    }
    for (row, sums) in whole.iter().take(rows).enumerate() {
        let values = &mut into.values[row * into.row_stride..][..into.columns];
        match into.write {
            Write::Overwrite => values.copy_from_slice(&sums[..into.columns]),
            Write::Add => values
                .iter_mut()
                .zip(sums)
                .for_each(|(value, sum)| *value += sum),
        }
    }
}
