//! Arithmetic on stored numbers that gives the same bits on every machine.
//!
//! What several parties compute and compare by hash goes through here: `+ − × √` on f32 and f64 in one
//! fixed order, nothing fused, nothing approximated. The loops are compiled for every instruction set
//! and differ in speed alone; tests run them at each. Numbers are read and written as little-endian
//! bytes where they lie; a subnormal one is read as zero (and may be written).
//!
//! Knows nothing of what the numbers are.

use std::sync::OnceLock;

use crate::kernels::{Level, streams};

/// The loops, at the fastest level that this processor has.
#[derive(Debug, Clone, Copy)]
pub struct Exact {
    level: Level,
}

impl Default for Exact {
    fn default() -> Self {
        Self::detect()
    }
}

/// Every function asks for runs of equally many values and panics otherwise.
impl Exact {
    /// Asks the processor, the first time that a process calls it.
    #[must_use]
    pub fn detect() -> Self {
        static FASTEST: OnceLock<Level> = OnceLock::new();
        Self {
            level: *FASTEST.get_or_init(Level::detect),
        }
    }

    /// `into = values`, stored in f32.
    pub fn read_f32(self, bytes: &[u8], into: &mut [f32]) {
        streams::read_f32(self.level, bytes, into);
    }

    /// `into = values`, stored in bf16.
    pub fn read_bf16(self, bytes: &[u8], into: &mut [f32]) {
        streams::read_bf16(self.level, bytes, into);
    }

    /// `into += factor · values`, stored in f32; the product is rounded before it is added.
    pub fn add_scaled_f32(self, factor: f32, bytes: &[u8], into: &mut [f32]) {
        streams::add_scaled_f32(self.level, factor, bytes, into);
    }

    /// `into += factor · values`, stored in bf16; the product is rounded before it is added.
    pub fn add_scaled_bf16(self, factor: f32, bytes: &[u8], into: &mut [f32]) {
        streams::add_scaled_bf16(self.level, factor, bytes, into);
    }

    /// `bytes = values`, in f32.
    pub fn write_f32(self, values: &[f32], bytes: &mut [u8]) {
        streams::write_f32(self.level, values, bytes);
    }

    /// `Σ x²`, in f64 over sixteen interleaved lanes that are added from first to last.
    #[must_use]
    pub fn squares(self, values: &[f32]) -> f64 {
        streams::squares(self.level, values)
    }

    /// One Nesterov step with rate η and momentum μ: `v ← μ·v + g`, `φ ← φ + η·(μ·v + g)`.
    pub fn nesterov(
        self,
        (eta, mu): (f32, f32),
        gradient: &[f32],
        momentum: &mut [f32],
        parameters: &mut [f32],
    ) {
        streams::nesterov(self.level, (eta, mu), gradient, momentum, parameters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What should not happen: two machines with two results, because one has wider vectors.
    #[test]
    fn every_instruction_set_computes_the_same_bits() {
        let values: Vec<f32> = (0..4_111)
            .map(|i| (i as f32 * 0.37).sin() * 10f32.powi(i % 40 - 20))
            .collect();
        let results: Vec<(u64, Vec<u32>)> = Level::available()
            .into_iter()
            .map(|level| {
                let exact = Exact { level };
                let mut bytes = vec![0; values.len() * 4];
                exact.write_f32(&values, &mut bytes);
                let mut sum = vec![0.0; values.len()];
                exact.add_scaled_f32(0.3, &bytes, &mut sum);
                exact.add_scaled_bf16(-0.7, &bytes[..values.len() * 2], &mut sum);
                let (mut momentum, mut parameters) = (sum.clone(), values.clone());
                exact.nesterov((0.7, 0.9), &sum, &mut momentum, &mut parameters);
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                let squares = exact.squares(&values).to_bits();
                (squares, [bits(&momentum), bits(&parameters)].concat())
            })
            .collect();
        assert!(results.iter().all(|result| *result == results[0]));
    }

    #[test]
    fn what_is_written_is_read_again_and_subnormal_numbers_are_read_as_zero() {
        let exact = Exact::detect();
        let values = [1.5, -0.0, f32::MIN_POSITIVE, -1e-40, f32::INFINITY];
        let mut bytes = [0; 20];
        exact.write_f32(&values, &mut bytes);
        let mut read = [9.0; 5];
        exact.read_f32(&bytes, &mut read);
        let expected = [1.5, -0.0, f32::MIN_POSITIVE, 0.0, f32::INFINITY];
        assert_eq!(read.map(f32::to_bits), expected.map(f32::to_bits));
        // The upper halves of 1.5 and of a subnormal number.
        let mut read = [9.0; 2];
        exact.read_bf16(&[0xc0, 0x3f, 0x01, 0x00], &mut read);
        assert_eq!(read, [1.5, 0.0]);
    }
}
