//! What a hotkey can ask of the chain, and the bytes it is asked with.
//!
//! The bytes of each call are those of the Bittensor main network (pallet index, call index,
//! arguments in SCALE), recorded vectors are tested below. Only the arguments this network never
//! varies are fixed: axon version 1, protocol 4, no placeholders. Knows no rules: what the chain
//! thinks of an operation is decided in `local/rules.rs` or on the real network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use connito_protocol::ids::{Hotkey, Netuid, Uid};
use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Reader, put_count};
use crate::fields::{self, Field};
use crate::hex_text;

/// The most uids that one operation may name: a subnet has no more.
pub(crate) const MAX_WEIGHTS: usize = 4_096;

/// Names one signed operation: the hash of everything in it except the signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(#[serde(with = "hex_text")] pub [u8; 32]);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex_text::encode(&self.0))
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({})", hex::encode(&self.0[..4]))
    }
}

/// Where a neuron can be reached. Published by anyone, so never trusted by readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// An operation, before it is signed.
///
/// Chains know more operations than these; other crates match with a wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Gives `hotkey` a slot in the subnet. The signer becomes its coldkey and pays the burn.
    Register {
        /// Who gets the slot.
        hotkey: Hotkey,
        /// The highest acceptable price in rao; any price when absent.
        max_burn_rao: Option<u64>,
    },
    /// Publishes where the signer can be reached.
    Serve(Endpoint),
    /// Replaces the signer's whole commitment record.
    Commit(Vec<Field>),
    /// Sets the signer's weights. Only their ratios count.
    SetWeights {
        /// Each uid and its weight.
        weights: Vec<(Uid, u16)>,
        /// The version of the rules the weights were computed by.
        version_key: u64,
    },
}

const SET_WEIGHTS: [u8; 2] = [7, 0];
const SERVE_AXON: [u8; 2] = [7, 4];
const BURNED_REGISTER: [u8; 2] = [7, 7];
const REGISTER_LIMIT: [u8; 2] = [7, 134];
const SET_COMMITMENT: [u8; 2] = [18, 0];

const AXON_VERSION: u32 = 1;
const AXON_PROTOCOL: u8 = 4;

/// The call's bytes. Fields have been checked; see [`fields::check`].
pub(crate) fn encode_call(netuid: Netuid, op: &Op) -> Vec<u8> {
    let mut out = Vec::new();
    let open = |out: &mut Vec<u8>, call: [u8; 2]| {
        out.extend_from_slice(&call);
        out.extend_from_slice(&netuid.0.to_le_bytes());
    };
    match op {
        Op::Register {
            hotkey,
            max_burn_rao: None,
        } => {
            open(&mut out, BURNED_REGISTER);
            out.extend_from_slice(&hotkey.0);
        }
        Op::Register {
            hotkey,
            max_burn_rao: Some(limit),
        } => {
            open(&mut out, REGISTER_LIMIT);
            out.extend_from_slice(&hotkey.0);
            out.extend_from_slice(&limit.to_le_bytes());
        }
        Op::Serve(endpoint) => {
            open(&mut out, SERVE_AXON);
            put_endpoint(&mut out, endpoint);
        }
        Op::Commit(record) => {
            open(&mut out, SET_COMMITMENT);
            fields::encode(record, &mut out);
        }
        Op::SetWeights {
            weights,
            version_key,
        } => {
            open(&mut out, SET_WEIGHTS);
            put_count(&mut out, weights.len());
            weights
                .iter()
                .for_each(|(uid, _)| out.extend_from_slice(&uid.0.to_le_bytes()));
            put_count(&mut out, weights.len());
            weights
                .iter()
                .for_each(|(_, weight)| out.extend_from_slice(&weight.to_le_bytes()));
            out.extend_from_slice(&version_key.to_le_bytes());
        }
    }
    out
}

/// Reads what [`encode_call`] wrote.
pub(crate) fn decode_call(bytes: &[u8]) -> Result<(Netuid, Op), DecodeError> {
    let mut reader = Reader::new(bytes);
    let call = reader.array::<2>()?;
    let netuid = Netuid(reader.u16()?);
    let op = match call {
        BURNED_REGISTER => Op::Register {
            hotkey: Hotkey(reader.array()?),
            max_burn_rao: None,
        },
        REGISTER_LIMIT => Op::Register {
            hotkey: Hotkey(reader.array()?),
            max_burn_rao: Some(reader.u64()?),
        },
        SERVE_AXON => Op::Serve(read_endpoint(&mut reader)?),
        SET_COMMITMENT => Op::Commit(fields::decode(&mut reader)?),
        SET_WEIGHTS => read_weights(&mut reader)?,
        _ => return Err(reader.refuse("unknown call")),
    };
    reader.finish()?;
    Ok((netuid, op))
}

/// Version, address, port, kind of address, protocol, two placeholders.
fn put_endpoint(out: &mut Vec<u8>, endpoint: &Endpoint) {
    let (ip, kind) = match endpoint.ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 4),
        IpAddr::V6(ip) => (u128::from(ip), 6),
    };
    out.extend_from_slice(&AXON_VERSION.to_le_bytes());
    out.extend_from_slice(&ip.to_le_bytes());
    out.extend_from_slice(&endpoint.port.to_le_bytes());
    out.extend_from_slice(&[kind, AXON_PROTOCOL, 0, 0]);
}

fn read_endpoint(reader: &mut Reader<'_>) -> Result<Endpoint, DecodeError> {
    let version = reader.u32()?;
    let ip = reader.u128()?;
    let port = reader.u16()?;
    let ip = match reader.u8()? {
        4 => u32::try_from(ip)
            .ok()
            .map(|ip| IpAddr::V4(Ipv4Addr::from(ip))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(ip))),
        _ => None,
    };
    let ip = ip.ok_or_else(|| reader.refuse("unknown kind of address"))?;
    if version != AXON_VERSION || reader.array()? != [AXON_PROTOCOL, 0, 0] {
        return Err(reader.refuse("unknown kind of endpoint"));
    }
    Ok(Endpoint { ip, port })
}

fn read_weights(reader: &mut Reader<'_>) -> Result<Op, DecodeError> {
    let mut numbers = || -> Result<Vec<u16>, DecodeError> {
        (0..reader.count(MAX_WEIGHTS)?)
            .map(|_| reader.u16())
            .collect()
    };
    let (uids, weights) = (numbers()?, numbers()?);
    if uids.len() != weights.len() {
        return Err(reader.refuse("as many weights as uids expected"));
    }
    Ok(Op::SetWeights {
        weights: uids.into_iter().map(Uid).zip(weights).collect(),
        version_key: reader.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALICE: &str = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";

    fn bytes(op: &Op) -> String {
        hex::encode(encode_call(Netuid(3), op))
    }

    /// Vectors recorded from the official client; they are the same at every spec since 365.
    #[test]
    fn calls_have_the_bytes_of_the_main_network() {
        let alice: Hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
            .parse()
            .unwrap();
        let register = |max_burn_rao| Op::Register {
            hotkey: alice,
            max_burn_rao,
        };
        assert_eq!(bytes(&register(None)), format!("07070300{ALICE}"));
        assert_eq!(
            bytes(&register(Some(1_000_000_000))),
            format!("07860300{ALICE}00ca9a3b00000000")
        );
        let serve = Op::Serve(Endpoint {
            ip: [203, 0, 113, 7].into(),
            port: 8091,
        });
        assert_eq!(
            bytes(&serve),
            "0704030001000000077100cb0000000000000000000000009b1f04040000"
        );
        let commit = Op::Commit(vec![Field::Raw(b"hello".to_vec())]);
        assert_eq!(bytes(&commit), "12000300040668656c6c6f");
        let weights = Op::SetWeights {
            weights: vec![(Uid(0), 1), (Uid(1), 65_535), (Uid(300), 7)],
            version_key: 0,
        };
        assert_eq!(
            bytes(&weights),
            "070003000c000001002c010c0100ffff07000000000000000000"
        );
    }

    fn op() -> impl Strategy<Value = Op> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from)
        ];
        let entry = (any::<u16>().prop_map(Uid), any::<u16>());
        let raw = proptest::collection::vec(any::<u8>(), 0..=128).prop_map(Field::Raw);
        prop_oneof![
            (any::<[u8; 32]>(), any::<Option<u64>>()).prop_map(|(key, max_burn_rao)| {
                Op::Register {
                    hotkey: Hotkey(key),
                    max_burn_rao,
                }
            }),
            (ip, any::<u16>()).prop_map(|(ip, port)| Op::Serve(Endpoint { ip, port })),
            proptest::collection::vec(raw, 0..=3).prop_map(Op::Commit),
            (proptest::collection::vec(entry, 0..300), any::<u64>()).prop_map(
                |(weights, version_key)| Op::SetWeights {
                    weights,
                    version_key
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn calls_read_back_as_they_were_written(op in op(), netuid in any::<u16>()) {
            let bytes = encode_call(Netuid(netuid), &op);
            prop_assert_eq!(decode_call(&bytes), Ok((Netuid(netuid), op)));
        }

        #[test]
        fn bytes_that_read_as_a_call_are_its_only_spelling(
            bytes in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            if let Ok((netuid, op)) = decode_call(&bytes) {
                prop_assert_eq!(encode_call(netuid, &op), bytes);
            }
        }
    }
}
