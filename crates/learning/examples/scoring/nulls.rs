//! Updates that are worth nothing, judged a hundred thousand times (P-22, A-12, A-68).
//!
//! Differences of losses are real: those of tiny random updates on many sequences, with the mean of all
//! taken off, so that on average nothing is gained. Judged are draws from them.

use connito_engine::data::random::Random;
use connito_learning::shard::Shard;
use connito_protocol::scoring::{SequenceLoss, utility};

use crate::disguise::{mixture, unrelated};
use crate::network::Network;

/// Random updates whose differences are drawn from.
const UPDATES: u64 = 40;

/// Sequences that they are measured on, or as many as there are.
const SEQUENCES: u32 = 4_000;

/// Updates that are judged.
const JUDGED: u32 = 100_000;

/// Length of a tiny update, in lengths of an honest one.
const TINY: f64 = 0.2;

/// Judges, and prints what would have been accepted and earned.
pub(crate) fn judge(network: &mut Network, miners: &[Shard]) {
    let evaluation = network.evaluation(SEQUENCES);
    let tokens = evaluation.tokens();
    println!(
        "  differences of {UPDATES} random updates on {} sequences of {tokens} tokens",
        evaluation.sequences()
    );
    let lengths = evaluation.lengths();
    let mut centred = Vec::new();
    for seed in 0..UPDATES {
        let tiny = mixture(&[(&unrelated(&miners[0], 1000 + seed), TINY)]);
        let measured = network.measure(&evaluation, &tiny);
        let gains = measured
            .changes
            .iter()
            .zip(&lengths)
            .map(|(change, n)| change * *n as f64);
        let mean = gains.sum::<f64>() / tokens as f64;
        centred.push(
            measured
                .changes
                .iter()
                .map(|change| change - mean)
                .collect::<Vec<f64>>(),
        );
    }
    println!("| S | z | accepted | harmful | mean weight, in SE |\n|--:|--:|--:|--:|--:|");
    for count in [8, 32, 128] {
        let drawn = drawn(&centred, &lengths, count);
        for z in [0.0, 0.5, 1.0, 2.0, 3.0] {
            let share = |judged: &dyn Fn(f64) -> f64| {
                drawn.iter().map(|t| judged(*t)).sum::<f64>() / f64::from(JUDGED)
            };
            let accepted = share(&|t| f64::from(u8::from(t > z)));
            let harmful = share(&|t| f64::from(u8::from(t < -z)));
            let weight = share(&|t| (t - z).max(0.0));
            println!(
                "| {count} | {z} | {:.2} % | {:.2} % | {weight:.4} |",
                accepted * 100.0,
                harmful * 100.0
            );
        }
    }
}

/// Utilities of null updates in their standard errors, each on sequences of its own.
fn drawn(centred: &[Vec<f64>], lengths: &[u64], count: usize) -> Vec<f64> {
    let mut random = Random::named("null updates", 1, count as u64);
    let mut judge = || {
        let changes = &centred[random.below(centred.len() as u64) as usize];
        let picks = (0..count).map(|_| random.below(lengths.len() as u64) as usize);
        let loss = |sum, tokens| SequenceLoss { sum, tokens };
        let pairs = picks.map(|pick| {
            let n = lengths[pick];
            (
                loss(3.0 * n as f64, n),
                loss((3.0 - changes[pick]) * n as f64, n),
            )
        });
        let (before, after): (Vec<_>, Vec<_>) = pairs.unzip();
        let measured = utility(&before, &after).unwrap();
        // Two equal differences have no spread; they are no evidence of anything either.
        if measured.standard_error > 0.0 {
            f64::from(measured.utility) / f64::from(measured.standard_error)
        } else {
            0.0
        }
    };
    (0..JUDGED).map(|_| judge()).collect()
}
