//! The `connito` command: parse, wire things together, and end with a code that means something.
#![forbid(unsafe_code)]

mod affinity;
mod args;
mod assign;
mod audit;
mod base;
mod bench;
mod built_in;
mod cache;
mod chain;
mod chain_access;
mod coactivation;
mod compare;
mod config;
mod cores;
mod corpus;
mod exit;
mod grouping;
mod hotkeys;
mod inspect;
mod join;
mod localnet;
mod output;
mod partition;
mod password;
mod plan;
mod pretrain;
mod progress;
mod replay;
mod result_file;
mod roles;
mod routing_sample;
mod score;
mod select;
mod sim;
mod slice;
mod subnet;
mod tao;
mod text_file;
mod train;
mod wallet;
mod wrap;
mod xml;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command, RoleArguments};
use crate::config::RoleConfig;
use crate::exit::{Blame, Failure, finish};
use crate::roles::Kind;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_env("CONNITO_LOG").unwrap_or_else(|_| EnvFilter::new("warn")),
        )
        .init();
    finish(run(arguments.command))
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Localnet(arguments) => on_runtime(localnet::run(arguments)),
        Command::Chain(arguments) => on_runtime(chain::run(arguments)),
        Command::Owner(arguments) => on_runtime(participant(Kind::Owner, arguments)),
        Command::Validator(arguments) => on_runtime(participant(Kind::Validator, arguments)),
        Command::Miner(arguments) => on_runtime(participant(Kind::Miner, arguments)),
        Command::Subnet(command) => on_runtime(subnet::run(command)),
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Partition(arguments) => partition::run(&arguments),
        Command::Assign(arguments) => assign::run(&arguments),
        Command::Affinity(arguments) => affinity::run(&arguments),
        Command::Select(arguments) => select::run(&arguments),
        Command::Slice(arguments) => slice::run(&arguments),
        Command::Join(arguments) => join::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Audit(arguments) => on_runtime(audit::run(arguments)),
        Command::Wallet(command) => wallet::run(&command),
        Command::Inspect(command) => inspect::run(&command),
        Command::Bench(command) => bench::run(&command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "connito", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

fn on_runtime<F: Future<Output = Result<(), Failure>>>(work: F) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the asynchronous runtime cannot be started")
        .environment()?
        .block_on(work)
}

async fn participant(kind: Kind, arguments: RoleArguments) -> Result<(), Failure> {
    let config: RoleConfig = config::read(&arguments.config)?;
    let config = roles::located(Path::new(&arguments.config), config);
    let (stop, stopping) = watch::channel(false);
    let with_input = config.stop_with_input;
    until_told(roles::participant(kind, config, stopping), stop, with_input).await
}

/// Runs a role until it ends, an interrupt comes, or, if wanted, standard input closes. The role
/// finishes what it is doing in every case.
async fn until_told(
    role: impl Future<Output = Result<(), Failure>>,
    stop: watch::Sender<bool>,
    with_input: bool,
) -> Result<(), Failure> {
    tokio::pin!(role);
    let interrupted = tokio::select! {
        ended = &mut role => return ended,
        _ = tokio::signal::ctrl_c() => true,
        () = input_closes(), if with_input => false,
    };
    // An error means that the role has ended already.
    let _ = stop.send(true);
    role.await?;
    if interrupted {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}

/// Completes when standard input ends: the parent has closed it, or is gone.
async fn input_closes() {
    let (closed, notice) = tokio::sync::oneshot::channel();
    // A thread of its own, for a read of standard input cannot be cancelled.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = closed.send(());
    });
    let _ = notice.await;
}
