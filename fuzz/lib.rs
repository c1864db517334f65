//! What the targets share: what is expected of updates, and a network whose histories are disturbed.

pub mod history;
pub mod network;
pub mod update;
