//! Who has how much: transfers, and money that leaves an account for good or for a stake.
//!
//! Amounts are rao (10^-9 TAO). An account exists while it holds at least [`EXISTENTIAL_DEPOSIT`]; what
//! would remain below that is lost. Money that is staked leaves `Balances.TotalIssuance`, money that is
//! burned leaves the subtensor pallet's issuance too, so that
//! `SubtensorModule.TotalIssuance = Balances.TotalIssuance + SubtensorModule.TotalStake` always holds.

use super::super::call::Address;
use super::super::event::{self, DispatchError, Event, TokenError};
use super::super::genesis::EXISTENTIAL_DEPOSIT;
use super::super::storage::{AccountId, Item, Overlay, State};
use super::super::system::{ACCOUNT, AccountInfo};
use super::Outcome;

/// The sum of all balances.
pub(super) const BALANCES_ISSUANCE: Item<(), u64> = Item::new("Balances", "TotalIssuance", &[]);
/// The sum of all balances and stakes.
pub(super) const TOTAL_ISSUANCE: Item<(), u64> = Item::new("SubtensorModule", "TotalIssuance", &[]);

/// What an account can spend.
pub(super) fn free(state: &impl State, who: AccountId) -> u64 {
    ACCOUNT.get_or(state, &(who,), AccountInfo::default()).free
}

/// What happens to the sender of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// It must live on.
    Kept,
    /// It may end.
    MayEnd,
}

/// Moves money.
///
/// # Errors
/// Too little money, too little left of a sender that must live on, or too little for a new account.
pub(super) fn transfer(
    state: &mut Overlay<'_>,
    from: AccountId,
    Address::Id(to): Address,
    amount: u64,
    sender: Sender,
) -> Outcome {
    let available = free(state, from);
    let rest = available
        .checked_sub(amount)
        .ok_or(DispatchError::Token(TokenError::FundsUnavailable))?;
    let mut events = Vec::new();
    if from != to && amount > 0 {
        if sender == Sender::Kept && rest < EXISTENTIAL_DEPOSIT {
            return Err(DispatchError::Token(TokenError::NotExpendable));
        }
        let received = free(state, to)
            .checked_add(amount)
            .ok_or(DispatchError::Token(TokenError::BelowMinimum))?;
        if received < EXISTENTIAL_DEPOSIT {
            return Err(DispatchError::Token(TokenError::BelowMinimum));
        }
        events.extend(set_free(state, from, rest));
        events.extend(set_free(state, to, received));
    }
    events.push(Event::Balances(event::Balances::Transfer {
        from,
        to,
        amount,
    }));
    Ok(events)
}

/// Takes money out of an account, as long as the account lives on or is emptied.
///
/// # Errors
/// There is not as much.
pub(super) fn withdraw(
    state: &mut Overlay<'_>,
    who: AccountId,
    amount: u64,
) -> Result<Vec<Event>, DispatchError> {
    if amount == 0 {
        return Ok(Vec::new());
    }
    let rest = free(state, who)
        .checked_sub(amount)
        .ok_or(DispatchError::Token(TokenError::FundsUnavailable))?;
    let issuance = BALANCES_ISSUANCE.get_or(state, &(), 0);
    BALANCES_ISSUANCE.put(state, &(), &issuance.saturating_sub(amount));
    let mut events = set_free(state, who, rest);
    events.push(Event::Balances(event::Balances::Withdraw { who, amount }));
    Ok(events)
}

/// Puts money into an account.
pub(super) fn deposit(state: &mut Overlay<'_>, who: AccountId, amount: u64) -> Vec<Event> {
    if amount == 0 {
        return Vec::new();
    }
    let issuance = BALANCES_ISSUANCE.get_or(state, &(), 0);
    BALANCES_ISSUANCE.put(state, &(), &issuance.saturating_add(amount));
    let held = free(state, who);
    let mut events = set_free(state, who, held.saturating_add(amount));
    events.push(Event::Balances(event::Balances::Deposit { who, amount }));
    events
}

/// Money that nobody had before.
pub(super) fn issue(state: &mut Overlay<'_>, amount: u64) {
    let issuance = TOTAL_ISSUANCE.get_or(state, &(), 0);
    TOTAL_ISSUANCE.put(state, &(), &issuance.saturating_add(amount));
}

/// Money that nobody has any more.
pub(super) fn forget_issued(state: &mut Overlay<'_>, amount: u64) {
    let issuance = TOTAL_ISSUANCE.get_or(state, &(), 0);
    TOTAL_ISSUANCE.put(state, &(), &issuance.saturating_sub(amount));
}

/// Sets a balance; an account begins or ends with it.
fn set_free(state: &mut Overlay<'_>, who: AccountId, free: u64) -> Vec<Event> {
    let mut account = ACCOUNT.get_or(state, &(who,), AccountInfo::default());
    let mut events = Vec::new();
    let lived = account.providers > 0;
    if free >= EXISTENTIAL_DEPOSIT {
        account.free = free;
        if !lived {
            account.providers = 1;
            let free_balance = free;
            events.push(Event::System(event::System::NewAccount { account: who }));
            events.push(Event::Balances(event::Balances::Endowed {
                account: who,
                free_balance,
            }));
        }
    } else {
        account.free = 0;
        account.providers = 0;
        if lived {
            events.push(Event::System(event::System::KilledAccount { account: who }));
        }
        if free > 0 {
            let issuance = BALANCES_ISSUANCE.get_or(state, &(), 0);
            BALANCES_ISSUANCE.put(state, &(), &issuance.saturating_sub(free));
            forget_issued(state, free);
            let lost = event::Balances::DustLost {
                account: who,
                amount: free,
            };
            events.push(Event::Balances(lost));
        }
    }
    // The nonce outlives the money, or old extrinsics could be sent again.
    ACCOUNT.put(state, &(who,), &account);
    events
}
