//! What runtime APIs say of stake: who has how much behind whom.
//!
//! Positions come from the pallet that keeps them. Nothing of them is ever locked or drained here, and no
//! emission is paid on them, so those fields are left to be zero.

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
