//! Two token languages, a model that knows one of them, and three ways to teach it the other.
//!
//! Each language is a chain over 30 words: a word's successors are drawn from a table of the language's own.
//! The first token of a sequence names the language. The two share some of their words or all of them. The
//! base model is pretrained on seven sequences of A for one of B, then one expert group is fine-tuned on
//! seven of B for one of A. Every way sees the same batches, the same number of steps and the same experts,
//! so that what differs is how gradients and routes are formed. What is judged is the held-out loss under
//! the model's own routing. The entropy of both languages, below which no loss can fall, is 0.898 nats.

use connito_engine::config::MixtureConfig;
use connito_engine::data::TokenDocuments;
use connito_engine::data::random::Random;
use connito_engine::pretrain::{PretrainPlan, pretrain};
use connito_engine::routing::ExpertMap;
use connito_engine::trainer::des_moe::{DesMoe, DomainBatch, Settings};
use connito_engine::{
    AdamW, EngineError, MemoryPlan, Model, ModelConfig, Routing, TrainableSet, Trainer,
};

/// Words of a language.
const WORDS: u32 = 30;

/// The token that names A; the next one names B.
const FIRST_NAME: u32 = 2 * WORDS;

/// Sequences of A and of B that the base model is pretrained on.
const PRETRAINING: [u64; 2] = [1400, 200];

/// Sequences of A and of B in a step of fine-tuning.
const BATCH: [usize; 2] = [1, 7];

/// Tokens of a sequence.
const LENGTH: usize = 33;

/// Sequences of each language on which losses are measured.
const HELD_OUT: u64 = 64;

/// Steps of fine-tuning.
pub(crate) const STEPS: u64 = 100;

/// How experts are fine-tuned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Method {
    /// Gradients of all domains alike, natural routing.
    Classic,
    /// The same with routing restricted to the trained experts.
    Masked,
    /// Domain by domain, with corrected routers; the threshold of its masks.
    DesMoe(f64),
}

/// Held-out losses in nats per token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Losses {
    /// Of the language that the base model knows.
    pub(crate) known: f64,
    /// Of the one that it should learn.
    pub(crate) new: f64,
}

/// A base model and the two languages, all from one seed.
#[derive(Debug)]
pub(crate) struct Task {
    base: Vec<(String, Vec<f32>)>,
    config: ModelConfig,
    training: [TokenDocuments; 2],
    held_out: [TokenDocuments; 2],
    seed: u64,
}

impl Task {
    /// Pretrains a base model on languages that have `shared` words in common.
    pub(crate) fn new(seed: u64, shared: u32) -> Result<Self, EngineError> {
        let tiny = ModelConfig::tiny(FIRST_NAME as usize + 2);
        let config = ModelConfig {
            hidden_size: 32,
            num_hidden_layers: 3,
            intermediate_size: 48,
            mixture: MixtureConfig {
                width: 24,
                shared_width: 24,
                ..tiny.mixture
            },
            ..tiny
        };
        let mut model = Model::random(&config, seed);
        let [known, new] = [0, 1].map(|index| Language::new(seed, index, shared));
        let mut mixture = known.sequences("pretraining", PRETRAINING[0])?;
        mixture.append(&new.sequences("pretraining", PRETRAINING[1])?);
        let plan = PretrainPlan {
            steps: 250,
            batch_sequences: 8,
            seed,
            ..PretrainPlan::default()
        };
        pretrain(&mut model, &mixture, &plan, &mut |_| {})?;
        let base = model.names().filter_map(|name| {
            let tensor = model.tensor(name)?;
            Some((name.to_owned(), tensor.values))
        });
        Ok(Self {
            base: base.collect(),
            training: [
                known.sequences("training", 400)?,
                new.sequences("training", 400)?,
            ],
            held_out: [
                known.sequences("held out", HELD_OUT)?,
                new.sequences("held out", HELD_OUT)?,
            ],
            config,
            seed,
        })
    }

    /// The base model's losses.
    pub(crate) fn before(&self) -> Result<Losses, EngineError> {
        self.losses(&self.model()?)
    }

    /// Losses after fine-tuning four of eight experts of each layer.
    pub(crate) fn after(&self, method: Method, learning_rate: f32) -> Result<Losses, EngineError> {
        let mut model = self.model()?;
        let experts: ExpertMap = self
            .config
            .moe_layers()
            .map(|layer| (layer, vec![0, 1, 2, 3]))
            .collect();
        let (adamw, plan) = (AdamW::default(), MemoryPlan::default());
        let batches = (0..STEPS).map(|step| self.batch(step));
        if let Method::DesMoe(threshold) = method {
            let settings = Settings {
                threshold,
                refresh_steps: 10,
                seed: self.seed,
                ..Settings::new(STEPS)
            };
            let mut trainer =
                DesMoe::new(&model, experts, &Routing::Classic, settings, (adamw, plan))?;
            for [known, new] in batches {
                let batches = [(0, &known), (1, &new)]
                    .map(|(domain, sequences)| DomainBatch { domain, sequences });
                trainer.step(&mut model, &batches, learning_rate)?;
            }
        } else {
            let routing = match method {
                Method::Masked => Routing::Masked {
                    experts: experts.clone(),
                },
                Method::Classic | Method::DesMoe(_) => Routing::Classic,
            };
            let set = TrainableSet::experts(experts);
            let mut trainer = Trainer::new(&model, set, &routing, adamw, plan)?;
            for batch in batches {
                trainer.step(&mut model, &batch.concat(), learning_rate)?;
            }
        }
        self.losses(&model)
    }

    /// Sequences of A and of B.
    fn batch(&self, step: u64) -> [Vec<&[u32]>; 2] {
        let mut index = 0;
        BATCH.map(|count| {
            let mut random = Random::named("fine-tuning batch", self.seed, 2 * step + index);
            let documents = &self.training[index as usize];
            index += 1;
            let drawn = (0..count).map(|_| random.index(documents.len()));
            documents.select(&drawn.collect::<Vec<_>>())
        })
    }

    fn model(&self) -> Result<Model, EngineError> {
        let mut model = Model::random(&self.config, self.seed);
        for (name, values) in &self.base {
            model.set_tensor(name, values)?;
        }
        Ok(model)
    }

    fn losses(&self, model: &Model) -> Result<Losses, EngineError> {
        let mean = |documents: &TokenDocuments| {
            let sequences: Vec<&[u32]> = documents.iter().collect();
            let losses = model.sequence_losses(&sequences, &Routing::Classic)?;
            let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
            Ok::<_, EngineError>(losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64)
        };
        Ok(Losses {
            known: mean(&self.held_out[0])?,
            new: mean(&self.held_out[1])?,
        })
    }
}

/// A chain of words.
#[derive(Debug)]
struct Language {
    seed: u64,
    /// The token that names it.
    name: u32,
    first_word: u32,
    /// Of every word, the likeliest first.
    successors: Vec<[u32; 3]>,
}

impl Language {
    /// A or B.
    fn new(seed: u64, index: u32, shared: u32) -> Self {
        let mut random = Random::named("successors", seed, index.into());
        let mut word = || random.below(WORDS.into()) as u32;
        Self {
            seed,
            name: FIRST_NAME + index,
            first_word: index * (WORDS - shared),
            successors: (0..WORDS).map(|_| [word(), word(), word()]).collect(),
        }
    }

    /// Sequences that begin with the language's name and a random word. Six of ten successors are a word's
    /// first, three its second.
    fn sequences(&self, part: &str, count: u64) -> Result<TokenDocuments, EngineError> {
        let sequence = |index| {
            let label = format!("{part} {}", self.name);
            let mut random = Random::named(&label, self.seed, index);
            let mut word = random.below(WORDS.into()) as u32;
            let mut sequence = vec![self.name, self.first_word + word];
            while sequence.len() < LENGTH {
                let rank = match random.below(10) {
                    0..6 => 0,
                    6..9 => 1,
                    _ => 2,
                };
                word = self.successors[word as usize][rank];
                sequence.push(self.first_word + word);
            }
            sequence
        };
        let sequences = (0..count).map(sequence);
        TokenDocuments::from_sequences(sequences).map_err(|_| EngineError::NoSequences)
    }
}
