//! Tokens per second and core of the local network's default model with a vocabulary of 1,024:
//! `cargo bench -p connito-engine`. Counters are input tokens.

use connito_engine::{AdamW, Model, ModelConfig, Routing, TrainableSet, Trainer};
use divan::Bencher;
use divan::counter::ItemsCount;

const VOCABULARY: usize = 1024;
const SEQUENCES: usize = 16;
const LENGTH: usize = 128;

fn main() {
    divan::main();
}

fn model() -> Model {
    Model::random(&ModelConfig::tiny(VOCABULARY), 1)
}

fn sequences() -> Vec<Vec<u32>> {
    (0..SEQUENCES as u32)
        .map(|sequence| {
            (0..LENGTH as u32)
                .map(|position| (position * 31 + sequence * 77) % 1024)
                .collect()
        })
        .collect()
}

/// Evaluation: losses of 2,048 tokens.
#[divan::bench(args = [1, 2])]
fn forward(bencher: Bencher<'_, '_>, threads: usize) {
    let (model, storage) = (model(), sequences());
    let sequences: Vec<&[u32]> = storage.iter().map(Vec::as_slice).collect();
    bencher
        .counter(ItemsCount::new(SEQUENCES * LENGTH))
        .bench_local(|| model.sequence_losses(&sequences, threads, &Routing::Classic));
}

/// Pretraining: one step on every parameter.
#[divan::bench(args = [1, 2])]
fn train_everything(bencher: Bencher<'_, '_>, threads: usize) {
    bench_steps(bencher, threads, TrainableSet::Everything);
}

/// Mining: one step on two of the eight experts of every MoE layer.
#[divan::bench(args = [1, 2])]
fn train_experts(bencher: Bencher<'_, '_>, threads: usize) {
    let experts = (1..4).map(|layer| (layer, vec![0, 1])).collect();
    bench_steps(bencher, threads, TrainableSet::Experts(experts));
}

fn bench_steps(bencher: Bencher<'_, '_>, threads: usize, trainable: TrainableSet) {
    let (mut model, storage) = (model(), sequences());
    let sequences: Vec<&[u32]> = storage.iter().map(Vec::as_slice).collect();
    let trainer = Trainer::new(
        &model,
        trainable,
        Routing::Classic,
        AdamW::default(),
        threads,
    );
    let mut trainer = trainer.expect("the set and the routing fit the tiny model");
    bencher
        .counter(ItemsCount::new(SEQUENCES * LENGTH))
        .bench_local(|| trainer.step(&mut model, &sequences, 1e-4));
}
