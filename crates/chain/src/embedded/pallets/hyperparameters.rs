//! Who may change a subnet's hyperparameters, to what, and how often.
//!
//! Some are the subnet owner's, some only the chain's root's. The owner may change each of his once per
//! two epochs and none in the last ten blocks of one (both numbers are stored, 0 lifts the limit);
//! the root always. The root of the real chain acts through `Sudo.sudo`; here its account makes the
//! same calls directly.

use super::super::call::AdminUtils as Call;
use super::super::event::{DispatchError, Event, Subtensor as Happened};
use super::super::failure::{AdminUtils as Refused, Subtensor as Failure};
use super::super::genesis::MAX_UIDS;
use super::super::storage::{AccountId, Hasher, Item, Overlay, State};
use super::{Block, Outcome, epoch, neurons, parameters, registration, weights};

/// Blocks at the end of an epoch in which the owner changes nothing.
pub(super) const FREEZE_WINDOW: Item<(), u16> =
    Item::new("SubtensorModule", "AdminFreezeWindow", &[]);
/// Epochs between two changes of one hyperparameter by the owner.
pub(super) const OWNER_RATE_LIMIT: Item<(), u16> =
    Item::new("SubtensorModule", "OwnerHyperparamRateLimit", &[]);
/// The account that may change everything.
pub(super) const ROOT: Item<(), AccountId> = Item::new("Sudo", "Key", &[]);
/// When the owner last changed most of what is his.
const LAST_CHANGE: Item<(ChangeKey,), u64> = Item::new(
    "SubtensorModule",
    "LastRateLimitedBlock",
    &[Hasher::Identity],
);
/// When he last did something of another kind.
const LAST_TRANSACTION: Item<(AccountId, u16, u16), u64> = Item::new(
    "SubtensorModule",
    "TransactionKeyLastBlock",
    &[Hasher::Blake2_128Concat, Hasher::Identity, Hasher::Identity],
);

/// Unless stored otherwise.
pub(super) const DEFAULT_FREEZE_WINDOW: u16 = 10;
/// Unless stored otherwise.
pub(super) const DEFAULT_OWNER_RATE_LIMIT: u16 = 2;
/// Epochs between two changes of the version of weights.
const VERSION_KEY_EPOCHS: u64 = 5;
/// Blocks between two changes of the tempo.
const TEMPO_BLOCKS: u64 = 360;
/// What an owner may set.
const TEMPO_BOUNDS: std::ops::RangeInclusive<u16> = 360..=epoch::MAX_TEMPO;
const CUTOFF_FACTOR_BOUNDS: std::ops::RangeInclusive<u32> = 1_000..=50_000;
const REVEAL_PERIOD_BOUNDS: std::ops::RangeInclusive<u64> = 1..=100;
/// `MinBurn` stays below this, in rao.
const MIN_BURN_UPPER_BOUND: u64 = 1_000_000_000;
/// `MaxBurn` stays above this, in rao.
const MAX_BURN_LOWER_BOUND: u64 = 100_000_000;

/// `RateLimitKey::OwnerHyperparamUpdate`: its index, the subnet, the hyperparameter.
type ChangeKey = (u8, u16, u8);
const OWNER_HYPERPARAM_UPDATE: u8 = 1;

/// Something that an owner changes, as the runtime numbers it where it remembers when.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// One of the enum `Hyperparameter`.
    Hyperparameter(u8),
    /// The version of weights: one of the enum `TransactionType`.
    WeightsVersionKey,
    /// The tempo: one of the enum `TransactionType`.
    Tempo,
}

const SERVING_RATE_LIMIT: Change = Change::Hyperparameter(1);
const IMMUNITY_PERIOD: Change = Change::Hyperparameter(5);
const MIN_ALLOWED_WEIGHTS: Change = Change::Hyperparameter(6);
const MIN_BURN: Change = Change::Hyperparameter(11);
const MAX_BURN: Change = Change::Hyperparameter(12);
const COMMIT_REVEAL_ENABLED: Change = Change::Hyperparameter(15);
const WEIGHT_COMMIT_INTERVAL: Change = Change::Hyperparameter(18);
const MAX_ALLOWED_UIDS: Change = Change::Hyperparameter(25);
const ACTIVITY_CUTOFF_FACTOR: Change = Change::Hyperparameter(30);
const TRIGGER_EPOCH: Change = Change::Hyperparameter(31);

impl Change {
    /// Blocks until the same may be changed again.
    fn limit(self, state: &impl State, netuid: u16) -> u64 {
        let tempo = u64::from(parameters::TEMPO.get(state, netuid));
        match self {
            Self::Hyperparameter(_) => {
                let epochs = OWNER_RATE_LIMIT.get_or(state, &(), DEFAULT_OWNER_RATE_LIMIT);
                tempo * u64::from(epochs)
            }
            Self::WeightsVersionKey => tempo * VERSION_KEY_EPOCHS,
            Self::Tempo => TEMPO_BLOCKS,
        }
    }

    fn transaction(self) -> u16 {
        match self {
            Self::Hyperparameter(_) => 6,
            Self::WeightsVersionKey => 4,
            Self::Tempo => 11,
        }
    }

    fn last(self, state: &impl State, (netuid, owner): (u16, AccountId)) -> u64 {
        match self {
            Self::Hyperparameter(which) => {
                LAST_CHANGE.get_or(state, &((OWNER_HYPERPARAM_UPDATE, netuid, which),), 0)
            }
            Self::WeightsVersionKey | Self::Tempo => {
                LAST_TRANSACTION.get_or(state, &(owner, netuid, self.transaction()), 0)
            }
        }
    }

    fn remember(self, state: &mut Overlay<'_>, (netuid, owner): (u16, AccountId), block: u64) {
        match self {
            Self::Hyperparameter(which) => {
                LAST_CHANGE.put(state, &((OWNER_HYPERPARAM_UPDATE, netuid, which),), &block);
            }
            Self::WeightsVersionKey | Self::Tempo => {
                LAST_TRANSACTION.put(state, &(owner, netuid, self.transaction()), &block);
            }
        }
    }

    /// Whether enough blocks have passed. 0 stands for never.
    fn check(
        self,
        state: &impl State,
        (netuid, owner): (u16, AccountId),
        block: &Block,
    ) -> Result<(), Failure> {
        let last = self.last(state, (netuid, owner));
        match last == 0 || block.number.saturating_sub(last) >= self.limit(state, netuid) {
            true => Ok(()),
            false => Err(Failure::TxRateLimitExceeded),
        }
    }
}

fn is_root(state: &impl State, signer: AccountId) -> bool {
    ROOT.get(state, &()) == Some(signer)
}

fn ensure_owner(state: &impl State, signer: AccountId, netuid: u16) -> Result<(), DispatchError> {
    match registration::SUBNET_OWNER.get(state, &(netuid,)) == Some(signer) {
        true => Ok(()),
        false => Err(DispatchError::BadOrigin),
    }
}

/// Whether the owner may change anything in this block.
fn ensure_window_open(state: &impl State, netuid: u16, block: &Block) -> Result<(), Failure> {
    let pending = epoch::PENDING_EPOCH_AT.get_or(state, &(netuid,), 0);
    let window = u64::from(FREEZE_WINDOW.get_or(state, &(), DEFAULT_FREEZE_WINDOW));
    let is_closing = epoch::blocks_left(state, netuid, block.number) < window;
    match pending > block.number || is_closing {
        true => Err(Failure::AdminActionProhibitedDuringWeightsWindow),
        false => Ok(()),
    }
}

/// Sets a hyperparameter.
///
/// # Errors
/// Neither root nor, where that is enough, the owner; an owner too soon or too late; no such subnet; a
/// value out of bounds.
pub(super) fn set(
    state: &mut Overlay<'_>,
    signer: AccountId,
    call: Call,
    block: &Block,
) -> Outcome {
    let by_owner = match owned(call) {
        _ if is_root(state, signer) => None,
        None => return Err(DispatchError::BadOrigin),
        Some((netuid, change)) => {
            ensure_owner(state, signer, netuid)?;
            change.check(state, (netuid, signer), block)?;
            ensure_window_open(state, netuid, block)?;
            Some((netuid, change))
        }
    };
    if netuid_of(call).is_some_and(|netuid| !neurons::exists(state, netuid)) {
        return Err(Refused::SubnetDoesNotExist.into());
    }
    check_bounds(state, call)?;
    store(state, call, block);
    if let Some((netuid, change)) = by_owner {
        change.remember(state, (netuid, signer), block.number);
    }
    Ok(vec![Event::Subtensor(happened(call))])
}

fn netuid_of(call: Call) -> Option<u16> {
    match call {
        Call::ServingRateLimit { netuid, .. }
        | Call::WeightsVersionKey { netuid, .. }
        | Call::WeightsSetRateLimit { netuid, .. }
        | Call::ImmunityPeriod { netuid, .. }
        | Call::MinAllowedWeights { netuid, .. }
        | Call::MaxAllowedUids { netuid, .. }
        | Call::MinBurn { netuid, .. }
        | Call::MaxBurn { netuid, .. }
        | Call::MaxAllowedValidators { netuid, .. }
        | Call::Tempo { netuid, .. }
        | Call::CommitRevealWeightsEnabled { netuid, .. }
        | Call::CommitRevealWeightsInterval { netuid, .. }
        | Call::ActivityCutoffFactor { netuid, .. } => Some(netuid),
        Call::StakeThreshold { .. }
        | Call::AdminFreezeWindow { .. }
        | Call::OwnerHyperparamRateLimit { .. } => None,
    }
}

/// What the owner may change too.
fn owned(call: Call) -> Option<(u16, Change)> {
    let change = match call {
        Call::ServingRateLimit { .. } => SERVING_RATE_LIMIT,
        Call::WeightsVersionKey { .. } => Change::WeightsVersionKey,
        Call::ImmunityPeriod { .. } => IMMUNITY_PERIOD,
        Call::MinAllowedWeights { .. } => MIN_ALLOWED_WEIGHTS,
        Call::MaxAllowedUids { .. } => MAX_ALLOWED_UIDS,
        Call::MinBurn { .. } => MIN_BURN,
        Call::MaxBurn { .. } => MAX_BURN,
        Call::CommitRevealWeightsEnabled { .. } => COMMIT_REVEAL_ENABLED,
        Call::CommitRevealWeightsInterval { .. } => WEIGHT_COMMIT_INTERVAL,
        Call::ActivityCutoffFactor { .. } => ACTIVITY_CUTOFF_FACTOR,
        Call::WeightsSetRateLimit { .. }
        | Call::MaxAllowedValidators { .. }
        | Call::Tempo { .. }
        | Call::StakeThreshold { .. }
        | Call::AdminFreezeWindow { .. }
        | Call::OwnerHyperparamRateLimit { .. } => return None,
    };
    Some((netuid_of(call)?, change))
}

/// Stores a value that is within its bounds.
fn store(state: &mut Overlay<'_>, call: Call, block: &Block) {
    use parameters as stored;
    match call {
        Call::ServingRateLimit { netuid, value } => {
            stored::SERVING_RATE_LIMIT.put(state, netuid, value);
        }
        Call::WeightsVersionKey { netuid, value } => {
            stored::WEIGHTS_VERSION_KEY.put(state, netuid, value);
        }
        Call::WeightsSetRateLimit { netuid, value } => {
            stored::WEIGHTS_SET_RATE_LIMIT.put(state, netuid, value);
        }
        Call::ImmunityPeriod { netuid, value } => {
            stored::IMMUNITY_PERIOD.put(state, netuid, value);
        }
        Call::MinAllowedWeights { netuid, value } => {
            stored::MIN_ALLOWED_WEIGHTS.put(state, netuid, value);
        }
        Call::MaxAllowedUids { netuid, value } => {
            stored::MAX_ALLOWED_UIDS.put(state, netuid, value);
        }
        Call::MaxAllowedValidators { netuid, value } => {
            stored::MAX_ALLOWED_VALIDATORS.put(state, netuid, value);
        }
        // A bound of the price moves the price with it.
        Call::MinBurn { netuid, value } => {
            let price = stored::BURN.get(state, netuid).max(value);
            stored::MIN_BURN.put(state, netuid, value);
            stored::BURN.put(state, netuid, price);
        }
        Call::MaxBurn { netuid, value } => {
            let price = stored::BURN.get(state, netuid).min(value);
            stored::MAX_BURN.put(state, netuid, value);
            stored::BURN.put(state, netuid, price);
        }
        Call::Tempo { netuid, value } => store_tempo(state, netuid, value, block),
        Call::CommitRevealWeightsEnabled { netuid, value } => {
            stored::COMMIT_REVEAL_WEIGHTS_ENABLED.put(state, netuid, value);
        }
        Call::CommitRevealWeightsInterval { netuid, value } => {
            stored::REVEAL_PERIOD_EPOCHS.put(state, netuid, value);
        }
        Call::ActivityCutoffFactor { netuid, value } => {
            stored::ACTIVITY_CUTOFF_FACTOR_MILLI.put(state, netuid, value);
        }
        Call::StakeThreshold { value } => weights::STAKE_THRESHOLD.put(state, &(), &value),
        Call::AdminFreezeWindow { value } => FREEZE_WINDOW.put(state, &(), &value),
        Call::OwnerHyperparamRateLimit { value } => OWNER_RATE_LIMIT.put(state, &(), &value),
    }
}

/// Sets the tempo; a new epoch begins with this block.
fn store_tempo(state: &mut Overlay<'_>, netuid: u16, tempo: u16, block: &Block) {
    parameters::TEMPO.put(state, netuid, tempo);
    epoch::LAST_EPOCH_BLOCK.put(state, &(netuid,), &block.number);
}

/// What is reported when a value has been stored.
fn happened(call: Call) -> Happened {
    match call {
        Call::ServingRateLimit { netuid, value } => Happened::ServingRateLimitSet(netuid, value),
        Call::WeightsVersionKey { netuid, value } => Happened::WeightsVersionKeySet(netuid, value),
        Call::WeightsSetRateLimit { netuid, value } => {
            Happened::WeightsSetRateLimitSet(netuid, value)
        }
        Call::ImmunityPeriod { netuid, value } => Happened::ImmunityPeriodSet(netuid, value),
        Call::MinAllowedWeights { netuid, value } => Happened::MinAllowedWeightSet(netuid, value),
        Call::MaxAllowedUids { netuid, value } => Happened::MaxAllowedUidsSet(netuid, value),
        Call::MaxAllowedValidators { netuid, value } => {
            Happened::MaxAllowedValidatorsSet(netuid, value)
        }
        Call::MinBurn { netuid, value } => Happened::MinBurnSet(netuid, value),
        Call::MaxBurn { netuid, value } => Happened::MaxBurnSet(netuid, value),
        Call::Tempo { netuid, value } => Happened::TempoSet(netuid, value),
        Call::CommitRevealWeightsEnabled { netuid, value } => {
            Happened::CommitRevealEnabled(netuid, value)
        }
        Call::CommitRevealWeightsInterval { netuid, value } => {
            Happened::CommitRevealPeriodsSet(netuid, value)
        }
        Call::ActivityCutoffFactor {
            netuid,
            value: factor_milli,
        } => Happened::ActivityCutoffFactorMilliSet {
            netuid,
            factor_milli,
        },
        Call::StakeThreshold { value } => Happened::StakeThresholdSet(value),
        Call::AdminFreezeWindow { value } => Happened::AdminFreezeWindowSet(value),
        Call::OwnerHyperparamRateLimit { value } => Happened::OwnerHyperparamRateLimitSet(value),
    }
}

fn check_bounds(state: &impl State, call: Call) -> Result<(), DispatchError> {
    let problem = match call {
        Call::MaxAllowedUids { netuid, value } => {
            if value < neurons::count(state, netuid) {
                Refused::MaxAllowedUIdsLessThanCurrentUIds.into()
            } else if value > MAX_UIDS {
                Refused::MaxAllowedUidsGreaterThanDefaultMaxAllowedUids.into()
            } else {
                return Ok(());
            }
        }
        Call::MaxAllowedValidators { netuid, value }
            if value > parameters::MAX_ALLOWED_UIDS.get(state, netuid) =>
        {
            Refused::MaxValidatorsLargerThanMaxUIds.into()
        }
        Call::MinBurn { netuid, value }
            if value >= MIN_BURN_UPPER_BOUND || value > parameters::MAX_BURN.get(state, netuid) =>
        {
            Refused::ValueNotInBounds.into()
        }
        Call::MaxBurn { netuid, value }
            if value <= MAX_BURN_LOWER_BOUND || value < parameters::MIN_BURN.get(state, netuid) =>
        {
            Refused::ValueNotInBounds.into()
        }
        Call::CommitRevealWeightsInterval { value, .. }
            if value < *REVEAL_PERIOD_BOUNDS.start() =>
        {
            Failure::RevealPeriodTooSmall.into()
        }
        Call::CommitRevealWeightsInterval { value, .. } if value > *REVEAL_PERIOD_BOUNDS.end() => {
            Failure::RevealPeriodTooLarge.into()
        }
        Call::ActivityCutoffFactor { value, .. } if !CUTOFF_FACTOR_BOUNDS.contains(&value) => {
            Failure::ActivityCutoffFactorMilliOutOfBounds.into()
        }
        _ => return Ok(()),
    };
    Err(problem)
}

/// Sets the tempo as the subnet's owner.
///
/// # Errors
/// Not the owner, out of bounds, too late in the epoch, or too soon after the last change.
pub(super) fn set_tempo(
    state: &mut Overlay<'_>,
    signer: AccountId,
    (netuid, tempo): (u16, u16),
    block: &Block,
) -> Outcome {
    ensure_owner(state, signer, netuid)?;
    if !TEMPO_BOUNDS.contains(&tempo) {
        return Err(Failure::TempoOutOfBounds.into());
    }
    ensure_window_open(state, netuid, block)?;
    Change::Tempo.check(state, (netuid, signer), block)?;
    store_tempo(state, netuid, tempo, block);
    Change::Tempo.remember(state, (netuid, signer), block.number);
    Ok(vec![Event::Subtensor(Happened::TempoSet(netuid, tempo))])
}

/// Lets the epoch end before its time: as many blocks from now as the owner changes nothing before an
/// end.
///
/// # Errors
/// Not the owner, commit–reveal is on, an end is near or asked for already, or too soon after the last.
pub(super) fn trigger_epoch(
    state: &mut Overlay<'_>,
    signer: AccountId,
    netuid: u16,
    block: &Block,
) -> Outcome {
    ensure_owner(state, signer, netuid)?;
    if weights::is_commit_reveal(state, netuid) {
        return Err(Failure::DynamicTempoBlockedByCommitReveal.into());
    }
    if epoch::PENDING_EPOCH_AT.get_or(state, &(netuid,), 0) != 0 {
        return Err(Failure::EpochTriggerAlreadyPending.into());
    }
    let window = u64::from(FREEZE_WINDOW.get_or(state, &(), DEFAULT_FREEZE_WINDOW));
    if epoch::blocks_left(state, netuid, block.number) < window {
        return Err(Failure::AutoEpochAlreadyImminent.into());
    }
    TRIGGER_EPOCH.check(state, (netuid, signer), block)?;
    let fires_at = block.number.saturating_add(window);
    epoch::PENDING_EPOCH_AT.put(state, &(netuid,), &fires_at);
    TRIGGER_EPOCH.remember(state, (netuid, signer), block.number);
    Ok(vec![Event::Subtensor(Happened::EpochTriggered {
        netuid,
        by: signer,
        fires_at,
    })])
}
