//! Weights that nobody can read until the beacon has spoken.
//!
//! A neuron commits to a ciphertext in one epoch. At the start of the epoch that is the reveal period
//! later, before the last one is settled, the chain opens it with the signature of its round and
//! stores the weights. A commitment whose signature is not there yet is tried again in every block of
//! that epoch and then dropped. Whatever cannot be opened, or may not be set, is dropped in
//! silence, as on the real chain: only watching `Weights` tells.
//!
//! All of an epoch's ciphertexts are opened in its first block, at some pairings each: with hundreds of
//! validators that block takes seconds to make, and as long again when it is carried out again at a start.

use parity_scale_codec::{Decode, Encode};

use super::super::call::{MAX_SEALED_WEIGHTS, Seal, Weights};
use super::super::data::Bounded;
use super::super::event::{self, Event};
use super::super::failure::Subtensor as Failure;
use super::super::storage::{AccountId, Hasher, Item, Overlay, State};
use super::weights::{self, Mechanism};
use super::{Block, Outcome, drand, epoch, neurons, parameters};
use crate::hash::blake2_256;

/// Who committed, when, the ciphertext, and the round that opens it.
type Commit = (AccountId, u64, Bounded<MAX_SEALED_WEIGHTS>, u64);

/// The commitments of an epoch, in the order they came.
const TIMELOCKED_WEIGHT_COMMITS: Item<(u16, u64), Vec<Commit>> = Item::new(
    "SubtensorModule",
    "TimelockedWeightCommits",
    &[Hasher::Twox64Concat, Hasher::Twox64Concat],
);
/// The kind of commitment that is accepted.
pub(super) const COMMIT_REVEAL_VERSION: Item<(), u16> =
    Item::new("SubtensorModule", "CommitRevealWeightsVersion", &[]);
/// The kind that this file is about, unless stored otherwise.
pub(super) const VERSION: u16 = 4;

/// What is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Payload {
    hotkey: Vec<u8>,
    weights: Weights,
    version_key: u64,
}

/// Commits to sealed weights.
///
/// # Errors
/// Another version, a round that has passed, what [`weights::check_commit`] finds, or too many
/// commitments waiting.
pub(super) fn commit(
    state: &mut Overlay<'_>,
    who: AccountId,
    mechanism: Mechanism,
    seal: &Seal,
    block: &Block,
) -> Outcome {
    let uid = weights::check_commit(state, who, mechanism, block)?;
    if seal.commit_reveal_version != COMMIT_REVEAL_VERSION.get_or(state, &(), VERSION) {
        return Err(Failure::IncorrectCommitRevealVersion.into());
    }
    if seal.reveal_round < drand::last_stored_round(state) {
        return Err(Failure::InvalidRevealRound.into());
    }
    let index = mechanism.index();
    let now = epoch::index(state, mechanism.netuid, block.number);
    let mut commits = TIMELOCKED_WEIGHT_COMMITS.get_or(state, &(index, now), Vec::new());
    let mine = commits.iter().filter(|(signer, ..)| *signer == who).count();
    if mine >= weights::MAX_UNREVEALED {
        return Err(Failure::TooManyUnrevealedCommits.into());
    }
    let hash = blake2_256(&seal.commit.encode());
    commits.push((who, block.number, seal.commit.clone(), seal.reveal_round));
    TIMELOCKED_WEIGHT_COMMITS.put(state, &(index, now), &commits);
    neurons::set_entry(&neurons::LAST_UPDATE, state, (index, uid), block.number);
    Ok(vec![Event::Subtensor(
        event::Subtensor::TimelockedWeightsCommitted(who, index, hash, seal.reveal_round),
    )])
}

/// Opens what is to be opened in this block.
pub(super) fn on_initialize(state: &mut Overlay<'_>, block: &Block) -> Vec<Event> {
    let mut events = Vec::new();
    for mechanism in mechanisms(state) {
        let now = epoch::index(state, mechanism.netuid, block.number);
        let period = parameters::REVEAL_PERIOD_EPOCHS.get(state, mechanism.netuid);
        let Some(due) = now.checked_sub(period) else {
            continue;
        };
        let index = mechanism.index();
        let waiting: Vec<(u64, Vec<Commit>)> = TIMELOCKED_WEIGHT_COMMITS.entries(state, &(index,));
        for (epoch, commits) in waiting {
            if epoch > due {
                continue;
            }
            TIMELOCKED_WEIGHT_COMMITS.kill(state, &(index, epoch));
            if epoch < due {
                continue;
            }
            let mut later = Vec::new();
            for commit in commits {
                if drand::signature(state, commit.3).is_none() {
                    later.push(commit);
                } else if let Some(revealed) = open(state, mechanism, &commit, block) {
                    events.extend(revealed);
                }
            }
            if !later.is_empty() {
                TIMELOCKED_WEIGHT_COMMITS.put(state, &(index, epoch), &later);
            }
        }
    }
    events
}

/// The rounds that some commitment waits for.
pub(super) fn awaited_rounds(state: &impl State) -> Vec<u64> {
    let mut rounds = Vec::new();
    for mechanism in mechanisms(state) {
        let waiting: Vec<(u64, Vec<Commit>)> =
            TIMELOCKED_WEIGHT_COMMITS.entries(state, &(mechanism.index(),));
        let commits = waiting.iter().flat_map(|(_, commits)| commits);
        rounds.extend(commits.map(|(_, _, _, round)| *round));
    }
    rounds
}

fn mechanisms(state: &impl State) -> Vec<Mechanism> {
    let of_subnet = |netuid| {
        let count = parameters::MECHANISM_COUNT.get(state, netuid);
        (0..count).map(move |mecid| Mechanism { netuid, mecid })
    };
    neurons::netuids(state)
        .into_iter()
        .flat_map(of_subnet)
        .collect()
}

/// Opens one commitment and sets its weights, if both can be.
fn open(
    state: &mut Overlay<'_>,
    mechanism: Mechanism,
    (who, committed_at, ciphertext, round): &Commit,
    block: &Block,
) -> Option<Vec<Event>> {
    let signature = drand::signature(state, *round)?;
    let plaintext = crate::timelock::open(&signature, &ciphertext.0)?;
    let payload = Payload::decode(&mut plaintext.as_slice()).ok()?;
    // Nobody can send a copy of somebody else's.
    if payload.hotkey != who {
        return None;
    }
    let weights = (&payload.weights, payload.version_key);
    let mut events = weights::store(state, *who, mechanism, weights, block).ok()?;
    weights::forget_taken_over(state, *who, mechanism, *committed_at);
    events.push(Event::Subtensor(
        event::Subtensor::TimelockedWeightsRevealed(mechanism.index(), *who),
    ));
    Some(events)
}
