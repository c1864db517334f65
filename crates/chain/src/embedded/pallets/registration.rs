//! Who gets a slot, whose slot it was, and how a subnet comes to be.
//!
//! A registration is signed by the coldkey, pays the subnet's fixed price and is effective at once. In a
//! full subnet it takes the slot of the neuron that is worth least: least emission in the last epoch,
//! then least stake, then oldest, then lowest uid; one that is still immune goes only if there is nobody
//! else, and the subnet owner's never. (The real chain moves the price with demand, and does not look at
//! the stake.)

use super::super::event::{self, DispatchError, Event};
use super::super::failure::Subtensor as Failure;
use super::super::storage::{AccountId, Hasher, Item, Overlay, State};
use super::{Block, Outcome, balances, neurons, parameters, staking};

const BY_NETUID: &[Hasher] = &[Hasher::Identity];

/// The coldkey that may change a subnet's hyperparameters.
pub(super) const SUBNET_OWNER: Item<(u16,), AccountId> =
    Item::new("SubtensorModule", "SubnetOwner", BY_NETUID);
/// The hotkey that is never pruned and needs no permit.
pub(super) const SUBNET_OWNER_HOTKEY: Item<(u16,), AccountId> =
    Item::new("SubtensorModule", "SubnetOwnerHotkey", BY_NETUID);
/// Since when a subnet exists.
pub(super) const NETWORK_REGISTERED_AT: Item<(u16,), u64> =
    Item::new("SubtensorModule", "NetworkRegisteredAt", BY_NETUID);
/// Since when a subnet earns; absent until it is started.
pub(super) const FIRST_EMISSION_BLOCK: Item<(u16,), u64> =
    Item::new("SubtensorModule", "FirstEmissionBlockNumber", BY_NETUID);
const SUBNET_LOCKED: Item<(u16,), u64> = Item::new("SubtensorModule", "SubnetLocked", BY_NETUID);
const RAO_RECYCLED: Item<(u16,), u64> =
    Item::new("SubtensorModule", "RAORecycledForRegistration", BY_NETUID);
/// How many subnets there are, the root included.
pub(super) const TOTAL_NETWORKS: Item<(), u16> = Item::new("SubtensorModule", "TotalNetworks", &[]);
/// How many subnets there may be.
pub(super) const SUBNET_LIMIT: Item<(), u16> = Item::new("SubtensorModule", "SubnetLimit", &[]);
/// The price of a subnet, in rao.
pub(super) const NETWORK_MIN_LOCK_COST: Item<(), u64> =
    Item::new("SubtensorModule", "NetworkMinLockCost", &[]);

/// Blocks between two new subnets.
pub(super) const NETWORK_RATE_LIMIT: Item<(), u64> =
    Item::new("SubtensorModule", "NetworkRateLimit", &[]);
/// `RateLimitKey::NetworkLastRegistered`: when the last subnet was made.
const LAST_REGISTERED: Item<(u8,), u64> =
    Item::new("SubtensorModule", "LastRateLimitedBlock", BY_NETUID);
const NETWORK_LAST_REGISTERED: (u8,) = (2,);

/// Blocks between two new subnets, unless stored otherwise.
const DEFAULT_NETWORK_RATE_LIMIT: u64 = 7_200;
/// Subnets there may be, unless stored otherwise.
pub(super) const DEFAULT_SUBNET_LIMIT: u16 = 128;
/// The price of a subnet, unless stored otherwise.
pub(super) const DEFAULT_LOCK_COST: u64 = 1_000_000_000_000;

/// Sells a slot.
///
/// # Errors
/// No such subnet, a hotkey that has a slot or belongs to somebody else, a price above the limit, too
/// little money, or no slot that could be taken.
pub(super) fn register(
    state: &mut Overlay<'_>,
    coldkey: AccountId,
    (netuid, hotkey): (u16, AccountId),
    limit_price: Option<u64>,
    block: &Block,
) -> Outcome {
    if netuid == 0 {
        return Err(Failure::RegistrationNotPermittedOnRootSubnet.into());
    }
    if !neurons::exists(state, netuid) {
        return Err(Failure::SubnetNotExists.into());
    }
    if !parameters::NETWORK_REGISTRATION_ALLOWED.get(state, netuid) {
        return Err(Failure::SubNetRegistrationDisabled.into());
    }
    if neurons::uid(state, netuid, hotkey).is_some() {
        return Err(Failure::HotKeyAlreadyRegisteredInSubNet.into());
    }
    let owner = neurons::OWNER.get(state, &(hotkey,));
    if owner.is_some_and(|owner| owner != coldkey) {
        return Err(Failure::NonAssociatedColdKey.into());
    }
    let price = parameters::BURN.get(state, netuid);
    if limit_price.is_some_and(|limit| price > limit) {
        return Err(Failure::RegistrationPriceLimitExceeded.into());
    }
    let mut events = balances::withdraw(state, coldkey, price)
        .map_err(|_| DispatchError::from(Failure::NotEnoughBalanceToStake))?;
    balances::forget_issued(state, price);
    let recycled = RAO_RECYCLED.get_or(state, &(netuid,), 0);
    RAO_RECYCLED.put(state, &(netuid,), &recycled.saturating_add(price));

    let uid = place(state, netuid, hotkey, block.number)?;
    neurons::own(state, hotkey, coldkey);
    events.push(Event::Subtensor(event::Subtensor::NeuronRegistered(
        netuid, uid, hotkey,
    )));
    Ok(events)
}

/// The next free slot, or the one of the neuron that is worth least.
fn place(
    state: &mut Overlay<'_>,
    netuid: u16,
    hotkey: AccountId,
    block: u64,
) -> Result<u16, Failure> {
    let taken = neurons::count(state, netuid);
    if taken < parameters::MAX_ALLOWED_UIDS.get(state, netuid) {
        return Ok(neurons::append(state, netuid, hotkey, block));
    }
    let uid = least(state, netuid, block).ok_or(Failure::NoNeuronIdAvailable)?;
    neurons::replace(state, (netuid, uid), hotkey, block);
    Ok(uid)
}

fn least(state: &impl State, netuid: u16, block: u64) -> Option<u16> {
    let immunity = u64::from(parameters::IMMUNITY_PERIOD.get(state, netuid));
    let owner = SUBNET_OWNER_HOTKEY.get(state, &(netuid,));
    let emission = neurons::EMISSION.get_or(state, &(netuid,), Vec::new());
    let worth = |uid: u16| {
        let hotkey = neurons::KEYS.get(state, &(netuid, uid))?;
        let registered = neurons::BLOCK_AT_REGISTRATION.get_or(state, &(netuid, uid), 0);
        let is_immune = block.saturating_sub(registered) < immunity;
        let earned = emission.get(usize::from(uid)).copied().unwrap_or(0);
        let stake = staking::of_hotkey(state, hotkey, netuid);
        let is_owner = owner == Some(hotkey);
        (!is_owner).then_some((is_immune, earned, stake, registered, uid))
    };
    let slots = 0..neurons::count(state, netuid);
    slots.filter_map(worth).min().map(|(_, _, _, _, uid)| uid)
}

/// Whether another subnet may be made in this block.
///
/// # Errors
/// Too soon after the last.
pub(super) fn check_network_rate(state: &impl State, block: &Block) -> Result<(), Failure> {
    let limit = NETWORK_RATE_LIMIT.get_or(state, &(), DEFAULT_NETWORK_RATE_LIMIT);
    let last = LAST_REGISTERED.get_or(state, &NETWORK_LAST_REGISTERED, 0);
    match last == 0 || block.number.saturating_sub(last) >= limit {
        true => Ok(()),
        false => Err(Failure::NetworkTxRateLimitExceeded),
    }
}

/// Makes a subnet, of which the signer is the owner and the hotkey the first neuron.
///
/// # Errors
/// Too soon, too many subnets, too little money, or a hotkey that belongs to somebody else.
pub(super) fn register_network(
    state: &mut Overlay<'_>,
    coldkey: AccountId,
    hotkey: AccountId,
    block: &Block,
) -> Outcome {
    check_network_rate(state, block)?;
    let owner = neurons::OWNER.get(state, &(hotkey,));
    if owner.is_some_and(|owner| owner != coldkey) {
        return Err(Failure::NonAssociatedColdKey.into());
    }
    let limit = SUBNET_LIMIT.get_or(state, &(), DEFAULT_SUBNET_LIMIT);
    let netuid = (1..=limit)
        .find(|netuid| !neurons::exists(state, *netuid))
        .ok_or(Failure::SubnetLimitReached)?;
    let price = NETWORK_MIN_LOCK_COST.get_or(state, &(), DEFAULT_LOCK_COST);
    let mut events = balances::withdraw(state, coldkey, price)
        .map_err(|_| DispatchError::from(Failure::CannotAffordLockCost))?;
    balances::forget_issued(state, price);
    SUBNET_LOCKED.put(state, &(netuid,), &price);
    LAST_REGISTERED.put(state, &NETWORK_LAST_REGISTERED, &block.number);

    found(state, netuid, (coldkey, hotkey), block.number);
    neurons::own(state, hotkey, coldkey);
    let uid = neurons::append(state, netuid, hotkey, block.number);
    events.push(Event::Subtensor(event::Subtensor::NetworkAdded(netuid, 0)));
    events.push(Event::Subtensor(event::Subtensor::NeuronRegistered(
        netuid, uid, hotkey,
    )));
    Ok(events)
}

/// Writes an empty subnet with the main network's hyperparameters.
pub(super) fn found(
    state: &mut Overlay<'_>,
    netuid: u16,
    (coldkey, hotkey): (AccountId, AccountId),
    block: u64,
) {
    neurons::NETWORKS_ADDED.put(state, &(netuid,), &true);
    neurons::SUBNETWORK_N.put(state, &(netuid,), &0);
    SUBNET_OWNER.put(state, &(netuid,), &coldkey);
    SUBNET_OWNER_HOTKEY.put(state, &(netuid,), &hotkey);
    NETWORK_REGISTERED_AT.put(state, &(netuid,), &block);
    parameters::write_defaults(state, netuid);
    super::epoch::begin(state, netuid, block);
    let total = TOTAL_NETWORKS.get_or(state, &(), 0);
    TOTAL_NETWORKS.put(state, &(), &total.saturating_add(1));
}

/// Starts a subnet, so that it can be staked on.
///
/// # Errors
/// No such subnet, not its owner, or started already.
pub(super) fn start_call(
    state: &mut Overlay<'_>,
    coldkey: AccountId,
    netuid: u16,
    block: &Block,
) -> Outcome {
    if !neurons::exists(state, netuid) {
        return Err(Failure::SubnetNotExists.into());
    }
    if SUBNET_OWNER.get(state, &(netuid,)) != Some(coldkey) {
        return Err(Failure::NotSubnetOwner.into());
    }
    if FIRST_EMISSION_BLOCK.get(state, &(netuid,)).is_some() {
        return Err(Failure::FirstEmissionBlockNumberAlreadySet.into());
    }
    let first = start(state, netuid, block.number);
    Ok(vec![Event::Subtensor(
        event::Subtensor::FirstEmissionBlockNumberSet(netuid, first),
    )])
}

/// Lets a subnet be staked on, from the next block.
pub(super) fn start(state: &mut Overlay<'_>, netuid: u16, block: u64) -> u64 {
    let first = block.saturating_add(1);
    FIRST_EMISSION_BLOCK.put(state, &(netuid,), &first);
    parameters::SUBTOKEN_ENABLED.put(state, netuid, true);
    first
}
