//! What runtime APIs say of stake: who has how much behind whom.
//!
//! Positions come from the pallet that keeps them. Nothing of them is ever locked or drained here, and no
//! emission is paid on them, so those fields are left to be zero.

use std::collections::BTreeSet;

use super::subnets::Subnets;
use crate::embedded::pallets::{Position, stake_of};
use crate::embedded::storage::{AccountId, State};
use crate::runtime::Value;

const PALLET: &str = "SubtensorModule";

impl<S: State> Subnets<'_, S> {
    /// Every position of a coldkey that holds anything.
    pub(super) fn stakes_of(&self, coldkey: &Value) -> Value {
        let hotkeys = self.item(PALLET, "StakingHotkeys", std::slice::from_ref(coldkey));
        let hotkeys = hotkeys.as_ref().and_then(Value::items).unwrap_or_default();
        let positions = hotkeys.iter().flat_map(|hotkey| {
            let on = |netuid: &[Value]| Some((hotkey.clone(), netuid.first()?.clone()));
            self.each(on).into_iter().flatten()
        });
        let held = positions.filter_map(|(hotkey, netuid)| {
            let stake = self.held([&hotkey, coldkey, &netuid])?;
            (stake > 0).then(|| self.record([&hotkey, coldkey, &netuid], stake))
        });
        Value::List(held.collect())
    }

    /// The positions of several coldkeys, each beside them.
    pub(super) fn stakes_of_each(&self, coldkeys: &Value) -> Value {
        let coldkeys = coldkeys.items().unwrap_or_default().iter();
        let each =
            coldkeys.map(|coldkey| Value::List(vec![coldkey.clone(), self.stakes_of(coldkey)]));
        Value::List(each.collect())
    }

    /// One position, whether it holds anything or not.
    pub(super) fn stake(&self, arguments: &[Value]) -> Value {
        let [hotkey, coldkey, netuid] = arguments else {
            return Value::variant_of("None", []);
        };
        let position = [hotkey, coldkey, netuid];
        self.record(position, self.held(position).unwrap_or(0))
    }

    /// How much of their stake on some subnets, or on all, coldkeys could take back: all of it.
    pub(super) fn availability(&self, arguments: &[Value]) -> Value {
        let [coldkeys, netuids] = arguments else {
            return Value::List(Vec::new());
        };
        // Maps of the runtime: in order, and nothing twice.
        let accounts = coldkeys.items().unwrap_or_default().iter();
        let accounts: BTreeSet<AccountId> = accounts.filter_map(Value::as_array).collect();
        let netuids: BTreeSet<u16> = match netuids.as_option().flatten() {
            Some(some) => some
                .items()
                .unwrap_or_default()
                .iter()
                .filter_map(Value::number)
                .collect(),
            None => self
                .each(|netuid| netuid.first()?.number())
                .into_iter()
                .flatten()
                .collect(),
        };
        let each = accounts.into_iter().map(|account| {
            let coldkey = Value::from(account);
            let on_each = netuids.iter().map(|netuid| {
                let total = Value::from(self.total(&coldkey, *netuid));
                let stake = Value::record([("total", total.clone()), ("available", total)]);
                Value::List(vec![(*netuid).into(), stake])
            });
            let on_each = Value::List(on_each.collect());
            Value::List(vec![coldkey, on_each])
        });
        Value::List(each.collect())
    }

    /// A coldkey's stake on a subnet, behind all hotkeys.
    fn total(&self, coldkey: &Value, netuid: u16) -> u64 {
        let hotkeys = self.item(PALLET, "StakingHotkeys", std::slice::from_ref(coldkey));
        let hotkeys = hotkeys.as_ref().and_then(Value::items).unwrap_or_default();
        let held = hotkeys
            .iter()
            .filter_map(|hotkey| self.held([hotkey, coldkey, &netuid.into()]));
        held.fold(0, u64::saturating_add)
    }

    fn held(&self, [hotkey, coldkey, netuid]: [&Value; 3]) -> Option<u64> {
        let account = |value: &Value| -> Option<AccountId> { value.as_array() };
        let position = Position {
            coldkey: account(coldkey)?,
            hotkey: account(hotkey)?,
            netuid: netuid.number()?,
        };
        Some(stake_of(self.state, position))
    }

    fn record(&self, [hotkey, coldkey, netuid]: [&Value; 3], stake: u64) -> Value {
        let slot = self.item(PALLET, "Uids", &[netuid.clone(), hotkey.clone()]);
        Value::record([
            ("hotkey", hotkey.clone()),
            ("coldkey", coldkey.clone()),
            ("netuid", netuid.clone()),
            ("stake", stake.into()),
            ("is_registered", slot.is_some().into()),
        ])
    }
}
