//! Reads SCALE off the front of a byte string.
//!
//! Reading is strict: an integer that has two spellings has one canonical spelling and the other is
//! refused, and bytes left over are an error, so equal values have equal bytes. Knows nothing of what
//! the bytes mean.

/// Why bytes are not the value they were meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub(super) struct DecodeError {
    /// Where reading stopped.
    offset: usize,
    /// What was wrong there.
    problem: &'static str,
}

/// A byte string, and how far it has been read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The error of a value that was read whole but may not stand here.
    pub(super) fn refuse(&self, problem: &'static str) -> DecodeError {
        DecodeError {
            offset: self.offset,
            problem,
        }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.offset.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.offset..end));
        let taken = taken.ok_or_else(|| self.refuse("unexpected end"))?;
        self.offset += count;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian integer of `width` bytes, at most 16.
    pub(super) fn unsigned(&mut self, width: usize) -> Result<u128, DecodeError> {
        let mut bytes = [0; 16];
        let width = width.min(bytes.len());
        bytes[..width].copy_from_slice(self.take(width)?);
        Ok(u128::from_le_bytes(bytes))
    }

    /// A compact integer of up to 128 bits, in its shortest spelling.
    pub(super) fn compact(&mut self) -> Result<u128, DecodeError> {
        let first = self.bytes.get(self.offset).copied();
        let first = first.ok_or_else(|| self.refuse("unexpected end"))?;
        let (value, least) = match first & 0b11 {
            0b00 => (self.unsigned(1)? >> 2, 0),
            0b01 => (self.unsigned(2)? >> 2, 1 << 6),
            0b10 => (self.unsigned(4)? >> 2, 1 << 14),
            _ => {
                let width = usize::from(self.u8()? >> 2) + 4;
                if width > 16 {
                    return Err(self.refuse("integer too large"));
                }
                let least = if width == 4 { 30 } else { 8 * (width - 1) };
                (self.unsigned(width)?, 1 << least)
            }
        };
        if value < least {
            return Err(self.refuse("integer not in its shortest form"));
        }
        Ok(value)
    }

    /// A count of elements.
    pub(super) fn count(&mut self) -> Result<usize, DecodeError> {
        let count = u32::try_from(self.compact()?).ok();
        let count = count.and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.refuse("count too large"))
    }

    /// Bytes preceded by their count.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.count()?;
        self.take(count)
    }

    /// Ends the reading: bytes left over are an error.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
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
    use parity_scale_codec::{Compact, Encode as _};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_compact_integer_reads_back_as_it_was_written(value: u128, shift in 0_u32..128) {
            let value = value >> shift;
            let bytes = Compact(value).encode();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.compact(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        /// Whatever reads as a compact integer is exactly what writing that integer gives.
        #[test]
        fn no_compact_integer_has_two_spellings(
            bytes in proptest::collection::vec(any::<u8>(), 0..20)
        ) {
            if let Ok(value) = Reader::new(&bytes).compact() {
                prop_assert!(bytes.starts_with(&Compact(value).encode()));
            }
        }
    }

    #[test]
    fn a_count_without_its_bytes_is_refused_before_anything_is_read() {
        let endless = Compact(u32::MAX).encode();
        let problem = |bytes: &[u8]| Reader::new(bytes).bytes().unwrap_err().problem;
        assert_eq!(problem(&endless), "unexpected end");
        assert_eq!(problem(&Compact(1_u64 << 32).encode()), "count too large");
        assert_eq!(problem(&[]), "unexpected end");
    }
}
