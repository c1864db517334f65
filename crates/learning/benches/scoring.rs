//! What a validator pays for an update: `cargo bench -p connito-learning`.
//!
//! A score job of eight updates of one group against one base, beside as many plain evaluations of the
//! same number of sequences. Packing an update's experts, reading it and comparing it with the others
//! should be lost beside its forward pass. The base's own losses are computed once in a job, so the job
//! is compared with eight evaluations after one has been taken off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use connito_engine::data::documents::TokenDocuments;
use connito_engine::device::Cpu;
use connito_engine::{Model, ModelConfig, Routing};
use connito_learning::learner::{Conduct, Learner};
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::task::{DomainText, TaskPlan, publish, read_task, split};
use connito_learning::{EngineBackend, StateLearner, wire};
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Hotkey, Netuid, Seed, StateId};
use connito_protocol::job::{Candidate, Finding, Job, Outcome, ScoreJob};
use connito_protocol::rules::Rules;
use divan::Bencher;

const UPDATES: u8 = 8;
const LENGTH: u32 = 128;
const THREADS: usize = 2;

fn main() {
    // Cargo says so; a test that only builds and starts this should not measure.
    if std::env::args().any(|argument| argument == "--bench") {
        tell_ratio();
    }
    divan::main();
}

#[divan::bench(sample_count = 10)]
fn score_eight_updates(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new();
    bencher.bench_local(|| bench.score(UPDATES));
}

#[divan::bench(sample_count = 10)]
fn evaluate_eight_times(bencher: Bencher<'_, '_>) {
    let bench = Bench::new();
    bencher.bench_local(|| bench.evaluate(UPDATES));
}

/// The quotient of both, from runs that alternate: what else the machine does falls on both alike.
#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn tell_ratio() {
    const ROUNDS: usize = 7;
    let mut bench = Bench::new();
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let forward = seconds(|| bench.evaluate(UPDATES));
            let job = seconds(|| bench.score(UPDATES));
            job / forward - 1.0 / f64::from(UPDATES)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "scoring {UPDATES} updates takes {:.3} x {UPDATES} evaluations, and one of the base",
        ratios[ROUNDS / 2]
    );
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

/// A task with two groups, eight updates of the first, and a learner that has loaded the base.
struct Bench {
    learner: StateLearner<Arc<MemoryStore>, EngineBackend>,
    at: (BlobId, StateId),
    updates: Vec<BlobId>,
    model: Model,
    sequences: Vec<Vec<u32>>,
}

impl Bench {
    fn new() -> Self {
        let config = config();
        let model = Model::random(&config, 1);
        let store = Arc::new(MemoryStore::default());
        let rules = Rules::for_fast_blocks();
        // A pool has as many sequences as a job draws from all of them together.
        let each = rules.scoring.sequences;
        let domain = |name: &str, group: u16| DomainText {
            name: name.to_owned(),
            group: GroupId(group),
            training: documents(each),
            scoring: documents(each),
            gate: documents(each),
        };
        let plan = TaskPlan {
            name: "scoring".to_owned(),
            netuid: Netuid(1),
            starts: Block(1),
            rules: rules.clone(),
            model: &model,
            tokenizer: b"{}",
            groups: 2,
            domains: vec![domain("first", 0), domain("second", 1)],
        };
        let task = publish(&plan, &*store).expect("a sound plan");
        let manifest = read_task(task, &*store).expect("just written");
        let updates = (1..=u64::from(UPDATES)).map(|seed| {
            let mut update = split(&Model::random(&config, 1 + seed), &manifest.groups[0]);
            let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
            values.for_each(|value| *value *= 1e-3);
            let bytes = wire::encode(&update, rules.inner.codec);
            store.write(&bytes).expect("memory")
        });
        let updates = updates.collect();
        let backend = EngineBackend::new(THREADS);
        let mut bench = Self {
            learner: StateLearner::new(store, backend, Conduct::Honest),
            at: (task, manifest.first_state),
            updates,
            model: model.on(Cpu::new(THREADS).expect("two threads")),
            sequences: documents(each).iter().map(<[u32]>::to_vec).collect(),
        };
        bench.score(1);
        bench
    }

    /// One job; every update has to be measured.
    fn score(&mut self, updates: u8) {
        let candidate = |(number, update): (u8, &BlobId)| Candidate {
            hotkey: Hotkey([number; 32]),
            group: GroupId(0),
            update: *update,
        };
        let candidates = (0..updates).zip(&self.updates).map(candidate);
        let job = Job::Score(ScoreJob {
            cycle: Cycle(0),
            task: self.at.0,
            state: self.at.1,
            seed: Seed([2; 32]),
            updates: candidates.collect(),
            remembered: Vec::new(),
            stop_at: Block(9),
        });
        let outcome = self.learner.run(&job, &|| Block(1));
        let measured = |finding: &Finding| matches!(finding, Finding::Measured { .. });
        let sound = match &outcome {
            Outcome::Scored { findings, .. } => findings.iter().all(measured),
            _ => false,
        };
        assert!(sound, "{outcome:?}");
    }

    /// The same number of sequences, as often, without any learner.
    fn evaluate(&self, times: u8) {
        let sequences: Vec<&[u32]> = self.sequences.iter().map(Vec::as_slice).collect();
        for _ in 0..times {
            // A job evaluates domain by domain.
            for domain in sequences.chunks(sequences.len() / 2) {
                let losses = self.model.sequence_losses(domain, &Routing::Classic);
                divan::black_box(losses.expect("the sequences fit the model"));
            }
        }
    }
}

fn config() -> ModelConfig {
    let mut config = ModelConfig {
        hidden_size: 256,
        intermediate_size: 512,
        ..ModelConfig::tiny(1024)
    };
    config.mixture.experts = 16;
    config.mixture.width = 128;
    config.mixture.shared_width = 128;
    config
}

fn documents(count: u32) -> TokenDocuments {
    let sequence = |start: u32| {
        (0..LENGTH)
            .map(|position| (position * 31 + start * 77) % 1024)
            .collect::<Vec<u32>>()
    };
    TokenDocuments::from_sequences((0..count).map(sequence)).expect("long enough")
}
