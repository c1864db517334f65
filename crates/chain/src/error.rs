//! What can go wrong between a role and its chain, sorted by what the caller can do about it.
//!
//! [`Reject`] is the chain's considered answer "no", with the block at which to ask again where one
//! can be computed. [`PoolError`] is a refusal before the operation reached a block.
//! [`ChainError::Unknown`] is neither: the operation was sent and its fate not observed. Rejections
//! are recognised by the *names* of the runtime's errors, because their numbers move between
//! runtime versions.

use std::time::Duration;

use connito_protocol::ids::{Block, BlockHash, Netuid};

use crate::chain::At;
use crate::operation::OperationId;
use crate::runtime::ShapeError;

/// Why a read or an operation has no result.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The endpoint could not be reached, answered with nonsense, or stopped producing blocks.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The deadline passed first. Nothing is wrong with the endpoint as far as known.
    #[error("block {0} did not appear before the deadline")]
    Timeout(Block),
    /// The state was there once. Never a reason to read the head instead.
    #[error("the state of block {wanted} is pruned")]
    Pruned {
        /// The block asked for.
        wanted: Block,
        /// The oldest block the endpoint still has, where it said so.
        oldest: Option<Block>,
    },
    /// The endpoint has no such block (yet, or on its chain).
    #[error("the chain has no block {0}")]
    UnknownBlock(At),
    /// A call, an item or an answer that does not have the expected shape: the two sides disagree on
    /// the interface. Only what concerns `item` is affected.
    #[error("the shape of {item} is not understood: {detail}")]
    Shape {
        /// The request, call, storage item or event.
        item: String,
        /// The runtime's `spec_version`, where the interface is the runtime's.
        spec: Option<u32>,
        /// What does not fit.
        detail: String,
    },
    /// The endpoint is of another chain than the one that is meant.
    #[error("chain endpoint {endpoint} is of another chain: its first block is {found}")]
    OtherChain {
        /// Where the request went.
        endpoint: String,
        /// The first block there.
        found: BlockHash,
    },
    /// The chain does not have the subnet.
    #[error("the chain has no subnet {0}")]
    NoSubnet(Netuid),
    /// No subnet was named, and the chain does not have exactly one.
    #[error("the chain has {there} subnets: name one by its netuid")]
    WhichSubnet {
        /// Subnets besides the root.
        there: usize,
    },
    /// The chain said no, and would say so again under the same circumstances.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// Refused before it reached a block.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Sent, and not seen in a block. Observe the effect until `until_block` before deciding anew.
    #[error(
        "operation {operation} was sent and not observed; it can land until block {until_block}"
    )]
    Unknown {
        /// The operation.
        operation: OperationId,
        /// The last block that may include it.
        until_block: Block,
    },
}

impl From<ShapeError> for ChainError {
    fn from(error: ShapeError) -> Self {
        Self::Shape {
            item: error.item,
            spec: Some(error.spec),
            detail: error.detail,
        }
    }
}

/// An endpoint that did not do its part.
#[derive(Debug, thiserror::Error)]
#[error("chain endpoint {endpoint}: {problem}")]
pub struct TransportError {
    /// Where the request went.
    pub endpoint: String,
    /// What happened, in words.
    pub problem: String,
    /// Whether asking again may help.
    pub retry: bool,
    /// Set where the endpoint limits how often it is asked: nobody has looked at the request.
    pub limit: Option<Limit>,
    /// The cause, where there is one below this crate.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// An endpoint that may do better when it is asked again.
    pub fn new(endpoint: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            problem: problem.into(),
            retry: true,
            limit: None,
            source: None,
        }
    }

    /// An endpoint that is asked too often, in its own words.
    #[must_use]
    pub fn limited(endpoint: impl Into<String>, words: &str, limit: Limit) -> Self {
        Self {
            limit: Some(limit),
            ..Self::new(endpoint, format!("limits how often it is asked: {words}"))
        }
    }
}

/// What an endpoint says that is asked too often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// For how long it wants to be left alone, where it says so.
    pub pause: Option<Duration>,
}

/// The chain's answer "no" to an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The hotkey has no slot in the subnet.
    #[error("the hotkey is not registered")]
    NotRegistered,
    /// The neuron has no validator permit.
    #[error("the neuron has no validator permit")]
    NoPermit,
    /// Less stake than weights need.
    #[error("the stake is below the threshold for weights")]
    StakeTooLow,
    /// Too soon after the last operation of its kind.
    #[error("too soon after the last operation of this kind")]
    RateLimited {
        /// The first block that would accept it.
        retry_at: Option<Block>,
    },
    /// The epoch's commitment space is used up.
    #[error("the commitment space of this epoch is used up")]
    CommitSpace {
        /// Bytes used in this epoch, where known.
        used: Option<u64>,
        /// Bytes an epoch allows.
        max: u64,
        /// The block that opens the next epoch.
        resets_at: Option<Block>,
    },
    /// More fields or bytes than a commitment may have.
    #[error("the commitment is too large")]
    TooLarge,
    /// Fewer weights than the subnet demands.
    #[error("too few weights, the subnet demands {min}")]
    TooFewWeights {
        /// The least number of entries, zeros included.
        min: u16,
    },
    /// One weight exceeds the subnet's limit on any single share.
    #[error("one weight exceeds the subnet's limit")]
    WeightTooLarge,
    /// Refused here, not by the chain: it would store them and wipe the validator's vote.
    #[error("all weights are zero")]
    AllZeroWeights,
    /// Duplicate or unknown uids.
    #[error("the weights name a uid twice or one that does not exist")]
    BadUids,
    /// The network demands a newer version of the weights.
    #[error("the weights' version key is older than the network's {need}")]
    VersionKey {
        /// The network's key.
        need: u64,
    },
    /// Plain weights where sealed ones are demanded, or the reverse.
    #[error("the subnet's commit-reveal mode does not take this operation")]
    CommitRevealMode,
    /// Ten sealed weights of this hotkey await their reveal.
    #[error("too many sealed weights await their reveal")]
    TooManyUnrevealed,
    /// Sealed to a round that is past or unknown.
    #[error("the reveal round is not acceptable")]
    InvalidRevealRound,
    /// An address or port the chain does not publish.
    #[error("the endpoint's address or port is not acceptable")]
    InvalidEndpoint,
    /// Registration costs more than was offered.
    #[error("registration costs more than offered")]
    BurnTooHigh {
        /// The price in rao, where known.
        price: Option<u64>,
    },
    /// The hotkey already has a slot.
    #[error("the hotkey is already registered")]
    AlreadyRegistered,
    /// Any other dispatch error, verbatim.
    #[error("the chain answered {pallet}.{name}")]
    Dispatch {
        /// The pallet that refused.
        pallet: String,
        /// Its name for the refusal.
        name: String,
    },
    /// Any other validity error of the pool.
    #[error("the chain answered with custom error {0}")]
    Custom(u8),
}

impl Reject {
    /// The rejection that a dispatch error's name stands for. Figures that the name does not carry
    /// (when to retry, what is needed) are left open; the caller completes them from pinned state.
    #[must_use]
    pub fn from_dispatch(pallet: &str, name: &str) -> Self {
        match name {
            "HotKeyNotRegisteredInSubNet"
            | "HotKeyNotRegisteredInNetwork"
            | "AccountNotAllowedCommit" => Self::NotRegistered,
            "NeuronNoValidatorPermit" => Self::NoPermit,
            "NotEnoughStakeToSetWeights" => Self::StakeTooLow,
            "SettingWeightsTooFast"
            | "CommittingWeightsTooFast"
            | "ServingRateLimitExceeded"
            | "TxRateLimitExceeded"
            | "TooManyRegistrationsThisBlock"
            | "TooManyRegistrationsThisInterval" => Self::RateLimited { retry_at: None },
            "SpaceLimitExceeded" => Self::CommitSpace {
                used: None,
                max: crate::fields::SPACE_PER_EPOCH,
                resets_at: None,
            },
            "TooManyFieldsInCommitmentInfo" => Self::TooLarge,
            "WeightVecLengthIsLow" => Self::TooFewWeights { min: 0 },
            "MaxWeightExceeded" => Self::WeightTooLarge,
            "WeightVecNotEqualSize"
            | "DuplicateUids"
            | "UidVecContainInvalidOne"
            | "UidsLengthExceedUidsInSubNet" => Self::BadUids,
            "IncorrectWeightVersionKey" => Self::VersionKey { need: 0 },
            "CommitRevealEnabled" | "CommitRevealDisabled" | "IncorrectCommitRevealVersion" => {
                Self::CommitRevealMode
            }
            "TooManyUnrevealedCommits" => Self::TooManyUnrevealed,
            "InvalidRevealRound" => Self::InvalidRevealRound,
            "InvalidIpType" | "InvalidIpAddress" | "InvalidPort" => Self::InvalidEndpoint,
            "RegistrationPriceLimitExceeded" => Self::BurnTooHigh { price: None },
            "HotKeyAlreadyRegisteredInSubNet" => Self::AlreadyRegistered,
            _ => Self::Dispatch {
                pallet: pallet.to_owned(),
                name: name.to_owned(),
            },
        }
    }

    /// The rejection that a validity error's number stands for. These numbers are never reassigned.
    #[must_use]
    pub fn from_custom(code: u8) -> Self {
        match code {
            1 => Self::StakeTooLow,
            6 | 12 => Self::RateLimited { retry_at: None },
            10 => Self::NotRegistered,
            11 | 13 => Self::InvalidEndpoint,
            15 => Self::InvalidRevealRound,
            18 | 19 => Self::BadUids,
            _ => Self::Custom(code),
        }
    }
}

/// A refusal before the operation reached a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Its nonce has been used.
    #[error("the operation's nonce is stale")]
    Stale,
    /// Its nonce is beyond the next one.
    #[error("the operation's nonce is in the future")]
    Future,
    /// The signature does not cover these bytes for this chain.
    #[error("the operation's signature is not valid on this chain")]
    BadProof,
    /// Its last block is past, or too far ahead to be accepted.
    #[error("the operation is outdated")]
    Outdated,
    /// The very same operation is waiting already.
    #[error("the operation is already in the pool")]
    AlreadyImported,
    /// Another operation with the same nonce is waiting.
    #[error("another operation with the same nonce is in the pool")]
    PriorityTooLow,
    /// As many operations are waiting as a block can hold.
    #[error("the pool is full")]
    Full,
    /// The pool has seen it before and does not want it again for a while.
    #[error("the operation is banned from the pool for a while")]
    Banned,
    /// The paying account has too little.
    #[error("the account cannot pay the operation's fee")]
    CannotPay,
    /// A validity error with the runtime's own number.
    #[error("the operation is invalid with custom error {0}")]
    Custom(u8),
    /// The bytes are no operation.
    #[error("the operation cannot be decoded: {0}")]
    Undecodable(String),
    /// Any other answer of the pool, verbatim.
    #[error("the pool answered {code}: {message}")]
    Other {
        /// The JSON-RPC error code.
        code: i64,
        /// Its text.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_seen_before_is_shown_verbatim() {
        let reject = Reject::from_dispatch("SubtensorModule", "MoonTooFull");
        assert_eq!(
            reject.to_string(),
            "the chain answered SubtensorModule.MoonTooFull"
        );
        assert_eq!(Reject::from_custom(200), Reject::Custom(200));
    }
}
