//! Operations waiting for the next block, in order of arrival.
//!
//! The pool answers as a Substrate node does: a used nonce is stale, a skipped one is in the future,
//! a second operation with a waiting nonce has too low a priority. It holds at most one block's
//! worth, so whatever it accepts lands in the very next block.

use connito_protocol::ids::Hotkey;

use super::execute::{CheckedOp, MAX_MORTALITY_BLOCKS};
use super::history::Entry;
use super::rules;
use crate::error::PoolError;
use crate::operation::{Op, OperationId};

/// Operations in one block: four for each of 256 neurons.
pub(super) const MAX_OPERATIONS: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Pool {
    waiting: Vec<CheckedOp>,
}

impl Pool {
    /// Takes an operation in, or says why not.
    pub(super) fn admit(
        &mut self,
        operation: CheckedOp,
        head: &Entry,
    ) -> Result<OperationId, PoolError> {
        let envelope = &operation.signed.envelope;
        let next = head.block.number.next();
        let latest = next.0 + MAX_MORTALITY_BLOCKS;
        if envelope.valid_until < next || envelope.valid_until.0 > latest {
            return Err(PoolError::Outdated);
        }
        let id = operation.id;
        let same_nonce = self.of(envelope.signer).find(|op| op.0 == envelope.nonce);
        match same_nonce {
            Some((_, waiting)) if waiting == id => return Err(PoolError::AlreadyImported),
            Some(_) => return Err(PoolError::PriorityTooLow),
            None => {}
        }
        let expected = self.next_nonce(envelope.signer, head);
        if envelope.nonce < expected {
            return Err(PoolError::Stale);
        }
        if envelope.nonce > expected {
            return Err(PoolError::Future);
        }
        if let Op::Serve(endpoint) = &operation.op {
            let checked = rules::check_serve(&head.state, next, envelope.signer, endpoint);
            if let Some(code) = checked.err().and_then(rules::Failure::custom) {
                return Err(PoolError::Custom(code));
            }
        }
        if self.waiting.len() >= MAX_OPERATIONS {
            return Err(PoolError::Full);
        }
        self.waiting.push(operation);
        Ok(id)
    }

    /// The nonce an account's next operation must have, counting those that wait.
    pub(super) fn next_nonce(&self, account: Hotkey, head: &Entry) -> u64 {
        let used = head.state.nonce(account);
        // A block being made may already have carried out some of those that wait.
        self.of(account)
            .map(|(nonce, _)| nonce + 1)
            .max()
            .unwrap_or(0)
            .max(used)
    }

    pub(super) fn waiting(&self) -> &[CheckedOp] {
        &self.waiting
    }

    /// Forgets the oldest `count`: a block has settled them.
    pub(super) fn settle(&mut self, count: usize) {
        self.waiting.drain(..count.min(self.waiting.len()));
    }

    fn of(&self, account: Hotkey) -> impl Iterator<Item = (u64, OperationId)> {
        let mine = move |op: &&CheckedOp| op.signed.envelope.signer == account;
        self.waiting
            .iter()
            .filter(mine)
            .map(|op| (op.signed.envelope.nonce, op.id))
    }
}
