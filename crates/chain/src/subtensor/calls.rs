//! An operation as a call by name, with the runtime's own argument names.

use std::net::IpAddr;

use connito_protocol::ids::{Hotkey, Netuid};

use super::commitments::info_of;
use super::sealing::Sealed;
use crate::error::{ChainError, Reject};
use crate::operation::{Endpoint, Op};
use crate::runtime::{Runtime, Value};

const AXON_VERSION: u32 = 1;
const AXON_PROTOCOL: u8 = 4;

/// The call's bytes. Weights go out sealed where `sealed` is given.
pub(super) fn encode(
    runtime: &Runtime,
    netuid: Netuid,
    op: &Op,
    sealed: Option<&Sealed>,
) -> Result<Vec<u8>, ChainError> {
    let netuid = Value::from(netuid.0);
    let bytes = match op {
        Op::Register {
            hotkey,
            max_burn_rao,
        } => register(runtime, netuid, *hotkey, *max_burn_rao)?,
        Op::Serve(endpoint) => serve(runtime, netuid, *endpoint)?,
        Op::Commit(fields) => {
            let info = info_of(fields).ok_or(Reject::TooLarge)?;
            let arguments = [("netuid", netuid), ("info", info)];
            runtime.call("Commitments", "set_commitment", &arguments)?
        }
        Op::SetWeights {
            weights,
            version_key,
        } => match sealed {
            Some(sealed) => commit_timelocked(runtime, netuid, sealed)?,
            None => {
                let uids = weights.iter().map(|(uid, _)| uid.0);
                let values = weights.iter().map(|(_, weight)| *weight);
                let arguments = [
                    ("netuid", netuid),
                    ("dests", Value::list(uids)),
                    ("weights", Value::list(values)),
                    ("version_key", (*version_key).into()),
                ];
                runtime.call("SubtensorModule", "set_weights", &arguments)?
            }
        },
        Op::Transfer { to, rao } => {
            let to = Value::variant_of("Id", [Value::from(to.0)]);
            let arguments = [("dest", to), ("value", (*rao).into())];
            runtime.call("Balances", "transfer_keep_alive", &arguments)?
        }
        Op::AddStake { hotkey, rao } => runtime.call(
            "SubtensorModule",
            "add_stake",
            &[
                ("hotkey", hotkey.0.into()),
                ("netuid", netuid),
                ("amount_staked", (*rao).into()),
            ],
        )?,
        Op::SetParameter { parameter, value } => {
            let arguments = [
                ("netuid", netuid),
                (parameter.argument, parameter.value(*value)),
            ];
            runtime.call("AdminUtils", parameter.call, &arguments)?
        }
    };
    Ok(bytes)
}

fn register(
    runtime: &Runtime,
    netuid: Value,
    hotkey: Hotkey,
    max_burn_rao: Option<u64>,
) -> Result<Vec<u8>, ChainError> {
    let arguments = [("netuid", netuid), ("hotkey", hotkey.0.into())];
    Ok(match max_burn_rao {
        None => runtime.call("SubtensorModule", "burned_register", &arguments)?,
        Some(limit) => {
            let [netuid, hotkey] = arguments;
            let arguments = [netuid, hotkey, ("limit_price", limit.into())];
            runtime.call("SubtensorModule", "register_limit", &arguments)?
        }
    })
}

fn serve(runtime: &Runtime, netuid: Value, endpoint: Endpoint) -> Result<Vec<u8>, ChainError> {
    let (ip, kind) = match endpoint.ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 4_u8),
        IpAddr::V6(ip) => (u128::from(ip), 6),
    };
    let arguments = [
        ("netuid", netuid),
        ("version", AXON_VERSION.into()),
        ("ip", ip.into()),
        ("port", endpoint.port.into()),
        ("ip_type", kind.into()),
        ("protocol", AXON_PROTOCOL.into()),
        ("placeholder1", 0_u8.into()),
        ("placeholder2", 0_u8.into()),
    ];
    Ok(runtime.call("SubtensorModule", "serve_axon", &arguments)?)
}

fn commit_timelocked(
    runtime: &Runtime,
    netuid: Value,
    sealed: &Sealed,
) -> Result<Vec<u8>, ChainError> {
    let arguments = [
        ("netuid", netuid),
        ("commit", sealed.ciphertext.as_slice().into()),
        ("reveal_round", sealed.round.into()),
        ("commit_reveal_version", sealed.version.into()),
    ];
    Ok(runtime.call("SubtensorModule", "commit_timelocked_weights", &arguments)?)
}
