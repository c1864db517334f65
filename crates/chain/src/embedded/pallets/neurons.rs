//! The slots of a subnet: who sits in which, and what is kept for every slot.
//!
//! A slot's facts are spread over vectors that are indexed by uid and always as long as the subnet has
//! slots. Slots are added and taken over here; when that happens is decided in `registration.rs`, what
//! the vectors say in `epoch.rs` and `weights.rs`.

use parity_scale_codec::{Decode, Encode};

use super::super::storage::{AccountId, Hasher, Item, Overlay, State};
use super::serving;

const fn item<K, V>(name: &'static str, hashers: &'static [Hasher]) -> Item<K, V>
where
    K: super::super::storage::Keys,
    V: Encode + Decode,
{
    Item::new("SubtensorModule", name, hashers)
}

const BY_NETUID: &[Hasher] = &[Hasher::Identity];
const BY_NETUID_AND_UID: &[Hasher] = &[Hasher::Identity, Hasher::Identity];
const BY_NETUID_AND_HOTKEY: &[Hasher] = &[Hasher::Identity, Hasher::Blake2_128Concat];
const BY_ACCOUNT: &[Hasher] = &[Hasher::Blake2_128Concat];

/// Which subnets there are.
pub(super) const NETWORKS_ADDED: Item<(u16,), bool> = item("NetworksAdded", BY_NETUID);
/// How many slots are taken.
pub(super) const SUBNETWORK_N: Item<(u16,), u16> = item("SubnetworkN", BY_NETUID);
/// The slot of a hotkey.
pub(super) const UIDS: Item<(u16, AccountId), u16> = item("Uids", BY_NETUID_AND_HOTKEY);
/// The hotkey of a slot.
pub(super) const KEYS: Item<(u16, u16), AccountId> = item("Keys", BY_NETUID_AND_UID);
/// The coldkey of a hotkey.
pub(super) const OWNER: Item<(AccountId,), AccountId> = item("Owner", BY_ACCOUNT);
/// The hotkeys of a coldkey.
pub(super) const OWNED_HOTKEYS: Item<(AccountId,), Vec<AccountId>> =
    item("OwnedHotkeys", BY_ACCOUNT);
/// On which subnets a hotkey has a slot.
const IS_NETWORK_MEMBER: Item<(AccountId, u16), bool> = item(
    "IsNetworkMember",
    &[Hasher::Blake2_128Concat, Hasher::Identity],
);
/// Since when a slot has its hotkey.
pub(super) const BLOCK_AT_REGISTRATION: Item<(u16, u16), u64> =
    item("BlockAtRegistration", BY_NETUID_AND_UID);
/// Whether a neuron has updated lately.
pub(super) const ACTIVE: Item<(u16,), Vec<bool>> = item("Active", BY_NETUID);
/// Whether a neuron's weights count.
pub(super) const VALIDATOR_PERMIT: Item<(u16,), Vec<bool>> = item("ValidatorPermit", BY_NETUID);
/// When a neuron last set or committed weights.
pub(super) const LAST_UPDATE: Item<(u16,), Vec<u64>> = item("LastUpdate", BY_NETUID);
/// A neuron's share of what miners get, of 65,535.
pub(super) const INCENTIVE: Item<(u16,), Vec<u16>> = item("Incentive", BY_NETUID);
/// A neuron's share of what validators get, of 65,535.
pub(super) const DIVIDENDS: Item<(u16,), Vec<u16>> = item("Dividends", BY_NETUID);
/// What a neuron earned in the last epoch, in rao.
pub(super) const EMISSION: Item<(u16,), Vec<u64>> = item("Emission", BY_NETUID);
/// Of Yuma consensus, which is not run here: zeros.
pub(super) const CONSENSUS: Item<(u16,), Vec<u16>> = item("Consensus", BY_NETUID);
/// Of Yuma consensus, which is not run here: zeros.
pub(super) const VALIDATOR_TRUST: Item<(u16,), Vec<u16>> = item("ValidatorTrust", BY_NETUID);
/// What a validator thinks of others.
pub(super) const WEIGHTS: Item<(u16, u16), Vec<(u16, u16)>> = item("Weights", BY_NETUID_AND_UID);

/// Where the facts of one of a subnet's mechanisms are stored.
pub(super) fn storage_index(netuid: u16, mecid: u8) -> u16 {
    u16::from(mecid)
        .saturating_mul(4_096)
        .saturating_add(netuid)
}

/// Whether there is such a subnet.
pub(super) fn exists(state: &impl State, netuid: u16) -> bool {
    NETWORKS_ADDED.get_or(state, &(netuid,), false)
}

/// The subnets but the root, in order.
pub(super) fn netuids(state: &impl State) -> Vec<u16> {
    let networks: Vec<(u16, bool)> = NETWORKS_ADDED.entries(state, &());
    let mut netuids: Vec<u16> = networks
        .into_iter()
        .filter_map(|(netuid, added)| (added && netuid != 0).then_some(netuid))
        .collect();
    netuids.sort_unstable();
    netuids
}

/// How many slots are taken.
pub(super) fn count(state: &impl State, netuid: u16) -> u16 {
    SUBNETWORK_N.get_or(state, &(netuid,), 0)
}

/// The slot of a hotkey.
pub(super) fn uid(state: &impl State, netuid: u16, hotkey: AccountId) -> Option<u16> {
    UIDS.get(state, &(netuid, hotkey))
}

/// One slot's entry of a vector.
pub(super) fn entry<V: Encode + Decode + Copy + Default>(
    vector: &Item<(u16,), Vec<V>>,
    state: &impl State,
    index: u16,
    uid: u16,
) -> V {
    let entries = vector.get_or(state, &(index,), Vec::new());
    entries.get(usize::from(uid)).copied().unwrap_or_default()
}

/// Sets one slot's entry of a vector, which is made as long as it has to be.
pub(super) fn set_entry<V: Encode + Decode + Copy + Default>(
    vector: &Item<(u16,), Vec<V>>,
    state: &mut Overlay<'_>,
    (index, uid): (u16, u16),
    value: V,
) {
    let mut entries = vector.get_or(state, &(index,), Vec::new());
    let place = usize::from(uid);
    if entries.len() <= place {
        entries.resize(place + 1, V::default());
    }
    if let Some(entry) = entries.get_mut(place) {
        *entry = value;
    }
    vector.put(state, &(index,), &entries);
}

/// Makes a coldkey the owner of a hotkey that has none.
pub(super) fn own(state: &mut Overlay<'_>, hotkey: AccountId, coldkey: AccountId) {
    if OWNER.get(state, &(hotkey,)).is_some() {
        return;
    }
    OWNER.put(state, &(hotkey,), &coldkey);
    let mut owned = OWNED_HOTKEYS.get_or(state, &(coldkey,), Vec::new());
    owned.push(hotkey);
    OWNED_HOTKEYS.put(state, &(coldkey,), &owned);
}

/// Adds a slot for a hotkey that has none.
pub(super) fn append(state: &mut Overlay<'_>, netuid: u16, hotkey: AccountId, block: u64) -> u16 {
    let uid = count(state, netuid);
    SUBNETWORK_N.put(state, &(netuid,), &uid.saturating_add(1));
    occupy(state, (netuid, uid), hotkey, block);
    uid
}

/// Gives a slot to another hotkey, which inherits nothing: neither the weights that its predecessor set
/// nor those that others set for it. (The real chain leaves the latter in place until they are set
/// again, and does not count them.)
pub(super) fn replace(
    state: &mut Overlay<'_>,
    (netuid, uid): (u16, u16),
    hotkey: AccountId,
    block: u64,
) {
    if let Some(old) = KEYS.get(state, &(netuid, uid)) {
        UIDS.kill(state, &(netuid, old));
        IS_NETWORK_MEMBER.kill(state, &(old, netuid));
        serving::forget(state, netuid, old);
    }
    for mecid in 0..super::parameters::MECHANISM_COUNT.get(state, netuid) {
        let index = storage_index(netuid, mecid);
        WEIGHTS.kill(state, &(index, uid));
        let rows: Vec<(u16, Vec<(u16, u16)>)> = WEIGHTS.entries(state, &(index,));
        for (validator, mut row) in rows {
            if row.iter().any(|(target, _)| *target == uid) {
                row.retain(|(target, _)| *target != uid);
                WEIGHTS.put(state, &(index, validator), &row);
            }
        }
    }
    occupy(state, (netuid, uid), hotkey, block);
}

/// Writes everything that a slot says of a neuron that has just come.
fn occupy(state: &mut Overlay<'_>, (netuid, uid): (u16, u16), hotkey: AccountId, block: u64) {
    KEYS.put(state, &(netuid, uid), &hotkey);
    UIDS.put(state, &(netuid, hotkey), &uid);
    IS_NETWORK_MEMBER.put(state, &(hotkey, netuid), &true);
    BLOCK_AT_REGISTRATION.put(state, &(netuid, uid), &block);
    set_entry(&ACTIVE, state, (netuid, uid), true);
    set_entry(&VALIDATOR_PERMIT, state, (netuid, uid), false);
    set_entry(&EMISSION, state, (netuid, uid), 0);
    for vector in [&CONSENSUS, &DIVIDENDS, &VALIDATOR_TRUST] {
        set_entry(vector, state, (netuid, uid), 0);
    }
    for mecid in 0..super::parameters::MECHANISM_COUNT.get(state, netuid) {
        let index = storage_index(netuid, mecid);
        set_entry(&INCENTIVE, state, (index, uid), 0);
        // A new validator waits the whole rate limit before its first weights.
        set_entry(&LAST_UPDATE, state, (index, uid), block);
    }
}
