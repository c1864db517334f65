//! Where parameters and their moments lie during training: owned moments, and borrowed runs of both.
//!
//! A run ([`ParametersMut`]) knows the index of its first parameter, from which the random bits of
//! stochastic rounding follow, and can be cut at multiples of [`BLOCK`] into runs for several threads:
//! the result does not depend on the cuts. Knows nothing of the arithmetic and of tensors.

use super::BLOCK;

/// How AdamW's two moments are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MomentsFormat {
    /// Eight bytes per parameter.
    F32,
    /// Two bytes per parameter and a pair of `f32` scales per 256 of them, rounded stochastically.
    Blockwise8,
}

impl MomentsFormat {
    /// Bytes of both moments of `count` parameters of one tensor.
    #[must_use]
    pub fn bytes(self, count: usize) -> u64 {
        let blocks = count.div_ceil(BLOCK) as u64;
        let count = count as u64;
        match self {
            Self::F32 => count.saturating_mul(8),
            Self::Blockwise8 => count
                .saturating_mul(2)
                .saturating_add(blocks.saturating_mul(8)),
        }
    }
}

/// The moments of one parameter tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Moments {
    /// [`MomentsFormat::F32`].
    Full { first: Vec<f32>, second: Vec<f32> },
    /// [`MomentsFormat::Blockwise8`]; `scales` holds one pair (first, second) per block.
    Blockwise {
        first: Vec<u8>,
        second: Vec<u8>,
        scales: Vec<[f32; 2]>,
    },
}

impl Moments {
    /// Those of `count` parameters before the first step.
    pub(crate) fn zeros(format: MomentsFormat, count: usize) -> Self {
        match format {
            MomentsFormat::F32 => Self::Full {
                first: vec![0.0; count],
                second: vec![0.0; count],
            },
            MomentsFormat::Blockwise8 => Self::Blockwise {
                first: vec![0; count],
                second: vec![0; count],
                scales: vec![[0.0; 2]; count.div_ceil(BLOCK)],
            },
        }
    }

    /// How they are stored.
    #[cfg(test)]
    pub(crate) fn format(&self) -> MomentsFormat {
        match self {
            Self::Full { .. } => MomentsFormat::F32,
            Self::Blockwise { .. } => MomentsFormat::Blockwise8,
        }
    }

    /// How many parameters they belong to.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Full { first, .. } => first.len(),
            Self::Blockwise { first, .. } => first.len(),
        }
    }

    /// Bytes that they occupy.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.format().bytes(self.len())
    }

    /// All of them, to be stepped.
    pub(crate) fn as_mut(&mut self) -> MomentsMut<'_> {
        match self {
            Self::Full { first, second } => MomentsMut::Full { first, second },
            Self::Blockwise {
                first,
                second,
                scales,
            } => MomentsMut::Blockwise {
                first,
                second,
                scales,
            },
        }
    }
}

/// A run of [`Moments`] that begins with a block.
#[derive(Debug)]
pub(crate) enum MomentsMut<'a> {
    /// [`Moments::Full`].
    Full {
        first: &'a mut [f32],
        second: &'a mut [f32],
    },
    /// [`Moments::Blockwise`].
    Blockwise {
        first: &'a mut [u8],
        second: &'a mut [u8],
        scales: &'a mut [[f32; 2]],
    },
}

impl<'a> MomentsMut<'a> {
    /// How many parameters they belong to.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Full { first, .. } => first.len(),
            Self::Blockwise { first, .. } => first.len(),
        }
    }

    /// Those of the first `count` parameters, a multiple of [`BLOCK`] or all of them, and the rest.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        match self {
            Self::Full { first, second } => {
                let (first, later_first) = first.split_at_mut(count);
                let (second, later_second) = second.split_at_mut(count);
                let later = Self::Full {
                    first: later_first,
                    second: later_second,
                };
                (Self::Full { first, second }, later)
            }
            Self::Blockwise {
                first,
                second,
                scales,
            } => {
                let (first, later_first) = first.split_at_mut(count);
                let (second, later_second) = second.split_at_mut(count);
                let (scales, later_scales) = scales.split_at_mut(count.div_ceil(BLOCK));
                let later = Self::Blockwise {
                    first: later_first,
                    second: later_second,
                    scales: later_scales,
                };
                let earlier = Self::Blockwise {
                    first,
                    second,
                    scales,
                };
                (earlier, later)
            }
        }
    }
}

/// A run of weights, to be changed.
#[derive(Debug)]
pub(crate) enum WeightsMut<'a> {
    /// Updated without rounding.
    F32(&'a mut [f32]),
    /// Updated in `f32` and rounded stochastically.
    Bf16(&'a mut [u16]),
}

impl WeightsMut<'_> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(weights) => weights.len(),
            Self::Bf16(weights) => weights.len(),
        }
    }

    /// The first `count` and the rest.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        match self {
            Self::F32(weights) => {
                let (earlier, later) = weights.split_at_mut(count);
                (Self::F32(earlier), Self::F32(later))
            }
            Self::Bf16(weights) => {
                let (earlier, later) = weights.split_at_mut(count);
                (Self::Bf16(earlier), Self::Bf16(later))
            }
        }
    }
}

/// A run of parameters with their optimiser state.
#[derive(Debug)]
pub(crate) struct ParametersMut<'a> {
    pub(super) weights: WeightsMut<'a>,
    pub(super) moments: MomentsMut<'a>,
    pub(super) first_index: u64,
}

impl<'a> ParametersMut<'a> {
    /// `weights` with their `moments`.
    ///
    /// `first_index` is the place of the first one among all trained parameters: parameters with
    /// different indices are rounded independently. It need not be a multiple of anything.
    ///
    /// # Panics
    /// If there are not as many moments as weights.
    pub(crate) fn new(weights: WeightsMut<'a>, moments: MomentsMut<'a>, first_index: u64) -> Self {
        assert_eq!(
            weights.len(),
            moments.len(),
            "one pair of moments per weight"
        );
        Self {
            weights,
            moments,
            first_index,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.weights.len()
    }

    /// Disjoint runs of `count` parameters, the last one shorter.
    ///
    /// # Panics
    /// If `count` is not a positive multiple of [`BLOCK`]: blocks share scales and cannot be cut.
    pub(crate) fn chunks(self, count: usize) -> Chunks<'a> {
        assert!(
            count > 0 && count.is_multiple_of(BLOCK),
            "{count} is not a positive multiple of {BLOCK}"
        );
        Chunks {
            rest: Some(self),
            count,
        }
    }
}

/// See [`ParametersMut::chunks`].
#[derive(Debug)]
pub(crate) struct Chunks<'a> {
    rest: Option<ParametersMut<'a>>,
    count: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = ParametersMut<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take().filter(|rest| rest.len() > 0)?;
        let count = self.count.min(rest.len());
        let (weights, later_weights) = rest.weights.split_at(count);
        let (moments, later_moments) = rest.moments.split_at(count);
        self.rest = Some(ParametersMut {
            weights: later_weights,
            moments: later_moments,
            first_index: rest.first_index.wrapping_add(count as u64),
        });
        Some(ParametersMut {
            weights,
            moments,
            first_index: rest.first_index,
        })
    }
}
