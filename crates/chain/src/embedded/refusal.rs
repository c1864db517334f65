//! Why the pool does not take an extrinsic: one name for each of a Substrate node's answers.

use serde_json::{Value, json};

use crate::error::PoolError;

/// A refusal before the extrinsic reached a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The runtime cannot read the bytes.
    Undecodable(String),
    /// The nonce is used up.
    Stale,
    /// The signature does not hold for this chain, runtime and era.
    BadProof,
    /// The era began before the oldest block hash known, or has not begun.
    AncientBirthBlock,
    /// The runtime's own number for a rule that is broken.
    Custom(u8),
    /// Something the runtime cannot check.
    CannotLookup,
    /// It has been found invalid a short while ago.
    TemporarilyBanned,
    /// It is waiting already.
    AlreadyImported([u8; 32]),
    /// Another with its nonce is waiting.
    TooLowPriority,
    /// No more can wait.
    ImmediatelyDropped,
}

/// What stands in an error object: code, message, data.
pub(super) type Words = (i64, String, Option<Value>);

impl Refusal {
    /// The code and the texts of a real node.
    pub(super) fn words(&self) -> Words {
        let invalid = |data: &str| (1010, "Invalid Transaction".to_owned(), Some(json!(data)));
        match self {
            Self::Undecodable(problem) => {
                let trap = "Execution failed: Execution aborted due to trap: unreachable";
                (
                    1002,
                    format!("Verification Error: Runtime error: {trap}"),
                    Some(json!(format!("the extrinsic cannot be decoded: {problem}"))),
                )
            }
            Self::Stale => invalid("Transaction is outdated"),
            Self::BadProof => invalid("Transaction has a bad signature"),
            Self::AncientBirthBlock => invalid("Transaction has an ancient birth block"),
            Self::Custom(code) => invalid(&format!("Custom error: {code}")),
            Self::CannotLookup => {
                let data = "Could not lookup information required to validate the transaction";
                (
                    1011,
                    "Unknown Transaction Validity".to_owned(),
                    Some(json!(data)),
                )
            }
            Self::TemporarilyBanned => (1012, "Transaction is temporarily banned".to_owned(), None),
            Self::AlreadyImported(hash) => (
                1013,
                "Transaction Already Imported".to_owned(),
                Some(json!(format!("0x{}", hex::encode(hash)))),
            ),
            Self::TooLowPriority => {
                let data = "The transaction has too low priority to replace another transaction \
                            already in the pool.";
                (
                    1014,
                    "Priority is too low: (1 vs 1)".to_owned(),
                    Some(json!(data)),
                )
            }
            Self::ImmediatelyDropped => {
                let data = "The transaction couldn't enter the pool because of the limit";
                (1016, "Immediately Dropped".to_owned(), Some(json!(data)))
            }
        }
    }
}

impl From<Refusal> for PoolError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Undecodable(problem) => Self::Undecodable(problem),
            Refusal::Stale => Self::Stale,
            Refusal::BadProof => Self::BadProof,
            Refusal::AncientBirthBlock => Self::Outdated,
            Refusal::Custom(code) => Self::Custom(code),
            Refusal::AlreadyImported(_) => Self::AlreadyImported,
            Refusal::TooLowPriority => Self::PriorityTooLow,
            Refusal::ImmediatelyDropped => Self::Full,
            Refusal::CannotLookup | Refusal::TemporarilyBanned => {
                let (code, message, _) = refusal.words();
                Self::Other { code, message }
            }
        }
    }
}
