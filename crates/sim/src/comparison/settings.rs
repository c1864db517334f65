//! The strategies with their published settings, for a model of a given size.
//!
//! All strategies take the same data per worker and step, so that the step of the whole network has as many tokens
//! whichever is played. A model's sizes come from outside: from its configuration, not from here. Training a
//! parameter for a token takes six floating-point operations, passing through a frozen one four (forward, and
//! backward to what is below); attention's own products and recomputation are counted for nobody.

use std::fmt;

use connito_protocol::rules::Rules;

use super::formulas::{ring_bytes, sparse_bytes};
use super::{DataParallel, Exchange, ExpertParallel, Pipeline, StageMerge, Strategy};

/// Bytes of a weight, gradient or activation in bf16.
const BF16: f64 = 2.0;

/// Bytes of training one parameter in mixed precision: weight, gradient, master copy and two moments.
const TRAINING: f64 = 16.0;

/// Inner steps of SparseLoCo between two exchanges (`inner_steps`, one-covenant/templar `hparams/hparams.json`).
const SPARSE_STEPS: u32 = 30;

/// Updates that a peer of Templar gathers (`gather_peer_count`, ibid.).
const SPARSE_PEERS: usize = 20;

/// Inner steps of INTELLECT-1 between two exchanges (arXiv 2412.01152).
const INT8_STEPS: u32 = 100;

/// Bytes of a value in INTELLECT-1's all-reduce (ibid.).
const INT8: f64 = 1.0;

/// Stages of the pipeline that is usually drawn.
const DRAWN_STAGES: u32 = 4;

/// Stages of iota's 15B model (macrocosm-os/iota).
const IOTA_STAGES: u32 = 5;

/// How much smaller iota's bottleneck makes activations, at the best (arXiv 2507.17766).
const IOTA_COMPRESSION: f64 = 128.0;

/// Local steps between two merges of a stage's weights, about (macrocosm-os/iota).
const MERGE_STEPS: u32 = 10;

/// Bytes of scale for each 4,096 values of this system's sparse updates.
const SCALE_BYTES: u32 = 2;

/// Bytes of a value of a shard that a newcomer fetches: state and momentum in f32.
const SHARD_VALUE: f64 = 8.0;

/// Seconds of a block of the chain.
const BLOCK_SECONDS: f64 = 12.0;

/// Which strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Data parallel, a ring all-reduce of bf16 gradients in every step.
    DataParallel,
    /// Data parallel, a ring all-reduce of int8 differences every 100 steps, as INTELLECT-1.
    DataParallelInt8,
    /// Data parallel, sparse updates through a store every 30 steps, as Templar.
    DataParallelSparse,
    /// Pipeline parallel, activations as they are, four stages.
    Pipeline,
    /// Pipeline parallel, activations 128 times smaller, five stages, any worker of a stage in any chain, as iota.
    PipelineCompressed,
    /// Expert parallel: this system.
    ExpertParallel,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] = [
        Self::DataParallel,
        Self::DataParallelInt8,
        Self::DataParallelSparse,
        Self::Pipeline,
        Self::PipelineCompressed,
        Self::ExpertParallel,
    ];

    /// A key that does not change.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::DataParallel => "data-parallel",
            Self::DataParallelInt8 => "data-parallel-int8",
            Self::DataParallelSparse => "data-parallel-sparse",
            Self::Pipeline => "pipeline",
            Self::PipelineCompressed => "pipeline-compressed",
            Self::ExpertParallel => "expert-parallel",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// A model in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelSize {
    /// All parameters.
    pub parameters: u64,
    /// Parameters that are multiplied with a token: without the embedding's table, and of routed experts those
    /// that it visits.
    pub active: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// What a miner of this system holds; nothing where there are no routed experts.
    pub slice: Option<SliceSize>,
}

/// A part of a Mixture-of-Experts model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceSize {
    /// Groups that the routed experts are divided into.
    pub groups: usize,
    /// Parameters of backbone and one group's experts.
    pub held: u64,
    /// Parameters of one group's experts.
    pub shard: u64,
    /// Parameters that are trained.
    pub trained: u64,
    /// Parameters that are multiplied with a token.
    pub active: u64,
    /// Of these, parameters that are trained.
    pub active_trained: u64,
}

/// The data of one step of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Tokens of a sequence, which is also a micro-batch.
    pub sequence_tokens: u32,
    /// Sequences.
    pub sequences: u32,
}

impl Batch {
    fn tokens(self) -> f64 {
        f64::from(self.sequence_tokens) * f64::from(self.sequences)
    }
}

/// Bytes that a worker needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Its weights in bf16.
    pub weights_bytes: f64,
    /// Weights and training state: 16 bytes of a trained parameter, 2 of a frozen one; without activations.
    pub training_bytes: f64,
}

/// A strategy for a model: what is played, and what is known without playing.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What is played.
    pub strategy: Strategy,
    /// What a worker holds.
    pub memory: Memory,
    /// Bytes that a worker sends in one event.
    pub event_bytes: f64,
    /// Micro-batches and stages, of a pipeline.
    pub pipeline: Option<(u32, u32)>,
}

/// A strategy's plan for a model; nothing where the model cannot be divided so. `replicas` are the workers that
/// stand in for each other at a stage of [`Kind::Pipeline`]; [`Kind::PipelineCompressed`] has all of them do so.
#[must_use]
pub fn plan(
    kind: Kind,
    model: &ModelSize,
    batch: Batch,
    replicas: u32,
    workers: usize,
) -> Option<Plan> {
    let whole = model.parameters as f64;
    let ring = |bytes| Exchange::AllReduce {
        bytes: bytes * whole,
        state_bytes: BF16 * whole,
    };
    let (int8, bf16) = (ring(INT8), ring(BF16));
    let sparse = Exchange::Gather {
        update_bytes: sparse_bytes(model.parameters, 0),
        peers: SPARSE_PEERS,
    };
    match kind {
        Kind::DataParallel => Some(data_parallel(model, batch, (1, bf16), workers)),
        Kind::DataParallelInt8 => Some(data_parallel(model, batch, (INT8_STEPS, int8), workers)),
        Kind::DataParallelSparse => {
            Some(data_parallel(model, batch, (SPARSE_STEPS, sparse), workers))
        }
        Kind::Pipeline => Some(pipeline(model, batch, (DRAWN_STAGES, replicas), 1.0)),
        Kind::PipelineCompressed => Some(pipeline(
            model,
            batch,
            (IOTA_STAGES, u32::MAX),
            IOTA_COMPRESSION,
        )),
        Kind::ExpertParallel => model.slice.map(expert_parallel),
    }
}

fn data_parallel(
    model: &ModelSize,
    batch: Batch,
    (steps, exchange): (u32, Exchange),
    workers: usize,
) -> Plan {
    let event_bytes = match exchange {
        Exchange::AllReduce { bytes, .. } => ring_bytes(workers, bytes),
        Exchange::Gather { update_bytes, .. } => update_bytes,
    };
    Plan {
        strategy: Strategy::DataParallel(DataParallel {
            steps,
            step_tokens: batch.tokens(),
            step_flop: 6.0 * model.active as f64 * batch.tokens(),
            exchange,
        }),
        memory: trained(model.parameters as f64),
        event_bytes,
        pipeline: None,
    }
}

fn pipeline(
    model: &ModelSize,
    batch: Batch,
    (stages, replicas): (u32, u32),
    compression: f64,
) -> Plan {
    let tokens = f64::from(batch.sequence_tokens);
    let message_bytes = BF16 * tokens * model.hidden as f64 / compression;
    // A chain of p workers takes p workers' data.
    let micro_batches = batch.sequences.saturating_mul(stages);
    let stage = model.parameters as f64 / f64::from(stages);
    Plan {
        strategy: Strategy::Pipeline(Pipeline {
            stages,
            replicas,
            micro_batches,
            tokens,
            forward_flop: 2.0 * model.active as f64 / f64::from(stages) * tokens,
            message_bytes,
            merge: Some(StageMerge {
                steps: MERGE_STEPS,
                bytes: BF16 * stage,
            }),
        }),
        memory: trained(stage),
        event_bytes: message_bytes,
        pipeline: Some((stages, micro_batches)),
    }
}

fn expert_parallel(slice: SliceSize) -> Plan {
    let update_bytes = sparse_bytes(slice.trained, SCALE_BYTES);
    let frozen = slice.held.saturating_sub(slice.trained) as f64;
    let trained = trained(slice.trained as f64);
    Plan {
        strategy: Strategy::ExpertParallel(ExpertParallel {
            groups: slice.groups,
            windows: Rules::default().windows,
            block_seconds: BLOCK_SECONDS,
            token_flop: 4.0 * slice.active as f64 + 2.0 * slice.active_trained as f64,
            update_bytes,
            shard_bytes: SHARD_VALUE * slice.shard as f64,
        }),
        memory: Memory {
            weights_bytes: trained.weights_bytes + BF16 * frozen,
            training_bytes: trained.training_bytes + BF16 * frozen,
        },
        event_bytes: update_bytes,
        pipeline: None,
    }
}

/// So many parameters, all of them trained.
fn trained(parameters: f64) -> Memory {
    Memory {
        weights_bytes: BF16 * parameters,
        training_bytes: TRAINING * parameters,
    }
}
