//! The words in which a verdict is given: one closed set, spelled the same in code, receipts, log,
//! metrics, command line and documents (P-26).
//!
//! Each code says who is charged. A fault of the network is never charged to a miner, and a
//! fault of an input is never excused as one of the network.

use serde::{Deserialize, Serialize};

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $text:literal, $charged:ident;)*) => {
        /// Why a submission got the verdict that it got.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ReasonCode {
            $($(#[$doc])* $name,)*
        }

        impl ReasonCode {
            /// Every code, in wire order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as people and files spell it.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The code's byte in a score report.
            #[must_use]
            pub fn wire(self) -> u8 {
                match self { $(Self::$name => $wire),* }
            }

            /// The code that a byte of a score report stands for.
            #[must_use]
            pub fn from_wire(byte: u8) -> Option<Self> {
                match byte { $($wire => Some(Self::$name),)* _ => None }
            }

            /// Who bears the consequence.
            #[must_use]
            pub fn charged_to(self) -> Charged {
                match self { $(Self::$name => Charged::$charged),* }
            }
        }
    };
}

/// Who bears the consequence of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// Nobody: the update was accepted.
    Nobody,
    /// The miner: a zero enters its history.
    Miner,
    /// The network: the miner's history is left alone for a while.
    Network,
}

reason_codes! {
    /// A significant gain: reward and influence.
    Accepted = 1, "accepted", Nobody;
    /// The gain does not exceed its error.
    NoGain = 2, "no_gain", Miner;
    /// A significant loss.
    Harmful = 3, "harmful", Miner;
    /// A near-copy of an earlier commitment or of an earlier accepted update.
    Duplicate = 4, "duplicate", Miner;
    /// A tensor holds a value that is not finite.
    NonFiniteUpdate = 5, "non_finite_update", Miner;
    /// A sequence's loss is not finite under the update.
    NonFiniteLoss = 6, "non_finite_loss", Miner;
    /// The update is larger than the rules allow.
    NormExceeded = 7, "norm_exceeded", Miner;
    /// Sealed, never opened.
    NotRevealed = 8, "not_revealed", Miner;
    /// The opening does not reproduce the commitment.
    RevealMismatch = 9, "reveal_mismatch", Miner;
    /// No validator received the update.
    NotUploaded = 10, "not_uploaded", Miner;
    /// What was received is not what was revealed.
    HashMismatch = 11, "hash_mismatch", Miner;
    /// Sealed outside the window.
    LateCommit = 12, "late_commit", Miner;
    /// Opened outside the window.
    LateReveal = 13, "late_reveal", Miner;
    /// Uploaded outside the window.
    LateUpload = 14, "late_upload", Miner;
    /// Built on an older state.
    StaleBase = 15, "stale_base", Miner;
    /// Built on a state that nobody agreed on.
    UnknownBase = 16, "unknown_base", Miner;
    /// Bound to another cycle.
    WrongCycle = 17, "wrong_cycle", Miner;
    /// For a group that the hotkey is not assigned to.
    WrongGroup = 18, "wrong_group", Miner;
    /// The hotkey is not registered.
    NotRegistered = 19, "not_registered", Miner;
    /// Undecodable or not canonical.
    Malformed = 20, "malformed", Miner;
    /// Offsets overlap, leave gaps or exceed the body.
    BadLayout = 21, "bad_layout", Miner;
    /// Above the size bound.
    TooLarge = 22, "too_large", Miner;
    /// A listed expert lacks a tensor.
    MissingTensor = 23, "missing_tensor", Miner;
    /// A tensor outside the group.
    UnexpectedTensor = 24, "unexpected_tensor", Miner;
    /// A tensor twice.
    DuplicateTensor = 25, "duplicate_tensor", Miner;
    /// A tensor of another shape.
    WrongShape = 26, "wrong_shape", Miner;
    /// A tensor of another type.
    WrongDtype = 27, "wrong_dtype", Miner;
    /// The network did not produce a verdict.
    Unscored = 28, "unscored", Network;
    /// The network did not finish the cycle.
    CycleVoid = 29, "cycle_void", Network;
    /// More updates of the group were opened than are scored in a cycle, and the lot passed over it.
    NotDrawn = 30, "not_drawn", Network;
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_byte_and_one_spelling_and_both_lead_back() {
        for code in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_wire(code.wire()), Some(*code));
            assert_eq!(
                serde_json::to_string(code).unwrap(),
                format!("\"{}\"", code.text()),
                "the spelling in files is the spelling in code"
            );
        }
        assert_eq!(ReasonCode::from_wire(0), None, "zero bytes are no verdict");
    }
}
