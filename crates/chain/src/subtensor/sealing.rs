//! What is sealed to a round of the chain's beacon: weights, so that nobody can copy them before they
//! count, and records.
//!
//! The round is the one that is published when the chain is predicted to reveal the epoch's weights.
//! Whoever could not be decrypted is silently dropped by the chain, so the plan says by which block
//! the weights must be visible; whoever set them looks then.

use connito_protocol::ids::{Block, Hotkey, Netuid, Uid};
use parity_scale_codec::Encode;

use super::SubtensorChain;
use super::metagraph::PALLET;
use super::schedule::Schedule;
use super::view::{Found, Place, View, Wanted};
use crate::chain::{At, RevealPlan};
use crate::error::{ChainError, Reject};
use crate::rpc::RpcTransport;
use crate::runtime::Value;
use crate::timelock::{self, Beacon};

/// Weights that nobody can read yet.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) ciphertext: Vec<u8>,
    pub(super) round: u64,
    /// The version of the scheme that the chain asks for.
    pub(super) version: u16,
    pub(super) plan: RevealPlan,
}

/// What the chain decrypts and takes for the validator's weights.
#[derive(Encode)]
struct Payload {
    hotkey: Vec<u8>,
    uids: Vec<u16>,
    values: Vec<u16>,
    version_key: u64,
}

/// Seals the weights of `signer`, as of the view's block.
pub(super) async fn seal<T: RpcTransport>(
    view: &View<'_, T>,
    netuid: Netuid,
    schedule: Schedule,
    block_time_ms: u64,
    weights: SignedWeights<'_>,
) -> Result<Sealed, ChainError> {
    let mut wanted = Wanted::default();
    let now = view.want(&mut wanted, ("Timestamp", "Now"), &[])?;
    let beacon = view.want(&mut wanted, ("Drand", "BeaconConfig"), &[])?;
    let period = view.want(
        &mut wanted,
        (PALLET, "RevealPeriodEpochs"),
        &[netuid.0.into()],
    )?;
    let version = view.want(&mut wanted, (PALLET, "CommitRevealWeightsVersion"), &[])?;
    let found = view.read(wanted).await?;
    let (now_ms, period): (u64, u64) = (found.number(now)?, found.number(period)?);
    let beacon = beacon_of(&found, beacon)?;
    let opens_in = schedule.seal_for_ms(period, block_time_ms);
    let (Some(opens_in), Some(reveals)) = (opens_in, schedule.reveals(period)) else {
        // Without epochs nothing is ever revealed.
        return Err(Reject::CommitRevealMode.into());
    };
    let round = beacon.round_at(now_ms.saturating_add(opens_in)).max(1);
    let payload = Payload {
        hotkey: weights.signer.0.to_vec(),
        uids: weights.weights.iter().map(|(uid, _)| uid.0).collect(),
        values: weights.weights.iter().map(|(_, weight)| *weight).collect(),
        version_key: weights.version_key,
    };
    let ciphertext = timelock::seal(&beacon.public_key, round, &payload.encode());
    let ciphertext = ciphertext.map_err(|error| ChainError::Shape {
        item: "Drand.BeaconConfig".to_owned(),
        spec: None,
        detail: error.to_string(),
    })?;
    Ok(Sealed {
        ciphertext,
        round,
        version: found.number(version)?,
        plan: RevealPlan {
            round,
            // The chain tries in every block of the epoch.
            visible_by: Block(reveals.0.saturating_add(schedule.tempo)),
        },
    })
}

/// Weights and whose they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedWeights<'a> {
    pub(super) signer: Hotkey,
    pub(super) weights: &'a [(Uid, u16)],
    pub(super) version_key: u64,
}

impl<T: RpcTransport> SubtensorChain<T> {
    /// The beacon that the chain takes pulses of, to seal a [`crate::Field::Timelocked`] to; and the
    /// chain's time in milliseconds, by which rounds are counted.
    ///
    /// # Errors
    /// The chain cannot be read at that block, or its runtime has another shape.
    pub async fn beacon(&self, at: At) -> Result<(Beacon, u64), ChainError> {
        let view = self.node.pinned(at).await?;
        let mut wanted = Wanted::default();
        let now = view.want(&mut wanted, ("Timestamp", "Now"), &[])?;
        let beacon = view.want(&mut wanted, ("Drand", "BeaconConfig"), &[])?;
        let found = view.read(wanted).await?;
        Ok((beacon_of(&found, beacon)?, found.number(now)?))
    }

    /// What the chain has opened of a hotkey's sealed records: the block and the bytes of each, the
    /// oldest first, ten at most. A record that it could not open is not among them.
    ///
    /// # Errors
    /// The chain cannot be read at that block, or its runtime has another shape.
    pub async fn revealed(
        &self,
        hotkey: Hotkey,
        at: At,
    ) -> Result<Vec<(Block, Vec<u8>)>, ChainError> {
        let view = self.node.pinned(at).await?;
        let keys = [self.identity.netuid.0.into(), hotkey.0.into()];
        let mut wanted = Wanted::default();
        let item = ("Commitments", "RevealedCommitments");
        let place = view.want(&mut wanted, item, &keys)?;
        let read = |value: &Value| {
            let record = |record: &Value| {
                let [bytes, block] = record.items()? else {
                    return None;
                };
                Some((Block(block.number()?), bytes.as_bytes()?.to_vec()))
            };
            value.items()?.iter().map(record).collect()
        };
        let revealed = view.read(wanted).await?.maybe(place, read)?;
        Ok(revealed.unwrap_or_default())
    }
}

/// The beacon that the chain takes pulses of; quicknet where it does not say.
fn beacon_of(found: &Found, place: Place) -> Result<Beacon, ChainError> {
    let read = |value: &Value| {
        let seconds = |name: &str| value.field(name)?.number::<u64>();
        Some(Beacon {
            public_key: value.field("public_key")?.as_array()?,
            genesis_ms: seconds("genesis_time")?.checked_mul(1_000)?,
            period_ms: seconds("period")?.checked_mul(1_000)?,
        })
    };
    let beacon = found.maybe(place, read)?;
    Ok(beacon.unwrap_or_else(Beacon::quicknet))
}
