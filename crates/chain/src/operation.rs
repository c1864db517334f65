//! What a key can ask of the chain.
//!
//! Knows neither bytes nor rules: how an operation is called and encoded is the adapter's to find in
//! the runtime's metadata, what the chain thinks of it the chain's to say.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use connito_protocol::ids::{Hotkey, Uid};
use serde::{Deserialize, Serialize};

use crate::fields::Field;
use crate::hex_text;
use crate::parameters::Parameter;

/// The most uids that one operation may name: a subnet has no more.
pub(crate) const MAX_WEIGHTS: usize = 4_096;

/// Names one signed operation: the hash of its extrinsic.
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
    /// Moves money from the signer's account.
    Transfer {
        /// To whom.
        to: Hotkey,
        /// How much.
        rao: u64,
    },
    /// Turns money of the signer, a coldkey, into stake.
    AddStake {
        /// On whose hotkey.
        hotkey: Hotkey,
        /// How much.
        rao: u64,
    },
    /// Sets one of the subnet's parameters. The signer is its owner.
    SetParameter {
        /// Which.
        parameter: &'static Parameter,
        /// To what; 0 and 1 for what is off or on.
        value: u64,
    },
}
