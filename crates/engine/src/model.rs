//! A Mixture-of-Experts model: its parameters on a device under their canonical names, and its losses on
//! token sequences.
//!
//! The arithmetic is in `decoder`, `attention` and `feed_forward`, which read like equations; this file
//! puts parameters on a device (every name and shape checked once, on entry) and runs batches. A model
//! may hold only a slice of the experts: what is not resident takes no memory and cannot be routed to.
//! Results do not depend on the number of threads nor on which sequences are evaluated together, to the
//! bit. Training is trainer.rs, files are checkpoint.rs.

pub(crate) mod adaptive_router;
mod attention;
pub(crate) mod batch;
pub(crate) mod decoder;
mod feed_forward;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use batch::Batch;
use decoder::Pass;

use crate::checkpoint::{self, Checkpoint};
use crate::config::ModelConfig;
use crate::device::{Cpu, Device, Layout, RotaryTable, Rows};
use crate::element::Element;
use crate::error::EngineError;
use crate::kernels::{Level, convert};
use crate::memory::MemoryPlan;
use crate::names::{Parameter, Parameters, Role};
use crate::random::Stream;
use crate::routing::{ExpertMap, Routing, RoutingPlan, RoutingStatistics};
use crate::tensor::Tensor;
use crate::trainer::TrainableSet;

/// Tokens of one evaluation pass. Larger ones give the experts more rows per product; smaller ones keep
/// activations in cache.
pub(crate) const PASS_TOKENS: usize = 1024;

/// A configuration and the parameters of it that are in memory, on a device.
#[derive(Debug)]
pub struct Model<D: Device = Cpu> {
    device: D,
    config: ModelConfig,
    parameters: Parameters<D::Weight>,
    /// Every parameter, in the order of the tree's leaves.
    descriptions: Arc<[Description]>,
}

/// What is known of a parameter besides its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
    pub(crate) element: Element,
}

/// Which experts of a model are in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Residency {
    /// All of them.
    #[default]
    Whole,
    /// The listed ones, layer by layer.
    Slice(ExpertMap),
}

impl Residency {
    /// Whether an expert is in memory.
    #[must_use]
    pub fn holds(&self, layer: usize, expert: usize) -> bool {
        match self {
            Self::Whole => true,
            Self::Slice(experts) => experts
                .get(&layer)
                .is_some_and(|listed| listed.contains(&expert)),
        }
    }
}

/// How well a model predicts one sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceLoss {
    /// Summed next-token cross-entropy in nats.
    pub sum: f64,
    /// How many tokens were predicted: one fewer than the sequence has.
    pub tokens: usize,
}

/// What of a model is held, and how.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Which experts are in memory.
    pub residency: Residency,
    /// What will be trained, which may be stored otherwise than the rest.
    pub trainable: TrainableSet,
    /// How everything is stored.
    pub plan: MemoryPlan,
}

impl Holding {
    /// All of a model in f32.
    #[must_use]
    pub fn whole() -> Self {
        Self {
            residency: Residency::Whole,
            trainable: TrainableSet::Everything,
            plan: MemoryPlan::default(),
        }
    }

    /// How a parameter is stored. Vectors and routers are small, and decisions hang on them.
    pub(crate) fn element(&self, role: Role) -> Element {
        match role {
            Role::Norm | Role::Router | Role::RouterBias => Element::F32,
            role if self.trainable.contains(role) => self.plan.trained,
            _ => self.plan.frozen,
        }
    }
}

impl Model {
    /// An untrained model in f32 on one thread, a pure function of configuration and seed, the same on
    /// every machine.
    #[must_use]
    pub fn random(config: &ModelConfig, seed: u64) -> Self {
        Self::random_on(Cpu::single(), config, &Holding::whole(), seed)
    }

    /// Names and shapes of every parameter that `config` asks for.
    #[must_use]
    pub fn expected_tensors(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
        let mut expected = BTreeMap::new();
        let Ok(_) = Parameters::build(config, &|_, _| true, &mut |parameter| {
            expected.insert(parameter.name, parameter.shape.to_vec());
            Ok::<_, Infallible>(())
        });
        expected
    }

    /// Takes parameters by name, in f32, on one thread.
    ///
    /// # Errors
    ///
    /// Names the first tensor that is missing, misshapen or not part of the configured model.
    pub fn from_tensors(
        config: &ModelConfig,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Self, EngineError> {
        let expected = Self::expected_tensors(config);
        if let Some(name) = tensors.keys().find(|name| !expected.contains_key(*name)) {
            return Err(EngineError::UnexpectedTensor { name: name.clone() });
        }
        Self::build(Cpu::single(), config, &Holding::whole(), |parameter| {
            let name = parameter.name.clone();
            let tensor = tensors
                .get(&name)
                .ok_or_else(|| EngineError::MissingTensor { name: name.clone() })?;
            check_shape(&name, parameter.shape, tensor)?;
            Ok(Box::new(tensor))
        })
    }

    /// Reads a Hugging Face folder whole, widened to f32, on one thread.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, the configuration cannot be used, or a tensor is missing,
    /// misshapen or not part of the configured model.
    pub fn load(folder: &Path) -> Result<Self, EngineError> {
        let checkpoint = Checkpoint::open(folder)?;
        Self::from_checkpoint(Cpu::single(), &checkpoint, &Holding::whole())
    }
}

impl<D: Device> Model<D> {
    /// An untrained model, or the part of it that is to be held: the values of what is held do not depend
    /// on what else is.
    #[must_use]
    pub fn random_on(device: D, config: &ModelConfig, holding: &Holding, seed: u64) -> Self {
        let Ok(model) = Self::build(device, config, holding, |parameter| {
            Ok::<_, Infallible>(Box::new(Random::new(config, seed, parameter)))
        });
        model
    }

    /// Takes from a checkpoint what is to be held; nothing else is read.
    ///
    /// # Errors
    ///
    /// When a tensor is missing, misshapen or not part of the configured model.
    pub fn from_checkpoint(
        device: D,
        checkpoint: &Checkpoint,
        holding: &Holding,
    ) -> Result<Self, EngineError> {
        checkpoint.check(&|layer, expert| holding.residency.holds(layer, expert))?;
        Self::build(device, checkpoint.config(), holding, |parameter| {
            Ok(Box::new(checkpoint.parameter(&parameter.name)?))
        })
    }

    /// Asks `source` for every parameter that is to be held.
    fn build<'s, E>(
        device: D,
        config: &ModelConfig,
        holding: &Holding,
        mut source: impl FnMut(&Parameter<'_>) -> Result<Box<dyn Rows + 's>, E>,
    ) -> Result<Self, E> {
        let mut descriptions = Vec::new();
        let resident = |layer, expert| holding.residency.holds(layer, expert);
        let parameters = Parameters::build(config, &resident, &mut |parameter| {
            let rows = source(&parameter)?;
            let element = holding.element(parameter.role);
            let weight = device.weight(&*rows, layout(config, parameter.role), element);
            descriptions.push(Description {
                shape: parameter.shape.to_vec(),
                role: parameter.role,
                element,
                name: parameter.name,
            });
            Ok(weight)
        })?;
        Ok(Self {
            device,
            config: config.clone(),
            parameters,
            descriptions: descriptions.into(),
        })
    }

    /// The same model on another device of the kind, say with more threads.
    #[must_use]
    pub fn on(self, device: D) -> Self {
        Self { device, ..self }
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What it runs on.
    #[must_use]
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Names of the parameters in memory, in the model's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.descriptions
            .iter()
            .map(|description| description.name.as_str())
    }

    /// The values of one parameter, widened to f32; `None` for one that is not in memory.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let index = self.index(name)?;
        let weight = self.parameters.leaves()[index];
        Some(Tensor {
            shape: self.descriptions[index].shape.clone(),
            values: self.device.read_weight(weight),
        })
    }

    /// Replaces the values of one parameter; everything else stays packed as it is.
    ///
    /// # Errors
    ///
    /// When the parameter is not in memory or the number of values is not its own.
    pub fn set_tensor(&mut self, name: &str, values: &[f32]) -> Result<(), EngineError> {
        let missing = || EngineError::MissingTensor { name: name.into() };
        let index = self.index(name).ok_or_else(missing)?;
        let description = &self.descriptions[index];
        if values.len() != description.shape.iter().product::<usize>() {
            return Err(EngineError::MisshapenTensor {
                name: name.to_owned(),
                expected: description.shape.clone(),
                found: vec![values.len()],
            });
        }
        let width = description.shape.last().copied().unwrap_or(1);
        let rows = SliceRows { values, width };
        let layout = layout(&self.config, description.role);
        let weight = self.device.weight(&rows, layout, description.element);
        *self.parameters.leaves_mut()[index] = weight;
        Ok(())
    }

    /// How well the model predicts every sequence, in their order. A sequence's result does not depend
    /// on the others.
    ///
    /// # Errors
    ///
    /// When there are no sequences, one does not fit the model, or the routing does not.
    pub fn sequence_losses(
        &self,
        sequences: &[&[u32]],
        routing: &Routing,
    ) -> Result<Vec<SequenceLoss>, EngineError> {
        batch::check(sequences, 2, &self.config)?;
        let routing = self.routing_plan(routing)?;
        let rotary = self.rotary(sequences);
        let mut results = Vec::with_capacity(sequences.len());
        for pass in batch::passes(sequences, PASS_TOKENS) {
            let losses = self.run(pass, &routing, &rotary, decoder::losses);
            let mut rest = losses.as_slice();
            for sequence in pass {
                let tokens = sequence.len() - 1;
                let (own, others) = rest.split_at(tokens);
                rest = others;
                results.push(SequenceLoss {
                    sum: own.iter().map(|&loss| f64::from(loss)).sum(),
                    tokens,
                });
            }
        }
        Ok(results)
    }

    /// Counts what the routers decide for every token of the sequences. The statistics of several calls
    /// can be added; how a text is divided among calls does not matter, nor do threads.
    ///
    /// # Errors
    ///
    /// When there are no sequences, one does not fit the model, the routing does not, or weights are not
    /// finite, as those of a spoilt model are not.
    pub fn routing_statistics(
        &self,
        sequences: &[&[u32]],
        routing: &Routing,
    ) -> Result<RoutingStatistics, EngineError> {
        batch::check(sequences, 1, &self.config)?;
        let routing = self.routing_plan(routing)?;
        let rotary = self.rotary(sequences);
        let mut statistics = RoutingStatistics::new(&self.config);
        for pass in batch::passes(sequences, PASS_TOKENS) {
            for (layer, picks) in self.run(pass, &routing, &rotary, decoder::picks) {
                if !picks.are_finite() {
                    return Err(EngineError::SpoiltRouter { layer });
                }
                statistics.record(layer, &picks);
            }
        }
        Ok(statistics)
    }

    /// Next-token logits `[tokens, vocabulary]` of one sequence.
    ///
    /// # Errors
    ///
    /// When the sequence or the routing does not fit the model.
    pub fn logits(&self, ids: &[u32], routing: &Routing) -> Result<Tensor, EngineError> {
        batch::check(&[ids], 1, &self.config)?;
        let routing = self.routing_plan(routing)?;
        let rotary = self.rotary(&[ids]);
        let logits = self.run(&[ids], &routing, &rotary, |pass, weights| {
            let states = decoder::final_states(pass, weights);
            let logits = pass.device.linear(&states, weights.head());
            pass.device.download(&logits)
        });
        Ok(Tensor::matrix(ids.len(), self.config.vocab_size, logits))
    }

    /// Writes a Hugging Face folder: `config.json` and one file of f32 tensors, which replace what it holds
    /// under these names.
    ///
    /// # Errors
    ///
    /// When a file cannot be written, or an expert is not in memory.
    pub fn save(&self, folder: &Path) -> Result<(), EngineError> {
        let values = |name: &str| {
            let tensor = self.tensor(name)?;
            Some(Box::new(tensor) as Box<dyn Rows>)
        };
        checkpoint::write_new(folder, &self.config, checkpoint::FileElement::F32, &values)?;
        Ok(())
    }

    fn run<R: Send>(
        &self,
        sequences: &[&[u32]],
        routing: &RoutingPlan,
        rotary: &D::Rotary,
        work: impl FnOnce(&Pass<'_, D>, &Parameters<D::Weight>) -> R + Send,
    ) -> R {
        self.device.session(|| {
            let batch = Batch::new(&self.device, sequences);
            let pass = Pass {
                device: &self.device,
                config: &self.config,
                routing,
                rotary,
                batch: &batch,
                trains_backbone: false,
                adaptive: &[],
            };
            work(&pass, &self.parameters)
        })
    }

    /// A routing that fits this model and what of it is in memory.
    pub(crate) fn routing_plan(&self, routing: &Routing) -> Result<RoutingPlan, EngineError> {
        let resident = |layer, expert| self.is_resident(layer, expert);
        Ok(RoutingPlan::new(routing, &self.config, &resident)?)
    }

    /// Angles for the positions of the longest of the sequences.
    pub(crate) fn rotary(&self, sequences: &[&[u32]]) -> D::Rotary {
        let positions = sequences.iter().map(|sequence| sequence.len()).max();
        let width = self.config.rotary_width();
        let table = RotaryTable::new(&self.config.rotary, width, positions.unwrap_or(0));
        self.device.rotary(table)
    }

    /// Whether an expert is in memory.
    pub(crate) fn is_resident(&self, layer: usize, expert: usize) -> bool {
        match self
            .parameters
            .layers
            .get(layer)
            .map(|layer| &layer.feed_forward)
        {
            Some(crate::names::FeedForward::Mixture(mixture)) => {
                mixture.experts.get(expert).is_some_and(Option::is_some)
            }
            _ => false,
        }
    }

    pub(crate) fn parameters(&self) -> &Parameters<D::Weight> {
        &self.parameters
    }

    /// Device, configuration, parameters and their descriptions, for training them.
    pub(crate) fn parts_mut(
        &mut self,
    ) -> (&D, &ModelConfig, &mut Parameters<D::Weight>, &[Description]) {
        (
            &self.device,
            &self.config,
            &mut self.parameters,
            &self.descriptions,
        )
    }

    pub(crate) fn descriptions(&self) -> &Arc<[Description]> {
        &self.descriptions
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.descriptions
            .iter()
            .position(|description| description.name == name)
    }
}

/// How a parameter is stored: what is multiplied by in panels, what is read by rows as a table.
pub(crate) fn layout(config: &ModelConfig, role: Role) -> Layout {
    match role {
        Role::Norm | Role::RouterBias => Layout::Table,
        Role::Embedding if !config.tied_head => Layout::Table,
        _ => Layout::Linear,
    }
}

fn check_shape(name: &str, expected: &[usize], tensor: &Tensor) -> Result<(), EngineError> {
    let found = if tensor.shape != expected {
        tensor.shape.clone()
    } else if tensor.values.len() != expected.iter().product::<usize>() {
        vec![tensor.values.len()]
    } else {
        return Ok(());
    };
    Err(EngineError::MisshapenTensor {
        name: name.to_owned(),
        expected: expected.to_vec(),
        found,
    })
}

/// Values read by rows.
struct SliceRows<'a> {
    values: &'a [f32],
    width: usize,
}

impl Rows for SliceRows<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read_row(&self, row: usize, into: &mut [f32]) {
        into.copy_from_slice(&self.values[row * self.width..][..self.width]);
    }
}

/// Initial values of a parameter.
///
/// Matrices have variance 1/inputs (at width 2,048 the customary deviation of 0.02), those that write
/// into the residual stream are smaller by √(2·layers) so that depth does not inflate it (Radford et
/// al. 2019, GPT-2); embedding and head have deviation 0.02, so that the first loss is about
/// ln(vocabulary); norm weights are 1 and router biases 0.
pub(crate) struct Random {
    stream: Stream,
    shape: [usize; 2],
    values: Initial,
}

enum Initial {
    Constant(f32),
    Deviation(f32),
}

impl Random {
    pub(crate) fn new(config: &ModelConfig, seed: u64, parameter: &Parameter<'_>) -> Self {
        let [rows, width] = match *parameter.shape {
            [rows, width] => [rows, width],
            [width] => [1, width],
            _ => unreachable!("parameters are matrices and vectors"),
        };
        let fan_in = 1.0 / (width as f32).sqrt();
        let depth = (2.0 * config.num_hidden_layers as f32).sqrt();
        let into_stream = ["o_proj", "down_proj", ".w2."]
            .iter()
            .any(|matrix| parameter.name.contains(matrix));
        let values = match parameter.role {
            Role::Norm => Initial::Constant(1.0),
            Role::RouterBias => Initial::Constant(0.0),
            Role::Embedding | Role::Head => Initial::Deviation(0.02),
            _ if into_stream => Initial::Deviation(fan_in / depth),
            _ => Initial::Deviation(fan_in),
        };
        Self {
            stream: Stream::new(seed, &parameter.name),
            shape: [rows, width],
            values,
        }
    }
}

impl Rows for Random {
    fn rows(&self) -> usize {
        self.shape[0]
    }

    fn width(&self) -> usize {
        self.shape[1]
    }

    fn read_row(&self, row: usize, into: &mut [f32]) {
        match self.values {
            Initial::Constant(value) => into.fill(value),
            Initial::Deviation(deviation) => {
                let first = (row * self.shape[1]) as u64;
                convert::draw(Level::detect(), self.stream, first, deviation, into);
            }
        }
    }
}

#[cfg(test)]
mod tests;
