//! From one block to the next: a pure function of the parent, its state and the extrinsics that wait.
//!
//! ```text
//! number, parent, digest → start of the block (pallets) → set the time
//!   → each extrinsic in order of arrival: still valid? nonce + 1, carry it out, events
//!   → events → state root → header
//! ```
//!
//! Making a block and replaying it from the log run the same code, so that a replay either gives the
//! same hash or proves the log wrong. A call that fails leaves nothing but its used-up nonce and the event
//! that says why. There are no fees; every extrinsic has the same weight.

use std::collections::BTreeMap;

use connito_protocol::ids::Block as Number;
use parity_scale_codec::{Compact, Encode};

use super::block::{self, Header, Sealed};
use super::event::DispatchError;
use super::extrinsic::{Era, Extrinsic, SPEC_VERSION};
use super::genesis::GenesisSpec;
use super::pallets::{self, Block};
use super::refusal::Refusal;
use super::set_hash::SetHash;
use super::storage::{Key, Overlay, State};
use super::store::{Changes, Store, View};
use super::system::{self, Opaque};

/// The runtime's name.
pub(super) const SPEC_NAME: &str = "node-subtensor";

/// Where the genesis state says which specification it is of, in everything that distinguishes two.
const SPECIFICATION: &[u8] = b":connito:specification";
/// What every extrinsic is said to cost: reference time in picoseconds, and bytes of proof.
pub(super) const WEIGHT: (u64, u64) = (300_000_000, 8_000);

/// An extrinsic whose signature has been found to hold.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) extrinsic: Extrinsic,
    /// The first block that cannot include it any more.
    pub(super) death: u64,
    /// The block its era was born in, which the signature covers.
    birth: [u8; 32],
}

impl Checked {
    /// Finds out which block an extrinsic's era began with, as seen from the block after `parent`.
    ///
    /// # Errors
    /// That block is not known, or not any more.
    pub(super) fn birth(
        extrinsic: &Extrinsic,
        parent: &Sealed,
        state: &impl State,
        genesis: [u8; 32],
    ) -> Result<[u8; 32], Refusal> {
        if extrinsic.era == Era::Immortal {
            return Ok(genesis);
        }
        let birth = extrinsic.era.birth(parent.header.number + 1);
        if birth == parent.header.number {
            return Ok(parent.hash);
        }
        let known = u32::try_from(birth).ok();
        known
            .and_then(|birth| system::BLOCK_HASH.get(state, &(birth,)))
            .ok_or(Refusal::AncientBirthBlock)
    }

    /// Checks the signature of an extrinsic with the birth block that [`Self::birth`] found. `next` is the
    /// block it may be included in first.
    ///
    /// # Errors
    /// The signature does not hold.
    pub(super) fn new(
        extrinsic: Extrinsic,
        birth: [u8; 32],
        genesis: &[u8; 32],
        next: u64,
    ) -> Result<Self, Refusal> {
        extrinsic.verify(genesis, &birth)?;
        let death = extrinsic.era.death(next);
        Ok(Self {
            extrinsic,
            death,
            birth,
        })
    }
}

/// What became of an extrinsic that was offered to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the block, whether it succeeded or failed there.
    Included,
    /// Its nonce is ahead of the account's: perhaps in a later block.
    Premature,
    /// It cannot be included, now or later.
    Invalid,
}

/// A block that is not shown to anybody yet.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) block: Sealed,
    /// The changes to the parent's state and the hash of the state with them, for [`Store::push`].
    pub(super) changes: Changes,
    pub(super) hash: SetHash,
    /// One for each extrinsic that was offered.
    pub(super) fates: Vec<Fate>,
}

/// Block 0 and its state.
pub(super) fn genesis(spec: &GenesisSpec) -> (Sealed, BTreeMap<Key, Vec<u8>>) {
    let empty = Store::new(0, BTreeMap::new(), 1);
    let time_ms = spec.time_of(Number(0));
    let nothing = empty.head();
    let mut state = Overlay::new(&nothing);
    system::NUMBER.put(&mut state, &(), &0);
    system::NOW.put(&mut state, &(), &time_ms);
    system::DIGEST.put(&mut state, &(), &Opaque(block::digest(None)));
    let runtime = (Compact(SPEC_VERSION), SPEC_NAME.to_owned());
    system::LAST_RUNTIME_UPGRADE.put(&mut state, &(), &runtime);
    pallets::genesis(spec, &mut state);
    let mut changes = state.into_changes();
    changes.insert(SPECIFICATION.to_vec(), Some(spec.digest().to_vec()));
    let (hash, changes) = empty.with(changes);
    let header = Header {
        parent: [0; 32],
        number: 0,
        state_root: hash.root(),
        extrinsics_root: block::extrinsics_root(&[]),
        slot: None,
    };
    let pairs = changes
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    (sealed(header, time_ms, Vec::new()), pairs.collect())
}

/// The block after `parent`, whose state is the store's newest.
pub(super) fn next_block(
    store: &Store,
    parent: &Sealed,
    spec: &GenesisSpec,
    (genesis, offered): ([u8; 32], &[Checked]),
) -> Made {
    let number = parent.header.number + 1;
    let block = Block {
        number,
        time_ms: spec.time_of(Number(number)),
    };
    let slot = block.time_ms / spec.block_time_ms.max(1);
    let before = store.head();
    let mut making = Making {
        state: Overlay::new(&before),
        block,
        events: Events::default(),
        extrinsics: Vec::new(),
    };
    making.initialise(parent, slot);
    let mut fates = Vec::with_capacity(offered.len());
    let mut dropped = Vec::new();
    for checked in offered {
        let fate = making.offer(checked, parent, &before, genesis);
        if fate == Fate::Invalid {
            dropped.push(checked.extrinsic.hash);
        }
        fates.push(fate);
    }
    let extrinsics = std::mem::take(&mut making.extrinsics);
    let (hash, changes) = store.with(making.finalise());
    let header = Header {
        parent: parent.hash,
        number,
        state_root: hash.root(),
        extrinsics_root: block::extrinsics_root(&extrinsics),
        slot: Some(slot),
    };
    let mut block = sealed(header, block.time_ms, extrinsics);
    block.dropped = dropped;
    Made {
        block,
        changes,
        hash,
        fates,
    }
}

fn sealed(header: Header, time_ms: u64, extrinsics: Vec<Vec<u8>>) -> Sealed {
    Sealed {
        hash: header.hash(),
        header,
        time_ms,
        extrinsics,
        dropped: Vec::new(),
    }
}

/// A block in the making.
struct Making<'a> {
    state: Overlay<'a>,
    block: Block,
    events: Events,
    extrinsics: Vec<Vec<u8>>,
}

impl Making<'_> {
    fn initialise(&mut self, parent: &Sealed, slot: u64) {
        let number = self.block.number;
        let state = &mut self.state;
        system::NUMBER.put(state, &(), &height(number));
        system::PARENT_HASH.put(state, &(), &parent.hash);
        let before = height(parent.header.number);
        system::BLOCK_HASH.put(state, &(before,), &parent.hash);
        // The first block's hash stays, as on a real chain.
        let outlived = number.saturating_sub(system::BLOCK_HASHES + 1);
        if outlived > 0 {
            system::BLOCK_HASH.kill(state, &(height(outlived),));
        }
        system::DIGEST.put(state, &(), &Opaque(block::digest(Some(slot))));
        for event in pallets::on_initialize(state, &self.block) {
            self.events.push(Phase::Initialization, &event.encode());
        }
        system::NOW.put(&mut self.state, &(), &self.block.time_ms);
        self.extrinsics.push(block::set_time(self.block.time_ms));
        self.events.succeeded(0, Class::Mandatory);
    }

    fn offer(
        &mut self,
        checked: &Checked,
        parent: &Sealed,
        before: &View<'_>,
        genesis: [u8; 32],
    ) -> Fate {
        let extrinsic = &checked.extrinsic;
        let nonce = system::nonce(&self.state, extrinsic.signer);
        if extrinsic.nonce > nonce {
            return Fate::Premature;
        }
        let birth = Checked::birth(extrinsic, parent, before, genesis);
        let allowed =
            pallets::validate(&self.state, extrinsic.signer, &extrinsic.call, &self.block);
        if extrinsic.nonce < nonce || birth != Ok(checked.birth) || allowed.is_err() {
            return Fate::Invalid;
        }
        self.apply(extrinsic);
        Fate::Included
    }

    fn apply(&mut self, extrinsic: &Extrinsic) {
        let index = self.extrinsics.len() as u32;
        let (signer, block) = (extrinsic.signer, self.block);
        // Used up whatever comes of it: a failed extrinsic cannot be sent again.
        let mut account = system::ACCOUNT.get_or(&self.state, &(signer,), Default::default());
        account.nonce = account.nonce.saturating_add(1);
        system::ACCOUNT.put(&mut self.state, &(signer,), &account);
        let call = extrinsic.call.clone();
        let result = self
            .state
            .transact(|state| pallets::dispatch(state, signer, call, &block));
        self.extrinsics.push(extrinsic.bytes.clone());
        match result {
            Ok(events) => {
                for event in &events {
                    self.events
                        .push(Phase::ApplyExtrinsic(index), &event.encode());
                }
                self.events.succeeded(index, Class::Normal);
            }
            Err(error) => self.events.failed(index, error),
        }
    }

    fn finalise(mut self) -> Changes {
        system::EVENT_COUNT.put(&mut self.state, &(), &self.events.count);
        system::EVENTS.put(&mut self.state, &(), &Opaque(self.events.into_bytes()));
        self.state.into_changes()
    }
}

/// Heights as the runtime counts them.
fn height(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// During which part of a block something happened.
#[derive(Clone, Copy)]
enum Phase {
    ApplyExtrinsic(u32),
    Initialization,
}

/// Which part of a block's room an extrinsic takes.
#[derive(Clone, Copy)]
enum Class {
    Normal = 0,
    Mandatory = 2,
}

/// The value of `System.Events`, without the count in front.
#[derive(Default)]
struct Events {
    count: u32,
    bytes: Vec<u8>,
}

impl Events {
    fn push(&mut self, phase: Phase, event: &[u8]) {
        match phase {
            Phase::ApplyExtrinsic(index) => (0_u8, index).encode_to(&mut self.bytes),
            Phase::Initialization => self.bytes.push(2),
        }
        self.bytes.extend_from_slice(event);
        // No topics.
        self.bytes.push(0);
        self.count += 1;
    }

    fn succeeded(&mut self, index: u32, class: Class) {
        let mut event = vec![0, 0];
        put_info(&mut event, class);
        self.push(Phase::ApplyExtrinsic(index), &event);
    }

    fn failed(&mut self, index: u32, error: DispatchError) {
        let mut event = vec![0, 1];
        error.encode_to(&mut event);
        put_info(&mut event, Class::Normal);
        self.push(Phase::ApplyExtrinsic(index), &event);
    }

    fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Compact(self.count).encode();
        bytes.extend_from_slice(&self.bytes);
        bytes
    }
}

/// `DispatchInfo`: weight, class, and that no fee was paid.
fn put_info(event: &mut Vec<u8>, class: Class) {
    Compact(WEIGHT.0).encode_to(event);
    Compact(WEIGHT.1).encode_to(event);
    event.extend_from_slice(&[class as u8, 1]);
}
