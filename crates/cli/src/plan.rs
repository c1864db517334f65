//! `connito plan`.

use anyhow::anyhow;

use crate::args::plan::PlanArguments;
use crate::exit::Failure;

/// Runs the command.
pub(crate) fn run(_arguments: &PlanArguments) -> Result<(), Failure> {
    Err(Failure::Environment(anyhow!("not there yet")))
}
