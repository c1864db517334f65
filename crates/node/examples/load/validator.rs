//! The validator's process: the real role, server, journal and store, over a chain that stands still.
//!
//! Says `listening ADDRESS` on standard output and goes on until it is killed. It has no learner: with
//! the chain at rest in the upload window, nothing is ever to be computed.

use std::sync::Arc;

use connito_chain::keys::Signer;
use connito_chain::subtensor::{Connection, SubtensorChain};
use connito_node::blobs::DiskBlobs;
use connito_node::chain_link;
use connito_node::role::{self, Setup};
use connito_protocol::Identity;
use connito_protocol::machine::{Character, Role};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{Options, Outcome, network};

#[expect(clippy::print_stdout, reason = "the parent reads the address")]
pub(crate) async fn serve(options: &Options) -> Outcome<()> {
    let folder = options.folder.join("validator");
    // Closed again before the role opens it.
    let task = network::task(&DiskBlobs::open(folder.join("blobs"))?, options.plan())?;
    let chain = network::chain(&options.folder.join("chain"), options.plan(), task).await?;
    let chain = Arc::new(SubtensorChain::connect(chain, Connection::default()).await?);
    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    let keypair = Arc::new(network::validator());
    let setup = Setup {
        character: Character {
            identity: Identity {
                hotkey: keypair.hotkey(),
                network: chain_link::network(&*chain),
                endpoint: None,
            },
            role: Role::Validator,
        },
        keypair,
        journal: folder.join("journal"),
        folder,
        listener: Some(listener),
        task: None,
    };
    println!("listening {address}");
    let (_stop, stopping) = watch::channel(false);
    role::run(setup, chain, |_| None, stopping).await?;
    Ok(())
}
