//! `connito assign`.

use anyhow::anyhow;

use crate::args::partition::AssignArguments;
use crate::exit::Failure;

/// Runs the command.
pub(crate) fn run(_arguments: &AssignArguments) -> Result<(), Failure> {
    Err(Failure::Environment(anyhow!("not there yet")))
}
