//! `connito select`.

use anyhow::anyhow;

use crate::args::select::SelectArguments;
use crate::exit::Failure;

/// Runs the command.
pub(crate) fn run(_arguments: &SelectArguments) -> Result<(), Failure> {
    Err(Failure::Environment(anyhow!("not there yet")))
}
