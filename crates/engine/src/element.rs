//! How weights are stored, and the conversion between every stored form and `f32`.
//!
//! All arithmetic is in `f32`; the other forms only save memory. bf16 and f16 are converted value by
//! value; int8 and fp8 (e4m3fn: four bits of exponent, three of mantissa, no infinity) have one `f32`
//! scale per output row of a matrix, chosen so that the row's largest magnitude becomes the largest
//! code. These are the rules for single values and for a row's scale; `kernels::convert` has the loops.
//! Knows nothing of files, matrices and layouts.

pub(crate) mod minifloat;
#[cfg(test)]
mod tests;

/// How one weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// The upper half of an [`Element::F32`].
    Bf16,
    /// A signed integer of magnitude at most 127 times the row's scale.
    Int8,
    /// e4m3fn times the row's scale.
    Fp8,
}

impl Element {
    /// Bytes of a matrix of `rows × width`, the scales of its rows included.
    ///
    /// Saturates where no memory could hold the matrix.
    #[must_use]
    pub fn bytes(self, rows: usize, width: usize) -> u64 {
        let (rows, width) = (rows as u64, width as u64);
        let (value, scale) = match self {
            Self::F32 => (4, 0),
            Self::Bf16 => (2, 0),
            Self::Int8 | Self::Fp8 => (1, 4),
        };
        rows.saturating_mul(width.saturating_mul(value).saturating_add(scale))
    }

    /// Whether every row has a scale.
    #[must_use]
    pub fn is_scaled(self) -> bool {
        matches!(self, Self::Int8 | Self::Fp8)
    }
}

/// Exact.
#[inline(always)]
pub(crate) fn bf16_widen(stored: u16) -> f32 {
    f32::from_bits(u32::from(stored) << 16)
}

/// The nearest bf16, ties to even; overflows to infinity, NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16_nearest(value: f32) -> u16 {
    let bits = value.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff + odd) >> 16;
    bf16_unless_nan(bits, rounded)
}

/// One of the two bf16 next to `value`, with `value` as expectation over all `random`.
///
/// A value that is a bf16 stays what it is, infinities too; NaN stays NaN. Above the largest finite bf16
/// the upper neighbour is infinity.
#[inline(always)]
pub(crate) fn bf16_stochastic(value: f32, random: u16) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(u32::from(random)) >> 16;
    bf16_unless_nan(bits, rounded)
}

/// `rounded`, unless `bits` are a NaN: adding to its bits may have made anything of it.
#[inline(always)]
fn bf16_unless_nan(bits: u32, rounded: u32) -> u16 {
    let quiet = (bits >> 16) | 0x0040;
    let chosen = if bits & 0x7fff_ffff > 0x7f80_0000 {
        quiet
    } else {
        rounded
    };
    chosen as u16
}

/// Exact, subnormal numbers, infinities and NaN included.
#[inline(always)]
pub(crate) fn f16_widen(stored: u16) -> f32 {
    // f16 has ten bits of mantissa and the bias 15.
    const REBIAS: u32 = (127 - 15) << 23;
    const LOWEST: u32 = REBIAS + (1 << 23);
    let sign = u32::from(stored & 0x8000) << 16;
    let magnitude = u32::from(stored & 0x7fff) << 13;
    let widened = if magnitude < 1 << 23 {
        (f32::from_bits(magnitude + LOWEST) - f32::from_bits(LOWEST)).to_bits()
    } else if magnitude < 31 << 23 {
        magnitude + REBIAS
    } else {
        magnitude | 0x7f80_0000
    };
    f32::from_bits(widened | sign)
}

/// The nearest f16, ties to even; overflows to infinity, NaN stays NaN.
#[inline(always)]
pub(crate) fn f16_nearest(value: f32) -> u16 {
    /// 2⁻¹⁴, the smallest normal f16.
    const LOWEST: u32 = (127 - 14) << 23;
    /// 0.5: one unit in its last place is the smallest subnormal f16, 2⁻²⁴.
    const ANCHOR: u32 = 126 << 23;
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let narrowed = if magnitude > 0x7f80_0000 {
        0x7e00
    } else if magnitude < LOWEST {
        (f32::from_bits(magnitude) + f32::from_bits(ANCHOR))
            .to_bits()
            .wrapping_sub(ANCHOR)
    } else {
        let odd = (magnitude >> 13) & 1;
        let rounded = magnitude.wrapping_add(0x0fff + odd) >> 13;
        // Everything from 65,520 on is nearer to 2¹⁶, which is where infinity begins.
        rounded.wrapping_sub(112 << 10).min(0x7c00)
    };
    (narrowed | sign) as u16
}

/// Exact.
#[inline(always)]
pub(crate) fn fp8_widen(stored: u8) -> f32 {
    let sign = u32::from(stored & 0x80) << 24;
    let code = u32::from(stored & 0x7f);
    let magnitude = minifloat::widen::<FP8_LOWEST>(code).to_bits();
    let chosen = if code == FP8_NAN {
        f32::NAN.to_bits()
    } else {
        magnitude
    };
    f32::from_bits(chosen | sign)
}

/// The nearest e4m3fn, ties to even; saturates at ±448, infinities too; NaN stays NaN.
#[inline(always)]
pub(crate) fn fp8_nearest(value: f32) -> u8 {
    let sign = (value.to_bits() >> 24) & 0x80;
    let saturated = minifloat::nearest::<FP8_LOWEST>(value.abs()).min(FP8_NAN - 1);
    let code = if value.is_nan() { FP8_NAN } else { saturated };
    (code | sign) as u8
}

/// Exponent of the smallest normal e4m3fn.
const FP8_LOWEST: i32 = -6;
/// The only code that is no number.
const FP8_NAN: u32 = 0x7f;
/// The largest e4m3fn.
pub(crate) const FP8_LARGEST: f32 = 448.0;

/// The nearest integer, ties to even, of a value of at most 127.
#[inline(always)]
pub(crate) fn int8_nearest(value: f32) -> i8 {
    /// 1.5·2²³: a sum with it is rounded to an integer, which is then the difference of the bits.
    /// `round_ties_even` is a function call where there is no SSE 4.1.
    const ANCHOR: f32 = 12_582_912.0;
    (value + ANCHOR).to_bits().wrapping_sub(ANCHOR.to_bits()) as i8
}

/// What maps the largest magnitude of `row` to `largest`; NaN if a value is not finite.
#[inline(always)]
pub(crate) fn row_scale(row: &[f32], largest: f32) -> f32 {
    let magnitude = largest_magnitude(row);
    if magnitude.is_finite() {
        // The bound keeps the scale's inverse finite.
        (magnitude / largest).max(f32::MIN_POSITIVE)
    } else {
        f32::NAN
    }
}

/// The largest magnitude; NaN counts as larger than everything, no values as 0.
#[inline(always)]
pub(crate) fn largest_magnitude(values: &[f32]) -> f32 {
    // Without the sign, bits are ordered as the values are, and a maximum of integers is vector code
    // everywhere.
    let bits = values
        .iter()
        .map(|value| value.to_bits() & 0x7fff_ffff)
        .fold(0, u32::max);
    f32::from_bits(bits)
}
