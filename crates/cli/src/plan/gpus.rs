//! Common cards and what they have.
//!
//! Sizes are what drivers report, which is up to 7 % less than what is printed on the box: error
//! correction takes a share of some, and some boxes count in powers of ten.

/// What driver, context and fragmentation leave to nobody.
pub(super) const RESERVE_BYTES: u64 = 1 << 30;

/// A card.
pub(super) struct Gpu {
    pub(super) name: &'static str,
    /// Of the whole card, in MiB.
    mebibytes: u64,
}

/// From the smallest to the largest.
pub(super) const GPUS: [Gpu; 13] = [
    gpu("RTX 3060 12 GB", 12_288),
    gpu("RTX 4060 Ti 16 GB", 16_380),
    gpu("RTX 4090 24 GB", 24_564),
    gpu("RTX 3090 24 GB", 24_576),
    gpu("RTX 5090 32 GB", 32_607),
    gpu("A100 40 GB", 40_960),
    gpu("L40S 48 GB", 46_068),
    gpu("RTX A6000 48 GB", 49_140),
    gpu("H100 80 GB", 81_559),
    gpu("A100 80 GB", 81_920),
    gpu("H200 141 GB", 143_771),
    gpu("B200 192 GB", 183_359),
    gpu("MI300X 192 GB", 196_592),
];

const fn gpu(name: &'static str, mebibytes: u64) -> Gpu {
    Gpu { name, mebibytes }
}

impl Gpu {
    /// Of the whole card.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.mebibytes << 20
    }

    /// Whether so many bytes fit beside the reserve.
    pub(super) fn fits(&self, total: u64) -> bool {
        total.saturating_add(RESERVE_BYTES) <= self.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_listed_by_size_and_the_reserve_is_kept() {
        assert!(GPUS.is_sorted_by_key(Gpu::memory_bytes));
        let card = gpu("any", 2048);
        assert!(card.fits(1 << 30));
        assert!(!card.fits((1 << 30) + 1));
        assert!(!card.fits(u64::MAX));
    }
}
