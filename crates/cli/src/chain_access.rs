//! Reaching a chain: from what a person wrote to a connection.
//!
//! One address or several of the same chain, in the order in which they are preferred. An endpoint on
//! this machine is asked as often as anyone likes; public ones about once a second, which is what their
//! operators allow. `ws://` and `wss://`, as chains are usually given, are asked over HTTP.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use connito_chain::ChainError;
use connito_chain::rpc::HttpTransport;
use connito_chain::subtensor::{Connection, EndpointPool, SubtensorChain};
use connito_protocol::ids::{BlockHash, Netuid};
use serde::{Deserialize, Serialize};

use crate::exit::{Blame, Failure};

/// Between two requests to one public endpoint.
const PUBLIC_INTERVAL: Duration = Duration::from_secs(1);

/// A subnet of a chain behind addresses.
pub(crate) type RemoteChain = SubtensorChain<EndpointPool<HttpTransport>>;

/// One address, or several in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Addresses {
    One(String),
    Several(Vec<String>),
}

impl Addresses {
    /// Each address.
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Several(addresses) => addresses,
        }
    }
}

/// What a connection is to.
#[derive(Debug, Clone)]
pub(crate) struct ChainAccess {
    pub(crate) addresses: Addresses,
    /// The subnet; the chain's only one if none is named.
    pub(crate) netuid: Option<Netuid>,
    /// The chain's first block, if another chain is to be refused.
    pub(crate) genesis: Option<BlockHash>,
    /// Where metadata is kept between starts.
    pub(crate) metadata_folder: Option<PathBuf>,
}

impl ChainAccess {
    /// Access to the only subnet of the chain at one address.
    pub(crate) fn to(address: &str) -> Self {
        Self {
            addresses: Addresses::One(address.to_owned()),
            netuid: None,
            genesis: None,
            metadata_folder: None,
        }
    }

    /// The endpoints, before anything is sent.
    pub(crate) fn pool(&self) -> Result<EndpointPool<HttpTransport>, Failure> {
        let addresses = self.addresses.all();
        let transports = addresses.iter().map(|address| HttpTransport::new(address));
        let transports = transports.collect::<Result<Vec<_>, _>>().input()?;
        let interval = match addresses.iter().all(|address| is_on_this_machine(address)) {
            true => Duration::ZERO,
            false => PUBLIC_INTERVAL,
        };
        EndpointPool::new(transports, interval, self.genesis).input()
    }

    /// Connects.
    pub(crate) async fn connect(
        &self,
        pool: EndpointPool<HttpTransport>,
    ) -> Result<RemoteChain, ChainError> {
        let to = Connection {
            netuid: self.netuid,
            genesis: self.genesis,
            metadata_folder: self.metadata_folder.clone(),
        };
        SubtensorChain::connect(pool, to).await
    }
}

/// Whether an address is one that only this machine answers at.
pub(crate) fn is_on_this_machine(address: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.split(['/', '?']).next().unwrap_or(host);
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_asked_without_a_pause() {
        for near in [
            "http://127.0.0.1:9944",
            "ws://localhost:9944/",
            "http://[::1]:9",
            "http://127.0.0.2",
        ] {
            assert!(is_on_this_machine(near), "{near}");
        }
        for far in [
            "https://entrypoint-finney.opentensor.ai:443",
            "http://10.0.0.1:9944",
            "http://localhost.example:9944",
        ] {
            assert!(!is_on_this_machine(far), "{far}");
        }
    }
}
