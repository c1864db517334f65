//! Who takes part in a rehearsal, under which keys, at which ports, with which configuration.
//!
//! Everything is written to `OUT/config` before anything starts, so that a role started again finds
//! what it was started with, and anyone can start it by hand.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use connito_chain::embedded::{GenesisNeuron, GenesisSpec};
use connito_chain::keys::{self, Keypair, Signer};
use connito_learning::inner::Method;
use connito_protocol::assignment::{EVEN_TICKETS, assigned_group};
use connito_protocol::ids::{GroupId, Hotkey, Netuid};
use connito_protocol::rules::{Codec, Rules, SelectionTop, TrainingRouting};

use crate::args::inspect::RoutingMode;
use crate::args::{CodecName, LocalnetArguments, TrainingRules};
use crate::chain_access::Addresses;
use crate::config::{ChainConfig, MinerConduct, RoleConfig, TaskConfig};
use crate::exit::{Blame, Failure};
use crate::roles::{Kind, rehearsal_key};

const NETUID: Netuid = Netuid(1);

/// Stake of each validator, in rao: equal, so that any two of three are a majority.
const STAKE_RAO: u64 = 1_000_000_000_000;

/// The time of the rehearsal's first block. A constant, so that a seed gives the same chain twice.
const GENESIS_TIME_MS: u64 = 1_760_000_000_000;

/// Blocks from the owner's start to the first cycle: the announcement, three fetches and as many
/// again for a machine that is busy starting.
const STARTS_IN_BLOCKS: u64 = 12;

/// Blocks faster than this get the rules for fast blocks.
const FAST_BLOCKS: Duration = Duration::from_secs(4);

/// One participant.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    /// `owner`, `validator-0`, `miner-3` …
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) hotkey: Hotkey,
    /// How it behaves; honest for all but some miners.
    pub(crate) conduct: MinerConduct,
    pub(crate) config: RoleConfig,
    pub(crate) config_file: PathBuf,
}

/// The whole cast.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) chain: ChainConfig,
    pub(crate) chain_config_file: PathBuf,
    pub(crate) actors: Vec<Actor>,
    pub(crate) groups: u16,
    pub(crate) out: PathBuf,
}

/// What a plan is made from, besides the arguments.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    /// Absolute path of the folder for results.
    pub(crate) out: &'a Path,
    /// The base model's folder.
    pub(crate) model: &'a Path,
    /// Time between blocks.
    pub(crate) block_time: Duration,
    /// Expert groups.
    pub(crate) groups: u16,
    /// Absolute paths of the data files.
    pub(crate) data: Vec<PathBuf>,
    /// Of the chain, the owner and the validators, in this order.
    pub(crate) ports: Vec<u16>,
}

/// The rules of a rehearsal at this pace.
///
/// # Errors
/// An option that is no rule's value; it is named as the rule is.
pub(crate) fn rules(block_time: Duration, training: &TrainingRules) -> Result<Rules, Failure> {
    let mut rules = if block_time < FAST_BLOCKS {
        Rules::for_fast_blocks()
    } else {
        Rules::default()
    };
    let top_p = training.top_p.map(SelectionTop::P);
    let top_k = training.top_k.map(SelectionTop::K);
    rules.selection.top = top_p.or(top_k).unwrap_or(rules.selection.top);
    rules.inner.kept = training.kept.unwrap_or(rules.inner.kept);
    rules.inner.routing = match training.routing {
        None => rules.inner.routing,
        Some(RoutingMode::Classic) => TrainingRouting::Classic,
        Some(RoutingMode::Masked) => TrainingRouting::Masked,
        Some(RoutingMode::FrozenKept) => TrainingRouting::FrozenKept,
        Some(RoutingMode::Fallback) => TrainingRouting::Fallback,
    };
    if let Some(codec) = training.codec {
        rules.inner = rules.inner.with_codec(match codec {
            CodecName::F32 => Codec::F32,
            CodecName::Bf16 => Codec::Bf16,
            CodecName::Int8 => Codec::Int8,
            CodecName::Sparse => Codec::Sparse,
        });
    }
    let keeps = matches!(
        rules.inner.routing,
        TrainingRouting::FrozenKept | TrainingRouting::Fallback
    );
    match training.kept {
        Some(kept) if !keeps => {
            return Err(Failure::Input(anyhow!(
                "--kept {kept} needs --routing frozen-kept or fallback"
            )));
        }
        Some(0) => return Err(Failure::Input(anyhow!("--kept 0 keeps no experts"))),
        _ => {}
    }
    let option = match training.top_k {
        Some(_) => "--top-k",
        None => "--top-p",
    };
    rules.check().context(option).input()?;
    Ok(rules)
}

impl Plan {
    /// Decides everything and writes keys and configurations.
    pub(crate) fn make(arguments: &LocalnetArguments, given: &Given<'_>) -> Result<Self, Failure> {
        let ports = &given.ports;
        let mut plan = Self {
            chain: chain_config(arguments, given, ports[0]),
            chain_config_file: given.out.join("config/chain.toml"),
            actors: Vec::new(),
            groups: given.groups,
            out: given.out.to_path_buf(),
        };
        let owner = rehearsal_key(arguments.seed, "owner", 0);
        plan.chain.genesis.owner = owner.hotkey();
        let task = TaskConfig {
            name: "rehearsal".to_owned(),
            model: given.model.to_path_buf(),
            data: given.data.clone(),
            seed: arguments.seed,
            groups: given.groups,
            tickets: None,
            starts_in_blocks: STARTS_IN_BLOCKS,
            rules: rules(given.block_time, &arguments.training)?,
        };
        plan.add(("owner", Kind::Owner), &owner, Some(ports[1]), |config| {
            config.task = Some(task)
        })?;
        for number in 0..arguments.validators {
            let key = rehearsal_key(arguments.seed, "validator", u64::from(number));
            let port = ports[2 + usize::from(number)];
            plan.add(
                (&format!("validator-{number}"), Kind::Validator),
                &key,
                Some(port),
                |_| {},
            )?;
        }
        plan.add_miners(arguments)?;
        write_config(&plan.chain_config_file, &plan.chain)?;
        Ok(plan)
    }

    /// Miner `i` trains group `i mod groups`. Of four or more, the last does damage and the one
    /// before it copies the first miner of its own group.
    fn add_miners(&mut self, arguments: &LocalnetArguments) -> Result<(), Failure> {
        let count = arguments.miners;
        let mut hotkeys: Vec<Hotkey> = Vec::new();
        for number in 0..count {
            let group = number % self.groups;
            let key = miner_key(arguments.seed, number, (group, self.groups));
            let victim = hotkeys.get(usize::from(group)).copied();
            let conduct = match (count, victim) {
                (4.., Some(_)) if number + 2 == count => MinerConduct::Copying,
                (4.., _) if number + 1 == count => MinerConduct::Damaging,
                _ => MinerConduct::Honest,
            };
            hotkeys.push(key.hotkey());
            self.add(
                (&format!("miner-{number}"), Kind::Miner),
                &key,
                None,
                |config| {
                    config.conduct = conduct;
                    config.trainer = arguments.training.trainer.method();
                    config.victim = victim.filter(|_| conduct == MinerConduct::Copying);
                },
            )?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        (name, kind): (&str, Kind),
        key: &Keypair,
        port: Option<u16>,
        adjust: impl FnOnce(&mut RoleConfig),
    ) -> Result<(), Failure> {
        let key_file = self.out.join("keys").join(format!("{name}.json"));
        keys::write(&key_file, key).environment()?;
        let mut config = RoleConfig {
            chain: Addresses::One(format!("http://{}", self.chain.listen)),
            netuid: Some(self.chain.genesis.netuid),
            genesis: None,
            hotkey: key_file,
            folder: self.out.join("roles").join(name),
            journal: self.out.join("journal").join(format!("{name}.journal")),
            listen: port.map(loopback),
            announce: None,
            threads: 1,
            stop_with_input: self.chain.stop_with_input,
            conduct: MinerConduct::Honest,
            trainer: Method::default(),
            victim: None,
            task: None,
            next: None,
        };
        adjust(&mut config);
        let config_file = self.out.join("config").join(format!("{name}.toml"));
        write_config(&config_file, &config)?;
        self.chain.genesis.neurons.push(GenesisNeuron {
            hotkey: key.hotkey(),
            coldkey: None,
            stake_rao: if kind == Kind::Validator {
                STAKE_RAO
            } else {
                0
            },
            validator_permit: kind == Kind::Validator,
        });
        self.actors.push(Actor {
            name: name.to_owned(),
            kind,
            hotkey: key.hotkey(),
            conduct: config.conduct,
            config,
            config_file,
        });
        Ok(())
    }
}

fn chain_config(arguments: &LocalnetArguments, given: &Given<'_>, port: u16) -> ChainConfig {
    let mut genesis = GenesisSpec::new(NETUID, Hotkey([0; 32]));
    genesis.block_time_ms = u64::try_from(given.block_time.as_millis()).unwrap_or(u64::MAX);
    genesis.genesis_time_ms = GENESIS_TIME_MS;
    ChainConfig {
        folder: given.out.join("chain"),
        listen: loopback(port),
        stop_with_input: arguments.processes,
        genesis,
    }
}

/// The first key of a miner's own series that is assigned to its group. Which group a hotkey trains
/// is no secret, and anyone may look for a hotkey that it likes.
fn miner_key(seed: u64, number: u16, (group, groups): (u16, u16)) -> Keypair {
    let tickets = vec![EVEN_TICKETS; usize::from(groups)];
    (0..)
        .map(|attempt| rehearsal_key(seed, "miner", u64::from(number) << 32 | attempt))
        .find(|key| assigned_group(key.hotkey(), &tickets) == Some(GroupId(group)))
        .expect("every group is assigned some hotkeys")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Consecutive ports from `first`, or any free ones. They are tried here so that a port in use is
/// found before anything is started.
pub(crate) fn ports(first: u16, count: u16) -> Result<Vec<u16>, Failure> {
    let mut held = Vec::new();
    for number in 0..count {
        let port = match first {
            0 => 0,
            _ => first.checked_add(number).ok_or_else(|| {
                Failure::Input(anyhow!("--port {first} leaves no room for {count} ports"))
            })?,
        };
        let listener = TcpListener::bind(loopback(port))
            .with_context(|| format!("port {port} on 127.0.0.1 cannot be used"))
            .environment()?;
        held.push(listener);
    }
    // All are held until all are found: otherwise one free port could be given out twice.
    held.iter()
        .map(|listener| Ok(listener.local_addr().environment()?.port()))
        .collect()
}

fn write_config(path: &Path, config: &impl serde::Serialize) -> Result<(), Failure> {
    let text = toml::to_string(config).environment()?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))
            .environment()?;
    }
    std::fs::write(path, text)
        .with_context(|| format!("cannot write {}", path.display()))
        .environment()
}
