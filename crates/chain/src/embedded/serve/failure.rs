//! JSON-RPC error objects, with the codes and words of a Substrate node.

use serde::Serialize;
use serde_json::Value;

use super::MAX_ANSWER_BYTES;
use crate::embedded::history::Unreadable;
use crate::embedded::refusal::Refusal;

const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;
const ANSWER_TOO_BIG: i64 = -32_008;
const BATCH_ANSWER_TOO_BIG: i64 = -32_011;
/// More of something was asked for than is given at once.
const INVALID_COUNT: i64 = 4_002;
/// The state could not be read, or the runtime not called.
const CLIENT: i64 = 4_003;

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Failure {
    code: i64,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

impl Failure {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(super) fn parse(error: &serde_json::Error) -> Self {
        Self::new(PARSE_ERROR, error.to_string())
    }

    pub(super) fn invalid_request(problem: &str) -> Self {
        Self::new(INVALID_REQUEST, problem)
    }

    pub(super) fn method_not_found() -> Self {
        Self::new(METHOD_NOT_FOUND, "Method not found")
    }

    pub(super) fn invalid_params(problem: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, problem)
    }

    pub(super) fn too_many(value: u64, max: u64) -> Self {
        let message = format!("count exceeds maximum value. value: {value}, max: {max}");
        Self::new(INVALID_COUNT, message)
    }

    pub(super) fn answer_too_big() -> Self {
        let limit = format!("Exceeded max limit of {MAX_ANSWER_BYTES}");
        Self {
            data: Some(limit.into()),
            ..Self::new(ANSWER_TOO_BIG, "Response is too big")
        }
    }

    pub(super) fn batch_answer_too_big() -> Self {
        let limit = format!("Exceeded max limit of {MAX_ANSWER_BYTES}");
        Self {
            data: Some(limit.into()),
            ..Self::new(BATCH_ANSWER_TOO_BIG, "The batch response was too large")
        }
    }

    /// A runtime call that there is not, or that trapped.
    pub(super) fn execution(problem: &str) -> Self {
        Self::new(CLIENT, format!("Client error: Execution failed: {problem}"))
    }

    pub(super) fn unknown_block(hash: &[u8; 32]) -> Self {
        let hash = hex::encode(hash);
        let problem = format!("Header was not found in the database: 0x{hash}");
        Self::new(CLIENT, format!("Client error: UnknownBlock: {problem}"))
    }

    fn discarded(hash: &[u8; 32]) -> Self {
        let problem = format!("State already discarded for 0x{}", hex::encode(hash));
        Self::new(CLIENT, format!("Client error: UnknownBlock: {problem}"))
    }

    /// A block, asked for by its hash, that cannot be read.
    pub(super) fn unreadable(unreadable: Unreadable, hash: &[u8; 32]) -> Self {
        match unreadable {
            Unreadable::Unknown => Self::unknown_block(hash),
            Unreadable::Discarded(hash) => Self::discarded(&hash),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (code, message, data) = refusal.words();
        Self {
            code,
            message,
            data,
        }
    }
}
