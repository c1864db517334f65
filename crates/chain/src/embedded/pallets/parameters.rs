//! The hyperparameters of a subnet: where they are stored and what holds where nothing was set.
//!
//! The defaults are the main network's. A subnet gets all of them written when it is made, so that
//! a reader never depends on the defaults that some metadata states. Who may change them is
//! decided in `hyperparameters.rs`.

use parity_scale_codec::{Decode, Encode};

use super::super::storage::{Hasher, Item, Overlay, State};

/// One hyperparameter: a value per subnet.
#[derive(Debug)]
pub(super) struct Parameter<V> {
    item: Item<(u16,), V>,
    default: V,
}

impl<V: Encode + Decode + Copy> Parameter<V> {
    const fn new(name: &'static str, default: V) -> Self {
        let item = Item::new("SubtensorModule", name, &[Hasher::Identity]);
        Self { item, default }
    }

    const fn hashed(name: &'static str, default: V) -> Self {
        let item = Item::new("SubtensorModule", name, &[Hasher::Twox64Concat]);
        Self { item, default }
    }

    /// The subnet's value.
    pub(super) fn get(&self, state: &impl State, netuid: u16) -> V {
        self.item.get_or(state, &(netuid,), self.default)
    }

    /// Sets the subnet's value.
    pub(super) fn put(&self, state: &mut Overlay<'_>, netuid: u16, value: V) {
        self.item.put(state, &(netuid,), &value);
    }

    fn write_default(&self, state: &mut Overlay<'_>, netuid: u16) {
        self.put(state, netuid, self.default);
    }
}

/// Blocks in an epoch.
pub(super) const TEMPO: Parameter<u16> = Parameter::new("Tempo", 360);
/// Blocks between two settings of weights by one neuron.
pub(super) const WEIGHTS_SET_RATE_LIMIT: Parameter<u64> =
    Parameter::new("WeightsSetRateLimit", 100);
/// Blocks between two publications of an endpoint by one neuron.
pub(super) const SERVING_RATE_LIMIT: Parameter<u64> = Parameter::new("ServingRateLimit", 50);
/// The least number of entries in a setting of weights.
pub(super) const MIN_ALLOWED_WEIGHTS: Parameter<u16> = Parameter::new("MinAllowedWeights", 1_024);
/// The largest share of one weight, of 65,535.
pub(super) const MAX_WEIGHTS_LIMIT: Parameter<u16> = Parameter::new("MaxWeightsLimit", u16::MAX);
/// The oldest acceptable version of weights.
pub(super) const WEIGHTS_VERSION_KEY: Parameter<u64> = Parameter::new("WeightsVersionKey", 0);
/// Blocks after registration in which a neuron is pruned only if there is nobody else.
pub(super) const IMMUNITY_PERIOD: Parameter<u16> = Parameter::new("ImmunityPeriod", 4_096);
/// Slots.
pub(super) const MAX_ALLOWED_UIDS: Parameter<u16> = Parameter::new("MaxAllowedUids", 256);
/// Validator permits.
pub(super) const MAX_ALLOWED_VALIDATORS: Parameter<u16> =
    Parameter::new("MaxAllowedValidators", 128);
/// Thousandths of a tempo without an update after which a neuron is inactive.
pub(super) const ACTIVITY_CUTOFF_FACTOR_MILLI: Parameter<u32> =
    Parameter::new("ActivityCutoffFactorMilli", 13_889);
/// What the factor has replaced; read by older clients only.
pub(super) const ACTIVITY_CUTOFF: Parameter<u16> = Parameter::new("ActivityCutoff", 5_000);
/// Whether weights are committed first and revealed later.
pub(super) const COMMIT_REVEAL_WEIGHTS_ENABLED: Parameter<bool> =
    Parameter::new("CommitRevealWeightsEnabled", true);
/// Epochs between commitment and reveal.
pub(super) const REVEAL_PERIOD_EPOCHS: Parameter<u64> = Parameter::hashed("RevealPeriodEpochs", 1);
/// The price of a slot, in rao.
pub(super) const BURN: Parameter<u64> = Parameter::new("Burn", 100_000_000);
/// The least price of a slot, in rao.
pub(super) const MIN_BURN: Parameter<u64> = Parameter::new("MinBurn", 500_000);
/// The largest price of a slot, in rao.
pub(super) const MAX_BURN: Parameter<u64> = Parameter::new("MaxBurn", 100_000_000_000);
/// Incentive mechanisms.
pub(super) const MECHANISM_COUNT: Parameter<u8> = Parameter::hashed("MechanismCountCurrent", 1);
/// Whether slots are sold.
pub(super) const NETWORK_REGISTRATION_ALLOWED: Parameter<bool> =
    Parameter::new("NetworkRegistrationAllowed", true);
/// Whether the subnet has been started, so that it can be staked on.
pub(super) const SUBTOKEN_ENABLED: Parameter<bool> = Parameter::new("SubtokenEnabled", false);

/// Writes every hyperparameter of a new subnet.
pub(super) fn write_defaults(state: &mut Overlay<'_>, netuid: u16) {
    TEMPO.write_default(state, netuid);
    WEIGHTS_SET_RATE_LIMIT.write_default(state, netuid);
    SERVING_RATE_LIMIT.write_default(state, netuid);
    MIN_ALLOWED_WEIGHTS.write_default(state, netuid);
    MAX_WEIGHTS_LIMIT.write_default(state, netuid);
    WEIGHTS_VERSION_KEY.write_default(state, netuid);
    IMMUNITY_PERIOD.write_default(state, netuid);
    MAX_ALLOWED_UIDS.write_default(state, netuid);
    MAX_ALLOWED_VALIDATORS.write_default(state, netuid);
    ACTIVITY_CUTOFF_FACTOR_MILLI.write_default(state, netuid);
    ACTIVITY_CUTOFF.write_default(state, netuid);
    COMMIT_REVEAL_WEIGHTS_ENABLED.write_default(state, netuid);
    REVEAL_PERIOD_EPOCHS.write_default(state, netuid);
    BURN.write_default(state, netuid);
    MIN_BURN.write_default(state, netuid);
    MAX_BURN.write_default(state, netuid);
    MECHANISM_COUNT.write_default(state, netuid);
    NETWORK_REGISTRATION_ALLOWED.write_default(state, netuid);
    SUBTOKEN_ENABLED.write_default(state, netuid);
}
