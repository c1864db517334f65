//! `connito chain`: runs the embedded chain, or does one thing to a chain that runs.

mod keys;
mod operations;
mod serve;

use crate::args::chain::{ChainArguments, ChainCommand};
use crate::exit::Failure;

/// Runs the command.
pub(crate) async fn run(arguments: ChainArguments) -> Result<(), Failure> {
    match arguments.command {
        None => serve::run(arguments.serve).await,
        Some(ChainCommand::Faucet(arguments)) => operations::faucet(&arguments).await,
        Some(ChainCommand::Register(arguments)) => operations::register(&arguments).await,
        Some(ChainCommand::Stake(arguments)) => operations::stake(&arguments).await,
        Some(ChainCommand::SetHyperparameter(arguments)) => operations::set(&arguments).await,
    }
}
