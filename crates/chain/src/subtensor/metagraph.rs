//! The subnet at one block: its neurons, parameters and epoch, out of raw storage.
//!
//! Runtime calls that give all of this at once exist, but the structs behind them keep growing; the
//! storage items have kept their shapes. Three round trips at the first block: what is kept per subnet,
//! what is kept per uid, what is kept per hotkey. From then on one, for what was read at one block is
//! asked for at once at the next, and another for each of the three that has something new.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connito_protocol::ids::{Block, Hotkey, Netuid, Uid};

use super::SubnetState;
use super::schedule::Schedule;
use super::view::{Found, Place, View, Wanted};
use crate::chain::{BlockRef, EpochState, Metagraph, Neuron, SubnetParams};
use crate::error::ChainError;
use crate::operation::Endpoint;
use crate::rpc::RpcTransport;
use crate::runtime::Value;

/// The pallet that keeps subnets.
pub(super) const PALLET: &str = "SubtensorModule";
/// A subnet has at most as many neurons as uids that one call can name.
const MAX_NEURONS: u16 = 4_096;

/// What is kept per subnet.
#[derive(Debug)]
pub(super) struct Subnet {
    pub(super) schedule: Schedule,
    pub(super) params: SubnetParams,
    owner: Option<Hotkey>,
    neurons: u16,
    active: Vec<bool>,
    permits: Vec<bool>,
    updated: Vec<u64>,
    incentive: Vec<u16>,
    reveal_period: u64,
    activity_factor_milli: u64,
}

impl Subnet {
    /// What is told about the subnet as a whole.
    pub(super) fn state(self, block: BlockRef) -> SubnetState {
        SubnetState {
            block,
            neurons: self.neurons,
            permits: self.permits.iter().filter(|permit| **permit).count(),
            tempo: u16::try_from(self.schedule.tempo).unwrap_or(u16::MAX),
            reveal_period: self.reveal_period,
            activity_factor_milli: self.activity_factor_milli,
            params: self.params,
        }
    }
}

/// Reads the subnet, and nothing about single neurons.
pub(super) async fn subnet<T: RpcTransport>(
    view: &View<'_, T>,
    netuid: Netuid,
) -> Result<Subnet, ChainError> {
    let mut wanted = Wanted::default();
    let mut want = |item: &'static str| view.want(&mut wanted, (PALLET, item), &[netuid.0.into()]);
    let schedule = SchedulePlaces {
        last_epoch: want("LastEpochBlock")?,
        pending: want("PendingEpochAt")?,
        index: want("SubnetEpochIndex")?,
        tempo: want("Tempo")?,
        since_last_step: want("BlocksSinceLastStep")?,
    };
    let numbers = ParamPlaces {
        weights_rate_limit: want("WeightsSetRateLimit")?,
        serving_rate_limit: want("ServingRateLimit")?,
        min_allowed_weights: want("MinAllowedWeights")?,
        max_weight_limit: want("MaxWeightsLimit")?,
        weights_version_key: want("WeightsVersionKey")?,
        immunity_period: want("ImmunityPeriod")?,
        max_uids: want("MaxAllowedUids")?,
        max_validators: want("MaxAllowedValidators")?,
        commit_reveal: want("CommitRevealWeightsEnabled")?,
        burn: want("Burn")?,
    };
    let (period, factor) = (
        want("RevealPeriodEpochs")?,
        want("ActivityCutoffFactorMilli")?,
    );
    let (count, owner) = (want("SubnetworkN")?, want("SubnetOwnerHotkey")?);
    let (active, permits) = (want("Active")?, want("ValidatorPermit")?);
    // The first mechanism's index is the subnet's number.
    let (updated, incentive) = (want("LastUpdate")?, want("Incentive")?);
    let stake_threshold = view.want(&mut wanted, (PALLET, "StakeThreshold"), &[])?;
    let space = view.want(&mut wanted, ("Commitments", "MaxSpace"), &[])?;
    let found = view.read(wanted).await?;
    let schedule = schedule.read(&found, view.block.number)?;
    let activity_factor_milli: u64 = found.number(factor)?;
    let params = SubnetParams {
        activity_cutoff: activity_factor_milli.saturating_mul(schedule.tempo) / 1_000,
        stake_threshold_rao: found.number(stake_threshold)?,
        commit_space: found.number(space)?,
        ..numbers.read(&found)?
    };
    let neurons: u16 = found.number(count)?;
    Ok(Subnet {
        schedule,
        params,
        owner: found.maybe(owner, Value::as_hotkey)?,
        neurons: neurons.min(MAX_NEURONS),
        active: found.get(active, |value| list(value, Value::as_bool))?,
        permits: found.get(permits, |value| list(value, Value::as_bool))?,
        updated: found.get(updated, |value| list(value, Value::number))?,
        incentive: found.get(incentive, |value| list(value, Value::number))?,
        reveal_period: found.number(period)?,
        activity_factor_milli,
    })
}

fn list<R>(value: &Value, read: impl Fn(&Value) -> Option<R>) -> Option<Vec<R>> {
    value.items()?.iter().map(read).collect()
}

struct SchedulePlaces {
    last_epoch: Place,
    pending: Place,
    index: Place,
    tempo: Place,
    since_last_step: Place,
}

impl SchedulePlaces {
    fn read(&self, found: &Found, now: Block) -> Result<Schedule, ChainError> {
        Ok(Schedule {
            now,
            last_epoch: found.number(self.last_epoch)?,
            pending: found.number(self.pending)?,
            index: found.number(self.index)?,
            tempo: found.number(self.tempo)?,
            since_last_step: found.number(self.since_last_step)?,
        })
    }
}

struct ParamPlaces {
    weights_rate_limit: Place,
    serving_rate_limit: Place,
    min_allowed_weights: Place,
    max_weight_limit: Place,
    weights_version_key: Place,
    immunity_period: Place,
    max_uids: Place,
    max_validators: Place,
    commit_reveal: Place,
    burn: Place,
}

impl ParamPlaces {
    /// All but what is not kept per subnet.
    fn read(&self, found: &Found) -> Result<SubnetParams, ChainError> {
        Ok(SubnetParams {
            weights_rate_limit: found.number(self.weights_rate_limit)?,
            serving_rate_limit: found.number(self.serving_rate_limit)?,
            min_allowed_weights: found.number(self.min_allowed_weights)?,
            max_weight_limit: found.number(self.max_weight_limit)?,
            weights_version_key: found.number(self.weights_version_key)?,
            immunity_period: found.number(self.immunity_period)?,
            max_uids: found.number(self.max_uids)?,
            max_validators: found.number(self.max_validators)?,
            commit_reveal: found.get(self.commit_reveal, Value::as_bool)?,
            burn_rao: found.number(self.burn)?,
            activity_cutoff: 0,
            stake_threshold_rao: 0,
            commit_space: 0,
        })
    }
}

/// Reads the whole metagraph.
pub(super) async fn metagraph<T: RpcTransport>(
    view: &View<'_, T>,
    netuid: Netuid,
) -> Result<Metagraph, ChainError> {
    let subnet = subnet(view, netuid).await?;
    let slots = slots(view, netuid, subnet.neurons).await?;
    let hotkeys = slots.iter().map(|(_, hotkey, _)| *hotkey);
    let persons = persons(view, netuid, hotkeys.collect()).await?;
    let neurons = slots.into_iter().zip(persons);
    let neurons = neurons.map(|((uid, hotkey, registered_at), person)| {
        let place = usize::from(uid.0);
        Neuron {
            uid,
            hotkey,
            coldkey: person.coldkey.unwrap_or(hotkey),
            registered_at,
            endpoint: person.axon.and_then(|axon| axon.endpoint),
            served_at: person.axon.map_or(Block(0), |axon| axon.served_at),
            validator_permit: subnet.permits.get(place).copied().unwrap_or(false),
            active: subnet.active.get(place).copied().unwrap_or(false),
            stake_rao: person.stake_rao,
            last_update: Block(subnet.updated.get(place).copied().unwrap_or(0)),
            incentive: subnet.incentive.get(place).copied().unwrap_or(0),
        }
    });
    Ok(Metagraph {
        netuid,
        owner: subnet.owner,
        neurons: neurons.collect(),
        params: subnet.params,
        epoch: EpochState {
            tempo: u16::try_from(subnet.schedule.tempo).unwrap_or(u16::MAX),
            last_epoch_block: Block(subnet.schedule.last_epoch),
            index: subnet.schedule.index,
            next_epoch_block: subnet.schedule.next_epoch(),
        },
    })
}

/// Everybody who holds a uid.
pub(super) async fn hotkeys<T: RpcTransport>(
    view: &View<'_, T>,
    netuid: Netuid,
) -> Result<Vec<Hotkey>, ChainError> {
    let subnet = subnet(view, netuid).await?;
    let slots = slots(view, netuid, subnet.neurons).await?;
    Ok(slots.into_iter().map(|(_, hotkey, _)| hotkey).collect())
}

/// Who holds each uid, and since when. A uid without a hotkey is no neuron.
async fn slots<T: RpcTransport>(
    view: &View<'_, T>,
    netuid: Netuid,
    count: u16,
) -> Result<Vec<(Uid, Hotkey, Block)>, ChainError> {
    let mut wanted = Wanted::default();
    let mut places = Vec::with_capacity(usize::from(count));
    for uid in 0..count {
        let keys = [netuid.0.into(), uid.into()];
        let hotkey = view.want(&mut wanted, (PALLET, "Keys"), &keys)?;
        let since = view.want(&mut wanted, (PALLET, "BlockAtRegistration"), &keys)?;
        places.push((Uid(uid), hotkey, since));
    }
    let found = view.read(wanted).await?;
    let mut slots = Vec::with_capacity(places.len());
    for (uid, hotkey, since) in places {
        if let Some(hotkey) = found.maybe(hotkey, Value::as_hotkey)? {
            slots.push((uid, hotkey, Block(found.number(since)?)));
        }
    }
    Ok(slots)
}

struct Person {
    coldkey: Option<Hotkey>,
    axon: Option<Axon>,
    stake_rao: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Axon {
    pub(super) endpoint: Option<Endpoint>,
    pub(super) served_at: Block,
}

async fn persons<T: RpcTransport>(
    view: &View<'_, T>,
    netuid: Netuid,
    hotkeys: Vec<Hotkey>,
) -> Result<Vec<Person>, ChainError> {
    let mut wanted = Wanted::default();
    let mut places = Vec::with_capacity(hotkeys.len());
    for hotkey in hotkeys {
        let (subnet, hotkey) = (Value::from(netuid.0), Value::from(hotkey.0));
        let in_subnet = [subnet.clone(), hotkey.clone()];
        places.push((
            view.want(
                &mut wanted,
                (PALLET, "Owner"),
                std::slice::from_ref(&hotkey),
            )?,
            view.want(&mut wanted, (PALLET, "Axons"), &in_subnet)?,
            view.want(&mut wanted, (PALLET, "TotalHotkeyAlpha"), &[hotkey, subnet])?,
        ));
    }
    let found = view.read(wanted).await?;
    let persons = places.into_iter().map(|(coldkey, axon, stake)| {
        Ok(Person {
            coldkey: found.maybe(coldkey, Value::as_hotkey)?,
            axon: found.maybe(axon, axon_of)?,
            stake_rao: found.number(stake)?,
        })
    });
    persons.collect()
}

/// An axon as published. An address of an unknown kind is no address: whoever published it is
/// simply not reachable.
pub(super) fn axon_of(value: &Value) -> Option<Axon> {
    let number = |name: &str| value.field(name)?.as_u128();
    let served_at = Block(value.field("block")?.number()?);
    let port: u16 = value.field("port")?.number()?;
    let ip = number("ip")?;
    let ip = match number("ip_type")? {
        4 => u32::try_from(ip).ok().map(|ip| Ipv4Addr::from(ip).into()),
        6 => Some(IpAddr::from(Ipv6Addr::from(ip))),
        _ => None,
    };
    let endpoint = ip.filter(|_| port != 0).map(|ip| Endpoint { ip, port });
    Some(Axon {
        endpoint,
        served_at,
    })
}
