//! What the targets share: what is expected of updates, a network whose histories are disturbed, and a chain
//! to ask.

pub mod chain;
pub mod history;
pub mod network;
pub mod update;
