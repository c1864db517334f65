//! The record that every neuron may write, and the seals in it.
//!
//! A write overwrites the whole record and is charged its payload bytes, at least [`MIN_CHARGE`], against
//! the space of its hotkey and epoch. A sealed field is opened as soon as the beacon has spoken its round:
//! the plaintext goes to the last [`MAX_REVEALED`] of `RevealedCommitments` and the field disappears. What
//! cannot be opened stays, marked as failed. A later write over an unopened seal loses it.

use parity_scale_codec::{Decode, Encode};

use super::super::data::{CommitmentInfo, Data};
use super::super::event::{self, Event, RevealFailure};
use super::super::failure::Commitments as Failure;
use super::super::storage::{AccountId, Hasher, Item, Overlay, State};
use super::{Block, Outcome, drand, epoch, neurons};
use crate::timelock::{self, Envelope};

/// The least that a write is charged, in bytes.
const MIN_CHARGE: u64 = 100;
/// Bytes that one hotkey may write in one epoch, unless stored otherwise.
pub(super) const DEFAULT_MAX_SPACE: u32 = 3_100;
/// Revealed plaintexts that are kept of one hotkey.
const MAX_REVEALED: usize = 10;

const BY_NETUID_AND_ACCOUNT: &[Hasher] = &[Hasher::Identity, Hasher::Twox64Concat];

/// A record, and the block it was written in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Registration {
    deposit: u64,
    block: u32,
    info: CommitmentInfo,
}

/// What a hotkey has written in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct UsageTracker {
    last_epoch: u64,
    used_space: u64,
}

/// The records.
const COMMITMENT_OF: Item<(u16, AccountId), Registration> =
    Item::new("Commitments", "CommitmentOf", BY_NETUID_AND_ACCOUNT);
const LAST_COMMITMENT: Item<(u16, AccountId), u32> =
    Item::new("Commitments", "LastCommitment", BY_NETUID_AND_ACCOUNT);
const LAST_BONDS_RESET: Item<(u16, AccountId), u32> =
    Item::new("Commitments", "LastBondsReset", BY_NETUID_AND_ACCOUNT);
/// Plaintexts, and the blocks they were revealed in.
type Reveals = Vec<(Vec<u8>, u64)>;
const REVEALED_COMMITMENTS: Item<(u16, AccountId), Reveals> =
    Item::new("Commitments", "RevealedCommitments", BY_NETUID_AND_ACCOUNT);
const USED_SPACE_OF: Item<(u16, AccountId), UsageTracker> =
    Item::new("Commitments", "UsedSpaceOf", BY_NETUID_AND_ACCOUNT);
/// Bytes that one hotkey may write in one epoch.
pub(super) const MAX_SPACE: Item<(), u32> = Item::new("Commitments", "MaxSpace", &[]);
/// Whose records hold a seal, in order.
const TIMELOCKED_INDEX: Item<(), Vec<(u16, AccountId)>> =
    Item::new("Commitments", "TimelockedIndex", &[]);

/// Overwrites the signer's record.
///
/// # Errors
/// Not registered, a field that only the runtime writes, or no space left in this epoch.
pub(super) fn set(
    state: &mut Overlay<'_>,
    who: AccountId,
    netuid: u16,
    info: CommitmentInfo,
    block: &Block,
) -> Outcome {
    if neurons::uid(state, netuid, who).is_none() {
        return Err(Failure::AccountNotAllowedCommit.into());
    }
    let is_failure = |field: &Data| matches!(field, Data::TimelockRevealFailed { .. });
    if info.fields.iter().any(is_failure) {
        return Err(Failure::TimelockRevealFailedNotAllowed.into());
    }
    charge(state, (netuid, who), &info, block)?;

    // The runtime counts blocks in 32 bits here.
    let number = block.number as u32;
    if info.fields.contains(&Data::ResetBondsFlag) {
        LAST_BONDS_RESET.put(state, &(netuid, who), &number);
    }
    let sealed = info.fields.iter().find_map(|field| match field {
        Data::TimelockEncrypted { reveal_round, .. } => Some(*reveal_round),
        _ => None,
    });
    let record = Registration {
        deposit: 0,
        block: number,
        info,
    };
    COMMITMENT_OF.put(state, &(netuid, who), &record);
    LAST_COMMITMENT.put(state, &(netuid, who), &number);
    set_indexed(state, (netuid, who), sealed.is_some());
    let event = match sealed {
        Some(reveal_round) => event::Commitments::TimelockCommitment {
            netuid,
            who,
            reveal_round,
        },
        None => event::Commitments::Commitment { netuid, who },
    };
    Ok(vec![Event::Commitments(event)])
}

/// Takes the write out of the epoch's space.
fn charge(
    state: &mut Overlay<'_>,
    (netuid, who): (u16, AccountId),
    info: &CommitmentInfo,
    block: &Block,
) -> Result<(), Failure> {
    let payload: u64 = info.fields.iter().map(Data::charged_bytes).sum();
    let now = epoch::index(state, netuid, block.number);
    let used = USED_SPACE_OF
        .get(state, &(netuid, who))
        .filter(|usage| usage.last_epoch == now)
        .map_or(0, |usage| usage.used_space);
    let usage = UsageTracker {
        last_epoch: now,
        used_space: used.saturating_add(payload.max(MIN_CHARGE)),
    };
    if usage.used_space > u64::from(MAX_SPACE.get_or(state, &(), DEFAULT_MAX_SPACE)) {
        return Err(Failure::SpaceLimitExceeded);
    }
    USED_SPACE_OF.put(state, &(netuid, who), &usage);
    Ok(())
}

/// Says whether a record holds a seal.
fn set_indexed(state: &mut Overlay<'_>, entry: (u16, AccountId), is_sealed: bool) {
    let mut index = TIMELOCKED_INDEX.get_or(state, &(), Vec::new());
    match (index.binary_search(&entry), is_sealed) {
        (Err(place), true) => index.insert(place, entry),
        (Ok(place), false) => {
            index.remove(place);
        }
        _ => return,
    }
    TIMELOCKED_INDEX.put(state, &(), &index);
}

/// The rounds that some seal waits for.
pub(super) fn awaited_rounds(state: &impl State) -> Vec<u64> {
    let index = TIMELOCKED_INDEX.get_or(state, &(), Vec::new());
    let records = index.iter().filter_map(|key| COMMITMENT_OF.get(state, key));
    records
        .flat_map(|record| record.info.fields)
        .filter_map(|field| match field {
            Data::TimelockEncrypted { reveal_round, .. } => Some(reveal_round),
            _ => None,
        })
        .collect()
}

/// Opens the seals whose round has been spoken.
pub(super) fn on_initialize(state: &mut Overlay<'_>, block: &Block) -> Vec<Event> {
    let mut events = Vec::new();
    for (netuid, who) in TIMELOCKED_INDEX.get_or(state, &(), Vec::new()) {
        match COMMITMENT_OF.get(state, &(netuid, who)) {
            Some(record) => events.extend(reveal(state, (netuid, who), record, block)),
            None => set_indexed(state, (netuid, who), false),
        }
    }
    events
}

/// What became of a seal.
enum Opened {
    Waits,
    Revealed(Vec<u8>),
    Failed(RevealFailure),
}

/// Opens the seals of one record.
fn reveal(
    state: &mut Overlay<'_>,
    (netuid, who): (u16, AccountId),
    mut record: Registration,
    block: &Block,
) -> Vec<Event> {
    let (mut kept, mut events) = (Vec::new(), Vec::new());
    let (mut plaintexts, mut waits) = (Vec::new(), false);
    for field in std::mem::take(&mut record.info.fields) {
        let Data::TimelockEncrypted {
            encrypted,
            reveal_round,
        } = field
        else {
            kept.push(field);
            continue;
        };
        match open(state, &encrypted.0, reveal_round) {
            Opened::Waits => {
                waits = true;
                kept.push(Data::TimelockEncrypted {
                    encrypted,
                    reveal_round,
                });
            }
            Opened::Revealed(plaintext) => {
                plaintexts.push((plaintext, block.number));
                let event = event::Commitments::CommitmentRevealed { netuid, who };
                events.push(Event::Commitments(event));
            }
            Opened::Failed(error) => {
                let event = event::Commitments::CommitmentRevealFailed {
                    netuid,
                    who,
                    reveal_round,
                    error,
                };
                events.push(Event::Commitments(event));
                kept.push(Data::TimelockRevealFailed {
                    encrypted,
                    reveal_round,
                });
            }
        }
    }
    if events.is_empty() {
        return events;
    }
    add_revealed(state, (netuid, who), plaintexts);
    record.info.fields = kept;
    if record.info.fields.is_empty() {
        COMMITMENT_OF.kill(state, &(netuid, who));
    } else {
        COMMITMENT_OF.put(state, &(netuid, who), &record);
    }
    set_indexed(state, (netuid, who), waits);
    events
}

/// Adds plaintexts to those of an account, of which the newest are kept.
fn add_revealed(state: &mut Overlay<'_>, entry: (u16, AccountId), plaintexts: Reveals) {
    if plaintexts.is_empty() {
        return;
    }
    let mut revealed = REVEALED_COMMITMENTS.get_or(state, &entry, Vec::new());
    revealed.extend(plaintexts);
    revealed.drain(..revealed.len().saturating_sub(MAX_REVEALED));
    REVEALED_COMMITMENTS.put(state, &entry, &revealed);
}

/// Opens one seal: a ciphertext, or the client's envelope around one.
fn open(state: &impl State, encrypted: &[u8], round: u64) -> Opened {
    let Some(signature) = drand::signature(state, round) else {
        return match round < drand::oldest_stored_round(state) {
            true => Opened::Failed(RevealFailure::PulseExpired),
            false => Opened::Waits,
        };
    };
    let in_envelope = || timelock::open(&signature, &Envelope::from_bytes(encrypted)?.inner);
    match timelock::open(&signature, encrypted).or_else(in_envelope) {
        Some(plaintext) if plaintext.is_empty() => Opened::Failed(RevealFailure::EmptyPlaintext),
        Some(plaintext) => Opened::Revealed(plaintext),
        None => Opened::Failed(RevealFailure::Decrypt),
    }
}
