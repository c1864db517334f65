//! Real miners on the built-in text: a base model, a task, honest updates, and what updates do to losses.
//!
//! The base is made as `connito localnet` makes its own; rules are the default ones.

use std::sync::Arc;

use connito_engine::data::builtin::BuiltinDomain;
use connito_engine::data::{Pieces, Pool, Pools, TokenDocuments};
use connito_engine::device::Cpu;
use connito_engine::pretrain::{PretrainPlan, pretrain};
use connito_engine::tokenizer::Tokenizer;
use connito_engine::{Model, ModelConfig};
use connito_learning::backend::{Backend, FixedParts};
use connito_learning::learner::{Conduct, Learner};
use connito_learning::scorer::{Evaluation, Measured, draw, pool_shares};
use connito_learning::shard::Shard;
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::task::{DomainText, TaskPlan, publish, read_task, split};
use connito_learning::{EngineBackend, StateLearner, update};
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Netuid, Seed};
use connito_protocol::job::{Job, Outcome, TrainJob};
use connito_protocol::manifest::TaskManifest;
use connito_protocol::rules::Rules;

/// Threads for everything.
const THREADS: usize = 2;

/// The group whose miners are looked at.
const GROUP: GroupId = GroupId(0);

/// Honest miners of it.
const MINERS: u8 = 8;

/// A task, the shard that is trained, and a model to measure with.
pub(crate) struct Network {
    pub(crate) manifest: TaskManifest,
    pub(crate) base: Shard,
    pub(crate) backend: EngineBackend,
    store: Arc<MemoryStore>,
    task: BlobId,
}

impl Network {
    /// Two groups: arithmetic and prose are the first one's, code is the other's.
    pub(crate) fn new(documents: u64, steps: u32) -> Self {
        let domains = BuiltinDomain::ALL;
        let pools = |documents| {
            move |domain: &BuiltinDomain| Pools::split(domain.generate(documents, 1)).unwrap()
        };
        let (model, tokenizer) = base(&domains.each_ref().map(pools(2_000)));
        let domains = domains.each_ref().map(pools(documents));
        let tokens = |pools: &Pools, pool| tokens(&tokenizer, pools, pool);
        let texts = domains
            .iter()
            .zip([0, 1, 0])
            .map(|(pools, group)| DomainText {
                name: pools.domain.clone(),
                group: GroupId(group),
                training: tokens(pools, Pool::Training),
                scoring: tokens(pools, Pool::Scoring),
                gate: tokens(pools, Pool::Gate),
            });
        let plan = TaskPlan {
            name: "scoring".to_owned(),
            netuid: Netuid(1),
            starts: Block(1),
            rules: rules_with(steps),
            model: &model,
            tokenizer: b"{}",
            groups: 2,
            tickets: None,
            domains: texts.collect(),
        };
        let store = Arc::new(MemoryStore::default());
        let task = publish(&plan, &*store).unwrap();
        let manifest = read_task(task, &*store).unwrap();
        let mut backend = EngineBackend::new(THREADS);
        let parts = FixedParts {
            config: &store.read(manifest.model.config).unwrap(),
            backbone: &store.read(manifest.model.backbone).unwrap(),
            sequence_length: manifest.rules.scoring.sequence_length as usize,
        };
        backend.open(&parts).unwrap();
        for mapping in &manifest.groups {
            backend.install(&split(&model, mapping)).unwrap();
        }
        let base = split(&model, &manifest.groups[0]);
        Self {
            manifest,
            base,
            backend,
            store,
            task,
        }
    }

    /// What honest miners send, as it reads on the wire.
    pub(crate) fn honest_miners(&self) -> Vec<Shard> {
        let backend = EngineBackend::new(THREADS);
        let mut learner = StateLearner::new(self.store.clone(), backend, Conduct::Honest);
        let train = |miner| {
            let job = Job::Train(TrainJob {
                cycle: Cycle(0),
                task: self.task,
                state: self.manifest.first_state.expect("the first task has one"),
                group: GROUP,
                seed: Seed([miner; 32]),
                stop_at: Block(9),
                residual: None,
            });
            let Outcome::Trained(trained) = learner.run(&job, &|| Block(1)) else {
                panic!("miner {miner} did not train");
            };
            let bytes = self.store.read(trained.update).unwrap();
            update::read(&bytes, &self.base.layout()).unwrap()
        };
        (1..=MINERS).map(train).collect()
    }

    /// The sequences of one scoring draw, of this many in all, under the base.
    pub(crate) fn evaluation(&mut self, sequences: u32) -> Evaluation {
        self.backend.install(&self.base).unwrap();
        let amount = (self.manifest.rules.own_share, sequences);
        let seed = Seed([2; 32]);
        let shares = pool_shares(&self.manifest.domains, GROUP, amount);
        let draw = |share: &(BlobId, usize)| {
            let pool = self.store.read(share.0).unwrap();
            draw(&self.backend.read_documents(&pool).unwrap(), *share, &seed)
        };
        let drawn = shares.iter().map(draw).collect();
        Evaluation::of_base(&mut self.backend, drawn).unwrap()
    }

    /// What an update does to the losses.
    pub(crate) fn measure(&mut self, evaluation: &Evaluation, update: &Shard) -> Measured {
        let measured = evaluation.measure(&mut self.backend, (&self.base, update));
        measured.unwrap().unwrap()
    }
}

fn rules_with(steps: u32) -> Rules {
    let mut rules = Rules::default();
    rules.inner.steps = steps;
    rules
}

/// As `connito localnet` makes it.
fn base(domains: &[Pools; 3]) -> (Model, Tokenizer) {
    let training = domains
        .iter()
        .flat_map(|pools| pools.documents(Pool::Training));
    let sample = training.map(String::as_str).step_by(3);
    let tokenizer = Tokenizer::train(sample, 1024).unwrap();
    let mut mixture = TokenDocuments::default();
    for pools in domains {
        mixture.append(&tokens(&tokenizer, pools, Pool::Training));
    }
    let config = ModelConfig::tiny(tokenizer.vocabulary());
    let mut model = Model::random(&config, 1).on(Cpu::new(THREADS).unwrap());
    pretrain(&mut model, &mixture, &PretrainPlan::default(), &mut |_| {}).unwrap();
    (model, tokenizer)
}

fn tokens(tokenizer: &Tokenizer, pools: &Pools, pool: Pool) -> TokenDocuments {
    let length = Rules::default().scoring.sequence_length as usize;
    TokenDocuments::tokenize(tokenizer, pools.documents(pool), length, Pieces::All).unwrap()
}
