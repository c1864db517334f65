//! DES-MoE against ESFT on two token languages (`task.rs`): held-out losses over seeds, methods and learning
//! rates, as a table of means, with the number of seeds in which DES-MoE is better at the same rate.
//!
//! ```text
//! cargo run --release -p connito-engine --example des_moe [seeds]
//! ```

mod task;

use std::process::ExitCode;

use connito_engine::EngineError;
use task::{Losses, Method, STEPS, Task};

const RATES: [f32; 3] = [1e-3, 3e-3, 1e-2];

/// Words that the languages share, of 30 each.
const SHARED: [u32; 2] = [10, 30];

const METHODS: [(&str, Method); 4] = [
    ("DES-MoE", Method::DesMoe(0.6)),
    ("DES-MoE, no masks", Method::DesMoe(0.0)),
    ("ESFT masked", Method::Masked),
    ("ESFT classic", Method::Classic),
];

fn main() -> ExitCode {
    let seeds = std::env::args().nth(1).map_or(Ok(3), |count| count.parse());
    let Ok(seeds) = seeds else {
        eprintln!("des_moe: the number of seeds is no number");
        return ExitCode::FAILURE;
    };
    if let Err(error) = table(seeds) {
        eprintln!("des_moe: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[allow(clippy::print_stdout, reason = "the table is what the example is for")]
fn table(seeds: u64) -> Result<(), EngineError> {
    println!("{STEPS} steps, {seeds} seeds; held-out loss of the known and of the new language");
    for shared in SHARED {
        let tasks = (1..=seeds).map(|seed| Task::new(seed, shared));
        let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
        let before = tasks
            .iter()
            .map(Task::before)
            .collect::<Result<Vec<_>, _>>()?;
        println!(
            "{shared} words shared         before              {}",
            mean(&before)
        );
        for rate in RATES {
            let after = |method| tasks.iter().map(move |task| task.after(method, rate));
            let ours = after(METHODS[0].1).collect::<Result<Vec<_>, _>>()?;
            for (name, method) in METHODS {
                let theirs = after(method).collect::<Result<Vec<_>, _>>()?;
                let pairs = || ours.iter().zip(&theirs);
                let known = pairs().filter(|(ours, theirs)| ours.known < theirs.known);
                let new = pairs().filter(|(ours, theirs)| ours.new < theirs.new);
                println!(
                    "{shared} words shared  {rate:<5}  {name:<18}  {}   {} {}",
                    mean(&theirs),
                    known.count(),
                    new.count()
                );
            }
        }
    }
    Ok(())
}

fn mean(losses: &[Losses]) -> String {
    let count = losses.len() as f64;
    let known: f64 = losses.iter().map(|losses| losses.known).sum();
    let new: f64 = losses.iter().map(|losses| losses.new).sum();
    format!("{:.4} {:.4}", known / count, new / count)
}
