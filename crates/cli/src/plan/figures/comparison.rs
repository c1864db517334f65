//! What others hold: workers that divide data or layers instead of experts, the examples by which these
//! are usually explained, and the published setups of one model.
//!
//! A worker's weights are bf16, and its training state takes 16 bytes a trained parameter: weight,
//! gradient, f32 master copy and two f32 moments. Neither is what this engine takes, but what the
//! comparison is usually made with.

use connito_engine::ModelConfig;
use connito_engine::config::ParameterFormulas;
use connito_engine::formula::Formula;

use super::super::figure::{Figure, Row, Section, Unit};
use super::{hub, section};
use crate::built_in::{self, DEEPSEEK_V2_LITE, QWEN3_30B_A3B};
use crate::exit::Failure;

/// Bytes of a bf16 weight.
const WEIGHT: u64 = 2;

/// Bytes of a trained parameter with everything that mixed-precision AdamW keeps of it.
const STATE: u64 = 16;

/// Stages of a pipeline.
const STAGES: u64 = 4;

/// Parameters of the dense model that examples are told of.
const DENSE_EXAMPLE: u64 = 70_000_000_000;

/// Parameters of the Mixture-of-Experts model that examples are told of.
const MIXTURE_EXAMPLE: u64 = 30_000_000_000;

/// The two peaks of the published setups that are ranges are given by their upper ends.
const PUBLISHED: [(&str, &str, usize, usize, &str); 4] = [
    (
        "A: in place, K = 8",
        "in_place",
        8,
        8,
        "published: about 21 GB",
    ),
    (
        "B: frozen-kept, K = 8, N = 16",
        "frozen_kept",
        24,
        8,
        "published: 28 to 32 GB",
    ),
    (
        "C: classic, K = 8",
        "classic",
        64,
        8,
        "published: about 44 GB",
    ),
    ("full fine-tune", "full", 64, 64, "published: about 126 GB"),
];

/// Two bytes for a frozen and eight for a trained parameter: the rule that published peaks follow.
pub(super) fn rule(frozen: Formula, trained: Formula) -> Formula {
    Formula::constant(2) * frozen + Formula::constant(8) * trained
}

/// What the model to be compared consists of.
pub(super) struct Worker<'a> {
    pub(super) formulas: &'a ParameterFormulas,
    pub(super) layers: Formula,
    /// Experts of a layer that are one worker's own.
    pub(super) share: Formula,
    pub(super) trained: &'a Formula,
    /// Workers that together hold every expert.
    pub(super) groups: Formula,
}

/// A worker that divides data, layers or experts with others.
pub(super) fn workers(worker: &Worker<'_>) -> Section {
    let full = || worker.formulas.total.named("full");
    let held = share_of(worker.formulas, worker.share.clone(), worker.layers.clone());
    let share = || held.named("share");
    let trained = || worker.trained.named("trained");
    let pipeline = |bytes: u64| (bytes_of(bytes) * full()).over(quantity("stages", STAGES));
    let frozen_and_trained = bytes_of(WEIGHT) * (share() - trained()) + bytes_of(STATE) * trained();
    let row = |label: &str, key: &str, [weights, state]: [Formula; 2]| {
        let figure =
            |what, formula| Figure::new(format!("comparison.{key}.{what}"), Unit::Bytes, formula);
        let row = Row::new(label, figure("weights", weights));
        row.with(figure("training_state", state))
    };
    let data = [WEIGHT, STATE].map(|bytes| bytes_of(bytes) * full());
    let parameters = |label: &str, key: &str, formula| {
        Row::new(
            label,
            Figure::new(format!("comparison.{key}"), Unit::Count, formula),
        )
    };
    Section {
        columns: vec!["bf16 weights", "with training"],
        ..section(
            "bytes of one worker, by what workers divide",
            vec![
                row("data parallel: the whole model", "data_parallel", data),
                row(
                    "pipeline parallel: 4 stages",
                    "pipeline_parallel",
                    [WEIGHT, STATE].map(pipeline),
                ),
                row(
                    "expert parallel: backbone and a share",
                    "expert_parallel",
                    [bytes_of(WEIGHT) * share(), frozen_and_trained],
                ),
                parameters(
                    "  its parameters",
                    "expert_parallel.parameters",
                    held.clone(),
                ),
                parameters(
                    "  total / groups, without a backbone",
                    "expert_parallel.total_over_groups",
                    full().over(worker.groups.named("groups")),
                ),
            ],
        )
    }
}

/// The figures by which the three are usually explained, against the account.
pub(super) fn examples() -> Result<Section, Failure> {
    let rows = dense_example().into_iter().chain(mixture_example()?);
    Ok(section("worked examples", rows.collect()))
}

/// A dense model of 70 billion parameters.
fn dense_example() -> [Row; 3] {
    let row = |label: &str, key: &str, formula| {
        let key = format!("comparison.examples.dense_70b.{key}");
        Row::new(label, Figure::new(key, Unit::Bytes, formula))
    };
    let of_all = |bytes| bytes_of(bytes) * quantity("parameters", DENSE_EXAMPLE);
    let stage = of_all(WEIGHT).over(quantity("stages", STAGES));
    [
        row(
            "70B dense, data parallel, weights",
            "data_parallel_weights",
            of_all(WEIGHT),
        ),
        row(
            "70B dense, data parallel, state",
            "data_parallel_training_state",
            of_all(STATE),
        ),
        row(
            "70B dense, 4 stages, weights",
            "pipeline_parallel_weights",
            stage,
        ),
    ]
}

/// A Mixture-of-Experts model of 30 billion, which is usually divided by the number of groups.
fn mixture_example() -> Result<[Row; 5], Failure> {
    let config = built_in::parse(QWEN3_30B_A3B)?;
    let formulas = config.parameter_formulas();
    let experts = config.mixture.experts as u64;
    let row = |label: &str, key: &str, formula| {
        let key = format!("comparison.examples.{key}");
        Row::new(label, Figure::new(key, Unit::Count, formula))
    };
    let divided = |groups| quantity("parameters", MIXTURE_EXAMPLE).over(quantity("groups", groups));
    let held = |experts: Formula| {
        let layers = quantity("moe_layers", config.moe_layers().count() as u64);
        share_of(&formulas, experts, layers)
    };
    let largest =
        |groups| held(quantity("routed_experts", experts).over(quantity("groups", groups)));
    let smallest = held(quantity("experts_of_the_smallest_group", experts / 100));
    Ok([
        row(
            "30B / 4 groups",
            "moe_30b_4_groups.total_over_groups",
            divided(4),
        ),
        row(
            "  Qwen3-30B-A3B: 32 experts a layer",
            "moe_30b_4_groups.account",
            largest(4),
        ),
        row(
            "30B / 100 groups",
            "moe_30b_100_groups.total_over_groups",
            divided(100),
        ),
        row(
            "  Qwen3-30B-A3B: 2 experts a layer",
            "moe_30b_100_groups.account",
            largest(100),
        ),
        row(
            "  Qwen3-30B-A3B: 1 expert a layer",
            "moe_30b_100_groups.account_of_smallest",
            smallest,
        ),
    ])
}

/// Whether a configuration has the dimensions of the model whose setups are published.
pub(super) fn is_v2_lite(config: &ModelConfig) -> bool {
    let published = ModelConfig::from_json(DEEPSEEK_V2_LITE);
    published.is_ok_and(|published| {
        config.family == published.family
            && config.parameters() == published.parameters()
            && config.mixture.experts == published.mixture.experts
    })
}

/// The published setups of this very model by the rule that their peaks follow.
pub(super) fn published(config: &ModelConfig) -> Result<Option<Section>, Failure> {
    if !is_v2_lite(config) {
        return Ok(None);
    }
    let formulas = config.parameter_formulas();
    let experts = |name, count: usize| {
        let layers = quantity("moe_layers", config.moe_layers().count() as u64);
        formulas.per_expert.named("per_expert") * quantity(name, count as u64) * layers
    };
    let row = |(label, key, held, trained, printed): (&str, &str, usize, usize, &str)| {
        let [frozen, trained] = if key == "full" {
            [Formula::constant(0), formulas.total.named("full")]
        } else {
            let frozen = experts("frozen_experts", held - trained);
            [hub(&formulas).plus_if_any(frozen), experts("K", trained)]
        };
        let figure = Figure::new(
            format!("comparison.published.{key}"),
            Unit::Bytes,
            rule(frozen, trained),
        );
        Row::new(label, figure).noted(printed)
    };
    Ok(Some(section(
        "published setups, by 2·frozen + 8·trained",
        PUBLISHED.map(row).into(),
    )))
}

/// The backbone and so many experts of every layer.
fn share_of(formulas: &ParameterFormulas, experts: Formula, layers: Formula) -> Formula {
    hub(formulas) + formulas.per_expert.named("per_expert") * experts * layers
}

fn bytes_of(value: u64) -> Formula {
    Formula::constant(value)
}

fn quantity(name: &'static str, value: u64) -> Formula {
    Formula::quantity(name, value)
}
