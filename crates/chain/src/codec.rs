//! The few SCALE rules this crate needs: little-endian integers, fixed arrays, and byte or element
//! counts as compact integers.
//!
//! Calls, commitment fields, envelopes, block headers and the block log are all written with these
//! rules. Decoding is strict: a value that has two spellings has one canonical spelling and the
//! other is refused, and bytes left over are an error, so equal values have equal hashes.
//! Knows nothing of what the bytes mean.

/// Why bytes are not the value they were meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct DecodeError {
    /// Where reading stopped.
    pub offset: usize,
    /// What was wrong there.
    pub problem: &'static str,
}

/// Writes an element count as a compact integer. No collection of this crate comes near 2^30.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX).min((1 << 30) - 1);
    match count {
        0..0x40 => out.push((count as u8) << 2),
        0x40..0x4000 => out.extend_from_slice(&((count as u16) << 2 | 0b01).to_le_bytes()),
        _ => out.extend_from_slice(&(count << 2 | 0b10).to_le_bytes()),
    }
}

/// Writes bytes preceded by their count.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads values off the front of a byte string.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The error of a value that was read whole but may not stand here.
    pub(crate) fn refuse(&self, problem: &'static str) -> DecodeError {
        DecodeError {
            offset: self.offset,
            problem,
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let end = self
            .offset
            .checked_add(count)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.refuse("unexpected end"))?;
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_le_bytes)
    }

    /// A compact count of at most `max`, in its shortest spelling.
    pub(crate) fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        let first = self.u8()?;
        let (count, least) = match first & 0b11 {
            0b00 => (u32::from(first) >> 2, 0),
            0b01 => (
                u32::from(u16::from_le_bytes([first, self.u8()?])) >> 2,
                0x40,
            ),
            0b10 => {
                let rest = self.array::<3>()?;
                (
                    u32::from_le_bytes([first, rest[0], rest[1], rest[2]]) >> 2,
                    0x4000,
                )
            }
            _ => return Err(self.refuse("count too large")),
        };
        if count < least {
            return Err(self.refuse("count not in its shortest form"));
        }
        let count = count as usize;
        if count > max {
            Err(self.refuse("count too large"))
        } else {
            Ok(count)
        }
    }

    /// A compact integer of up to 128 bits, in its shortest spelling.
    pub(crate) fn compact(&mut self) -> Result<u128, DecodeError> {
        let first = self.bytes.get(self.offset).copied().unwrap_or_default();
        if first & 0b11 != 0b11 {
            return self.count(usize::MAX).map(|count| count as u128);
        }
        let width = usize::from(self.u8()? >> 2) + 4;
        let mut bytes = [0; 16];
        if width > bytes.len() {
            return Err(self.refuse("integer too large"));
        }
        bytes[..width].copy_from_slice(self.take(width)?);
        let least = if width == 4 {
            1 << 30
        } else {
            1 << (8 * (width - 1))
        };
        match u128::from_le_bytes(bytes) {
            value if value < least => Err(self.refuse("integer not in its shortest form")),
            value => Ok(value),
        }
    }

    /// Bytes preceded by their count, at most `max`.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let count = self.count(max)?;
        self.take(count)
    }

    /// Everything not yet read.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.offset..];
        self.offset = self.bytes.len();
        rest
    }

    /// Ends the reading: bytes left over are an error.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.offset == self.bytes.len() {
            Ok(())
        } else {
            Err(self.refuse("bytes left over"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_count_reads_back_as_it_was_written(count in 0_usize..(1 << 30)) {
            let mut bytes = Vec::new();
            put_count(&mut bytes, count);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.count(1 << 30), Ok(count));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn a_compact_integer_reads_back_as_it_was_written(value: u128, shift in 0_u32..128) {
            use parity_scale_codec::{Compact, Encode as _};
            let value = value >> shift;
            let bytes = Compact(value).encode();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.compact(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn no_compact_integer_has_two_spellings(
            bytes in proptest::collection::vec(any::<u8>(), 0..20)
        ) {
            use parity_scale_codec::{Compact, Encode as _};
            if let Ok(value) = Reader::new(&bytes).compact() {
                prop_assert!(bytes.starts_with(&Compact(value).encode()));
            }
        }

        /// Whatever reads as a count is exactly what writing that count gives.
        #[test]
        fn no_count_has_two_spellings(bytes in proptest::collection::vec(any::<u8>(), 0..6)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(count) = reader.count(usize::MAX) {
                let mut again = Vec::new();
                put_count(&mut again, count);
                prop_assert!(bytes.starts_with(&again));
            }
        }
    }

    #[test]
    fn a_count_above_its_bound_is_refused_before_anything_is_read() {
        assert_eq!(
            Reader::new(&[0x10]).bytes(3).unwrap_err().problem,
            "count too large"
        );
        assert_eq!(
            Reader::new(&[0x10, 1]).bytes(4).unwrap_err().problem,
            "unexpected end"
        );
    }
}
