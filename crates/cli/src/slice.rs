//! `connito slice`.

use anyhow::anyhow;

use crate::args::slice::SliceArguments;
use crate::exit::Failure;

/// Runs the command.
pub(crate) fn run(_arguments: &SliceArguments) -> Result<(), Failure> {
    Err(Failure::Environment(anyhow!("not there yet")))
}
