//! Load on one validator: many miners upload at once, some of them slowly, and the process is killed.
//!
//! ```text
//! load ──spawns──▶ load serve    a validator over a folder, with an embedded chain that stands still
//!   │                 ▲  ▲       in the upload window of cycle 0, after every miner has sealed
//!   ├── miners ───────┘  │
//!   ├── slow miners ─────┤       a byte a second, and just above the floor
//!   └── health, 50 a second
//! ```
//!
//! What is measured: what was accepted, refused for now, and lost after `kill -9`; the peak memory of
//! the validator's process above its memory at rest; how long health takes to answer under the load;
//! how soon a slow client is gone. What should hold is checked at the end, and decides the exit code.
//! Everything stays on this machine: an address that is not loopback is refused.

mod audit;
mod health;
mod http;
mod miners;
mod network;
mod process;
mod report;
mod validator;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use miners::{Body, Miner, Sent, Slowness};
use network::Plan;
use process::{OwnFolder, Validator};
use report::{Measured, Report};

/// Any failure ends the run; what matters is its sentence.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Of each kind: more than the server has places for, and together a number of 16 bits.
const MAXIMUM_MINERS: i64 = 4096;

#[derive(Debug, Parser)]
#[command(about = "Uploads of many miners to one validator at once, on this machine only")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Role>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The validator's process; started by the load itself
    Serve,
}

#[derive(Debug, Clone, clap::Args)]
struct Options {
    /// Miners that upload as fast as they can
    #[arg(long, default_value_t = 256, global = true, value_parser = clap::value_parser!(u16).range(1..=MAXIMUM_MINERS))]
    miners: u16,
    /// Bytes of each update
    #[arg(long, default_value_t = 50_000_000, global = true, value_parser = clap::value_parser!(u64).range(64..1 << 32))]
    bytes: u64,
    /// Further miners that send a byte a second
    #[arg(long, default_value_t = 16, global = true, value_parser = clap::value_parser!(u16).range(..=MAXIMUM_MINERS))]
    slow: u16,
    /// Further miners that send just above the floor and so keep their place
    #[arg(long, default_value_t = 0, global = true, value_parser = clap::value_parser!(u16).range(..=MAXIMUM_MINERS))]
    riders: u16,
    /// Also kill the validator when so many uploads were accepted, and start it again
    #[arg(long, global = true)]
    kill_after: Option<usize>,
    /// An empty or missing folder; it is removed after the run
    #[arg(long, global = true, default_value = "load-folder")]
    folder: PathBuf,
    /// Where the validator listens; loopback only
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Print the figures as one line of JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Options {
    fn plan(&self) -> Plan {
        Plan {
            miners: self.miners + self.slow + self.riders,
            bytes: self.bytes,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.options.listen.ip().is_loopback() {
        eprintln!("load: {} is not on this machine", arguments.options.listen);
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match arguments.command {
                Some(Role::Serve) => validator::serve(&arguments.options).await.map(|()| true),
                None => run(&arguments.options).await,
            }
        })
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(3)
        }
    }
}

/// The whole run; whether everything held.
#[expect(clippy::print_stdout, reason = "the report is what the example is for")]
async fn run(options: &Options) -> Outcome<bool> {
    let _folder = OwnFolder::create(&options.folder)?;
    let body = Arc::new(Body::new(options.bytes));
    let miners = miners::all(0..options.plan().miners, &body).await?;
    let (fast, slow) = miners.split_at(usize::from(options.miners));
    let (sent, mut measured) = load(options, (fast, slow), &body).await?;

    let accepted = fast.iter().zip(&sent).filter(|(_, sent)| sent.accepted);
    let accepted: Vec<Miner> = accepted.map(|(miner, _)| miner.clone()).collect();
    measured.lost = audit::lost(options, &accepted).await?;
    let report = Report::new(options, &sent, &measured);
    let failures = report.failures();
    println!(
        "{}",
        if options.json {
            report.json()?
        } else {
            report.text()
        }
    );
    for failure in &failures {
        eprintln!("load: {failure}");
    }
    Ok(failures.is_empty())
}

/// Uploads everything while health is watched, and kills the validator: once on the way if that is
/// wanted, and at the end.
async fn load(
    options: &Options,
    (fast, slow): (&[Miner], &[Miner]),
    body: &Arc<Body>,
) -> Outcome<(Vec<Sent>, Measured)> {
    let mut validator = Validator::start(options, options.listen).await?;
    let at_rest = validator.resident_bytes()?;
    validator.forget_peak()?;
    let (address, addressed) = watch::channel(validator.address);
    let (enough, until) = oneshot::channel();
    let health = health::begin(addressed.clone(), until);
    let (trickling, riding) = slow.split_at(usize::from(options.slow));
    let trickling = dawdle(trickling, body, validator.address, Slowness::Trickle).await?;
    let _riding = dawdle(riding, body, validator.address, Slowness::Rider).await?;

    let begun = Instant::now();
    let mut uploads = JoinSet::new();
    for miner in fast.iter().cloned() {
        uploads.spawn(miners::upload(
            miner,
            Arc::clone(body),
            addressed.clone(),
            begun,
        ));
    }
    let mut sent = Vec::new();
    let mut peak = 0;
    while let Some(finished) = uploads.join_next().await {
        sent.push(finished??);
        if options.kill_after == Some(sent.len()) {
            peak = validator.peak_bytes()?;
            let listen = validator.address;
            validator.kill().await?;
            validator = Validator::start(options, listen).await?;
            address.send_replace(validator.address);
        }
    }
    let wall = begun.elapsed();
    // The probe ends before only by a panic, which the next line reports.
    let _ = enough.send(());
    let latencies = health.await??;
    let evictions = evictions(trickling).await?;
    peak = peak.max(validator.peak_bytes()?);
    validator.kill().await?;
    sent.sort_by_key(|sent| sent.number);
    let measured = Measured {
        wall,
        at_rest,
        peak,
        latencies,
        evictions,
        lost: 0,
    };
    Ok((sent, measured))
}

type Dawdling = JoinSet<Outcome<Duration>>;

/// Lets slow miners in before all others, and starts them; they end with the set.
async fn dawdle(
    miners: &[Miner],
    body: &Arc<Body>,
    address: SocketAddr,
    how: Slowness,
) -> Outcome<Dawdling> {
    let mut dawdling = JoinSet::new();
    for miner in miners {
        let stream = miners::enter(miner, address).await?;
        dawdling.spawn(miners::dawdle(stream, Arc::clone(body), how));
    }
    Ok(dawdling)
}

/// After how long each slow miner was cut off.
async fn evictions(mut dawdling: Dawdling) -> Outcome<Vec<Duration>> {
    let mut evictions = Vec::new();
    while let Some(ended) = dawdling.join_next().await {
        evictions.push(ended??);
    }
    Ok(evictions)
}
