//! What a model's routers decide for a sample of text: what `select`, `affinity` and a partition by
//! co-activation start from.
//!
//! ```text
//! folder ──► Source ──draw──► Text        documents in drawn order, cut into sequences, up to a number of tokens
//!               └─────load──► Router ──count──► RoutingStatistics
//! ```
//!
//! Text is drawn before weights are read, so that what is wrong with it is told at once. Every token of
//! the sample is counted once, those that begin and end documents too; the last piece of a document may
//! be a single token. Routing is the model's own. Knows nothing of scores.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_engine::checkpoint::{Checkpoint, FileElement};
use connito_engine::data::random::Random;
use connito_engine::data::reader;
use connito_engine::device::Cpu;
use connito_engine::element::Element;
use connito_engine::routing::ExpertMap;
use connito_engine::tokenizer::Tokenizer;
use connito_engine::{
    EngineError, Holding, MemoryPlan, Model, ModelConfig, Residency, Routing, RoutingStatistics,
    TrainableSet,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::select::{SAMPLE_SEED, SAMPLE_SEQUENCE_LENGTH, SAMPLE_TOKENS, SampleArguments};
use crate::base;
use crate::cores::threads;
use crate::exit::{Blame, Failure};

/// Tokens between two steps of the progress bar.
const STEP_TOKENS: usize = 2048;

/// How much text is drawn, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Tokens at most.
    pub(crate) tokens: usize,
    /// Longest sequence, where the model takes it.
    pub(crate) sequence_length: usize,
    /// Seed of the order in which documents are taken.
    pub(crate) seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tokens: SAMPLE_TOKENS as usize,
            sequence_length: SAMPLE_SEQUENCE_LENGTH as usize,
            seed: SAMPLE_SEED,
        }
    }
}

impl From<&SampleArguments> for Limits {
    fn from(arguments: &SampleArguments) -> Self {
        Self {
            tokens: arguments.tokens as usize,
            sequence_length: arguments.sequence_length as usize,
            seed: arguments.seed,
        }
    }
}

/// A model's folder with a tokenizer, its weights unread.
#[derive(Debug)]
pub(crate) struct Source {
    folder: PathBuf,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
}

/// Sequences of token ids, and the files that they come from.
#[derive(Debug)]
pub(crate) struct Text {
    files: String,
    sequences: Vec<Vec<u32>>,
}

impl Text {
    /// Tokens of all sequences.
    pub(crate) fn tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }
}

impl Source {
    /// Opens a Hugging Face folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        let checkpoint = Checkpoint::open(folder).input()?;
        for warning in checkpoint.warnings() {
            eprintln!("connito: {}: {warning}", folder.display());
        }
        if checkpoint.config().moe_layers().next().is_none() {
            return Err(Failure::Input(anyhow!(
                "{} has no layer with routed experts",
                folder.display()
            )));
        }
        let (tokenizer, _) = base::tokenizer(folder, checkpoint.config())?;
        Ok(Self {
            folder: folder.to_owned(),
            checkpoint,
            tokenizer,
        })
    }

    /// The architecture.
    pub(crate) fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    /// Draws from the documents of all files together.
    pub(crate) fn draw(&self, files: &[PathBuf], limits: Limits) -> Result<Text, Failure> {
        let longest = self.config().max_position_embeddings;
        let longest = limits.sequence_length.min(longest).max(1);
        // A document has a token at least, so no more of them are ever taken.
        let most = NonZeroUsize::new(limits.tokens);
        let mut documents = Vec::new();
        for file in files {
            documents.extend(reader::read_documents(file, most).input()?);
        }
        Random::named("sample for routing", limits.seed, 0)
            .shuffle_front(&mut documents, usize::MAX);
        let (mut sequences, mut left) = (Vec::new(), limits.tokens);
        for document in documents {
            let ids = self.tokenizer.encode_document(&document).input()?;
            let ids = &ids[..ids.len().min(left)];
            left -= ids.len();
            sequences.extend(ids.chunks(longest).map(<[u32]>::to_vec));
            if left == 0 {
                break;
            }
        }
        let files: Vec<_> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let files = files.join(" and ");
        if sequences.is_empty() {
            return Err(Failure::Input(anyhow!("{files}: the text has no tokens")));
        }
        Ok(Text { files, sequences })
    }

    /// Reads the weights.
    pub(crate) fn load(&self, wanted: Option<u16>) -> Result<Router, Failure> {
        let device = Cpu::new(threads(wanted)).environment()?;
        let holding = Holding {
            residency: Residency::Whole,
            trainable: TrainableSet::experts(ExpertMap::new()),
            plan: MemoryPlan {
                frozen: self.element(),
                ..MemoryPlan::default()
            },
        };
        let model = Model::from_checkpoint(device, &self.checkpoint, &holding)
            .with_context(|| self.folder.display().to_string())
            .input()?;
        Ok(Router {
            folder: self.folder.display().to_string(),
            model,
        })
    }

    /// Half the memory where nothing is lost by it.
    fn element(&self) -> Element {
        let config = self.config();
        let halved = |name: &String| {
            let stored = self.checkpoint.element(name);
            stored.is_ok_and(|element| element == FileElement::Bf16)
        };
        match Model::expected_tensors(config).keys().all(halved) {
            true => Element::Bf16,
            false => Element::F32,
        }
    }
}

/// A model in memory.
#[derive(Debug)]
pub(crate) struct Router {
    folder: String,
    model: Model,
}

impl Router {
    /// Runs a text through the model and counts. Progress is shown on a terminal.
    pub(crate) fn count(&self, text: &Text) -> Result<RoutingStatistics, Failure> {
        let bar = ProgressBar::new(text.tokens() as u64);
        let style =
            ProgressStyle::with_template("{bar:40} {pos}/{len} tokens of {msg}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(text.files.clone());
        let mut statistics = RoutingStatistics::new(self.model.config());
        let mut rest = text.sequences.as_slice();
        while !rest.is_empty() {
            let (step, others) = rest.split_at(step_length(rest));
            rest = others;
            let sequences: Vec<&[u32]> = step.iter().map(Vec::as_slice).collect();
            let counted = self.model.routing_statistics(&sequences, &Routing::Classic);
            statistics += counted.map_err(|error| self.blamed(error, text))?;
            bar.inc(sequences.iter().map(|sequence| sequence.len() as u64).sum());
        }
        bar.finish_and_clear();
        Ok(statistics)
    }

    /// An error of the engine with what is at fault.
    fn blamed(&self, error: EngineError, text: &Text) -> Failure {
        let fault = match error {
            EngineError::SpoiltRouter { .. } => &self.folder,
            _ => &text.files,
        };
        Failure::Input(anyhow::Error::new(error).context(fault.clone()))
    }
}

/// How many of these sequences make a step: one at least.
fn step_length(sequences: &[Vec<u32>]) -> usize {
    let mut tokens = 0;
    let fitting = sequences.iter().take_while(|sequence| {
        tokens += sequence.len();
        tokens <= STEP_TOKENS
    });
    fitting.count().max(1)
}
