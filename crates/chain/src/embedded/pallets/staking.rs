//! Stake: what a coldkey puts behind a hotkey on one subnet.
//!
//! There is no pool here: one rao is one unit of the subnet's alpha, in and out, without fee or
//! slippage. The shares of the real chain are therefore the amounts themselves.

use parity_scale_codec::{Decode, Encode};

use super::super::call::Subtensor as Call;
use super::super::event::{self, Event};
use super::super::failure::Subtensor as Failure;
use super::super::storage::{AccountId, Hasher, Item, Overlay, State};
use super::{Outcome, balances, neurons, parameters};

/// The least that is staked or taken back at once, in rao.
const MIN_STAKE: u64 = 2_000_000;
/// The price of one alpha in rao: one TAO.
pub(super) const ALPHA_PRICE: u64 = 1_000_000_000;

/// A number with 21 decimal digits, as shares are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct SafeFloat {
    mantissa: u128,
    exponent: i64,
}

impl SafeFloat {
    /// The runtime keeps the mantissa in `10^20 < mantissa <= 10^21`, whatever the number.
    fn new(amount: u64) -> Self {
        const LARGEST: u128 = 10_u128.pow(21);
        let (mut mantissa, mut exponent) = (u128::from(amount), 0);
        while mantissa > 0 && mantissa <= LARGEST / 10 {
            mantissa *= 10;
            exponent -= 1;
        }
        Self { mantissa, exponent }
    }
}

const BY_HOTKEY_AND_NETUID: &[Hasher] = &[Hasher::Blake2_128Concat, Hasher::Identity];

/// All stake behind a hotkey on a subnet.
pub(super) const TOTAL_HOTKEY_ALPHA: Item<(AccountId, u16), u64> =
    Item::new("SubtensorModule", "TotalHotkeyAlpha", BY_HOTKEY_AND_NETUID);
const TOTAL_HOTKEY_SHARES: Item<(AccountId, u16), SafeFloat> = Item::new(
    "SubtensorModule",
    "TotalHotkeySharesV2",
    BY_HOTKEY_AND_NETUID,
);
/// What one coldkey has behind a hotkey on a subnet.
const ALPHA: Item<(AccountId, AccountId, u16), SafeFloat> = Item::new(
    "SubtensorModule",
    "AlphaV2",
    &[
        Hasher::Blake2_128Concat,
        Hasher::Blake2_128Concat,
        Hasher::Identity,
    ],
);
/// The hotkeys a coldkey has stake behind.
const STAKING_HOTKEYS: Item<(AccountId,), Vec<AccountId>> = Item::new(
    "SubtensorModule",
    "StakingHotkeys",
    &[Hasher::Blake2_128Concat],
);
/// All stake.
pub(super) const TOTAL_STAKE: Item<(), u64> = Item::new("SubtensorModule", "TotalStake", &[]);
const TOTAL_ALPHA_STAKED: Item<(u16,), u64> =
    Item::new("SubtensorModule", "TotalAlphaStaked", &[Hasher::Identity]);
const SUBNET_ALPHA_OUT: Item<(u16,), u64> =
    Item::new("SubtensorModule", "SubnetAlphaOut", &[Hasher::Identity]);
const SUBNET_TAO: Item<(u16,), u64> =
    Item::new("SubtensorModule", "SubnetTAO", &[Hasher::Identity]);

/// Who stakes what on what.
#[derive(Debug, Clone, Copy)]
pub(in crate::embedded) struct Position {
    pub(in crate::embedded) coldkey: AccountId,
    pub(in crate::embedded) hotkey: AccountId,
    pub(in crate::embedded) netuid: u16,
}

/// All stake behind a hotkey on a subnet.
pub(super) fn of_hotkey(state: &impl State, hotkey: AccountId, netuid: u16) -> u64 {
    TOTAL_HOTKEY_ALPHA.get_or(state, &(hotkey, netuid), 0)
}

/// What a position holds.
pub(in crate::embedded) fn of(state: &impl State, position: Position) -> u64 {
    let Position {
        coldkey,
        hotkey,
        netuid,
    } = position;
    let Some(share) = ALPHA.get(state, &(hotkey, coldkey, netuid)) else {
        return 0;
    };
    let divisor = u32::try_from(-share.exponent)
        .ok()
        .and_then(|digits| 10_u128.checked_pow(digits));
    divisor.map_or(0, |divisor| (share.mantissa / divisor) as u64)
}

/// A change of stake that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    position: Position,
    direction: Direction,
    amount: u64,
    limit_price: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Add,
    Remove,
}

impl Change {
    /// The change that a call asks for; nothing if it is not about stake. That a part would do is not
    /// looked at: the price does not depend on the amount.
    pub(super) fn of(coldkey: AccountId, call: &Call) -> Option<Self> {
        let (hotkey, netuid, direction, amount, limit_price) = match *call {
            Call::AddStake {
                hotkey,
                netuid,
                amount_staked,
            } => (hotkey, netuid, Direction::Add, amount_staked, None),
            Call::AddStakeLimit {
                hotkey,
                netuid,
                amount_staked,
                limit_price,
                ..
            } => (
                hotkey,
                netuid,
                Direction::Add,
                amount_staked,
                Some(limit_price),
            ),
            Call::RemoveStake {
                hotkey,
                netuid,
                amount_unstaked,
            } => (hotkey, netuid, Direction::Remove, amount_unstaked, None),
            Call::RemoveStakeLimit {
                hotkey,
                netuid,
                amount_unstaked,
                limit_price,
                ..
            } => (
                hotkey,
                netuid,
                Direction::Remove,
                amount_unstaked,
                Some(limit_price),
            ),
            _ => return None,
        };
        Some(Self {
            position: Position {
                coldkey,
                hotkey,
                netuid,
            },
            direction,
            amount,
            limit_price,
        })
    }

    /// Makes the change.
    ///
    /// # Errors
    /// No such subnet, not started, a hotkey nobody knows, too small an amount, not as much money or
    /// stake, or a price beyond the limit.
    pub(super) fn carry_out(self, state: &mut Overlay<'_>) -> Outcome {
        self.check(state)?;
        let Self {
            position, amount, ..
        } = self;
        let moved = event::Stake {
            coldkey: position.coldkey,
            hotkey: position.hotkey,
            tao: amount,
            alpha: amount,
            netuid: position.netuid,
            fee: 0,
        };
        let (mut events, happened) = match self.direction {
            Direction::Add => {
                let events = balances::withdraw(state, position.coldkey, amount)
                    .map_err(|_| Failure::NotEnoughBalanceToStake)?;
                credit(state, position, amount);
                (events, event::Subtensor::StakeAdded(moved))
            }
            Direction::Remove => {
                let held = of(state, position);
                let rest = held.checked_sub(amount);
                let rest = rest.ok_or(Failure::NotEnoughStakeToWithdraw)?;
                set(state, position, (held, rest));
                let events = balances::deposit(state, position.coldkey, amount);
                (events, event::Subtensor::StakeRemoved(moved))
            }
        };
        events.push(Event::Subtensor(happened));
        Ok(events)
    }

    fn check(&self, state: &impl State) -> Result<(), Failure> {
        let Position { hotkey, netuid, .. } = self.position;
        if !neurons::exists(state, netuid) {
            return Err(Failure::SubnetNotExists);
        }
        if !parameters::SUBTOKEN_ENABLED.get(state, netuid) {
            return Err(Failure::SubtokenDisabled);
        }
        if neurons::OWNER.get(state, &(hotkey,)).is_none() {
            return Err(Failure::HotKeyAccountNotExists);
        }
        if self.amount < MIN_STAKE {
            return Err(Failure::AmountTooLow);
        }
        let is_within = |limit| match self.direction {
            Direction::Add => ALPHA_PRICE <= limit,
            Direction::Remove => ALPHA_PRICE >= limit,
        };
        match self.limit_price.is_none_or(is_within) {
            true => Ok(()),
            false => Err(Failure::SlippageTooHigh),
        }
    }
}

/// Puts stake into a position without taking it from anywhere.
pub(super) fn credit(state: &mut Overlay<'_>, position: Position, amount: u64) {
    let held = of(state, position);
    set(state, position, (held, held.saturating_add(amount)));
}

/// Writes a position and every sum it is part of.
fn set(state: &mut Overlay<'_>, position: Position, (before, after): (u64, u64)) {
    let Position {
        coldkey,
        hotkey,
        netuid,
    } = position;
    ALPHA.put(state, &(hotkey, coldkey, netuid), &SafeFloat::new(after));
    let change = |total: u64| total.saturating_sub(before).saturating_add(after);
    let total = change(of_hotkey(state, hotkey, netuid));
    TOTAL_HOTKEY_ALPHA.put(state, &(hotkey, netuid), &total);
    TOTAL_HOTKEY_SHARES.put(state, &(hotkey, netuid), &SafeFloat::new(total));
    for item in [&TOTAL_ALPHA_STAKED, &SUBNET_ALPHA_OUT, &SUBNET_TAO] {
        let total = change(item.get_or(state, &(netuid,), 0));
        item.put(state, &(netuid,), &total);
    }
    let total = change(TOTAL_STAKE.get_or(state, &(), 0));
    TOTAL_STAKE.put(state, &(), &total);

    let mut hotkeys = STAKING_HOTKEYS.get_or(state, &(coldkey,), Vec::new());
    if !hotkeys.contains(&hotkey) {
        hotkeys.push(hotkey);
        STAKING_HOTKEYS.put(state, &(coldkey,), &hotkeys);
    }
}
