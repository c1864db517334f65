//! A subnet's parameters as its owner knows them: what each is called, how it is read and set.
//!
//! The names are those of the storage items and calls of the subtensor runtime; which of two calls an
//! owner has is read off the runtime at hand. What a good value is depends on the network that runs in
//! the subnet, and is not known here.

use std::ops::RangeInclusive;

use crate::runtime::{Runtime, Value};

/// One parameter of a subnet.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, as the owner's tools write it.
    pub name: &'static str,
    /// The storage item, by subnet.
    pub item: &'static str,
    /// The call that sets it, of `AdminUtils`.
    pub call: &'static str,
    /// The call's second argument; the first is the subnet.
    pub argument: &'static str,
    /// What kind of value it has.
    pub kind: Kind,
    /// Who may make that call on the public networks.
    pub set_by: SetBy,
}

/// The call by which somebody sets a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setter {
    /// The pallet.
    pub pallet: &'static str,
    /// The call.
    pub call: &'static str,
    /// Who may make it on the public networks.
    pub by: SetBy,
}

/// What kind of value a parameter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// Off or on.
    Switch,
}

/// Who may set a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetBy {
    /// The subnet's owner, once in two tempos and not in a tempo's last ten blocks.
    Owner,
    /// Those who govern the chain.
    Root,
}

impl Parameter {
    /// The parameter of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PARAMETERS.iter().find(|parameter| parameter.name == name)
    }

    /// The call that sets it to `value` on a chain with this runtime: the owner's, if there is one that
    /// takes the value.
    #[must_use]
    pub fn setter(&self, runtime: &Runtime, value: u64) -> Setter {
        let own = Setter {
            pallet: "SubtensorModule",
            call: "set_tempo",
            by: SetBy::Owner,
        };
        let is_tempo = self.item == "Tempo" && OWNERS_TEMPOS.contains(&value);
        if is_tempo && runtime.check_call(own.pallet, own.call).is_ok() {
            return own;
        }
        Setter {
            pallet: "AdminUtils",
            call: self.call,
            by: self.set_by,
        }
    }

    /// A value as the call shows it.
    #[must_use]
    pub fn shown(&self, value: u64) -> String {
        match self.kind {
            Kind::Number => value.to_string(),
            Kind::Switch => (value != 0).to_string(),
        }
    }

    /// The call's argument.
    pub(crate) fn value(&self, value: u64) -> Value {
        match self.kind {
            Kind::Number => value.into(),
            Kind::Switch => (value != 0).into(),
        }
    }
}

/// The tempos, in blocks, that a runtime with `set_tempo` lets an owner set.
const OWNERS_TEMPOS: RangeInclusive<u64> = 360..=50_400;

const fn number(
    name: &'static str,
    item: &'static str,
    call: &'static str,
    argument: &'static str,
    set_by: SetBy,
) -> Parameter {
    Parameter {
        name,
        item,
        call,
        argument,
        kind: Kind::Number,
        set_by,
    }
}

/// Every parameter that matters to a network like this one, in the order of names.
pub const PARAMETERS: [Parameter; 13] = [
    number(
        "activity_cutoff_factor",
        "ActivityCutoffFactorMilli",
        "sudo_set_activity_cutoff_factor",
        "factor_milli",
        SetBy::Owner,
    ),
    Parameter {
        name: "commit_reveal_weights_enabled",
        item: "CommitRevealWeightsEnabled",
        call: "sudo_set_commit_reveal_weights_enabled",
        argument: "enabled",
        kind: Kind::Switch,
        set_by: SetBy::Owner,
    },
    number(
        "commit_reveal_weights_interval",
        "RevealPeriodEpochs",
        "sudo_set_commit_reveal_weights_interval",
        "interval",
        SetBy::Owner,
    ),
    number(
        "immunity_period",
        "ImmunityPeriod",
        "sudo_set_immunity_period",
        "immunity_period",
        SetBy::Owner,
    ),
    number(
        "max_allowed_uids",
        "MaxAllowedUids",
        "sudo_set_max_allowed_uids",
        "max_allowed_uids",
        SetBy::Owner,
    ),
    number(
        "max_allowed_validators",
        "MaxAllowedValidators",
        "sudo_set_max_allowed_validators",
        "max_allowed_validators",
        SetBy::Root,
    ),
    number(
        "max_burn",
        "MaxBurn",
        "sudo_set_max_burn",
        "max_burn",
        SetBy::Owner,
    ),
    number(
        "min_allowed_weights",
        "MinAllowedWeights",
        "sudo_set_min_allowed_weights",
        "min_allowed_weights",
        SetBy::Owner,
    ),
    number(
        "min_burn",
        "MinBurn",
        "sudo_set_min_burn",
        "min_burn",
        SetBy::Owner,
    ),
    number(
        "serving_rate_limit",
        "ServingRateLimit",
        "sudo_set_serving_rate_limit",
        "serving_rate_limit",
        SetBy::Owner,
    ),
    number("tempo", "Tempo", "sudo_set_tempo", "tempo", SetBy::Root),
    number(
        "weights_set_rate_limit",
        "WeightsSetRateLimit",
        "sudo_set_weights_set_rate_limit",
        "weights_set_rate_limit",
        SetBy::Root,
    ),
    number(
        "weights_version_key",
        "WeightsVersionKey",
        "sudo_set_weights_version_key",
        "weights_version_key",
        SetBy::Owner,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{BUNDLED_VERSION, bundled};

    #[test]
    fn an_owner_is_told_of_a_call_that_the_runtime_has_for_owners() {
        let runtime = Runtime::from_metadata(bundled(), BUNDLED_VERSION).unwrap();
        let call = |name: &str, value| {
            let parameter = Parameter::named(name).unwrap();
            let setter = parameter.setter(&runtime, value);
            (format!("{}.{}", setter.pallet, setter.call), setter.by)
        };
        let own = ("SubtensorModule.set_tempo".to_owned(), SetBy::Owner);
        assert_eq!(
            [call("tempo", 360), call("tempo", 50_400)],
            [own.clone(), own]
        );
        let root = ("AdminUtils.sudo_set_tempo".to_owned(), SetBy::Root);
        assert_eq!(call("tempo", 359), root, "too short for an owner to set");
        let limit = "AdminUtils.sudo_set_serving_rate_limit".to_owned();
        assert_eq!(call("serving_rate_limit", 400), (limit, SetBy::Owner));
    }
}
