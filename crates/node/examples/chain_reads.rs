//! A full subnet on the embedded chain, and how long this program's adapter takes to read it.
//!
//! ```text
//! chain_reads serve NEURONS    says where it serves, and goes on until its standard input ends
//! chain_reads read URL TIMES   seconds of each read, as one JSON object
//! ```
//!
//! Each neuron has published an endpoint and a commitment of the size that a reveal has. A read is what a
//! role asks for at every block, each at a block of its own: the metagraph with the subnet's parameters, and
//! everybody's commitments. `tools/bench/chain_reads.py` holds it against the official Python SDK.

#![allow(clippy::print_stdout, reason = "what it finds is its output")]

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connito_chain::embedded::{EmbeddedChain, GenesisNeuron, GenesisSpec, Pace};
use connito_chain::keys::{Keypair, Signer as _};
use connito_chain::rpc::HttpTransport;
use connito_chain::subtensor::{Connection, SubtensorChain};
use connito_chain::{At, Chain as _, Endpoint, Field, Op};
use connito_node::server::{self, Limits};
use connito_protocol::ids::Netuid;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

type Outcome<T> = Result<T, Box<dyn Error>>;

const NETUID: Netuid = Netuid(1);
const BLOCK_TIME_MS: u64 = 250;
/// Reads before those that are counted: the first fetches the metadata.
const WARM: usize = 2;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", neurons] => serve(neurons.parse()?).await,
        ["read", url, times] => read(url, times.parse()?).await,
        _ => Err("usage: chain_reads serve NEURONS | chain_reads read URL TIMES".into()),
    }
}

async fn serve(neurons: u16) -> Outcome<()> {
    let keys: Vec<Keypair> = (0..neurons).map(key).collect();
    let chain = EmbeddedChain::in_memory(genesis(&keys))?;
    publish(&chain, &keys).await?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    let router = server::chain_router(Arc::clone(&chain), &Limits::default());
    let never = std::future::pending();
    tokio::spawn(server::serve(listener, router, Limits::default(), never));
    let input = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    let until_told = async {
        // An error is an end too.
        let _ = input.await;
    };
    Ok(chain.run(until_told).await?)
}

fn key(uid: u16) -> Keypair {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&uid.to_le_bytes());
    Keypair::from_seed(&seed)
}

fn genesis(keys: &[Keypair]) -> GenesisSpec {
    let neuron = |(uid, key): (u64, &Keypair)| GenesisNeuron {
        hotkey: key.hotkey(),
        coldkey: None,
        stake_rao: 1_000_000_000 * (uid % 2),
        validator_permit: uid % 2 > 0,
    };
    GenesisSpec {
        block_time_ms: BLOCK_TIME_MS,
        genesis_time_ms: 1_700_000_000_000,
        neurons: (0..).zip(keys).map(neuron).collect(),
        ..GenesisSpec::new(NETUID, key(u16::MAX).hotkey())
    }
}

/// Has every neuron say where it is and what it promises, a block for each.
async fn publish(chain: &Arc<EmbeddedChain>, keys: &[Keypair]) -> Outcome<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // Sent or dropped.
        let _ = stopped.await;
    };
    let running = tokio::spawn(Arc::clone(chain).run_at(Pace::Demand, stopped));
    let client = SubtensorChain::connect(Arc::clone(chain), Connection::default()).await?;
    for (port, key) in (1024..).zip(keys) {
        let ip = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
        client.submit(key, Op::Serve(Endpoint { ip, port })).await?;
        let fields = vec![
            Field::Raw(vec![1; 16]),
            Field::Blake2_256([2; 32]),
            Field::Raw(vec![3; 48]),
        ];
        client.submit(key, Op::Commit(fields)).await?;
    }
    drop(stop);
    Ok(running.await??)
}

async fn read(url: &str, times: usize) -> Outcome<()> {
    let begun = Instant::now();
    let transport = HttpTransport::new(url)?;
    let chain = SubtensorChain::connect(transport, Connection::default()).await?;
    let connected = begun.elapsed().as_secs_f64();
    let (mut graphs, mut records, mut neurons, mut commitments) = (vec![], vec![], 0, 0);
    let mut newest = chain.block(At::Head).await?;
    for _ in 0..WARM + times {
        newest = chain
            .wait_block(newest.number, Duration::from_secs(60))
            .await?
            .block;
        let at = At::Hash(newest.hash);
        let begun = Instant::now();
        neurons = chain.metagraph(at).await?.value.neurons.len();
        graphs.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        commitments = chain.commitments(at).await?.value.len();
        records.push(begun.elapsed().as_secs_f64());
    }
    let told = json!({
        "neurons": neurons,
        "records": commitments,
        "connect": connected,
        "metagraph": graphs[WARM..],
        "commitments": records[WARM..],
    });
    println!("{told}");
    Ok(())
}
