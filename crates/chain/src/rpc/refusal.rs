//! Errors on the wire: how the server writes them and how the client recognises them.
//!
//! The texts and codes are those of a Substrate node. Nodes and development tools phrase the
//! same refusal in several ways (`"Custom error: 6"`, `{"Custom":6}`,
//! `{"invalid":{"stale":null}}` in the message); the client reads all shapes that have been seen.

use connito_protocol::ids::Block;
use serde_json::{Value, json};

use super::RpcError;
use crate::chain::At;
use crate::error::{ChainError, PoolError, Reject};

pub(crate) const PARSE_ERROR: i64 = -32_700;
pub(crate) const INVALID_REQUEST: i64 = -32_600;
pub(crate) const METHOD_NOT_FOUND: i64 = -32_601;
pub(crate) const INVALID_PARAMS: i64 = -32_602;
const UNKNOWN_BLOCK: i64 = -32_000;
const STATE_DISCARDED: i64 = 4_003;
const BAD_FORMAT: i64 = 1_001;
const INVALID: i64 = 1_010;
const ALREADY_IMPORTED: i64 = 1_013;
const PRIORITY_TOO_LOW: i64 = 1_014;
const DROPPED: i64 = 1_016;

impl RpcError {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    fn with(code: i64, message: impl Into<String>, data: Value) -> Self {
        Self {
            code,
            message: message.into(),
            data: Some(data),
        }
    }

    /// The error of a read that found no state.
    pub(crate) fn unreadable(error: &ChainError) -> Self {
        match error {
            ChainError::Pruned { wanted, oldest } => Self::with(
                STATE_DISCARDED,
                format!("State already discarded for block {wanted}"),
                json!({ "wanted": wanted, "oldest": oldest }),
            ),
            other => Self::new(UNKNOWN_BLOCK, other.to_string()),
        }
    }

    /// The error of an operation that the pool refused.
    pub(crate) fn refused(error: &PoolError) -> Self {
        let invalid = |data: &str| Self::with(INVALID, "Invalid Transaction", json!(data));
        match error {
            PoolError::Stale => invalid("Transaction is outdated"),
            PoolError::Future => invalid("Transaction will be valid in the future"),
            PoolError::BadProof => invalid("Transaction has a bad signature"),
            PoolError::Outdated => invalid("Transaction has an ancient birth block"),
            PoolError::Custom(code) => invalid(&format!("Custom error: {code}")),
            PoolError::AlreadyImported => {
                Self::new(ALREADY_IMPORTED, "Transaction Already Imported")
            }
            PoolError::PriorityTooLow => Self::new(PRIORITY_TOO_LOW, "Priority is too low"),
            PoolError::Full => Self::new(DROPPED, "Immediately Dropped"),
            PoolError::Undecodable(problem) => Self::new(
                BAD_FORMAT,
                format!("Extrinsic has invalid format: {problem}"),
            ),
            PoolError::Other { code, message } => Self::new(*code, message.clone()),
        }
    }

    /// What the client makes of an error. `at` is the block asked for, where one was.
    pub(crate) fn into_chain_error(self, method: &str, at: Option<At>) -> ChainError {
        let block = |name: &str| {
            let data = self.data.as_ref()?.get(name)?;
            data.as_u64().map(Block)
        };
        match self.code {
            STATE_DISCARDED => {
                let wanted = block("wanted").unwrap_or_default();
                ChainError::Pruned {
                    wanted,
                    oldest: block("oldest"),
                }
            }
            UNKNOWN_BLOCK if at.is_some() => ChainError::UnknownBlock(at.unwrap_or(At::Head)),
            BAD_FORMAT => PoolError::Undecodable(self.message).into(),
            INVALID | ALREADY_IMPORTED | PRIORITY_TOO_LOW | DROPPED => self.pool_error(),
            code => ChainError::Shape {
                item: method.to_owned(),
                spec: None,
                detail: format!("error {code}: {}", self.message),
            },
        }
    }

    fn pool_error(self) -> ChainError {
        let data = self
            .data
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = format!("{} {data}", self.message).to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let refusal = match self.code {
            ALREADY_IMPORTED => PoolError::AlreadyImported,
            PRIORITY_TOO_LOW => PoolError::PriorityTooLow,
            DROPPED => PoolError::Full,
            _ if says(&["custom"]) => match custom_code(&text) {
                Some(code) => return Reject::from_custom(code).into(),
                None => PoolError::Other {
                    code: self.code,
                    message: text,
                },
            },
            _ if says(&["outdated", "stale"]) => PoolError::Stale,
            _ if says(&["future"]) => PoolError::Future,
            _ if says(&["bad signature", "badproof"]) => PoolError::BadProof,
            _ if says(&["ancient birth"]) => PoolError::Outdated,
            _ => PoolError::Other {
                code: self.code,
                message: text,
            },
        };
        refusal.into()
    }
}

/// The number after the word `custom`.
fn custom_code(text: &str) -> Option<u8> {
    let after = text.split_once("custom")?.1;
    let digits = after.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(error: RpcError) -> ChainError {
        error.into_chain_error("chain_submit", None)
    }

    #[test]
    fn every_refusal_of_the_pool_is_recognised_on_the_other_side() {
        let refusals = [
            PoolError::Stale,
            PoolError::Future,
            PoolError::BadProof,
            PoolError::Outdated,
            PoolError::AlreadyImported,
            PoolError::PriorityTooLow,
            PoolError::Full,
        ];
        for refusal in refusals {
            let seen = read(RpcError::refused(&refusal));
            assert!(
                matches!(&seen, ChainError::Pool(pool) if *pool == refusal),
                "{seen}"
            );
        }
    }

    #[test]
    fn every_shape_of_a_custom_error_is_read() {
        let shapes = [
            RpcError::refused(&PoolError::Custom(12)),
            RpcError::with(1010, "Invalid Transaction", json!("Custom error: 12")),
            RpcError::with(1010, "", json!("Invalid transaction with custom error: 12")),
            RpcError::with(1010, "Invalid Transaction", json!({ "Custom": 12 })),
            RpcError::new(1010, r#"{"invalid":{"custom":12}}"#),
        ];
        for shape in shapes {
            let seen = read(shape);
            let limited = Reject::RateLimited { retry_at: None };
            assert!(
                matches!(&seen, ChainError::Rejected(reject) if *reject == limited),
                "{seen}"
            );
        }
        let stale = read(RpcError::new(1010, r#"{"invalid":{"stale":null}}"#));
        assert!(matches!(stale, ChainError::Pool(PoolError::Stale)));
        let bad = read(RpcError::new(1010, r#"{"invalid":{"badProof":null}}"#));
        assert!(matches!(bad, ChainError::Pool(PoolError::BadProof)));
        let strange = read(RpcError::new(1010, "custom error without a number"));
        assert!(matches!(strange, ChainError::Pool(PoolError::Other { .. })));
    }

    #[test]
    fn an_answer_nobody_expected_names_the_request() {
        let error = read(RpcError::new(-5, "what?"));
        let expected = "the chain's answer to chain_submit is not understood: error -5: what?";
        assert_eq!(error.to_string(), expected);
    }
}
