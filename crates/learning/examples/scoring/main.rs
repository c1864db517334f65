//! The measured figures of scoring (P-22, P-24): `cargo run --release -p connito-learning --example scoring`.
//!
//! Real miners train a small model on the built-in text; what they send is copied in every way that
//! `copies.rs` knows of, and updates that are worth nothing are judged a hundred thousand times. Prints the
//! tables that the protocol's document shows. Nothing here depends on a clock; the same program prints the
//! same figures again.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an example prints, and fails by panicking"
)]

mod disguise;
mod likeness;
mod network;
mod nulls;

use network::Network;

/// Documents of each domain and steps of each miner: as usual; so few documents that all see the same ones
/// again and again; so many steps that what the text has in common outweighs its order.
const SETTINGS: [(u64, u32); 3] = [(2_000, 24), (80, 24), (2_000, 192)];

fn main() {
    for setting in SETTINGS {
        let (documents, steps) = setting;
        let mut network = Network::new(documents, steps);
        println!("\n{documents} documents of each domain, {steps} steps");
        let miners = network.honest_miners();
        likeness::of_honest_miners(&mut network, &miners);
        if setting == SETTINGS[0] {
            likeness::of_random_updates(&network);
            likeness::of_disguised_copies(&mut network, &miners);
            likeness::of_functions(&mut network, &miners[0]);
            nulls::judge(&mut network, &miners);
        }
    }
}
