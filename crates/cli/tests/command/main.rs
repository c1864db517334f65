//! The command's surface: what it says about itself and about input that it cannot use, and what it
//! computes of a model.
//!
//! Runs the real binary. Nothing here starts a network.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod bad_input;
mod bench;
mod chain;
mod compare;
mod help;
mod inspect;
mod partition;
mod plan;
mod score;
mod select;
mod sim;
mod slice;
mod train;
mod wallet;

use std::ffi::OsStr;
use std::process::Command;

/// The command as it behaves in a pipe that is 100 columns wide.
fn connito(arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connito"));
    command
        .args(arguments)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("CONNITO_LOG")
        .env_remove("BT_WALLET_PATH");
    command
}
