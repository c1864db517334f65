//! The place of the simulator: a discrete-event network of the real role machines.
//!
//! It will run owner, validators and miners of `connito-protocol` on the toy learner of
//! `connito-learning`, in one thread and without a clock: a queue of events ordered by block and
//! seed, links that delay, lose and repeat, adversaries that are policies of the real machines, and
//! named invariants after every event. The cluster test of `connito-learning` is its seed. Until
//! then this crate holds nothing but its place in the direction of dependencies.
#![forbid(unsafe_code)]

pub mod comparison;
