//! What the embedded chain starts from: a subnet, its parameters and its first neurons.
//!
//! A specification is data (TOML or JSON), checked as a whole before a chain is made of it. Equal
//! specifications give equal genesis hashes and different ones different hashes, whatever the
//! difference. Stake is fixed here for good: the embedded chain has no coins.

use std::collections::BTreeSet;

use connito_protocol::ids::{Block, Hotkey, Netuid, Uid};
use serde::{Deserialize, Serialize};

use crate::chain::{Neuron, SubnetParams};
use crate::fields::SPACE_PER_EPOCH;
use crate::hash::blake2_256;

/// Everything that distinguishes one embedded chain from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisSpec {
    /// The subnet's number.
    pub netuid: Netuid,
    /// The subnet owner's hotkey. Needs no slot; if it has one, it is never pruned.
    pub owner: Hotkey,
    /// Milliseconds between blocks.
    pub block_time_ms: u64,
    /// The time of block 0, in milliseconds since 1970. Block n has this time plus n block times.
    pub genesis_time_ms: u64,
    /// Blocks in an epoch. The main network's 360.
    #[serde(default = "defaults::tempo")]
    pub tempo: u16,
    /// Blocks between two settings of weights by one neuron. The main network's 100.
    #[serde(default = "defaults::weights_rate_limit")]
    pub weights_rate_limit: u64,
    /// Blocks between two publications of an endpoint by one neuron. The main network's 50.
    #[serde(default = "defaults::serving_rate_limit")]
    pub serving_rate_limit: u64,
    /// Whether 127.0.0.1 and ::1 may be published. Real chains refuse them; one machine needs them.
    #[serde(default = "defaults::allow_loopback")]
    pub allow_loopback: bool,
    /// The price of a slot in rao. Compared with an offer, never charged.
    #[serde(default)]
    pub registration_burn_rao: u64,
    /// The least number of entries in a setting of weights.
    #[serde(default = "defaults::min_allowed_weights")]
    pub min_allowed_weights: u16,
    /// The largest share of any one weight, of 65,535.
    #[serde(default = "defaults::max_weight_limit")]
    pub max_weight_limit: u16,
    /// The oldest acceptable version of weights.
    #[serde(default)]
    pub weights_version_key: u64,
    /// Blocks after registration in which a neuron is not pruned. The main network's 4,096.
    #[serde(default = "defaults::immunity_period")]
    pub immunity_period: u16,
    /// Slots. The main network's 256.
    #[serde(default = "defaults::max_uids")]
    pub max_uids: u16,
    /// Validator permits. The main network's 128.
    #[serde(default = "defaults::max_validators")]
    pub max_validators: u16,
    /// The least stake that may set weights.
    #[serde(default)]
    pub stake_threshold_rao: u64,
    /// Blocks without an update after which a neuron counts as inactive. The main network's 5,000.
    #[serde(default = "defaults::activity_cutoff")]
    pub activity_cutoff: u64,
    /// The neurons of block 0, in the order of their uids.
    #[serde(default)]
    pub neurons: Vec<GenesisNeuron>,
}

/// A neuron that exists from block 0 on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisNeuron {
    /// Whose slot it is.
    pub hotkey: Hotkey,
    /// Who owns the hotkey; the hotkey itself when absent.
    #[serde(default)]
    pub coldkey: Option<Hotkey>,
    /// Its stake, for good.
    #[serde(default)]
    pub stake_rao: u64,
    /// Whether its weights count before the first epoch. From then on permits follow the stake.
    #[serde(default)]
    pub validator_permit: bool,
}

mod defaults {
    pub(super) fn tempo() -> u16 {
        360
    }
    pub(super) fn weights_rate_limit() -> u64 {
        100
    }
    pub(super) fn serving_rate_limit() -> u64 {
        50
    }
    pub(super) fn allow_loopback() -> bool {
        true
    }
    pub(super) fn min_allowed_weights() -> u16 {
        1
    }
    pub(super) fn max_weight_limit() -> u16 {
        u16::MAX
    }
    pub(super) fn immunity_period() -> u16 {
        4_096
    }
    pub(super) fn max_uids() -> u16 {
        256
    }
    pub(super) fn max_validators() -> u16 {
        128
    }
    pub(super) fn activity_cutoff() -> u64 {
        5_000
    }
}

/// A specification no chain can start from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// A parameter that must be at least 1.
    #[error("genesis: {0} must be at least 1")]
    Zero(&'static str),
    /// A slot limit beyond what operations can address.
    #[error("genesis: max_uids {0} is above {max}", max = crate::operation::MAX_WEIGHTS)]
    TooManySlots(u16),
    /// More neurons than slots.
    #[error("genesis: {neurons} neurons do not fit max_uids {max_uids}")]
    TooManyNeurons {
        /// Neurons given.
        neurons: usize,
        /// Slots given.
        max_uids: u16,
    },
    /// More permits than validators.
    #[error("genesis: {permits} validator permits do not fit max_validators {max_validators}")]
    TooManyPermits {
        /// Permits given.
        permits: usize,
        /// Permits there are.
        max_validators: u16,
    },
    /// One hotkey in two slots.
    #[error("genesis: hotkey {0} is listed twice")]
    Duplicate(Hotkey),
    /// A permit that the first epoch would take away.
    #[error("genesis: validator {0} has a permit but no stake")]
    PermitWithoutStake(Hotkey),
}

impl GenesisSpec {
    /// A specification with the main network's parameters and no neurons.
    #[must_use]
    pub fn new(netuid: Netuid, owner: Hotkey) -> Self {
        Self {
            netuid,
            owner,
            block_time_ms: 12_000,
            genesis_time_ms: 0,
            tempo: defaults::tempo(),
            weights_rate_limit: defaults::weights_rate_limit(),
            serving_rate_limit: defaults::serving_rate_limit(),
            allow_loopback: defaults::allow_loopback(),
            registration_burn_rao: 0,
            min_allowed_weights: defaults::min_allowed_weights(),
            max_weight_limit: defaults::max_weight_limit(),
            weights_version_key: 0,
            immunity_period: defaults::immunity_period(),
            max_uids: defaults::max_uids(),
            max_validators: defaults::max_validators(),
            stake_threshold_rao: 0,
            activity_cutoff: defaults::activity_cutoff(),
            neurons: Vec::new(),
        }
    }

    /// Checks everything a chain relies on.
    ///
    /// # Errors
    /// A zero where none may be, more neurons or permits than places, a hotkey listed twice, or a
    /// permit without stake.
    pub fn check(&self) -> Result<(), GenesisError> {
        let at_least_one = [
            ("block_time_ms", self.block_time_ms),
            ("tempo", self.tempo.into()),
            ("max_uids", self.max_uids.into()),
            ("max_validators", self.max_validators.into()),
            ("max_weight_limit", self.max_weight_limit.into()),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(GenesisError::Zero(name));
        }
        if usize::from(self.max_uids) > crate::operation::MAX_WEIGHTS {
            return Err(GenesisError::TooManySlots(self.max_uids));
        }
        let (neurons, max_uids) = (self.neurons.len(), self.max_uids);
        if neurons > usize::from(max_uids) {
            return Err(GenesisError::TooManyNeurons { neurons, max_uids });
        }
        let permits = self
            .neurons
            .iter()
            .filter(|neuron| neuron.validator_permit)
            .count();
        if permits > usize::from(self.max_validators) {
            let max_validators = self.max_validators;
            return Err(GenesisError::TooManyPermits {
                permits,
                max_validators,
            });
        }
        let mut seen = BTreeSet::new();
        for neuron in &self.neurons {
            if !seen.insert(neuron.hotkey) {
                return Err(GenesisError::Duplicate(neuron.hotkey));
            }
            if neuron.validator_permit && neuron.stake_rao == 0 {
                return Err(GenesisError::PermitWithoutStake(neuron.hotkey));
            }
        }
        Ok(())
    }

    /// The time of a block: a rule, not a clock.
    #[must_use]
    pub fn time_of(&self, block: Block) -> u64 {
        self.genesis_time_ms
            .saturating_add(block.0.saturating_mul(self.block_time_ms))
    }

    pub(super) fn params(&self) -> SubnetParams {
        SubnetParams {
            weights_rate_limit: self.weights_rate_limit,
            serving_rate_limit: self.serving_rate_limit,
            min_allowed_weights: self.min_allowed_weights,
            max_weight_limit: self.max_weight_limit,
            weights_version_key: self.weights_version_key,
            immunity_period: self.immunity_period,
            max_uids: self.max_uids,
            max_validators: self.max_validators,
            stake_threshold_rao: self.stake_threshold_rao,
            activity_cutoff: self.activity_cutoff,
            commit_reveal: false,
            commit_space: SPACE_PER_EPOCH,
            burn_rao: self.registration_burn_rao,
        }
    }

    /// The neurons of block 0. They have never updated, so their first weights wait for nothing.
    pub(super) fn first_neurons(&self) -> impl Iterator<Item = Neuron> {
        self.neurons.iter().zip(0..).map(|(neuron, uid)| Neuron {
            uid: Uid(uid),
            hotkey: neuron.hotkey,
            coldkey: neuron.coldkey.unwrap_or(neuron.hotkey),
            registered_at: Block(0),
            endpoint: None,
            served_at: Block(0),
            validator_permit: neuron.validator_permit,
            active: true,
            stake_rao: neuron.stake_rao,
            last_update: Block(0),
            incentive: 0,
        })
    }

    /// A hash over every field, through an encoding that names each of them.
    pub(crate) fn digest(&self) -> [u8; 32] {
        // Serialising this type cannot fail: strings, integers and lists of the same.
        blake2_256(&serde_json::to_vec(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> GenesisSpec {
        let neuron = |key, stake_rao| GenesisNeuron {
            hotkey: Hotkey([key; 32]),
            coldkey: None,
            stake_rao,
            validator_permit: stake_rao > 0,
        };
        GenesisSpec {
            neurons: vec![neuron(1, 5), neuron(2, 0)],
            ..GenesisSpec::new(Netuid(3), Hotkey([9; 32]))
        }
    }

    #[test]
    fn a_short_specification_has_the_main_networks_parameters() {
        let text = r#"
            netuid = 3
            owner = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
            block_time_ms = 12000
            genesis_time_ms = 0
            [[neurons]]
            hotkey = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
        "#;
        let parsed: GenesisSpec = toml::from_str(text).unwrap();
        assert_eq!(
            GenesisSpec {
                neurons: vec![],
                ..parsed.clone()
            },
            { GenesisSpec::new(Netuid(3), parsed.owner) }
        );
        let unknown = toml::from_str::<GenesisSpec>(&text.replace("owner", "ovner"));
        assert!(unknown.unwrap_err().to_string().contains("ovner"));
    }

    #[test]
    fn a_specification_that_contradicts_itself_is_refused_by_name() {
        let problem = |change: fn(&mut GenesisSpec)| {
            let mut changed = spec();
            change(&mut changed);
            changed.check().unwrap_err()
        };
        assert_eq!(spec().check(), Ok(()));
        assert_eq!(problem(|spec| spec.tempo = 0), GenesisError::Zero("tempo"));
        assert_eq!(
            problem(|spec| spec.max_uids = 5_000),
            GenesisError::TooManySlots(5_000)
        );
        assert_eq!(
            problem(|spec| spec.max_uids = 1),
            GenesisError::TooManyNeurons {
                neurons: 2,
                max_uids: 1
            }
        );
        let duplicate = problem(|spec| spec.neurons[1].hotkey = Hotkey([1; 32]));
        assert_eq!(duplicate, GenesisError::Duplicate(Hotkey([1; 32])));
        let unstaked = problem(|spec| spec.neurons[1].validator_permit = true);
        assert_eq!(unstaked, GenesisError::PermitWithoutStake(Hotkey([2; 32])));
    }

    #[test]
    fn any_difference_is_another_chain() {
        let changes: [fn(&mut GenesisSpec); 4] = [
            |spec| spec.block_time_ms += 1,
            |spec| spec.allow_loopback = false,
            |spec| spec.neurons[0].stake_rao += 1,
            |spec| spec.neurons.swap(0, 1),
        ];
        for change in changes {
            let mut changed = spec();
            change(&mut changed);
            assert_ne!(changed.digest(), spec().digest());
        }
    }
}
