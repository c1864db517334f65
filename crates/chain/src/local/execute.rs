//! From one block to the next: a pure function of the parent, its state and the operations.
//!
//! ```text
//! end an epoch if due → for each operation in order of arrival: settle nonce and mortality,
//! carry it out → digest the state → hash = blake2_256(number ‖ parent ‖ operations ‖ state)
//! ```
//!
//! Producing a block and replaying it from the log run the same code, so a replay either gives the
//! same hash or proves the log wrong. The operations' digest is over their ids: signatures are
//! randomised and shall not decide a hash that others draw their randomness from.

use connito_protocol::ids::{Block, BlockHash, Hotkey, Netuid};
use serde::{Deserialize, Serialize};

use super::rules::{self, Place};
use super::state::State;
use super::{epoch, genesis::GenesisSpec};
use crate::chain::BlockRef;
use crate::codec::put_count;
use crate::envelope::{SignedOp, blake2_256};
use crate::error::PoolError;
use crate::operation::{Op, OperationId, decode_call};

/// How far ahead an operation's last block may lie.
pub(super) const MAX_MORTALITY_BLOCKS: u64 = 65_536;

/// What became of one operation of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The operation.
    pub operation: OperationId,
    /// Who asked.
    pub signer: Hotkey,
    /// Its position in the block.
    pub index: u32,
    /// Why it had no effect; absent when it had.
    pub failure: Option<DispatchFailure>,
}

/// The runtime's name for a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchFailure {
    /// The pallet that refused.
    pub pallet: String,
    /// Its name for the refusal.
    pub name: String,
}

/// An operation whose signature, chain and bytes have been checked. What remains depends on the
/// state.
#[derive(Debug, Clone)]
pub(super) struct CheckedOp {
    pub(super) id: OperationId,
    pub(super) signed: SignedOp,
    pub(super) op: Op,
}

impl CheckedOp {
    /// Checks everything that is the same in every state.
    pub(super) fn new(
        signed: SignedOp,
        genesis: BlockHash,
        netuid: Netuid,
    ) -> Result<Self, PoolError> {
        let (at, op) = decode_call(&signed.envelope.call)
            .map_err(|error| PoolError::Undecodable(error.to_string()))?;
        if at != netuid {
            return Err(PoolError::Custom(3));
        }
        if signed.envelope.genesis != genesis || !signed.verify() {
            return Err(PoolError::BadProof);
        }
        Ok(Self {
            id: signed.id(),
            signed,
            op,
        })
    }
}

/// A block, the state after it, and what became of its operations.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) block: BlockRef,
    pub(super) state: State,
    pub(super) outcomes: Vec<Outcome>,
    /// How many operations were left out because they can no longer be carried out.
    pub(super) dropped: usize,
    /// The operations that went in, for the log.
    pub(super) included: Vec<SignedOp>,
}

/// Block 0.
pub(super) fn genesis(spec: &GenesisSpec, mut state: State) -> (BlockRef, State) {
    let parent = BlockHash([0; 32]);
    let hash = block_hash(Block(0), parent, &[], state.digest());
    let timestamp_ms = Some(spec.time_of(Block(0)));
    (
        BlockRef {
            number: Block(0),
            hash,
            parent,
            timestamp_ms,
        },
        state,
    )
}

/// The block after `parent`.
pub(super) fn next_block(parent: &BlockRef, before: &State, operations: &[CheckedOp]) -> Executed {
    let number = parent.number.next();
    let mut state = before.clone();
    epoch::on_block(&mut state, number);

    let (mut outcomes, mut included) = (Vec::new(), Vec::new());
    for operation in operations {
        let envelope = &operation.signed.envelope;
        let (signer, nonce) = (envelope.signer, state.nonce(envelope.signer));
        if envelope.nonce != nonce || envelope.valid_until < number {
            continue;
        }
        // The nonce is used up whatever comes of it: a failed operation cannot be sent again.
        state.nonces.edit().insert(signer, nonce + 1);
        let index = outcomes.len() as u32;
        let place = Place {
            block: number,
            index,
        };
        let failure = rules::apply(&mut state, place, signer, &operation.op).err();
        let failure = failure.map(|failure| DispatchFailure {
            pallet: failure.pallet().to_owned(),
            name: format!("{failure:?}"),
        });
        outcomes.push(Outcome {
            operation: operation.id,
            signer,
            index,
            failure,
        });
        included.push(operation.signed.clone());
    }

    let hash = block_hash(number, parent.hash, &outcomes, state.digest());
    let timestamp_ms = Some(state.spec.time_of(number));
    let block = BlockRef {
        number,
        hash,
        parent: parent.hash,
        timestamp_ms,
    };
    Executed {
        block,
        state,
        dropped: operations.len() - included.len(),
        outcomes,
        included,
    }
}

fn block_hash(
    number: Block,
    parent: BlockHash,
    operations: &[Outcome],
    state: [u8; 32],
) -> BlockHash {
    let mut ids = Vec::new();
    put_count(&mut ids, operations.len());
    operations
        .iter()
        .for_each(|outcome| ids.extend_from_slice(&outcome.operation.0));

    let mut header = number.0.to_le_bytes().to_vec();
    header.extend_from_slice(&parent.0);
    header.extend_from_slice(&blake2_256(&ids));
    header.extend_from_slice(&state);
    BlockHash(blake2_256(&header))
}
