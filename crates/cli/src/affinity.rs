//! `connito affinity`.

use anyhow::anyhow;

use crate::args::select::AffinityArguments;
use crate::exit::Failure;

/// Runs the command.
pub(crate) fn run(_arguments: &AffinityArguments) -> Result<(), Failure> {
    Err(Failure::Environment(anyhow!("not there yet")))
}
