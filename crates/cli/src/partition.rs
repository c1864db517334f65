//! `connito partition`.

use anyhow::anyhow;

use crate::args::partition::PartitionArguments;
use crate::exit::Failure;

/// Runs the command.
pub(crate) fn run(_arguments: &PartitionArguments) -> Result<(), Failure> {
    Err(Failure::Environment(anyhow!("not there yet")))
}
