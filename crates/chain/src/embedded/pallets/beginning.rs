//! The state of block 0, out of the genesis specification.

use super::super::genesis::{GenesisNeuron, GenesisSpec};
use super::super::storage::Overlay;
use super::staking::Position;
use super::{
    balances, commitments, drand, epoch, hyperparameters, neurons, parameters, registration,
    sealed_weights, serving, staking, weights,
};

/// The root network: no slots, no epochs.
const ROOT_NETUID: u16 = 0;

/// Writes everything but what the system itself keeps of its blocks.
pub(super) fn write(spec: &GenesisSpec, state: &mut Overlay<'_>) {
    let netuid = spec.netuid.0;
    let owner = (spec.owner_coldkey().0, spec.owner.0);
    neurons::NETWORKS_ADDED.put(state, &(ROOT_NETUID,), &true);
    neurons::SUBNETWORK_N.put(state, &(ROOT_NETUID,), &0);
    registration::TOTAL_NETWORKS.put(state, &(), &1);
    registration::found(state, netuid, owner, 0);
    registration::start(state, netuid, 0);
    neurons::own(state, spec.owner.0, owner.0);
    write_parameters(spec, state);
    // What the whole chain shares. Zero lifts the limit on new subnets: there is one user.
    registration::NETWORK_RATE_LIMIT.put(state, &(), &0);
    epoch::MAX_EPOCHS_PER_BLOCK.put(state, &(), &epoch::DEFAULT_EPOCHS_PER_BLOCK);
    registration::NETWORK_MIN_LOCK_COST.put(state, &(), &registration::DEFAULT_LOCK_COST);
    registration::SUBNET_LIMIT.put(state, &(), &registration::DEFAULT_SUBNET_LIMIT);
    weights::STAKE_THRESHOLD.put(state, &(), &spec.stake_threshold_rao);
    sealed_weights::COMMIT_REVEAL_VERSION.put(state, &(), &sealed_weights::VERSION);
    commitments::MAX_SPACE.put(state, &(), &commitments::DEFAULT_MAX_SPACE);
    hyperparameters::ROOT.put(state, &(), &spec.root.0);
    hyperparameters::FREEZE_WINDOW.put(state, &(), &spec.admin_freeze_window);
    hyperparameters::OWNER_RATE_LIMIT.put(state, &(), &spec.owner_rate_limit_epochs);
    serving::ALLOW_LOOPBACK.put(state, &(), &spec.allow_loopback);
    drand::genesis(state, spec.digest(), spec.genesis_time_ms);

    balances::TOTAL_ISSUANCE.put(state, &(), &0);
    for (account, amount) in spec.all_balances() {
        balances::deposit(state, account.0, amount);
        balances::issue(state, amount);
    }
    let mut permits = Vec::new();
    for neuron in &spec.neurons {
        add(state, netuid, neuron);
        permits.push(neuron.validator_permit);
    }
    neurons::VALIDATOR_PERMIT.put(state, &(netuid,), &permits);
}

fn write_parameters(spec: &GenesisSpec, state: &mut Overlay<'_>) {
    let netuid = spec.netuid.0;
    parameters::TEMPO.put(state, netuid, spec.tempo);
    parameters::WEIGHTS_SET_RATE_LIMIT.put(state, netuid, spec.weights_rate_limit);
    parameters::SERVING_RATE_LIMIT.put(state, netuid, spec.serving_rate_limit);
    parameters::MIN_ALLOWED_WEIGHTS.put(state, netuid, spec.min_allowed_weights);
    parameters::MAX_WEIGHTS_LIMIT.put(state, netuid, spec.max_weight_limit);
    parameters::WEIGHTS_VERSION_KEY.put(state, netuid, spec.weights_version_key);
    parameters::IMMUNITY_PERIOD.put(state, netuid, spec.immunity_period);
    parameters::MAX_ALLOWED_UIDS.put(state, netuid, spec.max_uids);
    parameters::MAX_ALLOWED_VALIDATORS.put(state, netuid, spec.max_validators);
    let factor = spec.activity_cutoff_factor_milli();
    parameters::ACTIVITY_CUTOFF_FACTOR_MILLI.put(state, netuid, factor);
    let cutoff = u16::try_from(spec.activity_cutoff).unwrap_or(u16::MAX);
    parameters::ACTIVITY_CUTOFF.put(state, netuid, cutoff);
    parameters::COMMIT_REVEAL_WEIGHTS_ENABLED.put(state, netuid, spec.commit_reveal);
    parameters::REVEAL_PERIOD_EPOCHS.put(state, netuid, spec.reveal_period_epochs);
    parameters::BURN.put(state, netuid, spec.registration_burn_rao);
    parameters::MIN_BURN.put(state, netuid, spec.min_burn_rao);
    parameters::MAX_BURN.put(state, netuid, spec.max_burn_rao);
}

/// Adds a neuron that has never updated, so that its first weights wait for nothing.
fn add(state: &mut Overlay<'_>, netuid: u16, neuron: &GenesisNeuron) {
    let hotkey = neuron.hotkey.0;
    let coldkey = neuron.coldkey.unwrap_or(neuron.hotkey).0;
    neurons::append(state, netuid, hotkey, 0);
    neurons::own(state, hotkey, coldkey);
    if neuron.stake_rao > 0 {
        let position = Position {
            coldkey,
            hotkey,
            netuid,
        };
        staking::credit(state, position, neuron.stake_rao);
        balances::issue(state, neuron.stake_rao);
    }
}
