//! Running one role from its configuration: read, open, connect, hand over to the node.
//!
//! `localnet` starts its roles through the same functions, in this process or in others, so a role
//! alone and a role in a rehearsal are the same thing.

mod next_task;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use connito_chain::embedded::EmbeddedChain;
use connito_chain::keys::{Keypair, Signer};
use connito_chain::{At, Chain, ChainError};
use connito_learning::learner::Conduct;
use connito_learning::task::{TaskPlan, publish};
use connito_learning::{EngineBackend, Learner, StateLearner};
use connito_node::blobs::DiskBlobs;
use connito_node::chain_link;
use connito_node::role::{self, RoleError, Setup};
use connito_node::server::{self, Health, Limits};
use connito_protocol::Identity;
use connito_protocol::ids::{BlobId, Block};
use connito_protocol::machine::{Character, Role};
use connito_protocol::snapshot::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::base::Base;
use crate::chain_access::{ChainAccess, RemoteChain};
use crate::config::{ChainConfig, MinerConduct, RoleConfig, TaskConfig};
use crate::corpus::Corpus;
use crate::exit::{Blame, Failure};
use crate::password;

/// How long a role waits for its chain to answer for the first time.
const CHAIN_PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two attempts to reach the chain.
const CHAIN_PAUSE: Duration = Duration::from_millis(100);

/// Which of the roles a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Owner,
    Validator,
    Miner,
}

/// Runs the embedded chain until `stop`.
pub(crate) async fn chain(config: ChainConfig, stop: watch::Receiver<bool>) -> Result<(), Failure> {
    let chain = EmbeddedChain::open(&config.folder, config.genesis).input()?;
    let listener = listen(config.listen).await?;
    serve_chain(chain, listener, stop).await
}

/// Makes and serves a chain's blocks until `stop`.
pub(crate) async fn serve_chain(
    chain: Arc<EmbeddedChain>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let health = watch_health(chain.clone(), stop.clone());
    let router = server::chain_router(chain.clone(), &Limits::default())
        .merge(server::health_router(health));
    let mut serving = stop.clone();
    let served = tokio::spawn(server::serve(
        listener,
        router,
        Limits::default(),
        async move {
            // An error means that whoever could say stop is gone.
            let _ = serving.wait_for(|stop| *stop).await;
        },
    ));
    let until = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    chain.run(until).await.environment()?;
    served
        .await
        .context("the chain's server failed")
        .environment()
}

/// What the chain's `GET /v1/health` shows, brought up to date with every block.
fn watch_health(
    chain: Arc<EmbeddedChain>,
    mut stop: watch::Receiver<bool>,
) -> watch::Receiver<Health> {
    let (health, shown) = watch::channel(Health {
        role: "chain".to_owned(),
        hotkey: None,
        block: Some(chain.head().number),
        cycle: None,
        state: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    tokio::spawn(async move {
        let mut ticks =
            tokio::time::interval(Duration::from_millis(chain.identity().block_time_ms));
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => health.send_modify(|health| health.block = Some(chain.head().number)),
            }
        }
    });
    shown
}

/// Runs an owner, a validator or a miner until `stop`.
pub(crate) async fn participant(
    kind: Kind,
    config: RoleConfig,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    if config.conduct == MinerConduct::Copying && config.victim.is_none() {
        return Err(Failure::Input(anyhow!(
            "a copying miner needs the key `victim`"
        )));
    }
    // A password may have to be typed, and takes seconds to check.
    let keypair = tokio::task::block_in_place(|| password::unlock(&config.hotkey))?;
    let keypair = Arc::new(keypair);
    let listener = match (kind, config.listen) {
        (Kind::Miner, _) => None,
        (_, Some(address)) => Some(listen(address).await?),
        (_, None) => {
            return Err(Failure::Input(anyhow!(
                "an owner and a validator need the key `listen`"
            )));
        }
    };
    let chain = Arc::new(connect(&config, stop.clone()).await?);
    let endpoint = listener
        .as_ref()
        .map(|listener| endpoint(&config, listener))
        .transpose()?;
    let character = Character {
        identity: Identity {
            hotkey: keypair.hotkey(),
            network: chain_link::network(&*chain),
            endpoint,
        },
        role: role_of(kind, &config, &*chain).await?,
    };
    if let Some(folder) = config.journal.parent() {
        let refused = || format!("{} cannot be made", folder.display());
        std::fs::create_dir_all(folder)
            .with_context(refused)
            .environment()?;
    }
    let announced = match character.role {
        Role::Owner { task } => next_task::announced(&config, task, &*chain).await?,
        Role::Validator | Role::Miner | Role::Copier { .. } => None,
    };
    let setup = Setup {
        task: announced,
        character,
        keypair,
        folder: config.folder.clone(),
        journal: config.journal.clone(),
        listener,
    };
    let learner = |blobs| (kind != Kind::Owner).then(|| learner(blobs, &config));
    role::run(setup, chain, learner, stop).await.map_err(blame)
}

fn learner(blobs: DiskBlobs, config: &RoleConfig) -> Box<dyn Learner> {
    let conduct = match config.conduct {
        MinerConduct::Honest | MinerConduct::Copying => Conduct::Honest,
        MinerConduct::Damaging => Conduct::Damaging,
    };
    Box::new(StateLearner::new(
        blobs,
        EngineBackend::new(config.threads.max(1)).training_by(config.trainer),
        conduct,
    ))
}

async fn role_of(kind: Kind, config: &RoleConfig, chain: &impl Chain) -> Result<Role, Failure> {
    match (kind, config.conduct, config.victim) {
        (Kind::Owner, ..) => Ok(Role::Owner {
            task: task(config, chain).await?,
        }),
        (Kind::Validator, ..) => Ok(Role::Validator),
        (Kind::Miner, MinerConduct::Copying, Some(victim)) => Ok(Role::Copier { victim }),
        (Kind::Miner, ..) => Ok(Role::Miner),
    }
}

/// The owner's task: the one in its folder, or a new one.
async fn task(config: &RoleConfig, chain: &impl Chain) -> Result<BlobId, Failure> {
    let marker = config.folder.join("task");
    match std::fs::read_to_string(&marker) {
        Ok(text) => {
            return text
                .trim()
                .parse()
                .with_context(|| format!("{} does not name a task", marker.display()))
                .input();
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read {}", marker.display()))
                .input();
        }
    }
    let plan = config.task.clone().ok_or_else(|| {
        Failure::Input(anyhow!(
            "{} holds no task and the configuration has no [task]",
            config.folder.display()
        ))
    })?;
    let head = chain.block(At::Head).await.environment()?.number;
    let starts = Block(head.0 + plan.starts_in_blocks);
    let netuid = chain.identity().netuid;
    let blobs = DiskBlobs::open(config.folder.join("blobs")).environment()?;
    let task = tokio::task::block_in_place(|| make_task(&plan, (netuid, starts), &blobs))?;
    // Written last: a folder with this file holds a complete task.
    let refused = || format!("cannot write {}", marker.display());
    std::fs::write(&marker, task.to_string())
        .with_context(refused)
        .environment()?;
    Ok(task)
}

fn make_task(
    config: &TaskConfig,
    (netuid, starts): (connito_protocol::ids::Netuid, Block),
    blobs: &DiskBlobs,
) -> Result<BlobId, Failure> {
    let base = Base::load(&config.model)?;
    let corpus = Corpus::load(&config.data, config.seed).input()?;
    let length = config.rules.scoring.sequence_length as usize;
    let domains = corpus
        .domain_texts(&base.tokenizer, length, config.groups.max(1))
        .input()?;
    let plan = TaskPlan {
        name: config.name.clone(),
        netuid,
        starts,
        rules: config.rules.clone(),
        model: &base.model,
        tokenizer: &base.tokenizer_json,
        groups: config.groups,
        tickets: config.tickets.clone(),
        domains,
    };
    publish(&plan, blobs).input()
}

/// A port of this machine.
pub(crate) async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("port {} on {} cannot be used", address.port(), address.ip()))
        .environment()
}

fn endpoint(config: &RoleConfig, listener: &TcpListener) -> Result<Endpoint, Failure> {
    let bound = listener.local_addr().environment()?;
    let address = config.announce.unwrap_or(bound);
    if address.ip().is_unspecified() {
        return Err(Failure::Input(anyhow!(
            "`listen` is {bound}, which nobody can connect to: set the key `announce`"
        )));
    }
    Ok(Endpoint {
        ip: address.ip(),
        port: address.port(),
    })
}

/// Connects to the chain, which may still be starting.
async fn connect(
    config: &RoleConfig,
    mut stop: watch::Receiver<bool>,
) -> Result<RemoteChain, Failure> {
    let access = ChainAccess {
        addresses: config.chain.clone(),
        netuid: config.netuid,
        genesis: config.genesis,
        metadata_folder: Some(config.folder.join("metadata")),
    };
    let begun = Instant::now();
    loop {
        match access.connect(access.pool()?).await {
            Ok(chain) => return Ok(chain),
            Err(error @ (ChainError::NoSubnet(_) | ChainError::WhichSubnet { .. })) => {
                return Err(error).input();
            }
            Err(error) if begun.elapsed() > CHAIN_PATIENCE => {
                return Err(anyhow::Error::new(error)).environment();
            }
            Err(_) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Err(Failure::Interrupted),
            () = tokio::time::sleep(CHAIN_PAUSE) => {}
        }
    }
}

/// A journal or a store that cannot be used is the environment's fault; a journal of another program
/// version or another role is the user's.
fn blame(error: RoleError) -> Failure {
    use connito_node::driver::DriverError;
    use connito_node::journal::JournalError;
    match &error {
        RoleError::Driver(
            DriverError::Diverged { .. } | DriverError::Journal(JournalError::OtherHeader { .. }),
        ) => Failure::Input(error.into()),
        RoleError::Blobs(_)
        | RoleError::Receipts(_)
        | RoleError::Client(_)
        | RoleError::Driver(_) => Failure::Environment(error.into()),
    }
}

/// Makes the paths of a configuration absolute, beside its file.
pub(crate) fn located(file: &Path, mut config: RoleConfig) -> RoleConfig {
    for path in [&mut config.hotkey, &mut config.folder, &mut config.journal] {
        *path = crate::config::beside(file, path);
    }
    if let Some(task) = &mut config.task {
        task.model = crate::config::beside(file, &task.model);
        let data: Vec<PathBuf> = task
            .data
            .iter()
            .map(|path| crate::config::beside(file, path))
            .collect();
        task.data = data;
    }
    if let Some(next) = &mut config.next {
        for path in next.data.iter_mut().chain(&mut next.model) {
            *path = crate::config::beside(file, path);
        }
    }
    config
}

/// A key of a rehearsal: derived from the run's seed, a role and a number.
pub(crate) fn rehearsal_key(seed: u64, role: &str, number: u64) -> Keypair {
    let mut hasher = blake3::Hasher::new_derive_key("connito/1 rehearsal key");
    hasher.update(&seed.to_le_bytes());
    hasher.update(role.as_bytes());
    hasher.update(&number.to_le_bytes());
    Keypair::from_seed(hasher.finalize().as_bytes())
}
