//! What a validator pays for an update: `cargo bench -p connito-learning`.
//!
//! Eight updates of one group are measured against one base, beside as many plain evaluations of the
//! same number of sequences: by the backend, which packs every update's experts and evaluates, and by a
//! learner's job, which also reads the updates and compares each with the ones before. Packing should be
//! lost beside the forward pass. The base's own losses are computed once in a job, so a job is compared
//! after one evaluation has been taken off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use connito_engine::data::documents::TokenDocuments;
use connito_engine::device::Cpu;
use connito_engine::{Model, ModelConfig, Routing};
use connito_learning::backend::{Backend, FixedParts};
use connito_learning::learner::{Conduct, Learner};
use connito_learning::shard::Shard;
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
        tell_ratios();
    }
    divan::main();
}

#[divan::bench(sample_count = 10)]
fn score_eight_updates(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new();
    bencher.bench_local(|| bench.score(UPDATES));
}

#[divan::bench(sample_count = 10)]
fn install_and_evaluate_eight_updates(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new();
    bencher.bench_local(|| bench.install_and_evaluate());
}

#[divan::bench(sample_count = 10)]
fn evaluate_eight_times(bencher: Bencher<'_, '_>) {
    let bench = Bench::new();
    bencher.bench_local(|| bench.evaluate(UPDATES));
}

/// The quotients of the three, from runs that alternate: what else the machine does falls on all alike.
#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn tell_ratios() {
    const ROUNDS: usize = 9;
    let mut bench = Bench::new();
    let (mut installed, mut jobs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let forward = seconds(|| bench.evaluate(UPDATES));
        installed.push(seconds(|| bench.install_and_evaluate()) / forward);
        jobs.push(seconds(|| bench.score(UPDATES)) / forward - 1.0 / f64::from(UPDATES));
    }
    println!(
        "{UPDATES} updates cost {:.3} x {UPDATES} evaluations to install and evaluate, \
         {:.3} x as a job, which evaluates the base once more",
        median(installed),
        median(jobs)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

/// A task with two groups, eight updates of the first, and a learner and a backend that hold the base.
struct Bench {
    learner: StateLearner<Arc<MemoryStore>, EngineBackend>,
    at: (BlobId, StateId),
    updates: Vec<BlobId>,
    backend: EngineBackend,
    base: Shard,
    decoded: Vec<Shard>,
    model: Model,
    sequences: Vec<Vec<u32>>,
}

fn domain(name: &str, group: u16, each: u32) -> DomainText {
    DomainText {
        name: name.to_owned(),
        group: GroupId(group),
        training: documents(each),
        scoring: documents(each),
        gate: documents(each),
    }
}

impl Bench {
    fn new() -> Self {
        let config = config();
        let model = Model::random(&config, 1);
        let store = Arc::new(MemoryStore::default());
        let rules = Rules::for_fast_blocks();
        // A pool has as many sequences as a job draws from all of them together.
        let each = rules.scoring.sequences;
        let plan = TaskPlan {
            name: "scoring".to_owned(),
            netuid: Netuid(1),
            starts: Block(1),
            rules: rules.clone(),
            model: &model,
            tokenizer: b"{}",
            groups: 2,
            tickets: None,
            domains: vec![domain("first", 0, each), domain("second", 1, each)],
        };
        let task = publish(&plan, &*store).expect("a sound plan");
        let manifest = read_task(task, &*store).expect("just written");
        let decoded: Vec<Shard> = (1..=u64::from(UPDATES))
            .map(|seed| {
                let mut update = split(&Model::random(&config, 1 + seed), &manifest.groups[0]);
                let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
                values.for_each(|value| *value *= 1e-3);
                update
            })
            .collect();
        let updates = decoded.iter().map(|update| {
            let bytes = wire::encode(update, rules.inner.codec);
            store.write(&bytes).expect("memory")
        });
        let updates = updates.collect();
        let mut backend = EngineBackend::new(THREADS);
        let parts = FixedParts {
            config: &store.read(manifest.model.config).expect("memory"),
            backbone: &store.read(manifest.model.backbone).expect("memory"),
            sequence_length: LENGTH as usize,
        };
        backend.open(&parts).expect("just published");
        for group in &manifest.groups {
            let shard = split(&model, group);
            backend.install(&shard).expect("a part of the model");
        }
        let mut bench = Self {
            learner: StateLearner::new(store, EngineBackend::new(THREADS), Conduct::Honest),
            at: (task, manifest.first_state.expect("a first task has one")),
            updates,
            backend,
            base: split(&model, &manifest.groups[0]),
            decoded,
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

    /// Every update in place of the one before, and its losses.
    fn install_and_evaluate(&mut self) {
        for update in &self.decoded {
            let installed = self.backend.install_sum(&self.base, update);
            installed.expect("an update of the group");
            for domain in by_domain(&self.sequences) {
                let losses = self.backend.losses(&domain);
                divan::black_box(losses.expect("the sequences fit the model"));
            }
        }
    }

    /// The same number of sequences, as often, of the same weights.
    fn evaluate(&self, times: u8) {
        for _ in 0..times {
            for domain in by_domain(&self.sequences) {
                let losses = self.model.sequence_losses(&domain, &Routing::Classic);
                divan::black_box(losses.expect("the sequences fit the model"));
            }
        }
    }
}

/// A job evaluates domain by domain.
fn by_domain(sequences: &[Vec<u32>]) -> impl Iterator<Item = Vec<&[u32]>> {
    let domains = sequences.chunks(sequences.len() / 2);
    domains.map(|domain| domain.iter().map(Vec::as_slice).collect())
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
