//! What a client knows of a runtime, against recordings of real ones.
//!
//! The metadata files are those of the main network's runtime at four versions, in the three formats
//! that nodes serve: 365 (format 16), 419 (14), 439 (15) and 461 (15). The vectors are the official
//! client's, which are the same at all of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod events;
mod hostile;
mod recorded;
mod shapes;
mod signing;
mod storage;

use connito_chain::runtime::{Runtime, RuntimeVersion, Value, bundled};
use connito_protocol::ids::Hotkey;

const ALICE: &str = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";
const BOB: &str = "8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48";

/// Every version there is metadata of.
const SPECS: [u32; 4] = [365, 419, 439, 461];

fn metadata(spec: u32) -> &'static [u8] {
    match spec {
        365 => include_bytes!("../metadata/subtensor-365.scale"),
        419 => include_bytes!("../metadata/subtensor-419.scale"),
        439 => include_bytes!("../metadata/subtensor-439.scale"),
        _ => bundled(),
    }
}

fn runtime(spec: u32) -> Runtime {
    let transaction = 1;
    let version = RuntimeVersion { spec, transaction };
    Runtime::from_metadata(metadata(spec), version).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn account(hex: &str) -> Hotkey {
    Hotkey(bytes(hex).try_into().unwrap())
}

fn numbers(numbers: &[u16]) -> Value {
    Value::list(numbers.iter().copied())
}
