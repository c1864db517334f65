//! Floating-point types on disk: widened to single precision exactly, rounded from it to nearest even.

use crate::element::{bf16_nearest, bf16_widen, f16_nearest, f16_widen, fp8_widen};

/// How a checkpoint stores a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileElement {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision: 1 sign, 5 exponent and 10 fraction bits.
    F16,
    /// The upper half of single precision: 1 sign, 8 exponent and 7 fraction bits.
    Bf16,
    /// 1 sign, 4 exponent and 3 fraction bits, without infinities (arXiv 2209.05433), times a scale per
    /// block. Read, never written.
    F8E4M3,
}

impl FileElement {
    /// By the name that safetensors files use.
    pub(super) fn from_safetensors(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            "F8_E4M3" => Some(Self::F8E4M3),
            _ => None,
        }
    }

    /// The name that safetensors files use.
    pub(super) fn to_safetensors(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
        }
    }

    /// The name that PyTorch, and with it `config.json`, uses.
    pub(super) fn to_torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F8E4M3 => "float8_e4m3fn",
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8E4M3 => 1,
        }
    }

    /// Reads every `stride`-th number of `bytes` from the first on; as many as `into` is long or the
    /// bytes last.
    pub(super) fn widen(self, bytes: &[u8], stride: usize, into: &mut [f32]) {
        match self {
            Self::F32 => gather(bytes, stride, into, f32::from_le_bytes),
            Self::F16 => gather(bytes, stride, into, |pair| {
                f16_widen(u16::from_le_bytes(pair))
            }),
            Self::Bf16 => gather(bytes, stride, into, |pair| {
                bf16_widen(u16::from_le_bytes(pair))
            }),
            Self::F8E4M3 => gather(bytes, stride, into, |[byte]| fp8_widen(byte)),
        }
    }

    /// Appends numbers, rounded. Eight-bit floats would need a scale per block: callers refuse to write
    /// them, and nothing is appended.
    pub(super) fn narrow(self, numbers: &[f32], into: &mut Vec<u8>) {
        match self {
            Self::F32 => into.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
            Self::F16 => {
                into.extend(
                    numbers
                        .iter()
                        .flat_map(|number| f16_nearest(*number).to_le_bytes()),
                );
            }
            Self::Bf16 => {
                into.extend(
                    numbers
                        .iter()
                        .flat_map(|number| bf16_nearest(*number).to_le_bytes()),
                );
            }
            Self::F8E4M3 => {}
        }
    }
}

fn gather<const SIZE: usize>(
    bytes: &[u8],
    stride: usize,
    into: &mut [f32],
    widen: impl Fn([u8; SIZE]) -> f32,
) {
    let numbers = bytes.as_chunks::<SIZE>().0;
    let every = |(place, number): (&mut f32, &[u8; SIZE])| *place = widen(*number);
    // Neighbours are the common case, and a loop without a step is one that the compiler widens too.
    if stride == 1 {
        into.iter_mut().zip(numbers).for_each(every);
    } else {
        let strided = numbers.iter().step_by(stride.max(1));
        into.iter_mut().zip(strided).for_each(every);
    }
}
