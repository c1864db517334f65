//! How a command ends: one table for all of them.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done, and every invariant held |
//! | 1 | an invariant, audit or check failed |
//! | 2 | bad usage or input |
//! | 3 | a needed peer, port or other part of the environment is unavailable |
//! | 130 | interrupted |
//!
//! The last line on standard error is one sentence that names the thing at fault.

use std::fmt;
use std::process::ExitCode;

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something was checked and does not hold.
    Check(anyhow::Error),
    /// The user gave something that cannot be used.
    Input(anyhow::Error),
    /// The machine or the network does not provide something.
    Environment(anyhow::Error),
    /// The user stopped the command.
    Interrupted,
}

impl Failure {
    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Check(_) => 1,
            Self::Input(_) => 2,
            Self::Environment(_) => 3,
            Self::Interrupted => 130,
        }
    }
}

impl fmt::Display for Failure {
    /// The error with its causes, joined into one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(error) | Self::Input(error) | Self::Environment(error) => {
                write!(f, "{error:#}")
            }
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Says whose fault an error is.
pub(crate) trait Blame<T> {
    /// The input's.
    fn input(self) -> Result<T, Failure>;
    /// The environment's.
    fn environment(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for Result<T, E> {
    fn input(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Input(error.into()))
    }

    fn environment(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Environment(error.into()))
    }
}

/// Tells the user and turns the result into the process's exit code.
pub(crate) fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("connito: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
