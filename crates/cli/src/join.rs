//! `connito join`.

use anyhow::anyhow;

use crate::args::slice::JoinArguments;
use crate::exit::Failure;

/// Runs the command.
pub(crate) fn run(_arguments: &JoinArguments) -> Result<(), Failure> {
    Err(Failure::Environment(anyhow!("not there yet")))
}
