//! The port through which every role sees its chain: seven methods, reads pinned to one block.
//!
//! Two chains stand behind it, Bittensor and the embedded one of this crate. What roles see of either
//! is decided here: a block is a number, a hash and a parent; a subnet is a table of
//! neurons, a set of parameters and an epoch; a participant writes commitments and weights. Nothing
//! here knows how a chain is reached or how it encodes anything.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use connito_protocol::ids::{Block, BlockHash, Hotkey, Netuid, Uid};
use serde::{Deserialize, Serialize};

use crate::error::ChainError;
use crate::fields::Field;
use crate::keys::Signer;
use crate::operation::{Endpoint, Op, OperationId};

/// Time, identities, commitments and weights.
///
/// Every answer carries the block it was read at; an answer never mixes two blocks. Reads may be
/// repeated and their futures dropped freely. A read of a block whose state is gone is
/// [`ChainError::Pruned`], never silently a read of the head. Randomness is `block(at).hash`, which
/// a block's author can bias by withholding the block.
pub trait Chain: Send + Sync {
    /// Which chain and subnet this is. Does not change while the value lives.
    fn identity(&self) -> &ChainId;

    /// The block that `at` stands for.
    fn block(&self, at: At) -> impl Future<Output = Result<BlockRef, ChainError>> + Send;

    /// The block after `after`, as soon as it exists, and how far the chain has come by then.
    ///
    /// Never skips: after a gap the missing blocks come one by one. Cancel-safe. No new block for
    /// ten block times is a transport error; otherwise an expired `deadline` is
    /// [`ChainError::Timeout`].
    fn wait_block(
        &self,
        after: Block,
        deadline: Duration,
    ) -> impl Future<Output = Result<Arrival, ChainError>> + Send;

    /// The subnet's neurons, parameters and epoch.
    fn metagraph(
        &self,
        at: At,
    ) -> impl Future<Output = Result<Pinned<Metagraph>, ChainError>> + Send;

    /// The commitment record of every neuron that has one, in the order of hotkeys. A record outlives
    /// the slot of its hotkey, and may come from before it.
    fn commitments(
        &self,
        at: At,
    ) -> impl Future<Output = Result<Pinned<Vec<CommitmentRecord>>, ChainError>> + Send;

    /// Every validator's weights, in the order of uids.
    fn weights(
        &self,
        at: At,
    ) -> impl Future<Output = Result<Pinned<Vec<WeightRow>>, ChainError>> + Send;

    /// Signs, sends, and returns once the operation's inclusion has been observed.
    ///
    /// Operations of one signer go out one after the other. Foreseeable rejections are found before
    /// anything is sent. [`ChainError::Unknown`] means sent and not observed; calling again with
    /// the same operation, also after a dropped future, takes up the one already sent where it may
    /// still land, instead of sending a second.
    fn submit(
        &self,
        signer: &dyn Signer,
        op: Op,
    ) -> impl Future<Output = Result<Receipt, ChainError>> + Send;
}

/// Which block to read at. Resolved once; every answer says what it was resolved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// The newest block.
    Head,
    /// The newest block that cannot be undone. On the embedded chain the same as the head.
    Finalized,
    /// The block with this hash.
    Hash(BlockHash),
    /// The block with this number.
    Number(Block),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head"),
            Self::Finalized => f.write_str("finalized"),
            Self::Hash(hash) => hash.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// One block of one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// Its height.
    pub number: Block,
    /// Its name, and the randomness drawn from it.
    pub hash: BlockHash,
    /// The hash of the block before it.
    pub parent: BlockHash,
    /// Milliseconds since 1970, where the chain says so.
    pub timestamp_ms: Option<u64>,
}

/// A block that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The block.
    pub block: BlockRef,
    /// The number of the chain's newest block when it was found: this one's, unless there is something
    /// to catch up with.
    pub head: Block,
}

/// A value and the block at which it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned<T> {
    /// The block.
    pub at: BlockRef,
    /// What held there.
    pub value: T,
}

/// What makes two chains the same chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainId {
    /// The hash of block 0.
    pub genesis: BlockHash,
    /// The subnet that is read and written.
    pub netuid: Netuid,
    /// Milliseconds between blocks.
    pub block_time_ms: u64,
    /// What kind of chain it is.
    pub kind: ChainKind,
}

/// The kinds of chain this crate can talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainKind {
    /// The embedded chain of this crate.
    Local,
    /// A node of a public network, or one like it.
    Bittensor,
}

/// The subnet at one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metagraph {
    /// The subnet.
    pub netuid: Netuid,
    /// The owner's hotkey, which need not have a slot.
    pub owner: Option<Hotkey>,
    /// The neurons, in the order of uids.
    pub neurons: Vec<Neuron>,
    /// The subnet's parameters.
    pub params: SubnetParams,
    /// Where in its epoch the subnet is.
    pub epoch: EpochState,
}

impl Metagraph {
    /// The neuron of this hotkey.
    #[must_use]
    pub fn neuron(&self, hotkey: Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|neuron| neuron.hotkey == hotkey)
    }
}

/// One slot of the subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neuron {
    /// The slot's number. Reused after a neuron is pruned: identity is the hotkey.
    pub uid: Uid,
    /// Whose slot it is.
    pub hotkey: Hotkey,
    /// Who registered it.
    pub coldkey: Hotkey,
    /// Since when. Hotkey and this block together are an identity.
    pub registered_at: Block,
    /// Where it says it can be reached.
    pub endpoint: Option<Endpoint>,
    /// When it said so; block 0 for never.
    pub served_at: Block,
    /// Whether its weights count.
    pub validator_permit: bool,
    /// Whether it has updated within the activity cutoff, as of the last epoch.
    pub active: bool,
    /// Its stake.
    pub stake_rao: u64,
    /// When it last set weights, or registered; block 0 for never.
    pub last_update: Block,
    /// Its share of the last epoch's incentive, of 65,535.
    pub incentive: u16,
}

/// The subnet's parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetParams {
    /// Blocks between two settings of weights by one neuron.
    pub weights_rate_limit: u64,
    /// Blocks between two publications of an endpoint by one neuron.
    pub serving_rate_limit: u64,
    /// The least number of entries in a setting of weights.
    pub min_allowed_weights: u16,
    /// The largest share of any one weight, of 65,535.
    pub max_weight_limit: u16,
    /// The oldest acceptable version of weights.
    pub weights_version_key: u64,
    /// Blocks after registration in which a neuron is not pruned.
    pub immunity_period: u16,
    /// Slots.
    pub max_uids: u16,
    /// Validator permits.
    pub max_validators: u16,
    /// The least stake that may set weights.
    pub stake_threshold_rao: u64,
    /// Blocks without an update after which a neuron counts as inactive.
    pub activity_cutoff: u64,
    /// Whether weights must be sealed first.
    pub commit_reveal: bool,
    /// Commitment bytes per hotkey and epoch.
    pub commit_space: u64,
    /// The price of a slot.
    pub burn_rao: u64,
}

/// Where in its epoch a subnet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochState {
    /// Blocks in an epoch.
    pub tempo: u16,
    /// The block that opened this epoch.
    pub last_epoch_block: Block,
    /// The number of this epoch.
    pub index: u64,
    /// The block that will open the next one, as far as known.
    pub next_epoch_block: Option<Block>,
}

/// One hotkey's commitments, as last written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitmentRecord {
    /// Who wrote it.
    pub hotkey: Hotkey,
    /// The block that included it.
    pub block: Block,
    /// Its position among that block's operations. (block, index) is precedence.
    pub index: u32,
    /// The record.
    pub fields: Vec<Field>,
}

/// One validator's weights, as the chain scaled them: the largest is 65,535.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightRow {
    /// Who set them.
    pub validator: Hotkey,
    /// Each uid and its weight. The uids are those of the block the row was read at.
    pub weights: Vec<(Uid, u16)>,
}

/// Proof that an operation took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The operation.
    pub operation: OperationId,
    /// The block that included it.
    pub included: BlockRef,
    /// Its position in that block.
    pub index: u32,
    /// What was observed.
    pub confirmed_by: Confirmation,
    /// Of sealed weights: when they will show.
    pub reveal: Option<RevealPlan>,
}

/// When sealed weights come to light. A chain that could not open them says nothing: whoever set
/// them looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevealPlan {
    /// The beacon's round that opens them.
    pub round: u64,
    /// The block by which the chain shows them, unless it dropped them.
    pub visible_by: Block,
}

/// What the success of an operation was concluded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// The state at the including block shows what was asked.
    Effect,
    /// The block says it succeeded; a later operation of the same block has replaced the effect.
    Outcome,
}
