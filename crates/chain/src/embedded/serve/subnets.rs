//! What the runtime's interfaces say of subnets and neurons, read from the state by name.
//!
//! One record holds what is known of a subnet, another what is known of a neuron; each interface takes from
//! them the fields that its own struct has (`runtime/serve.rs`). What nobody wrote is the item's default
//! in the metadata, as it is in a real runtime; what this chain does not compute is zero.

use crate::embedded::storage::State;
use crate::runtime::{Runtime, Value};

const PALLET: &str = "SubtensorModule";

/// A subnet's parameters: the name in the structs, the storage item, and how `HyperparamEntry` carries it.
const PARAMETERS: [(&str, &str, &str); 31] = [
    ("rho", "Rho", "U16"),
    ("kappa", "Kappa", "U16"),
    ("immunity_period", "ImmunityPeriod", "U16"),
    ("min_allowed_weights", "MinAllowedWeights", "U16"),
    ("max_weights_limit", "MaxWeightsLimit", "U16"),
    ("tempo", "Tempo", "U16"),
    ("min_difficulty", "MinDifficulty", "U64"),
    ("max_difficulty", "MaxDifficulty", "U64"),
    ("weights_version", "WeightsVersionKey", "U64"),
    ("weights_rate_limit", "WeightsSetRateLimit", "U64"),
    ("adjustment_interval", "AdjustmentInterval", "U16"),
    ("activity_cutoff_factor", "ActivityCutoffFactorMilli", "U32"),
    ("registration_allowed", "NetworkRegistrationAllowed", "Bool"),
    (
        "target_regs_per_interval",
        "TargetRegistrationsPerInterval",
        "U16",
    ),
    ("min_burn", "MinBurn", "TaoBalance"),
    ("max_burn", "MaxBurn", "TaoBalance"),
    ("bonds_moving_avg", "BondsMovingAverage", "U64"),
    ("max_regs_per_block", "MaxRegistrationsPerBlock", "U16"),
    ("serving_rate_limit", "ServingRateLimit", "U64"),
    ("max_validators", "MaxAllowedValidators", "U16"),
    ("max_allowed_uids", "MaxAllowedUids", "U16"),
    ("adjustment_alpha", "AdjustmentAlpha", "U64"),
    ("difficulty", "Difficulty", "U64"),
    ("commit_reveal_period", "RevealPeriodEpochs", "U64"),
    (
        "commit_reveal_weights_enabled",
        "CommitRevealWeightsEnabled",
        "Bool",
    ),
    ("liquid_alpha_enabled", "LiquidAlphaOn", "Bool"),
    ("transfers_enabled", "TransferToggle", "Bool"),
    ("bonds_reset_enabled", "BondsResetOn", "Bool"),
    ("burn_half_life", "BurnHalfLife", "U16"),
    ("burn", "Burn", "TaoBalance"),
    (
        "pow_registration_allowed",
        "NetworkPowRegistrationAllowed",
        "Bool",
    ),
];

/// What else is known of a subnet, under the names of the structs.
const FACTS: [(&str, &str); 14] = [
    ("subnetwork_n", "SubnetworkN"),
    ("num_uids", "SubnetworkN"),
    ("max_allowed_validators", "MaxAllowedValidators"),
    ("max_uids", "MaxAllowedUids"),
    ("scaling_law_power", "ScalingLawPower"),
    ("blocks_since_last_step", "BlocksSinceLastStep"),
    ("last_step", "LastMechansimStepBlock"),
    ("owner", "SubnetOwner"),
    ("owner_coldkey", "SubnetOwner"),
    ("owner_hotkey", "SubnetOwnerHotkey"),
    ("network_registered_at", "NetworkRegisteredAt"),
    ("alpha_in", "SubnetAlphaIn"),
    ("alpha_out", "SubnetAlphaOut"),
    ("tao_in", "SubnetTAO"),
];

/// What a subnet holds for each uid in one list: the name in a neuron's struct, that in a metagraph, and the
/// storage item.
const COLUMNS: [(&str, &str, &str); 8] = [
    ("active", "active", "Active"),
    ("validator_permit", "validator_permit", "ValidatorPermit"),
    ("last_update", "last_update", "LastUpdate"),
    ("emission", "emission", "Emission"),
    ("incentive", "incentives", "Incentive"),
    ("consensus", "consensus", "Consensus"),
    ("dividends", "dividends", "Dividends"),
    ("validator_trust", "validator_trust", "ValidatorTrust"),
];

/// What can be asked of subnets, neurons and stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Subnet,
    AllSubnets,
    Hyperparameters,
    NextEpoch,
    Metagraph,
    AllMetagraphs,
    SelectedMetagraph,
    Neurons,
    Neuron,
    Stakes,
    StakesOfEach,
    Stake,
    Availability,
    /// A list of what this chain has none of.
    Empty,
    /// One of them.
    Absent,
    /// How much of it.
    Zero,
}

impl Question {
    /// What the runtime method of this name asks.
    pub(super) fn named(method: &str) -> Option<Self> {
        if let Some(of_neurons) = method.strip_prefix("NeuronInfoRuntimeApi_") {
            return match of_neurons {
                "get_neurons" | "get_neurons_lite" => Some(Self::Neurons),
                "get_neuron" | "get_neuron_lite" => Some(Self::Neuron),
                _ => None,
            };
        }
        if let Some(of_delegates) = method.strip_prefix("DelegateInfoRuntimeApi_") {
            return match of_delegates {
                "get_delegates" | "get_delegated" => Some(Self::Empty),
                "get_delegate" => Some(Self::Absent),
                _ => None,
            };
        }
        if let Some(of_stake) = method.strip_prefix("StakeInfoRuntimeApi_") {
            return match of_stake {
                "get_stake_info_for_coldkey" => Some(Self::Stakes),
                "get_stake_info_for_coldkeys" => Some(Self::StakesOfEach),
                "get_stake_info_for_hotkey_coldkey_netuid" => Some(Self::Stake),
                "get_stake_availability_for_coldkeys" => Some(Self::Availability),
                "get_coldkey_lock" | "get_most_convicted_hotkey_on_subnet" => Some(Self::Absent),
                "get_stake_fee" | "get_hotkey_conviction" => Some(Self::Zero),
                _ => None,
            };
        }
        Some(match method.strip_prefix("SubnetInfoRuntimeApi_")? {
            "get_subnet_info"
            | "get_subnet_info_v2"
            | "get_subnet_hyperparams"
            | "get_subnet_hyperparams_v2"
            | "get_dynamic_info" => Self::Subnet,
            "get_subnets_info" | "get_subnets_info_v2" | "get_all_dynamic_info" => Self::AllSubnets,
            "get_subnet_hyperparams_v3" => Self::Hyperparameters,
            "get_next_epoch_start_block" => Self::NextEpoch,
            "get_metagraph" | "get_subnet_state" => Self::Metagraph,
            "get_all_metagraphs" => Self::AllMetagraphs,
            "get_selective_metagraph" => Self::SelectedMetagraph,
            _ => return None,
        })
    }
}

/// The state of some block, by name.
pub(super) struct Subnets<'a, S> {
    pub(super) runtime: &'a Runtime,
    pub(super) state: &'a S,
}

type Fields = Vec<(&'static str, Value)>;

impl<S: State> Subnets<'_, S> {
    /// The answer, with at least the fields that are known. `arguments` are those of the method that asks.
    pub(super) fn answer(&self, question: Question, arguments: &[Value]) -> Value {
        match question {
            Question::Subnet => self.subnet(arguments),
            Question::AllSubnets => Value::List(self.each(|netuid| self.subnet(netuid))),
            Question::Hyperparameters => self.hyperparameters(arguments),
            Question::NextEpoch => self.next_epoch(arguments),
            Question::Metagraph => self.metagraph(arguments),
            Question::AllMetagraphs => Value::List(self.each(|netuid| self.metagraph(netuid))),
            Question::SelectedMetagraph => self.selected(arguments),
            Question::Neurons => self.neurons(arguments),
            Question::Neuron => self.neuron(arguments),
            Question::Stakes => arguments
                .first()
                .map_or_else(none, |who| self.stakes_of(who)),
            Question::StakesOfEach => arguments
                .first()
                .map_or_else(none, |all| self.stakes_of_each(all)),
            Question::Stake => self.stake(arguments),
            Question::Availability => self.availability(arguments),
            Question::Empty => Value::List(Vec::new()),
            Question::Absent => none(),
            Question::Zero => 0_u8.into(),
        }
    }

    /// What an item holds, or nothing where it holds nothing.
    pub(super) fn item(&self, pallet: &str, item: &str, keys: &[Value]) -> Option<Value> {
        let key = self.runtime.storage_key(pallet, item, keys).ok()?;
        let bytes = self.state.get(&key);
        let value = self.runtime.storage_value(pallet, item, bytes.as_deref());
        value.ok().flatten()
    }

    fn of(&self, netuid: &Value, item: &str) -> Option<Value> {
        self.item(PALLET, item, std::slice::from_ref(netuid))
    }

    fn number(&self, netuid: &Value, item: &str) -> u64 {
        let value = self.of(netuid, item);
        value.and_then(|value| value.number()).unwrap_or(0)
    }

    /// The subnet of a call, if it exists.
    fn existing(&self, arguments: &[Value]) -> Option<Value> {
        let netuid = arguments.first()?;
        let added = self.of(netuid, "NetworksAdded")?.as_bool()?;
        added.then(|| netuid.clone())
    }

    /// Fields of the subnet that is asked about.
    fn fields(&self, arguments: &[Value], fields: impl FnOnce(&Value) -> Fields) -> Value {
        match self.existing(arguments) {
            Some(netuid) => Value::record(fields(&netuid)),
            None => none(),
        }
    }

    fn subnet(&self, arguments: &[Value]) -> Value {
        self.fields(arguments, |netuid| self.subnet_fields(netuid))
    }

    /// Something about every subnet.
    pub(super) fn each<A>(&self, answer: impl Fn(&[Value]) -> A) -> Vec<A> {
        let item = "NetworksAdded";
        let Ok(prefix) = self.runtime.storage_key(PALLET, item, &[]) else {
            return Vec::new();
        };
        let mut answers = Vec::new();
        let mut last = None;
        while let Some(key) = self.state.next_key(&prefix, last.as_deref()) {
            if let Ok(netuid) = self.runtime.storage_keys_of(PALLET, item, &key) {
                answers.push(answer(&netuid));
            }
            last = Some(key);
        }
        answers
    }

    fn subnet_fields(&self, netuid: &Value) -> Fields {
        let mut fields: Fields = vec![("netuid", netuid.clone())];
        for (name, item, _) in PARAMETERS {
            fields.extend(self.of(netuid, item).map(|value| (name, value)));
        }
        for (name, item) in FACTS {
            fields.extend(self.of(netuid, item).map(|value| (name, value)));
        }
        let started = self.of(netuid, "FirstEmissionBlockNumber");
        fields.push(("subnet_is_active", started.is_some().into()));
        fields.push(("activity_cutoff", self.activity_cutoff(netuid).into()));
        if let Some([low, high]) = self.of(netuid, "AlphaValues").as_ref().and_then(pair) {
            fields.push(("alpha_low", low));
            fields.push(("alpha_high", high));
        }
        fields
    }

    /// Blocks without an update after which a neuron counts as inactive.
    fn activity_cutoff(&self, netuid: &Value) -> u64 {
        let factor = self.number(netuid, "ActivityCutoffFactorMilli");
        factor.saturating_mul(self.number(netuid, "Tempo")) / 1_000
    }

    /// Names with values.
    fn hyperparameters(&self, arguments: &[Value]) -> Value {
        let Some(netuid) = self.existing(arguments) else {
            return none();
        };
        let entry = |name: &str, kind: &str, value: Value| {
            let value = Value::variant_of(kind, [value]);
            Value::record([("name", name.as_bytes().into()), ("value", value)])
        };
        let known = PARAMETERS.into_iter().filter_map(|(name, item, kind)| {
            let value = self.of(&netuid, item)?;
            Some(entry(name, kind, value))
        });
        let cutoff = self.activity_cutoff(&netuid).into();
        Value::List(
            known
                .chain([entry("activity_cutoff", "U64", cutoff)])
                .collect(),
        )
    }

    /// The block that the pallet's schedule says, if it has one.
    fn next_epoch(&self, arguments: &[Value]) -> Value {
        let Some(netuid) = self.existing(arguments) else {
            return none();
        };
        let tempo = self.number(&netuid, "Tempo");
        if tempo == 0 {
            return none();
        }
        let scheduled = self.number(&netuid, "LastEpochBlock").saturating_add(tempo);
        let next = match self.number(&netuid, "PendingEpochAt") {
            0 => scheduled,
            asked_for => scheduled.min(asked_for),
        };
        let block = self.item("System", "Number", &[]);
        let block: u64 = block.and_then(|block| block.number()).unwrap_or(0);
        next.max(block.saturating_add(1)).into()
    }

    fn metagraph(&self, arguments: &[Value]) -> Value {
        self.fields(arguments, |netuid| {
            let mut fields = self.subnet_fields(netuid);
            fields.extend(self.item("System", "Number", &[]).map(|n| ("block", n)));
            let neurons = self.neuron_records(netuid);
            for (of_neuron, of_subnet, _) in COLUMNS {
                fields.push((of_subnet, column(&neurons, of_neuron)));
            }
            for (of_neuron, of_subnet) in [
                ("hotkey", "hotkeys"),
                ("coldkey", "coldkeys"),
                ("axon_info", "axons"),
                ("block_at_registration", "block_at_registration"),
                ("alpha_stake", "alpha_stake"),
                ("alpha_stake", "total_stake"),
            ] {
                fields.push((of_subnet, column(&neurons, of_neuron)));
            }
            // What is not computed here has a place for every uid all the same.
            let zeros = || Value::List(vec![0_u8.into(); neurons.len()]);
            for name in ["rank", "trust", "pruning_score", "tao_stake"] {
                fields.push((name, zeros()));
            }
            fields.push(("identities", Value::List(vec![none(); neurons.len()])));
            fields
        })
    }

    /// The fields of a metagraph with these numbers, counted as they are declared.
    fn selected(&self, arguments: &[Value]) -> Value {
        let all = self.metagraph(arguments);
        let wanted = arguments.get(1).and_then(Value::items).unwrap_or_default();
        let Value::Record(fields) = all else {
            return all;
        };
        let names = self.selectable();
        let is_wanted = |name: &str| {
            name == "netuid"
                || wanted.iter().any(|index| {
                    let index: Option<usize> = index.number();
                    index
                        .and_then(|index| names.get(index))
                        .is_some_and(|n| n == name)
                })
        };
        let kept = fields.into_iter().filter(|(name, _)| is_wanted(name));
        Value::Record(kept.collect())
    }

    /// The fields of a selective metagraph in their order, which is what its indices count.
    fn selectable(&self) -> Vec<String> {
        let (api, method) = ("SubnetInfoRuntimeApi", "get_selective_metagraph");
        let empty = Value::record([]);
        let bytes = self.runtime.runtime_api_result(api, method, &empty);
        let empty = bytes.and_then(|bytes| self.runtime.runtime_api_answer(api, method, &bytes));
        match empty.as_ref().map(Value::as_option) {
            Ok(Some(Some(Value::Record(fields)))) => {
                fields.iter().map(|(name, _)| name.to_string()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn neurons(&self, arguments: &[Value]) -> Value {
        match self.existing(arguments) {
            Some(netuid) => Value::List(self.neuron_records(&netuid)),
            None => Value::List(Vec::new()),
        }
    }

    fn neuron(&self, arguments: &[Value]) -> Value {
        let uid = arguments.get(1).and_then(Value::number::<usize>);
        let neurons = self.existing(arguments).map(|n| self.neuron_records(&n));
        let found = neurons.and_then(|neurons| neurons.into_iter().nth(uid?));
        found.unwrap_or_else(none)
    }

    fn neuron_records(&self, netuid: &Value) -> Vec<Value> {
        let columns: Vec<(&str, Option<Value>)> = COLUMNS
            .into_iter()
            .map(|(name, _, item)| (name, self.of(netuid, item)))
            .collect();
        let count = self.number(netuid, "SubnetworkN").min(u16::MAX.into()) as u16;
        (0..count)
            .map(|uid| self.neuron_record(netuid, uid, &columns))
            .collect()
    }

    fn neuron_record(
        &self,
        netuid: &Value,
        uid: u16,
        columns: &[(&'static str, Option<Value>)],
    ) -> Value {
        let place = [netuid.clone(), uid.into()];
        let hotkey = self.item(PALLET, "Keys", &place);
        let hotkey = hotkey.unwrap_or_else(|| [0; 32].into());
        let coldkey = self.item(PALLET, "Owner", std::slice::from_ref(&hotkey));
        let coldkey = coldkey.unwrap_or_else(|| [0; 32].into());
        let of_hotkey = [netuid.clone(), hotkey.clone()];
        let staked = [hotkey.clone(), netuid.clone()];
        let stake = self.item(PALLET, "TotalHotkeyAlpha", &staked);
        let stake = stake.unwrap_or_else(|| 0_u64.into());
        let stakes = vec![Value::List(vec![coldkey.clone(), stake.clone()])];
        let mut fields: Fields = vec![
            ("uid", uid.into()),
            ("netuid", netuid.clone()),
            ("hotkey", hotkey),
            ("coldkey", coldkey),
            ("stake", Value::List(stakes)),
            ("alpha_stake", stake),
        ];
        let axon = self.item(PALLET, "Axons", &of_hotkey);
        fields.push(("axon_info", axon.unwrap_or_else(no_axon)));
        let since = self.item(PALLET, "BlockAtRegistration", &place);
        fields.extend(since.map(|block| ("block_at_registration", block)));
        let weights = self.item(PALLET, "Weights", &place);
        fields.extend(weights.map(|weights| ("weights", weights)));
        for (name, column) in columns {
            let value = column.as_ref().and_then(Value::items);
            let value = value.and_then(|values| values.get(usize::from(uid)));
            fields.extend(value.map(|value| (*name, value.clone())));
        }
        Value::record(fields)
    }
}

/// One field of every neuron; zero where it has none.
fn column(neurons: &[Value], name: &str) -> Value {
    let field = |neuron: &Value| neuron.field(name).cloned();
    let absent = || match name {
        "active" | "validator_permit" => false.into(),
        _ => 0_u8.into(),
    };
    let values = neurons.iter().map(|n| field(n).unwrap_or_else(absent));
    Value::List(values.collect())
}

fn no_axon() -> Value {
    let zero = || Value::from(0_u8);
    Value::record([
        ("block", zero()),
        ("version", zero()),
        ("ip", zero()),
        ("port", zero()),
        ("ip_type", zero()),
        ("protocol", zero()),
        ("placeholder1", zero()),
        ("placeholder2", zero()),
    ])
}

fn none() -> Value {
    Value::variant_of("None", [])
}

fn pair(value: &Value) -> Option<[Value; 2]> {
    value.items()?.to_vec().try_into().ok()
}
