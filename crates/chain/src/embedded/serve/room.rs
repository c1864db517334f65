//! The room in one answer for bytes as hexadecimal digits, counted before they are written.

use super::MAX_ANSWER_BYTES;
use super::failure::Failure;
use crate::hex_text;

/// What quotation marks, a separator and `0x` take.
const AROUND_EACH: usize = 5;

/// What is left of an answer's bytes.
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MAX_ANSWER_BYTES)
    }
}

impl Room {
    /// Takes the room that bytes need as text.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let taken = bytes.len().saturating_mul(2).saturating_add(AROUND_EACH);
        let left = self.0.checked_sub(taken);
        self.0 = left.ok_or_else(Failure::answer_too_big)?;
        Ok(())
    }

    /// The bytes as text, if there is room for them.
    pub(super) fn hex(&mut self, bytes: &[u8]) -> Result<String, Failure> {
        self.take(bytes)?;
        Ok(hex_text::encode(bytes))
    }
}
