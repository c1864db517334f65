//! Extrinsics waiting for a block, in order of arrival.
//!
//! The pool answers as a Substrate node does. What an account can send next is *ready*; what skips a
//! nonce is *future* and becomes ready when the gap fills. An extrinsic with the nonce of one that waits
//! never replaces it: nobody pays here, so no priority is higher. What a block finds invalid is banned for
//! a while, so that whoever repeats himself does not have it checked in every block.
//!
//! A block takes from the front of the ready ones. Both kinds are bounded, in number and in bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::execute::{Checked, Fate};
use super::refusal::Refusal;
use super::storage::AccountId;

/// Extrinsics in one block: four for each of 256 neurons.
pub(super) const MAX_BLOCK_EXTRINSICS: usize = 1_024;
/// Bytes of extrinsics in one block: what a real chain leaves for signed ones.
pub(super) const MAX_BLOCK_BYTES: usize = 3_932_160;
/// Extrinsics that are ready, as in a real node.
const MAX_READY: usize = 8_192;
/// Extrinsics that wait for another.
const MAX_FUTURE: usize = 512;
/// Bytes of all that wait.
const MAX_BYTES: usize = 20 * 1024 * 1024;
/// Hashes that are remembered as invalid, and for how many blocks.
const MAX_BANNED: usize = 1_024;
const BANNED_BLOCKS: u64 = 150;

/// Extrinsics that wait.
#[derive(Debug, Default)]
pub(super) struct Pool {
    ready: Vec<Checked>,
    future: BTreeMap<(AccountId, u32), Checked>,
    /// The hash of everything that waits.
    known: BTreeSet<[u8; 32]>,
    /// The nonce after each account's ready ones, which have no gap.
    nonces: BTreeMap<AccountId, u32>,
    bytes: usize,
    banned: BTreeMap<[u8; 32], u64>,
}

/// Where an extrinsic waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// For the next block with room.
    Ready,
    /// For another extrinsic of its account.
    Future,
}

impl Pool {
    /// Refuses what is known before anything is computed about it.
    ///
    /// # Errors
    /// It waits already, or has been found invalid.
    pub(super) fn check_new(&self, hash: &[u8; 32]) -> Result<(), Refusal> {
        if self.known.contains(hash) {
            return Err(Refusal::AlreadyImported(*hash));
        }
        if self.banned.contains_key(hash) {
            return Err(Refusal::TemporarilyBanned);
        }
        Ok(())
    }

    /// Takes an extrinsic in. `nonce` is that of its account in the newest state.
    ///
    /// # Errors
    /// Its nonce is used up or taken, or there is no room.
    pub(super) fn admit(&mut self, checked: Checked, nonce: u32) -> Result<Place, Refusal> {
        let (hash, length) = (checked.extrinsic.hash, checked.extrinsic.bytes.len());
        self.check_new(&hash)?;
        let (signer, own) = (checked.extrinsic.signer, checked.extrinsic.nonce);
        if own < nonce {
            return Err(Refusal::Stale);
        }
        let expected = self.next_nonce(signer, nonce);
        if own < expected || self.future.contains_key(&(signer, own)) {
            return Err(Refusal::TooLowPriority);
        }
        let is_ready = own == expected;
        let has_room = match is_ready {
            true => self.ready.len() < MAX_READY,
            false => self.future.len() < MAX_FUTURE,
        };
        if !has_room || self.bytes + length > MAX_BYTES {
            return Err(Refusal::ImmediatelyDropped);
        }
        self.known.insert(hash);
        self.bytes += length;
        if !is_ready {
            self.future.insert((signer, own), checked);
            return Ok(Place::Future);
        }
        self.make_ready(checked);
        Ok(Place::Ready)
    }

    /// Makes an extrinsic ready, and those that waited for it.
    fn make_ready(&mut self, checked: Checked) {
        let signer = checked.extrinsic.signer;
        let mut next = Some(checked);
        while let Some(checked) = next {
            let nonce = checked.extrinsic.nonce;
            let after = nonce.saturating_add(1);
            self.nonces.insert(signer, after);
            self.ready.push(checked);
            next = self.future.remove(&(signer, after));
        }
    }

    /// The nonce of an account's next extrinsic, counting those that are ready. `nonce` is that in the newest
    /// state.
    pub(super) fn next_nonce(&self, account: AccountId, nonce: u32) -> u32 {
        let after_ready = self.nonces.get(&account).copied();
        after_ready.unwrap_or(0).max(nonce)
    }

    /// Where an extrinsic waits, if it does.
    pub(super) fn place(&self, hash: &[u8; 32]) -> Option<Place> {
        if !self.known.contains(hash) {
            return None;
        }
        let in_future = self.future.values().any(|c| c.extrinsic.hash == *hash);
        Some(if in_future {
            Place::Future
        } else {
            Place::Ready
        })
    }

    /// The messages of those that are ready.
    pub(super) fn pending(&self) -> impl Iterator<Item = &[u8]> {
        self.ready
            .iter()
            .map(|checked| checked.extrinsic.bytes.as_slice())
    }

    /// Those that the next block has room for.
    pub(super) fn for_block(&self) -> Vec<Checked> {
        let mut bytes = 0;
        self.ready
            .iter()
            .take(MAX_BLOCK_EXTRINSICS)
            .take_while(|checked| {
                bytes += checked.extrinsic.bytes.len();
                bytes <= MAX_BLOCK_BYTES
            })
            .cloned()
            .collect()
    }

    /// Whether anything is ready.
    pub(super) fn is_waiting(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes out what the block `number` has settled: the first of the ready ones, with their fates.
    /// `nonce` gives an account's nonce after that block. What is left is sorted anew, and what can never be
    /// included any more is gone; its hashes are returned.
    pub(super) fn settle(
        &mut self,
        number: u64,
        fates: &[Fate],
        nonce: impl Fn(AccountId) -> u32,
    ) -> Vec<[u8; 32]> {
        self.banned.retain(|_, until| *until > number);
        let ready = std::mem::take(&mut self.ready);
        let future = std::mem::take(&mut self.future);
        self.known.clear();
        self.nonces.clear();
        self.bytes = 0;
        let mut gone = Vec::new();
        let no_fate = std::iter::repeat(&Fate::Premature);
        for (checked, fate) in ready.into_iter().zip(fates.iter().chain(no_fate)) {
            let hash = checked.extrinsic.hash;
            match fate {
                Fate::Included => {}
                Fate::Invalid => self.ban(hash, number),
                Fate::Premature => gone.extend(self.put_back(checked, number, &nonce)),
            }
        }
        for checked in future.into_values() {
            gone.extend(self.put_back(checked, number, &nonce));
        }
        gone
    }

    fn put_back(
        &mut self,
        checked: Checked,
        number: u64,
        nonce: impl Fn(AccountId) -> u32,
    ) -> Option<[u8; 32]> {
        let hash = checked.extrinsic.hash;
        let nonce = nonce(checked.extrinsic.signer);
        let is_alive = checked.death > number.saturating_add(1);
        let is_back = is_alive && self.admit(checked, nonce).is_ok();
        (!is_back).then_some(hash)
    }

    fn ban(&mut self, hash: [u8; 32], number: u64) {
        if self.banned.len() < MAX_BANNED {
            self.banned
                .insert(hash, number.saturating_add(BANNED_BLOCKS));
        }
    }
}
