//! Standard output: results, and nothing else.

use std::io::{ErrorKind, Write};

use anyhow::Context;

use crate::exit::{Blame, Failure};

/// Prints a result and a line feed. A reader that has seen enough and closed the pipe is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error)
            .context("standard output cannot be written")
            .environment(),
        _ => Ok(()),
    }
}
