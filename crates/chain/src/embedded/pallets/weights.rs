//! What validators think of the others, said openly or first as a hash.
//!
//! Every check of the runtime in its order, with its names; some of them stand at the pool already
//! ([`check`]). With commit–reveal on, a hash is committed in one epoch and opened in the one that is the
//! reveal period later:
//!
//! ```text
//! hash = blake2_256(SCALE((who, storage index, uids, values, salt, version key)))
//! ```
//!
//! Accepted weights are scaled so that the largest is 65,535. All-zero weights are accepted, as on the
//! real chain: refusing them is the client's part. Sealed weights are in `sealed_weights.rs`.

use std::collections::BTreeSet;

use parity_scale_codec::Encode as _;

use super::super::call::{Opening, Seal, Subtensor as Call, Weights};
use super::super::event::{self, Event};
use super::super::failure::Subtensor as Failure;
use super::super::storage::{AccountId, Hasher, Item, Overlay, State};
use super::{Block, Outcome, drand, epoch, neurons, parameters, registration, staking};
use crate::hash::blake2_256;
use crate::weights::upscale;

/// The least stake that may set weights.
pub(super) const STAKE_THRESHOLD: Item<(), u64> =
    Item::new("SubtensorModule", "StakeThreshold", &[]);
/// Hash, epoch and block of each commitment that has not been opened; the last number is unused.
type Commits = Vec<([u8; 32], u64, u64, u64)>;
const WEIGHT_COMMITS: Item<(u16, AccountId), Commits> = Item::new(
    "SubtensorModule",
    "WeightCommits",
    &[Hasher::Twox64Concat, Hasher::Twox64Concat],
);

/// Commitments that one neuron may have waiting.
pub(super) const MAX_UNREVEALED: usize = 10;

/// One mechanism of one subnet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mechanism {
    pub(super) netuid: u16,
    pub(super) mecid: u8,
}

impl Mechanism {
    /// Where its facts are stored.
    pub(super) fn index(self) -> u16 {
        neurons::storage_index(self.netuid, self.mecid)
    }

    fn exists(self, state: &impl State) -> bool {
        neurons::exists(state, self.netuid)
            && self.mecid < parameters::MECHANISM_COUNT.get(state, self.netuid)
    }
}

/// What a call wants done with weights.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order<'a> {
    /// Set them, with the version of the rules they follow.
    Set(&'a Weights, u64),
    /// Commit to a hash of them.
    Commit([u8; 32]),
    /// Open a hash.
    Reveal(&'a Opening),
    /// Commit to them sealed.
    Seal(&'a Seal),
}

impl<'a> Order<'a> {
    /// What a call orders, and for which mechanism; nothing if it is not about weights.
    pub(super) fn of(call: &'a Call) -> Option<(Mechanism, Self)> {
        let (netuid, mecid, order) = match call {
            Call::SetWeights {
                netuid,
                weights,
                version_key,
            } => (*netuid, 0, Self::Set(weights, *version_key)),
            Call::SetMechanismWeights {
                netuid,
                mecid,
                weights,
                version_key,
            } => (*netuid, *mecid, Self::Set(weights, *version_key)),
            Call::CommitWeights {
                netuid,
                commit_hash,
            } => (*netuid, 0, Self::Commit(*commit_hash)),
            Call::CommitMechanismWeights {
                netuid,
                mecid,
                commit_hash,
            } => (*netuid, *mecid, Self::Commit(*commit_hash)),
            Call::RevealWeights { netuid, opening } => (*netuid, 0, Self::Reveal(opening)),
            Call::RevealMechanismWeights {
                netuid,
                mecid,
                opening,
            } => (*netuid, *mecid, Self::Reveal(opening)),
            Call::CommitTimelockedWeights { netuid, seal } => (*netuid, 0, Self::Seal(seal)),
            Call::CommitTimelockedMechanismWeights {
                netuid,
                mecid,
                seal,
            } => (*netuid, *mecid, Self::Seal(seal)),
            _ => return None,
        };
        Some((Mechanism { netuid, mecid }, order))
    }
}

/// What the pool asks of calls that set, commit or reveal weights.
///
/// # Errors
/// Too little stake, no such commitment, not its epoch, a round that has passed, or too soon.
pub(super) fn check(
    state: &impl State,
    who: AccountId,
    call: &Call,
    block: &Block,
) -> Result<(), Failure> {
    let Some((mechanism, order)) = Order::of(call) else {
        return Ok(());
    };
    let netuid = mechanism.netuid;
    if staking::of_hotkey(state, who, netuid) < STAKE_THRESHOLD.get_or(state, &(), 0) {
        return Err(Failure::NotEnoughStakeToSetWeights);
    }
    let rate = |failure| check_rate(state, (who, mechanism), block, failure);
    match order {
        Order::Set(..) if is_commit_reveal(state, netuid) => Ok(()),
        Order::Set(..) => rate(Failure::SettingWeightsTooFast),
        Order::Commit(_) => rate(Failure::CommittingWeightsTooFast),
        Order::Seal(seal) if seal.reveal_round < drand::last_stored_round(state) => {
            Err(Failure::InvalidRevealRound)
        }
        Order::Seal(_) => Ok(()),
        Order::Reveal(opening) => {
            let hash = commitment(who, mechanism, opening);
            let commits = WEIGHT_COMMITS.get_or(state, &(mechanism.index(), who), Vec::new());
            let committed = commits.iter().find(|(committed, ..)| *committed == hash);
            let (_, epoch, _, _) = *committed.ok_or(Failure::NoWeightsCommitFound)?;
            let now = epoch::index(state, netuid, block.number);
            match reveal_epoch(state, netuid, epoch) == now {
                true => Ok(()),
                false => Err(Failure::RevealTooEarly),
            }
        }
    }
}

/// Whether weights are committed first.
pub(super) fn is_commit_reveal(state: &impl State, netuid: u16) -> bool {
    parameters::COMMIT_REVEAL_WEIGHTS_ENABLED.get(state, netuid)
}

/// The epoch in which a commitment of `epoch` is revealed.
pub(super) fn reveal_epoch(state: &impl State, netuid: u16, epoch: u64) -> u64 {
    epoch.saturating_add(parameters::REVEAL_PERIOD_EPOCHS.get(state, netuid))
}

/// Whether the neuron's last update is long enough ago. Who has no slot is refused elsewhere.
fn check_rate(
    state: &impl State,
    (who, mechanism): (AccountId, Mechanism),
    block: &Block,
    failure: Failure,
) -> Result<(), Failure> {
    let Some(uid) = neurons::uid(state, mechanism.netuid, who) else {
        return Ok(());
    };
    let last = neurons::entry(&neurons::LAST_UPDATE, state, mechanism.index(), uid);
    let limit = parameters::WEIGHTS_SET_RATE_LIMIT.get(state, mechanism.netuid);
    // 0 stands for never.
    match last == 0 || block.number.saturating_sub(last) >= limit {
        true => Ok(()),
        false => Err(failure),
    }
}

/// Sets weights openly.
///
/// # Errors
/// Commit–reveal is on, or what [`store`] finds.
pub(super) fn set(
    state: &mut Overlay<'_>,
    who: AccountId,
    mechanism: Mechanism,
    (weights, version_key): (&Weights, u64),
    block: &Block,
) -> Outcome {
    if is_commit_reveal(state, mechanism.netuid) {
        return Err(Failure::CommitRevealEnabled.into());
    }
    Ok(store(state, who, mechanism, (weights, version_key), block)?)
}

/// Checks weights and stores them, openly set or revealed.
///
/// # Errors
/// Each rule by its name, in the runtime's order.
pub(super) fn store(
    state: &mut Overlay<'_>,
    who: AccountId,
    mechanism: Mechanism,
    (weights, version_key): (&Weights, u64),
    block: &Block,
) -> Result<Vec<Event>, Failure> {
    let netuid = mechanism.netuid;
    if netuid == 0 {
        return Err(Failure::CanNotSetRootNetworkWeights);
    }
    let Weights { uids, values } = weights;
    if uids.len() != values.len() {
        return Err(Failure::WeightVecNotEqualSize);
    }
    if !mechanism.exists(state) {
        return Err(Failure::MechanismDoesNotExist);
    }
    if uids.len() > usize::from(neurons::count(state, netuid)) {
        return Err(Failure::UidsLengthExceedUidsInSubNet);
    }
    let uid = neurons::uid(state, netuid, who).ok_or(Failure::HotKeyNotRegisteredInSubNet)?;
    if staking::of_hotkey(state, who, netuid) < STAKE_THRESHOLD.get_or(state, &(), 0) {
        return Err(Failure::NotEnoughStakeToSetWeights);
    }
    if version_key < parameters::WEIGHTS_VERSION_KEY.get(state, netuid) {
        return Err(Failure::IncorrectWeightVersionKey);
    }
    let is_open = !is_commit_reveal(state, netuid);
    if is_open {
        // What is revealed has waited when it was committed.
        check_rate(
            state,
            (who, mechanism),
            block,
            Failure::SettingWeightsTooFast,
        )?;
    }
    check_content(state, (who, uid), netuid, weights)?;

    let row: Vec<(u16, u16)> = uids.iter().copied().zip(upscale(values)).collect();
    let index = mechanism.index();
    neurons::WEIGHTS.put(state, &(index, uid), &row);
    if is_open {
        neurons::set_entry(&neurons::LAST_UPDATE, state, (index, uid), block.number);
    }
    Ok(vec![Event::Subtensor(event::Subtensor::WeightsSet(
        index, uid,
    ))])
}

/// Whether these weights may come from this neuron.
fn check_content(
    state: &impl State,
    (who, uid): (AccountId, u16),
    netuid: u16,
    Weights { uids, values }: &Weights,
) -> Result<(), Failure> {
    let only_itself = *uids == [uid];
    let may_weigh = only_itself
        || neurons::entry(&neurons::VALIDATOR_PERMIT, state, netuid, uid)
        || registration::SUBNET_OWNER_HOTKEY.get(state, &(netuid,)) == Some(who);
    if !may_weigh {
        return Err(Failure::NeuronNoValidatorPermit);
    }
    let distinct: BTreeSet<u16> = uids.iter().copied().collect();
    if distinct.len() < uids.len() {
        return Err(Failure::DuplicateUids);
    }
    let slots = neurons::count(state, netuid);
    if distinct.last().is_some_and(|largest| *largest >= slots) {
        return Err(Failure::UidVecContainInvalidOne);
    }
    if only_itself {
        return Ok(());
    }
    let least = parameters::MIN_ALLOWED_WEIGHTS
        .get(state, netuid)
        .min(slots);
    if uids.len() < usize::from(least) {
        return Err(Failure::WeightVecLengthIsLow);
    }
    let largest = u64::from(values.iter().copied().max().unwrap_or(0));
    let sum: u64 = values.iter().map(|weight| u64::from(*weight)).sum();
    let limit = u64::from(parameters::MAX_WEIGHTS_LIMIT.get(state, netuid));
    if largest * u64::from(u16::MAX) > limit * sum {
        return Err(Failure::MaxWeightExceeded);
    }
    Ok(())
}

/// Whether a neuron may commit now, hashed or sealed; its uid if so.
///
/// # Errors
/// Commit–reveal is off, no such mechanism, no slot, or too soon.
pub(super) fn check_commit(
    state: &impl State,
    who: AccountId,
    mechanism: Mechanism,
    block: &Block,
) -> Result<u16, Failure> {
    if !mechanism.exists(state) {
        return Err(Failure::MechanismDoesNotExist);
    }
    if !is_commit_reveal(state, mechanism.netuid) {
        return Err(Failure::CommitRevealDisabled);
    }
    let uid = neurons::uid(state, mechanism.netuid, who);
    let uid = uid.ok_or(Failure::HotKeyNotRegisteredInSubNet)?;
    check_rate(
        state,
        (who, mechanism),
        block,
        Failure::CommittingWeightsTooFast,
    )?;
    Ok(uid)
}

/// Commits to a hash of weights.
///
/// # Errors
/// What [`check_commit`] finds, or too many commitments waiting.
pub(super) fn commit(
    state: &mut Overlay<'_>,
    who: AccountId,
    mechanism: Mechanism,
    hash: [u8; 32],
    block: &Block,
) -> Outcome {
    let uid = check_commit(state, who, mechanism, block)?;
    let (index, netuid) = (mechanism.index(), mechanism.netuid);
    let now = epoch::index(state, netuid, block.number);
    let mut commits = WEIGHT_COMMITS.get_or(state, &(index, who), Vec::new());
    commits.retain(|(_, epoch, _, _)| reveal_epoch(state, netuid, *epoch) >= now);
    if commits.len() >= MAX_UNREVEALED {
        return Err(Failure::TooManyUnrevealedCommits.into());
    }
    commits.push((hash, now, block.number, 0));
    WEIGHT_COMMITS.put(state, &(index, who), &commits);
    neurons::set_entry(&neurons::LAST_UPDATE, state, (index, uid), block.number);
    Ok(vec![Event::Subtensor(event::Subtensor::WeightsCommitted(
        who, index, hash,
    ))])
}

/// Opens a commitment; older ones of the same neuron are given up.
///
/// # Errors
/// Commit–reveal is off, no such commitment, not its epoch, or what [`store`] finds.
pub(super) fn reveal(
    state: &mut Overlay<'_>,
    who: AccountId,
    mechanism: Mechanism,
    opening: &Opening,
    block: &Block,
) -> Outcome {
    let (index, netuid) = (mechanism.index(), mechanism.netuid);
    if !is_commit_reveal(state, netuid) {
        return Err(Failure::CommitRevealDisabled.into());
    }
    let hash = commitment(who, mechanism, opening);
    let now = epoch::index(state, netuid, block.number);
    let commits = WEIGHT_COMMITS.get(state, &(index, who));
    let mut commits = commits.ok_or(Failure::NoWeightsCommitFound)?;
    let is_expired = |epoch: u64| reveal_epoch(state, netuid, epoch) < now;
    let position = commits
        .iter()
        .position(|(committed, ..)| *committed == hash);
    let Some(position) = position else {
        let all_expired = commits.iter().all(|(_, epoch, _, _)| is_expired(*epoch));
        return Err(match all_expired {
            true => Failure::NoWeightsCommitFound,
            false => Failure::InvalidRevealCommitHashNotMatch,
        }
        .into());
    };
    let (_, epoch, committed_at, _) = commits[position];
    if is_expired(epoch) {
        return Err(Failure::ExpiredWeightCommit.into());
    }
    if reveal_epoch(state, netuid, epoch) != now {
        return Err(Failure::RevealTooEarly.into());
    }
    commits.drain(..=position);
    if commits.is_empty() {
        WEIGHT_COMMITS.kill(state, &(index, who));
    } else {
        WEIGHT_COMMITS.put(state, &(index, who), &commits);
    }
    let weights = (&opening.weights, opening.version_key);
    let mut events = store(state, who, mechanism, weights, block)?;
    forget_taken_over(state, who, mechanism, committed_at);
    events.push(Event::Subtensor(event::Subtensor::WeightsRevealed(
        who, index, hash,
    )));
    Ok(events)
}

/// Leaves out of a revealed row the slots that were taken over after it was committed: what was meant
/// for the neuron that left is nothing to the one that came.
pub(super) fn forget_taken_over(
    state: &mut Overlay<'_>,
    who: AccountId,
    mechanism: Mechanism,
    committed_at: u64,
) {
    let netuid = mechanism.netuid;
    let Some(uid) = neurons::uid(state, netuid, who) else {
        return;
    };
    let key = (mechanism.index(), uid);
    let mut row = neurons::WEIGHTS.get_or(state, &key, Vec::new());
    let before = row.len();
    row.retain(|(target, _)| {
        neurons::BLOCK_AT_REGISTRATION.get_or(state, &(netuid, *target), 0) <= committed_at
    });
    if row.len() < before {
        neurons::WEIGHTS.put(state, &key, &row);
    }
}

/// The hash that stands for an opening.
fn commitment(who: AccountId, mechanism: Mechanism, opening: &Opening) -> [u8; 32] {
    let Opening {
        weights,
        salt,
        version_key,
    } = opening;
    let facts = (
        who,
        mechanism.index(),
        &weights.uids,
        &weights.values,
        salt,
        version_key,
    );
    blake2_256(&facts.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector was computed by a real runtime.
    #[test]
    fn a_commitment_is_the_hash_that_the_runtime_computes() {
        let alice = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";
        let alice = hex::decode(alice).unwrap().try_into().unwrap();
        let opening = Opening {
            weights: Weights {
                uids: vec![1, 2],
                values: vec![3, 4],
            },
            salt: vec![5, 6],
            version_key: 7,
        };
        let mechanism = Mechanism {
            netuid: 3,
            mecid: 0,
        };
        assert_eq!(
            hex::encode(commitment(alice, mechanism, &opening)),
            "1913db64646552418dd6c32f0266fd95a540fdb3984817c76d877180b7574799"
        );
    }
}
