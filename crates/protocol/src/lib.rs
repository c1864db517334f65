//! The rules of the network, and the three roles that follow them, without I/O.
//!
//! A cycle is 45 blocks. Validators serve the canonical state; miners train the experts of their
//! group, seal a commitment on the chain, open it and upload; validators measure by how much each
//! update lowers the loss on held-out text, report, merge what helps, and vote on the next state.
//! `docs/PROTOCOL.md` numbers the rules (P-1 …) and this crate cites them.
//!
//! Reading order: [`ids`], [`rules`], [`schedule`]; then what is written down ([`announcement`],
//! [`report`], [`manifest`]); then what follows from it ([`submission`], [`committee`], [`scoring`],
//! [`consensus`], [`conduct`], [`review`], [`rewards`]); then the machines ([`machine`]) and their one vocabulary ([`event`]).
//!
//! Nothing here reads a clock, a file, a socket or a random number: a machine is a function of its
//! events, so a journal replayed gives the same effects byte for byte.
#![forbid(unsafe_code)]

pub mod announcement;
pub mod assignment;
pub mod audit;
mod budget;
pub mod committee;
pub mod conduct;
pub mod consensus;
mod copier;
pub mod event;
mod follow;
pub mod ids;
pub mod job;
mod library;
pub mod lineage;
pub mod lookup;
pub mod machine;
pub mod manifest;
mod memo;
mod merged;
mod miner;
mod outcome;
mod owner;
pub mod participants;
pub mod partition;
mod present;
pub mod reason;
pub mod receipt;
pub mod received;
pub mod report;
mod residual;
pub mod review;
pub mod rewards;
mod round;
pub mod rules;
pub mod schedule;
pub mod scoring;
pub mod seed;
pub mod snapshot;
pub mod submission;
mod validator;

pub use follow::Identity;
pub use validator::{Admission, Uploads};
