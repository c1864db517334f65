//! `connito train`.

use anyhow::anyhow;

use crate::args::train::TrainArguments;
use crate::exit::Failure;

/// Runs the command.
pub(crate) fn run(_arguments: &TrainArguments) -> Result<(), Failure> {
    Err(Failure::Environment(anyhow!("not there yet")))
}
