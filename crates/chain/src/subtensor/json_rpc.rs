//! JSON-RPC as a Substrate node speaks it: requests, batches, and what its errors mean.
//!
//! A batch is one body, so that everything read about one block costs one round trip; a server that
//! takes no batches, or none as long, is asked one by one. Nodes and development tools phrase the same
//! refusal in several ways (`"Custom error: 6"`, `{"Custom":6}`, `{"invalid":{"stale":null}}` in the
//! message); all shapes that have been seen are read, and those in which an endpoint says that it is
//! asked too often. An error that nobody expected names the method and is shown verbatim.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use connito_protocol::ids::Block;

use crate::chain::At;
use crate::error::{ChainError, Limit, PoolError, Reject, TransportError};
use crate::rpc::RpcTransport;

/// Hands an extrinsic to the pool.
pub(super) const SUBMIT: &str = "author_submitExtrinsic";

/// What an error without a code is given.
const NO_CODE: i64 = 0;
const BAD_FORMAT: i64 = 1_001;
const TRAPPED: i64 = 1_002;
const INVALID: i64 = 1_010;
const BANNED: i64 = 1_012;
const ALREADY_IMPORTED: i64 = 1_013;
const PRIORITY_TOO_LOW: i64 = 1_014;
const DROPPED: i64 = 1_016;
/// What endpoints answer to those who ask too often: two in use at public ones, a server that is busy,
/// two of providers, and a node's own limit.
const TOO_OFTEN: [i64; 6] = [-32_004, -32_005, -32_009, -32_029, -32_999, 429];
/// Errors of servers and not of the runtime. What such an error says may tell that it is a limit.
const OF_THE_SERVER: std::ops::RangeInclusive<i64> = -32_999..=-32_000;
const TOO_OFTEN_IN_WORDS: [&str; 3] = ["rate limit", "too many requests", "limit exceeded"];
/// Bytes of an answer that may be nothing but a refusal.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) method: &'static str,
    pub(super) params: Json,
}

impl Question {
    pub(super) fn new(method: &'static str, params: Json) -> Self {
        Self { method, params }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    result: Json,
    #[serde(default)]
    error: Option<Refusal>,
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refusal {
    /// Development nodes leave it out.
    #[serde(default)]
    pub(super) code: i64,
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: Option<Json>,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// The node knows the block but no longer its state.
    Discarded,
    /// The node does not know the block.
    NoBlock,
    /// Everything that has nothing to do with the block asked about.
    Other(ChainError),
}

impl<E: Into<ChainError>> From<E> for CallError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl CallError {
    /// The error of a read at block `number`.
    pub(super) fn at(self, number: Block) -> ChainError {
        match self {
            Self::Discarded => ChainError::Pruned {
                wanted: number,
                oldest: None,
            },
            Self::NoBlock => ChainError::UnknownBlock(At::Number(number)),
            Self::Other(error) => error,
        }
    }
}

/// Asks one question.
pub(super) async fn ask(
    transport: &impl RpcTransport,
    question: Question,
) -> Result<Json, CallError> {
    let method = question.method;
    let answers = ask_all(transport, vec![question]).await?;
    let mut answers = answers.into_iter();
    Ok(answers
        .next()
        .ok_or_else(|| misshapen(method, "no answer"))?)
}

/// Asks several questions in one body; the answers come in the order of the questions.
///
/// The first refusal is the error of the whole.
pub(super) async fn ask_all(
    transport: &impl RpcTransport,
    questions: Vec<Question>,
) -> Result<Vec<Json>, CallError> {
    let answers = ask_each(transport, &questions).await?;
    answers.into_iter().collect()
}

/// Asks several questions in one body; each has its own answer.
pub(super) async fn ask_each(
    transport: &impl RpcTransport,
    questions: &[Question],
) -> Result<Vec<Result<Json, CallError>>, CallError> {
    if let Some(answers) = ask_together(transport, questions).await? {
        return Ok(answers);
    }
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let alone = ask_together(transport, std::slice::from_ref(question)).await?;
        answers.extend(alone.into_iter().flatten());
    }
    Ok(answers)
}

/// Asks in one body; nothing if the server refuses to be asked several questions at once.
async fn ask_together(
    transport: &impl RpcTransport,
    questions: &[Question],
) -> Result<Option<Vec<Result<Json, CallError>>>, CallError> {
    // An empty batch is an error to every server.
    let Some(name) = questions.first().map(|question| question.method) else {
        return Ok(Some(Vec::new()));
    };
    let bytes = transport.call(body_of(questions)).await?;
    let answers = read_answers(&bytes).map_err(|error| misshapen(name, error.to_string()))?;
    let mut ordered: Vec<Option<Result<Json, CallError>>> = Vec::new();
    ordered.resize_with(questions.len(), || None);
    for answer in answers {
        let endpoint = transport.endpoint();
        if let Some(limit) = answer.error.as_ref().and_then(Refusal::limit) {
            return Err(limit.of(endpoint).into());
        }
        // An error without a number is one of the whole.
        if questions.len() > 1 && answer.id.is_none() && answer.error.is_some() {
            return Ok(None);
        }
        let place = usize::try_from(answer.id.unwrap_or(0)).unwrap_or(usize::MAX);
        let Some(question) = questions.get(place) else {
            return Err(misshapen(name, "an answer to no question").into());
        };
        ordered[place] = Some(match answer.error {
            Some(refusal) => Err(refusal.meaning(question.method)),
            None => Ok(answer.result),
        });
    }
    let answered = questions.iter().zip(ordered);
    let answered = answered.map(|(question, answer)| {
        answer.unwrap_or_else(|| Err(misshapen(question.method, "no answer").into()))
    });
    Ok(Some(answered.collect()))
}

fn body_of(questions: &[Question]) -> Vec<u8> {
    let mut bodies: Vec<Json> = questions
        .iter()
        .enumerate()
        .map(|(id, question)| {
            json!({ "jsonrpc": "2.0", "id": id, "method": question.method, "params": question.params })
        })
        .collect();
    let body = match bodies.len() {
        1 => bodies.remove(0),
        _ => Json::Array(bodies),
    };
    body.to_string().into_bytes()
}

fn read_answers(bytes: &[u8]) -> Result<Vec<Answer>, serde_json::Error> {
    match serde_json::from_slice(bytes)? {
        Json::Array(answers) => answers.into_iter().map(serde_json::from_value).collect(),
        answer => serde_json::from_value(answer).map(|answer| vec![answer]),
    }
}

/// The words of an endpoint that is asked too often.
#[derive(Debug)]
pub(super) struct TooOften {
    words: String,
    limit: Limit,
}

impl TooOften {
    /// The error of the endpoint that said so.
    pub(super) fn of(&self, endpoint: &str) -> TransportError {
        TransportError::limited(endpoint, &self.words, self.limit)
    }
}

/// Whether an answer says that the endpoint is asked too often.
pub(super) fn too_often(answer: &[u8]) -> Option<TooOften> {
    const ERROR: &[u8] = b"\"error\"";
    let may_refuse =
        answer.len() <= MAX_REFUSAL_BYTES && answer.windows(ERROR.len()).any(|part| part == ERROR);
    let answers = may_refuse.then(|| read_answers(answer).ok())??;
    let refusals = answers.iter().filter_map(|answer| answer.error.as_ref());
    refusals.filter_map(Refusal::limit).next()
}

/// The error of an answer that is not what the method answers.
pub(super) fn misshapen(item: &str, detail: impl Into<String>) -> ChainError {
    ChainError::Shape {
        item: item.to_owned(),
        spec: None,
        detail: detail.into(),
    }
}

impl Refusal {
    /// What it says, if it says that the endpoint is asked too often.
    fn limit(&self) -> Option<TooOften> {
        let text = self.text();
        let words = OF_THE_SERVER.contains(&self.code)
            && TOO_OFTEN_IN_WORDS.iter().any(|words| text.contains(words));
        // A node that takes no batches says so under one of the same numbers.
        if text.contains("batch") || !(words || TOO_OFTEN.contains(&self.code)) {
            return None;
        }
        let data = self.data.as_ref();
        let seconds = data.and_then(|data| data.get("retry_after")?.as_f64());
        let pause = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Some(TooOften {
            words: format!("{} ({})", self.message, self.code),
            limit: Limit { pause },
        })
    }

    fn meaning(self, method: &str) -> CallError {
        let text = self.text();
        if text.contains("already discarded") {
            return CallError::Discarded;
        }
        if text.contains("unknownblock") || text.contains("unknown block") {
            return CallError::NoBlock;
        }
        let uncoded = method == SUBMIT && self.code == NO_CODE;
        let trapped = uncoded && text.contains("wasm `unreachable`");
        let meaning: ChainError = match self.code {
            _ if trapped => PoolError::Undecodable(self.message).into(),
            _ if uncoded => self.of_the_pool(),
            BAD_FORMAT | TRAPPED => PoolError::Undecodable(self.message).into(),
            INVALID | BANNED | ALREADY_IMPORTED | PRIORITY_TOO_LOW | DROPPED => self.of_the_pool(),
            code => misshapen(method, format!("error {code}: {}", self.message)),
        };
        meaning.into()
    }

    fn text(&self) -> String {
        let data = self.data.as_ref().map(Json::to_string);
        format!("{} {}", self.message, data.unwrap_or_default()).to_lowercase()
    }

    fn of_the_pool(self) -> ChainError {
        let text = self.text();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let refusal = match self.code {
            ALREADY_IMPORTED => PoolError::AlreadyImported,
            PRIORITY_TOO_LOW => PoolError::PriorityTooLow,
            DROPPED => PoolError::Full,
            BANNED => PoolError::Banned,
            _ if says(&["custom"]) => match custom_code(&text) {
                Some(code) => return Reject::from_custom(code).into(),
                None => self.verbatim(),
            },
            _ if says(&["outdated", "stale"]) => PoolError::Stale,
            _ if says(&["future"]) => PoolError::Future,
            _ if says(&["bad signature", "badproof"]) => PoolError::BadProof,
            _ if says(&["ancient birth", "ancientbirth"]) => PoolError::Outdated,
            _ if says(&["payment", "pay some fees"]) => PoolError::CannotPay,
            _ => self.verbatim(),
        };
        refusal.into()
    }

    fn verbatim(&self) -> PoolError {
        let data = self.data.as_ref().map(|data| match data {
            Json::String(text) => format!(": {text}"),
            other => format!(": {other}"),
        });
        PoolError::Other {
            code: self.code,
            message: format!("{}{}", self.message, data.unwrap_or_default()),
        }
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

    fn read(code: i64, message: &str, data: Option<Json>) -> ChainError {
        let message = message.to_owned();
        Refusal {
            code,
            message,
            data,
        }
        .meaning("author_submitExtrinsic")
        .at(Block(7))
    }

    fn pool(code: i64, message: &str, data: Option<Json>) -> PoolError {
        match read(code, message, data) {
            ChainError::Pool(error) => error,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_refusal_of_the_pool_is_recognised() {
        let invalid = |data: &str| pool(1_010, "Invalid Transaction", Some(json!(data)));
        assert_eq!(invalid("Transaction is outdated"), PoolError::Stale);
        assert_eq!(
            invalid("Transaction will be valid in the future"),
            PoolError::Future
        );
        assert_eq!(
            invalid("Transaction has a bad signature"),
            PoolError::BadProof
        );
        assert_eq!(
            invalid("Transaction has an ancient birth block"),
            PoolError::Outdated
        );
        let poor = "Inability to pay some fees (e.g. account balance too low)";
        assert_eq!(invalid(poor), PoolError::CannotPay);
        assert_eq!(pool(1_012, "banned", None), PoolError::Banned);
        assert_eq!(pool(1_013, "", None), PoolError::AlreadyImported);
        let low = "Priority is too low: (1 vs 1)";
        assert_eq!(pool(1_014, low, None), PoolError::PriorityTooLow);
        assert_eq!(pool(1_016, "Immediately Dropped", None), PoolError::Full);
        assert!(matches!(
            pool(1_002, "Verification Error: Runtime error", None),
            PoolError::Undecodable(_)
        ));
    }

    #[test]
    fn the_shapes_of_development_nodes_are_read_too() {
        let stale = pool(1_010, r#"{"invalid":{"stale":null}}"#, None);
        assert_eq!(stale, PoolError::Stale);
        let bad = pool(1_010, r#"{"invalid":{"badProof":null}}"#, None);
        assert_eq!(bad, PoolError::BadProof);
        let poor = pool(1_010, r#"{"invalid":{"payment":null}}"#, None);
        assert_eq!(poor, PoolError::CannotPay);
        let trap = r#"{"message":"Error: wasm `unreachable` instruction executed"}"#;
        let trap: Refusal = serde_json::from_str(trap).expect("an error without a code");
        let trap = trap.meaning(SUBMIT).at(Block(7));
        assert!(matches!(trap, ChainError::Pool(PoolError::Undecodable(_))));
        let stale = pool(NO_CODE, r#"{"invalid":{"ancientBirth":null}}"#, None);
        assert_eq!(stale, PoolError::Outdated);
        let strange = pool(1_010, "custom error without a number", None);
        assert!(matches!(strange, PoolError::Other { .. }));
    }

    #[test]
    fn every_shape_of_a_custom_error_is_read() {
        let shapes = [
            ("Invalid Transaction", Some(json!("Custom error: 12"))),
            ("", Some(json!("Invalid transaction with custom error: 12"))),
            ("Invalid Transaction", Some(json!({ "Custom": 12 }))),
            (r#"{"invalid":{"custom":12}}"#, None),
        ];
        for (message, data) in shapes {
            let seen = read(1_010, message, data);
            let limited = Reject::RateLimited { retry_at: None };
            assert!(
                matches!(&seen, ChainError::Rejected(reject) if *reject == limited),
                "{seen}"
            );
        }
    }

    #[test]
    fn an_answer_nobody_expected_names_the_method_and_is_shown_verbatim() {
        let error = read(-5, "what?", None);
        assert_eq!(
            error.to_string(),
            "the shape of author_submitExtrinsic is not understood: error -5: what?"
        );
        let pruned = "Client error: UnknownBlock: State already discarded for 0x12";
        assert!(matches!(
            read(4_003, pruned, None),
            ChainError::Pruned {
                wanted: Block(7),
                oldest: None
            }
        ));
    }

    /// Every code and wording that is known for it; how long to wait where that is said.
    #[test]
    fn an_endpoint_that_is_asked_too_often_is_understood() {
        let answer = |code: i64, message: &str, data: Json| {
            let error = json!({ "code": code, "message": message, "data": data });
            let answer = json!({ "jsonrpc": "2.0", "id": 0, "error": error });
            too_often(answer.to_string().as_bytes()).map(|limit| limit.of("here"))
        };
        let error = answer(-32_005, "slow down", json!({ "retry_after": 2.5 })).unwrap();
        let shown = "chain endpoint here: limits how often it is asked: slow down (-32005)";
        assert_eq!(error.to_string(), shown);
        let pause = Some(Duration::from_millis(2_500));
        assert_eq!(error.limit, Some(Limit { pause }));
        for (code, message) in [
            (-32_004, "limit exceeded"),
            (-32_999, "RPC rate limit exceeded"),
            (-32_029, "Too Many Requests"),
            (-32_009, "Server is busy, try again later"),
            (-32_000, "daily rate limit reached"),
            (429, "slow down"),
        ] {
            let error = answer(code, message, Json::Null);
            assert!(error.is_some_and(|error| error.limit.is_some()), "{code}");
        }
        for (code, message) in [
            (-32_005, "Batched requests are not supported by this server"),
            (-32_601, "Method not found"),
            (-32_008, "Response is too big"),
            (1_010, "Invalid Transaction: rate limit"),
            (4_003, "State already discarded"),
        ] {
            assert!(answer(code, message, Json::Null).is_none(), "{code}");
        }
        let long = format!("{}\"error\"", " ".repeat(MAX_REFUSAL_BYTES));
        assert!(too_often(long.as_bytes()).is_none());
    }
}
