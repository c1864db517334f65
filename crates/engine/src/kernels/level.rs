//! Which instruction set the kernels use: asked of the processor once, carried by value after that.
//!
//! A [`Level`] is also the proof that its instructions exist: only this file makes one, and only after
//! detection, so a kernel that is handed a level may run what was compiled for it.

/// An instruction set that this processor has, and for which the kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(Instructions);

/// The instruction sets of this architecture, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    /// What every processor of the architecture has.
    Portable,
    /// 128-bit vectors with fused multiply-add.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors: AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The fastest level of this processor.
    pub(crate) fn detect() -> Self {
        let mut best = Self(Instructions::Portable);
        for level in Self::available() {
            best = level;
        }
        best
    }

    /// Every level of this processor, slowest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Instructions::Portable];
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            levels.push(Instructions::Neon);
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            levels.push(Instructions::Avx2);
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                levels.push(Instructions::Avx512);
            }
        }
        levels.into_iter().map(Self).collect()
    }

    /// The instruction set whose presence this level proves.
    pub(super) fn instructions(self) -> Instructions {
        self.0
    }
}
