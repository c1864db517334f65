//! The memory of requests already accepted, bounded in every direction.
//!
//! A nonce is kept for as long as the window would accept it again and forgotten afterwards, so the
//! memory can never be shorter than the window. What was forgotten stays refused even if the
//! clock steps back. Each sender has its own share, so that none can crowd out the others.

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::ids::Hotkey;

use super::{AuthError, MAX_AGE_NS};

/// Remembers (sender, nonce) pairs for the length of the accepted time.
///
/// Anyone can make keys, so a server first asks whether it knows the sender at all
/// ([`Headers::sender`](super::Headers::sender) against its metagraph) and verifies only then:
/// otherwise strangers could fill the places meant for participants.
#[derive(Debug)]
pub struct ReplayStore {
    seen: BTreeMap<Hotkey, BTreeSet<u64>>,
    per_sender: usize,
    senders: usize,
    /// Nonces below this are no longer known one by one and are all refused.
    horizon: u64,
}

impl ReplayStore {
    /// A store for `senders` senders of at most `per_sender` requests each within the window.
    ///
    /// Nothing signed before `started` (nanoseconds since 1970) is accepted: a restarted receiver
    /// does not know what it had accepted before.
    #[must_use]
    pub fn new(senders: usize, per_sender: usize, started: u64) -> Self {
        Self {
            seen: BTreeMap::new(),
            per_sender,
            senders,
            horizon: started,
        }
    }

    /// Notes a request whose signature has been verified.
    ///
    /// # Errors
    /// [`AuthError::Replayed`] if it is known, [`AuthError::Stale`] if it is older than the memory,
    /// [`AuthError::Overloaded`] if it does not fit.
    pub(super) fn remember(
        &mut self,
        sender: Hotkey,
        nonce: u64,
        now: u64,
    ) -> Result<(), AuthError> {
        self.horizon = self.horizon.max(now.saturating_sub(MAX_AGE_NS));
        if nonce < self.horizon {
            return Err(AuthError::Stale);
        }
        if self.seen.len() >= self.senders && !self.seen.contains_key(&sender) {
            self.forget_all_past();
            if self.seen.len() >= self.senders {
                return Err(AuthError::Overloaded);
            }
        }
        let nonces = self.seen.entry(sender).or_default();
        if nonces.contains(&nonce) {
            return Err(AuthError::Replayed);
        }
        if nonces.len() >= self.per_sender {
            *nonces = nonces.split_off(&self.horizon);
            if nonces.len() >= self.per_sender {
                return Err(AuthError::Overloaded);
            }
        }
        nonces.insert(nonce);
        Ok(())
    }

    fn forget_all_past(&mut self) {
        for nonces in self.seen.values_mut() {
            *nonces = nonces.split_off(&self.horizon);
        }
        self.seen.retain(|_, nonces| !nonces.is_empty());
    }
}
