//! The model that a network starts from: somebody's folder, or a small one made here on first use.
//!
//! A made one is cached under a name that covers everything it depends on: text, tokenizer, shape,
//! training plan, seed and the version of this program. Making it again gives the same bytes.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_engine::device::Cpu;
use connito_engine::pretrain::{PretrainPlan, PretrainProgress, pretrain};
use connito_engine::tokenizer::Tokenizer;
use connito_engine::{Model, ModelConfig};

use crate::cache;
use crate::corpus::Corpus;
use crate::exit::{Blame, Failure};

/// Tokens of the small model's vocabulary.
const VOCABULARY: usize = 1024;

/// Bytes of text that the tokenizer learns from; more changes little and takes longer.
const TOKENIZER_BYTES: usize = 1_500_000;

/// Documents of each domain that the base model is pretrained on.
const PRETRAIN_DOCUMENTS: usize = 1_500;

/// A model with its tokenizer.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) model: Model,
    pub(crate) tokenizer: Tokenizer,
    /// The tokenizer as it was read.
    pub(crate) tokenizer_json: Vec<u8>,
}

/// What pretraining tells while it runs.
pub(crate) trait Progress {
    /// A stage begins, in a few words.
    fn stage(&mut self, what: &str);
    /// A step ended.
    fn step(&mut self, progress: PretrainProgress);
}

impl Base {
    /// Reads a Hugging Face folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, Failure> {
        let model = Model::load(folder).input()?;
        let (tokenizer, tokenizer_json) = tokenizer(folder, model.config())?;
        Ok(Self {
            model,
            tokenizer,
            tokenizer_json,
        })
    }

    /// The cached model for this text and seed; made first if it is not there.
    pub(crate) fn for_corpus(
        corpus: &Corpus,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<(Self, PathBuf), Failure> {
        let plan = PretrainPlan {
            seed,
            ..PretrainPlan::default()
        };
        let folder = cache::base_models()?.join(name(corpus, &plan));
        if folder.join("model.safetensors").is_file() {
            if let Ok(base) = Self::load(&folder) {
                return Ok((base, folder));
            }
            // A cache is allowed to be damaged; what is in it can be made again.
            progress.stage("the cached base model cannot be read and is made again");
        }
        let base = Self::make(corpus, &plan, progress)?;
        base.save(&folder)?;
        Ok((base, folder))
    }

    fn make(
        corpus: &Corpus,
        plan: &PretrainPlan,
        progress: &mut dyn Progress,
    ) -> Result<Self, Failure> {
        progress.stage("training a tokenizer");
        let mut budget = TOKENIZER_BYTES;
        let mut sample = Vec::new();
        // Every third document first, then the others: a long file should not be cut off half-way.
        let texts: Vec<&str> = corpus.training_texts().collect();
        for offset in 0..3 {
            for text in texts.iter().skip(offset).step_by(3) {
                if budget >= text.len() {
                    budget -= text.len();
                    sample.push(*text);
                }
            }
        }
        let tokenizer = Tokenizer::train(sample.into_iter(), VOCABULARY).input()?;
        progress.stage("pretraining the base model");
        let mixture = corpus
            .training_mixture(&tokenizer, (plan.sequence_length, PRETRAIN_DOCUMENTS))
            .input()?;
        let (bos_token_id, eos_token_id) = tokenizer.boundaries();
        let config = ModelConfig {
            bos_token_id,
            eos_token_id,
            ..ModelConfig::tiny(tokenizer.vocabulary())
        };
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(PRETRAIN_THREADS);
        let device = Cpu::new(threads).environment()?;
        let mut model = Model::random(&config, plan.seed).on(device);
        pretrain(&mut model, &mixture, plan, &mut |step| {
            progress.step(step);
        })
        .input()?;
        let tokenizer_json = tokenizer.to_bytes().input()?;
        Ok(Self {
            // As if it had been read from the cache.
            model: model.on(Cpu::single()),
            tokenizer,
            tokenizer_json,
        })
    }

    /// Writes config.json, model.safetensors and tokenizer.json, the weights last: a folder with
    /// weights is complete.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), Failure> {
        let refused = || format!("cannot write {}", folder.display());
        std::fs::create_dir_all(folder)
            .with_context(refused)
            .environment()?;
        std::fs::write(folder.join("tokenizer.json"), &self.tokenizer_json)
            .with_context(refused)
            .environment()?;
        self.model.save(folder).environment()
    }
}

/// The tokenizer of a Hugging Face folder, bounded by the tokens that its configuration names, and its file.
pub(crate) fn tokenizer(
    folder: &Path,
    config: &ModelConfig,
) -> Result<(Tokenizer, Vec<u8>), Failure> {
    let path = folder.join("tokenizer.json");
    let json = std::fs::read(&path)
        .with_context(|| format!("cannot read {}", path.display()))
        .input()?;
    let tokenizer = Tokenizer::from_bytes(&json)
        .with_context(|| format!("{} cannot be used", path.display()))
        .input()?;
    let tokenizer = bounded(tokenizer, config);
    let (known, embedded) = (tokenizer.vocabulary(), config.vocab_size);
    if known > embedded {
        return Err(Failure::Input(anyhow!(
            "{} has {known} tokens, but the model embeds only {embedded}",
            path.display()
        )));
    }
    Ok((tokenizer, json))
}

/// A tokenizer that puts a model's own tokens around a document, where the model names some.
pub(crate) fn bounded(tokenizer: Tokenizer, config: &ModelConfig) -> Tokenizer {
    let (begin, end) = tokenizer.boundaries();
    tokenizer.with_boundaries(config.bos_token_id.or(begin), config.eos_token_id.or(end))
}

/// More threads would each get too few of a batch's eight sequences.
const PRETRAIN_THREADS: usize = 4;

fn name(corpus: &Corpus, plan: &PretrainPlan) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("connito/1 base model");
    hasher.update(corpus.hash().as_bytes());
    let parts = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "vocabulary": VOCABULARY,
        "tokenizer_bytes": TOKENIZER_BYTES,
        "documents": PRETRAIN_DOCUMENTS,
        "config": ModelConfig::tiny(VOCABULARY).to_json(),
        "plan": plan,
    });
    hasher.update(parts.to_string().as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}
