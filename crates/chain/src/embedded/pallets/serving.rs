//! Where a neuron says that it can be reached.
//!
//! The same checks stand at the pool and in a block, in the runtime's order. What they let through is
//! still whatever a neuron claims: private networks, multicast and 0.0.0.0 included.

use super::super::call::Axon;
use super::super::data::Bounded;
use super::super::event::{self, Event};
use super::super::failure::Subtensor as Failure;
use super::super::storage::{AccountId, Hasher, Item, Overlay, State};
use super::{Block, Outcome, neurons, parameters};

/// Key bytes in a certificate.
const MAX_CERTIFICATE_KEY: usize = 64;

const BY_NETUID_AND_HOTKEY: &[Hasher] = &[Hasher::Identity, Hasher::Blake2_128Concat];

/// The block of the publication, and what was published.
pub(super) const AXONS: Item<(u16, AccountId), (u64, Axon)> =
    Item::new("SubtensorModule", "Axons", BY_NETUID_AND_HOTKEY);
/// A public key and its algorithm.
const NEURON_CERTIFICATES: Item<(u16, AccountId), (Bounded<MAX_CERTIFICATE_KEY>, u8)> = Item::new(
    "SubtensorModule",
    "NeuronCertificates",
    BY_NETUID_AND_HOTKEY,
);
/// Whether 127.0.0.1 and ::1 may be published. No real runtime has it, so no metadata names it.
pub(super) const ALLOW_LOOPBACK: Item<(), bool> = Item::new("Connito", "AllowLoopback", &[]);

/// Whether a publication would be accepted in this block.
///
/// # Errors
/// Not registered, an address or port that cannot be, or too soon.
pub(super) fn check(
    state: &impl State,
    who: AccountId,
    (netuid, axon): (u16, &Axon),
    block: &Block,
) -> Result<(), Failure> {
    if neurons::uid(state, netuid, who).is_none() {
        return Err(Failure::HotKeyNotRegisteredInNetwork);
    }
    let Axon { ip, ip_type, .. } = *axon;
    let (broadcast, loopback) = match ip_type {
        4 => (u128::from(u32::MAX), 0x7f00_0001),
        6 => (u128::MAX, 1),
        _ => return Err(Failure::InvalidIpType),
    };
    // An IPv4 address is a number below the broadcast address.
    if ip >= broadcast || ip == loopback && !ALLOW_LOOPBACK.get_or(state, &(), false) {
        return Err(Failure::InvalidIpAddress);
    }
    let limit = parameters::SERVING_RATE_LIMIT.get(state, netuid);
    let last = AXONS
        .get(state, &(netuid, who))
        .map_or(0, |(block, _)| block);
    if last != 0 && block.number.saturating_sub(last) < limit {
        return Err(Failure::ServingRateLimitExceeded);
    }
    if axon.port == 0 {
        return Err(Failure::InvalidPort);
    }
    Ok(())
}

/// Publishes an endpoint.
///
/// # Errors
/// No such subnet, or what [`check`] finds.
pub(super) fn serve(
    state: &mut Overlay<'_>,
    who: AccountId,
    (netuid, axon): (u16, &Axon),
    certificate: Option<&[u8]>,
    block: &Block,
) -> Outcome {
    if !neurons::exists(state, netuid) {
        return Err(Failure::SubnetNotExists.into());
    }
    check(state, who, (netuid, axon), block)?;
    // As the runtime has it, a certificate that is none is passed over in silence.
    if let Some((algorithm, key)) = certificate.and_then(<[u8]>::split_first)
        && (1..=MAX_CERTIFICATE_KEY).contains(&key.len())
    {
        let value = (Bounded(key.to_vec()), *algorithm);
        NEURON_CERTIFICATES.put(state, &(netuid, who), &value);
    }
    AXONS.put(state, &(netuid, who), &(block.number, *axon));
    Ok(vec![Event::Subtensor(event::Subtensor::AxonServed(
        netuid, who,
    ))])
}

/// Removes what a hotkey published.
pub(super) fn forget(state: &mut Overlay<'_>, netuid: u16, hotkey: AccountId) {
    AXONS.kill(state, &(netuid, hotkey));
    NEURON_CERTIFICATES.kill(state, &(netuid, hotkey));
}
