//! What the embedded chain starts from: a subnet, its parameters, its first neurons and its money.
//!
//! A specification is data (TOML or JSON), checked as a whole before a chain is made of it. Equal
//! specifications give equal genesis hashes and different ones different hashes, whatever the
//! difference. How it becomes a state is the pallets' business.

use std::collections::BTreeSet;

use connito_protocol::ids::{Block, Hotkey, Netuid};
use serde::{Deserialize, Serialize};

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
    /// The price of a slot in rao.
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
    /// Blocks without an update after which a neuron counts as inactive. The main network's 5,000. Kept
    /// as thousandths of the tempo, so rounded to a multiple of that.
    #[serde(default = "defaults::activity_cutoff")]
    pub activity_cutoff: u64,
    /// Whether weights are committed first and revealed later. On the main network they are.
    #[serde(default)]
    pub commit_reveal: bool,
    /// Epochs between commitment and reveal, 1 to 100. The main network's 1.
    #[serde(default = "defaults::reveal_period_epochs")]
    pub reveal_period_epochs: u64,
    /// The least price of a slot in rao.
    #[serde(default)]
    pub min_burn_rao: u64,
    /// The largest price of a slot in rao. The main network's 100 TAO.
    #[serde(default = "defaults::max_burn_rao")]
    pub max_burn_rao: u64,
    /// Blocks at the end of an epoch in which the owner changes no parameter; 0 for none. The main
    /// network's 10.
    #[serde(default = "defaults::admin_freeze_window")]
    pub admin_freeze_window: u16,
    /// Epochs between two changes of one parameter by the owner; 0 for none. The main network's 2.
    #[serde(default = "defaults::owner_rate_limit_epochs")]
    pub owner_rate_limit_epochs: u16,
    /// The coldkey that may change the subnet's parameters; the owner hotkey's when absent.
    #[serde(default)]
    pub owner_coldkey: Option<Hotkey>,
    /// The account that may change every parameter. The well-known Alice when absent, whose secret
    /// everybody knows: fit for one machine.
    #[serde(default = "defaults::alice")]
    pub root: Hotkey,
    /// The account with money for everybody. The well-known Alice when absent.
    #[serde(default = "defaults::alice")]
    pub faucet: Hotkey,
    /// What the faucet has in rao: a million TAO when absent.
    #[serde(default = "defaults::faucet_rao")]
    pub faucet_rao: u64,
    /// Who else has how much.
    #[serde(default)]
    pub balances: Vec<GenesisBalance>,
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
    /// The stake behind it, its coldkey's.
    #[serde(default)]
    pub stake_rao: u64,
    /// Whether its weights count before the first epoch. From then on permits follow the stake.
    #[serde(default)]
    pub validator_permit: bool,
}

/// What an account has at block 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisBalance {
    /// The account: a coldkey, as a rule.
    pub account: Hotkey,
    /// What it has, at least 500 rao.
    pub amount_rao: u64,
}

mod defaults {
    use connito_protocol::ids::Hotkey;

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
    pub(super) fn reveal_period_epochs() -> u64 {
        1
    }
    pub(super) fn max_burn_rao() -> u64 {
        100_000_000_000
    }
    pub(super) fn admin_freeze_window() -> u16 {
        10
    }
    pub(super) fn owner_rate_limit_epochs() -> u16 {
        2
    }
    /// `//Alice` of every development chain.
    pub(super) fn alice() -> Hotkey {
        Hotkey([
            0xd4, 0x35, 0x93, 0xc7, 0x15, 0xfd, 0xd3, 0x1c, 0x61, 0x14, 0x1a, 0xbd, 0x04, 0xa9,
            0x9f, 0xd6, 0x82, 0x2c, 0x85, 0x58, 0x85, 0x4c, 0xcd, 0xe3, 0x9a, 0x56, 0x84, 0xe7,
            0xa5, 0x6d, 0xa2, 0x7d,
        ])
    }
    pub(super) fn faucet_rao() -> u64 {
        1_000_000_000_000_000
    }
}

/// Slots that a subnet can have.
pub(super) const MAX_UIDS: u16 = 4_096;
/// The least that an account may hold, in rao.
pub(super) const EXISTENTIAL_DEPOSIT: u64 = 500;

/// A specification no chain can start from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// A parameter that must be at least 1.
    #[error("genesis: {0} must be at least 1")]
    Zero(&'static str),
    /// A slot limit beyond what operations can address.
    #[error("genesis: max_uids {0} is above {MAX_UIDS}")]
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
    /// A price beyond its own bounds.
    #[error("genesis: registration_burn_rao {price} is not within {min} and {max}")]
    Price {
        /// The price.
        price: u64,
        /// `min_burn_rao`.
        min: u64,
        /// `max_burn_rao`.
        max: u64,
    },
    /// A reveal period that no chain takes.
    #[error("genesis: reveal_period_epochs {0} is not within 1 and 100")]
    RevealPeriod(u64),
    /// A subnet that is the root network.
    #[error("genesis: netuid 0 is the root network and has no neurons")]
    RootNetwork,
    /// The owner's neuron belongs to another coldkey than the owner.
    #[error("genesis: owner_coldkey {0} is not the coldkey of the owner's neuron")]
    OwnerColdkey(Hotkey),
    /// An account that would not exist.
    #[error("genesis: the balance of {0} is below 500 rao")]
    Dust(Hotkey),
    /// One account with two balances.
    #[error("genesis: account {0} has two balances")]
    TwoBalances(Hotkey),
    /// More money than can be counted.
    #[error("genesis: balances and stakes together exceed 64 bits")]
    TooMuchMoney,
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
            commit_reveal: false,
            reveal_period_epochs: defaults::reveal_period_epochs(),
            min_burn_rao: 0,
            max_burn_rao: defaults::max_burn_rao(),
            admin_freeze_window: defaults::admin_freeze_window(),
            owner_rate_limit_epochs: defaults::owner_rate_limit_epochs(),
            owner_coldkey: None,
            root: defaults::alice(),
            faucet: defaults::alice(),
            faucet_rao: defaults::faucet_rao(),
            balances: Vec::new(),
            neurons: Vec::new(),
        }
    }

    /// Checks everything a chain relies on.
    ///
    /// # Errors
    /// A zero where none may be, a parameter out of its bounds, more neurons or permits than places, a
    /// hotkey or an account listed twice, a permit without stake, or money that cannot be.
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
        if self.netuid.0 == 0 {
            return Err(GenesisError::RootNetwork);
        }
        if self.max_uids > MAX_UIDS {
            return Err(GenesisError::TooManySlots(self.max_uids));
        }
        if !(1..=100).contains(&self.reveal_period_epochs) {
            return Err(GenesisError::RevealPeriod(self.reveal_period_epochs));
        }
        let (price, min, max) = (
            self.registration_burn_rao,
            self.min_burn_rao,
            self.max_burn_rao,
        );
        if !(min..=max).contains(&price) {
            return Err(GenesisError::Price { price, min, max });
        }
        self.check_neurons()?;
        self.check_money()
    }

    fn check_neurons(&self) -> Result<(), GenesisError> {
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
        match (self.owner_coldkey, self.owners_neuron()) {
            (Some(stated), Some(neurons)) if stated != neurons => {
                Err(GenesisError::OwnerColdkey(stated))
            }
            _ => Ok(()),
        }
    }

    fn check_money(&self) -> Result<(), GenesisError> {
        let mut seen = BTreeSet::new();
        let mut sum = 0_u64;
        for (account, amount) in self.all_balances() {
            if !seen.insert(account) {
                return Err(GenesisError::TwoBalances(account));
            }
            if amount < EXISTENTIAL_DEPOSIT {
                return Err(GenesisError::Dust(account));
            }
            sum = sum.checked_add(amount).ok_or(GenesisError::TooMuchMoney)?;
        }
        let mut stakes = self.neurons.iter().map(|neuron| neuron.stake_rao);
        let all = stakes.try_fold(sum, u64::checked_add);
        all.map(drop).ok_or(GenesisError::TooMuchMoney)
    }

    /// Who has money at block 0: the faucet, unless it is listed itself or has nothing, and the others.
    pub(super) fn all_balances(&self) -> Vec<(Hotkey, u64)> {
        let is_listed = |balance: &GenesisBalance| balance.account == self.faucet;
        let has_more = self.faucet_rao > 0 && !self.balances.iter().any(is_listed);
        let faucet = has_more.then_some((self.faucet, self.faucet_rao));
        let listed = self.balances.iter();
        let listed = listed.map(|balance| (balance.account, balance.amount_rao));
        faucet.into_iter().chain(listed).collect()
    }

    /// The coldkey that may change the subnet's parameters.
    pub(super) fn owner_coldkey(&self) -> Hotkey {
        let coldkey = self.owner_coldkey.or_else(|| self.owners_neuron());
        coldkey.unwrap_or(self.owner)
    }

    /// The coldkey of the neuron that is the owner's, if there is one.
    fn owners_neuron(&self) -> Option<Hotkey> {
        let mut neurons = self.neurons.iter();
        let neuron = neurons.find(|neuron| neuron.hotkey == self.owner)?;
        Some(neuron.coldkey.unwrap_or(neuron.hotkey))
    }

    /// The activity cutoff as the chain keeps it: in thousandths of the tempo, rounded up.
    pub(super) fn activity_cutoff_factor_milli(&self) -> u32 {
        let thousandths = self.activity_cutoff.saturating_mul(1_000);
        let factor = thousandths.div_ceil(u64::from(self.tempo).max(1));
        u32::try_from(factor).unwrap_or(u32::MAX)
    }

    /// The time of a block: a rule, not a clock.
    #[must_use]
    pub fn time_of(&self, block: Block) -> u64 {
        self.genesis_time_ms
            .saturating_add(block.0.saturating_mul(self.block_time_ms))
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
        assert_eq!(
            problem(|spec| spec.netuid = Netuid(0)),
            GenesisError::RootNetwork
        );
        assert_eq!(
            problem(|spec| spec.reveal_period_epochs = 101),
            GenesisError::RevealPeriod(101)
        );
        let stranger = Hotkey([8; 32]);
        let elsewhere = problem(|spec| {
            spec.owner = Hotkey([1; 32]);
            spec.owner_coldkey = Some(Hotkey([8; 32]));
        });
        assert_eq!(elsewhere, GenesisError::OwnerColdkey(stranger));
    }

    #[test]
    fn money_that_cannot_be_is_refused_by_name() {
        let balance = |account: u8, amount_rao| GenesisBalance {
            account: Hotkey([account; 32]),
            amount_rao,
        };
        let problem = |balances: Vec<GenesisBalance>| {
            let specification = GenesisSpec { balances, ..spec() };
            specification.check().unwrap_err()
        };
        let account = Hotkey([8; 32]);
        assert_eq!(problem(vec![balance(8, 499)]), GenesisError::Dust(account));
        assert_eq!(
            problem(vec![balance(8, 500), balance(8, 500)]),
            GenesisError::TwoBalances(account)
        );
        assert_eq!(
            problem(vec![balance(8, u64::MAX)]),
            GenesisError::TooMuchMoney
        );
        let price = GenesisSpec {
            registration_burn_rao: 5,
            min_burn_rao: 6,
            ..spec()
        };
        let (min, max) = (6, 100_000_000_000);
        assert_eq!(
            price.check(),
            Err(GenesisError::Price { price: 5, min, max })
        );
    }

    #[test]
    fn a_full_specification_survives_toml() {
        let mut full = spec();
        full.owner_coldkey = Some(Hotkey([7; 32]));
        full.balances = vec![GenesisBalance {
            account: Hotkey([8; 32]),
            amount_rao: 500,
        }];
        let text = toml::to_string(&full).unwrap();
        assert_eq!(toml::from_str::<GenesisSpec>(&text).unwrap(), full);
        assert_eq!(full.check(), Ok(()));
    }

    #[test]
    fn the_owners_coldkey_is_the_stated_one_or_that_of_its_neuron() {
        assert_eq!(spec().owner_coldkey(), Hotkey([9; 32]), "the owner itself");
        let mut listed = spec();
        listed.owner = Hotkey([1; 32]);
        listed.neurons[0].coldkey = Some(Hotkey([5; 32]));
        assert_eq!(listed.owner_coldkey(), Hotkey([5; 32]));
        let mut stated = spec();
        stated.owner_coldkey = Some(Hotkey([6; 32]));
        assert_eq!(stated.owner_coldkey(), Hotkey([6; 32]));
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
