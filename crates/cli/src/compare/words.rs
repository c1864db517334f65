//! What is said beside the numbers: names, settings, sources, claims that are out of date, and what is left out.
//!
//! Claims are those of the posts that this system was conceived with, "Why We Built BlockZero on
//! Mixture-of-Experts" above all; beside each stands what is public. A claim that the public facts bear out is listed where
//! a condition belongs to it.

use connito_sim::comparison::Kind;

/// What a strategy is called in a table.
pub(super) fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::DataParallel => "data parallel, every step",
        Kind::DataParallelInt8 => "data parallel, int8, every 100",
        Kind::DataParallelSparse => "data parallel, sparse, every 30",
        Kind::Pipeline => "pipeline, 4 stages",
        Kind::PipelineCompressed => "pipeline, 5 stages, 128x smaller",
        Kind::ExpertParallel => "expert parallel (this system)",
    }
}

/// How a strategy is set, and who sets it so.
pub(super) fn setting(kind: Kind) -> &'static str {
    match kind {
        Kind::DataParallel => {
            "whole model; ring all-reduce of bf16 gradients after every step; nobody waits for a worker that is down: \
             its share of the step is dropped, and the others go on"
        }
        Kind::DataParallelInt8 => {
            "as INTELLECT-1: 100 steps, then a ring all-reduce of int8 differences over those that are up"
        }
        Kind::DataParallelSparse => {
            "as Templar (SN3): 30 steps, then 64 of 4,096 values at 14 bit to a store; 20 updates are gathered and \
             merged, as published for a run of about as many peers, so that more peers add nothing; a peer shares the \
             model among 8 GPUs"
        }
        Kind::Pipeline => {
            "as it is usually drawn: chains of 4 workers, bf16 activations, a stage's weights merged by ring \
             all-reduce every 10 steps; a chain without a replica stops when one of its workers fails and loses the \
             step"
        }
        Kind::PipelineCompressed => {
            "as iota (SN9): 5 stages, activations 128 times smaller, any worker of a stage may take the place of \
             another, weights merged every 10 steps"
        }
        Kind::ExpertParallel => {
            "45 blocks of 12 s a cycle; a miner fetches the updates that its group accepted, trains in blocks 5 to \
             34, uploads in blocks 38 and 39; 64 of 4,096 values at 14 bit and 2 bytes of scale; a miner that fails \
             loses its own update"
        }
    }
}

/// What was said, and what is public.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) about: &'static str,
    pub(super) said: &'static str,
    pub(super) public: &'static str,
}

/// Claims, in the order in which they were made. Their numbers hold for what each names beside them, whatever
/// the options are.
pub(super) const CLAIMS: [Claim; 15] = [
    Claim {
        about: "memory of a data-parallel worker, 70B",
        said: "140 GB, \"on your GPU\"",
        public: "140 GB of weights and 1,120 GB with training state (16 bytes a parameter), sharded: a Templar \
                 peer is a node of 8 B200 (arXiv 2603.08163)",
    },
    Claim {
        about: "exchanges of 256 data-parallel workers",
        said: "25,600 a minute at 100 batches a minute",
        public: "1,536,000 an hour only if an exchange takes no time: at 20 Mbit/s one of 70B takes 31 h",
    },
    Claim {
        about: "Templar (SN3) synchronises",
        said: "every step",
        public: "every 30 steps, 70 s of communication, 94.5 % utilisation (arXiv 2603.08163; one-covenant/templar \
                 hparams/hparams.json, 2026-03)",
    },
    Claim {
        about: "iota (SN9) synchronises",
        said: "every step",
        public: "activations every step, up to 128 times smaller; weights about every 10 steps (arXiv 2507.17766; \
                 macrocosm-os/iota, 2025-07)",
    },
    Claim {
        about: "what stalls a pipeline",
        said: "latency that spikes from 50 to 500 ms",
        public: "4 stages of 10 s lose 0.37 % to 50 ms and 3.6 % to 500 ms; the bubble is 75 % of the time with one \
                 micro-batch and 4.5 % with 64, at any latency",
    },
    Claim {
        about: "a pipeline needs all its workers up",
        said: "exactly N of N",
        public: "without replicas, q^p: 81.5 % for 4 stages at q = 0.95; with two at each stage 99.0 % (SWARM, iota)",
    },
    Claim {
        about: "memory of an expert-parallel worker, 30B",
        said: "total / groups: 7.5 B parameters at 4 groups",
        public: "backbone + experts / groups: 8.79 B for Qwen3-30B-A3B; no number of groups leads below the backbone, 1.54 B",
    },
    Claim {
        about: "memory of an expert-parallel worker, 100 groups",
        said: "300 M parameters of a 30B model, one RTX 4090",
        public: "128 experts do not divide by 100; a worker holds 1.99 B at 64 groups and 1.77 B at 128, and the \
                 card suffices",
    },
    Claim {
        about: "this system synchronises",
        said: "about hourly, \"one 45-block cycle\"; elsewhere 524 blocks",
        public: "45 blocks of 12 s are 9 minutes: 6.67 times an hour; 524 are 105 minutes",
    },
    Claim {
        about: "tokens per second of this system, 16B",
        said: "22,500",
        public: "7,500 times 3, both assumed: three merged miners at 48 to 63 % of an A6000; at 30 % of it, 46.5 \
                 Tflop/s, a miner makes 3,719 while it trains",
    },
    Claim {
        about: "less communication",
        said: "500 times",
        public: "500 is DiLoCo's number of steps between two exchanges (arXiv 2311.08105); of 256 workers at 100 \
                 batches a minute it is 1,536,000 against 1,707 events an hour: 900 times, for any number of workers",
    },
    Claim {
        about: "independent workers",
        said: "Templar no, iota no, this system yes",
        public: "Templar within a round, late peers are skipped; iota is routed around; this system within a cycle",
    },
    Claim {
        about: "scales with participants",
        said: "capacity too: more groups, more experts, lower loss",
        public: "groups divide the experts that there are; capacity grows only where experts are added. The scaling \
                 law (arXiv 2202.01169) is of experts present in pre-training, and saturates",
    },
    Claim {
        about: "scored one by one",
        said: "expert parallel alone",
        public: "Templar scores data-parallel updates by held-out loss",
    },
    Claim {
        about: "experts are independent of each other",
        said: "within a forward pass",
        public: "within a layer; across layers they meet in the residual stream",
    },
];

/// What the comparison does not show, one sentence each.
pub(super) const LEFT_OUT: [&str; 8] = [
    "Tokens are counted, not learning: expert parallelism fine-tunes some experts on a frozen backbone, the others \
     train every parameter, and a token of the one is not a token of the other.",
    "Few bytes and events in an hour are no merit where the link is full: a strategy that waits for its bytes has few \
     events, and few tokens.",
    "Every worker computes at the same rate as if the model fitted it: what it would need stands under memory; no \
     card holds a whole 70B model with its training state.",
    "Updates that arrive are merged: nothing is rejected, and validators' traffic and scoring are not counted, \
     here or for Templar and iota.",
    "Computing and exchanging take turns in all strategies: streaming and overlapping variants (arXiv 2501.18512, \
     2604.21428) would idle less.",
    "Links are narrow at the worker only; stores and the internet between are wide; nothing is lost or sent twice.",
    "Peers are spared what is hard: a data-parallel worker resumes an interrupted round from its disk, rings keep \
     what has gone round, chains with a replacement lose nothing; a miner of this system loses its cycle.",
    "Spread, latency and outages are assumed; published runs have links and machines of their own: Templar's 70 s \
     a round are those of data centres.",
];

/// Where a setting comes from.
pub(super) const SOURCES: [(&str, &str); 10] = [
    (
        "Templar: 30 steps, 20 gathered, 64 of 4,096, 8 GPUs",
        "arXiv 2508.15706, 2603.08163; one-covenant/templar hparams/hparams.json, 2026-03",
    ),
    (
        "iota: stages, 128x, merges about every 10 steps",
        "arXiv 2507.17766; macrocosm-os/iota, 2025-07",
    ),
    (
        "INTELLECT-1: int8, 100 steps, elastic ring",
        "arXiv 2412.01152; PrimeIntellect-ai/prime",
    ),
    ("elastic steps", "pytorch/torchft, 2025-10"),
    ("replicated stages", "SWARM, arXiv 2301.11913"),
    ("pipeline schedule and bubble", "GPipe, arXiv 1811.06965"),
    ("outer steps", "DiLoCo, arXiv 2311.08105"),
    (
        "model sizes",
        "config.json of deepseek-ai/DeepSeek-V2-Lite and Qwen/Qwen3-30B-A3B; 70B as the post has it",
    ),
    (
        "RTX A6000: 155 Tflop/s bf16, 30 % of it",
        "vendor's data sheet; utilisation assumed",
    ),
    (
        "cycle, codec, slices",
        "this system's rules (docs/PROTOCOL.md) and engine (connito plan)",
    ),
];
