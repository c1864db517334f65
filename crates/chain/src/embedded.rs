//! The embedded chain: a Substrate node in miniature, for one machine and for tests.

#![expect(dead_code, reason = "the execution loop is on its way")]

mod call;
mod event;
mod genesis;
mod pallets;
mod storage;

pub use genesis::{GenesisError, GenesisNeuron, GenesisSpec};
