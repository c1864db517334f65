//! Running the embedded chain: one that a configuration describes, or one for trying things by hand.
//!
//! The latter belongs to the development account `//Alice`, who owns the subnet, may change every
//! parameter and has the money; everybody has her secret, and so it is served on this machine alone.
//! Its folder remembers what it was started with.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use connito_chain::embedded::{EmbeddedChain, GenesisSpec};
use connito_chain::keys::{Keypair, Signer};
use connito_protocol::ids::Netuid;
use tokio::sync::watch;

use crate::args::chain::ServeArguments;
use crate::config::{self, ChainConfig};
use crate::exit::{Blame, Failure};
use crate::output::print;
use crate::tao::Tao;
use crate::{roles, until_told};

const OWNER: &str = "//Alice";
const USUAL_BLOCK_TIME: Duration = Duration::from_secs(12);

/// Runs the chain until it is told to stop.
pub(super) async fn run(arguments: ServeArguments) -> Result<(), Failure> {
    match &arguments.config {
        Some(file) => configured(file).await,
        None => by_hand(&arguments).await,
    }
}

async fn configured(file: &Path) -> Result<(), Failure> {
    let mut config: ChainConfig = config::read(file)?;
    config.folder = config::beside(file, &config.folder);
    let (stop, stopping) = watch::channel(false);
    let with_input = config.stop_with_input;
    until_told(roles::chain(config, stopping), stop, with_input).await
}

async fn by_hand(arguments: &ServeArguments) -> Result<(), Failure> {
    if !arguments.listen.ip().is_loopback() {
        return Err(Failure::Input(anyhow!(
            "--listen {}: everybody has the key of this chain's owner, so only loopback addresses \
             serve it",
            arguments.listen
        )));
    }
    let genesis = genesis(arguments)?;
    let says = format!(
        "subnet {} with a block every {:?}; {OWNER} owns it and had {} at block 0",
        genesis.netuid,
        Duration::from_millis(genesis.block_time_ms),
        Tao(genesis.faucet_rao),
    );
    let chain = EmbeddedChain::open(&arguments.folder, genesis).input()?;
    let listener = roles::listen(arguments.listen).await?;
    let address = listener.local_addr().environment()?;
    print(&format!(
        "serving http://{address} and ws://{address}: {says}"
    ))?;
    let (stop, stopping) = watch::channel(false);
    until_told(roles::serve_chain(chain, listener, stopping), stop, false).await
}

/// What the folder's chain was started with, or what a new one is to start with.
fn genesis(arguments: &ServeArguments) -> Result<GenesisSpec, Failure> {
    let alice = Keypair::development(OWNER).ok_or_else(|| anyhow!("{OWNER} is no account"));
    let alice = alice.environment()?.hotkey();
    let block_time = arguments.block_time.map(|time| time.0);
    let block_time_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if let Some(stored) = EmbeddedChain::stored_genesis(&arguments.folder).input()? {
        let other = |what: String| {
            let folder = arguments.folder.display();
            Err(Failure::Input(anyhow!(
                "the chain in {folder} {what}: name another --folder"
            )))
        };
        if arguments
            .netuid
            .is_some_and(|netuid| netuid != stored.netuid.0)
        {
            return other(format!("is of subnet {}", stored.netuid));
        }
        if block_time.is_some_and(|time| block_time_ms(time) != stored.block_time_ms) {
            let time = Duration::from_millis(stored.block_time_ms);
            return other(format!("has a block every {time:?}"));
        }
        return Ok(stored);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(GenesisSpec {
        block_time_ms: block_time_ms(block_time.unwrap_or(USUAL_BLOCK_TIME)),
        genesis_time_ms: now.map(block_time_ms).unwrap_or_default(),
        ..GenesisSpec::new(Netuid(arguments.netuid.unwrap_or(1)), alice)
    })
}
