//! Every number of a plan, as a formula over the engine's accounts.
//!
//! Parameters and memory are the engine's own formulas; what is added here is what a plan holds and
//! trains of them, and the bytes of an upload. What others hold is `comparison.rs`. Names in formulas are
//! keys of other figures or of `config.json`.

mod comparison;

use connito_engine::config::ParameterFormulas;
use connito_engine::formula::Formula;
use connito_engine::memory::MemoryFormulas;

use super::figure::{Figure, Row, Section, Unit};
use super::proposal::Choice;
use super::setup::Setup;
use crate::args::inspect::RoutingMode;
use crate::exit::Failure;

/// Rates of links to homes, in Mbit/s.
const RATES: [u64; 2] = [20, 100];

/// All figures, in the order in which they are shown.
pub(super) fn sections(
    setup: &Setup<'_>,
    choice: Choice,
    memory: &MemoryFormulas,
) -> Result<Vec<Section>, Failure> {
    let parts = Parts::new(setup, choice.experts);
    Ok(vec![
        parts.model(),
        parts.parameters(),
        parts.memory(memory),
        parts.upload(),
        parts.workers(),
        comparison::examples()?,
    ]
    .into_iter()
    .chain(comparison::published(setup.config)?)
    .collect())
}

/// What formulas are made of.
struct Parts<'a> {
    setup: &'a Setup<'a>,
    /// Trained experts of a layer.
    experts: usize,
    formulas: ParameterFormulas,
    /// Everything in memory.
    held: Formula,
    trained: Formula,
}

impl<'a> Parts<'a> {
    fn new(setup: &'a Setup<'a>, experts: usize) -> Self {
        let formulas = setup.config.parameter_formulas();
        let layers = moe_layers(setup).named("moe_layers");
        let per_expert = formulas.per_expert.named("per_expert");
        let kept = quantity("N", setup.kept);
        let resident = match setup.routing {
            RoutingMode::Classic => routed_experts(setup),
            RoutingMode::Masked | RoutingMode::FrozenKept | RoutingMode::Fallback => {
                share(setup, experts).plus_if_any(kept)
            }
        };
        let held = hub(&formulas) + per_expert.clone() * resident * layers.clone();
        let trained = per_expert * quantity("K", experts) * layers;
        Self {
            setup,
            experts,
            formulas,
            held,
            trained,
        }
    }

    fn model(&self) -> Section {
        let (setup, mixture) = (self.setup, &self.setup.config.mixture);
        let count = |key: &str, formula| Figure::new(key, Unit::Count, formula);
        let shared = quantity("shared_width", mixture.shared_width)
            .over(quantity("expert_width", mixture.width));
        let mut rows = vec![
            Row::new("MoE layers", count("moe_layers", moe_layers(setup))),
            Row::new(
                "routed experts of a layer",
                count(
                    "routed_experts",
                    quantity("experts in config.json", mixture.experts),
                ),
            ),
            Row::new("shared experts of a layer", count("shared_experts", shared)),
        ];
        if let Some(groups) = setup.groups {
            let size = routed_experts(setup).over(quantity("groups", groups.count));
            let row = Row::new("experts of a group", count("experts_per_group", size));
            let uneven = groups.smallest != groups.largest;
            rows.push(if uneven {
                row.noted(format!("the largest; others have {}", groups.smallest))
            } else {
                row
            });
        }
        section("model", rows)
    }

    fn parameters(&self) -> Section {
        let row = |label: &str, key: &str, formula: Formula| {
            let figure = Figure::new(format!("parameters.{key}"), Unit::Count, formula);
            Row::new(label, figure)
        };
        let account = self.formulas.clone();
        let full = account.total.named("full");
        let held = self.held.named("held");
        let visited = self.setup.config.mixture.per_token;
        let visited = visited.min(self.setup.resident(self.experts));
        let active = hub(&account)
            + account.per_expert.named("per_expert")
                * quantity("visited_experts", visited)
                * moe_layers(self.setup).named("moe_layers");
        let backbone = row("backbone", "backbone", account.backbone);
        let backbone = match comparison::is_v2_lite(self.setup.config) {
            true => backbone.noted("published as 861.9 M"),
            false => backbone,
        };
        section(
            "parameters",
            vec![
                row("full model", "full", account.total),
                backbone,
                row("  embedding", "embedding", account.embedding),
                row("  head", "head", account.head),
                row("  attention", "attention", account.attention),
                row("  norms", "norms", account.norms),
                row("  dense layers", "dense", account.dense),
                row("  gates", "gates", account.gates),
                row("shared experts", "shared", account.shared),
                row(
                    "one routed expert of one layer",
                    "per_expert",
                    account.per_expert,
                ),
                row("all routed experts", "routed", account.routed),
                row("held", "held", self.held.clone()),
                row("trained", "trained", self.trained.clone()),
                row(
                    "frozen but held",
                    "frozen",
                    held.clone() - self.trained.named("trained"),
                ),
                row("parked", "parked", full - held),
                row("active for a token", "active", active),
            ],
        )
    }

    fn memory(&self, memory: &MemoryFormulas) -> Section {
        let parts = [
            ("frozen weights", "frozen_weights", &memory.frozen_weights),
            (
                "trained weights",
                "trained_weights",
                &memory.trained_weights,
            ),
            ("gradients", "gradients", &memory.gradients),
            ("moments", "moments", &memory.moments),
            ("activations", "activations", &memory.activations),
            ("working", "working", &memory.working),
            ("logits", "logits", &memory.logits),
            ("program", "program", &memory.program),
        ];
        let row = |label: &str, key: &str, formula: Formula| {
            let figure = Figure::new(format!("memory.{key}"), Unit::Bytes, formula);
            Row::new(label, figure)
        };
        let sum = |parts: &[(&str, &'static str, &Formula)]| {
            let named = parts.iter().map(|(_, key, formula)| formula.named(key));
            named
                .reduce(|sum, part| sum + part)
                .unwrap_or(Formula::constant(0))
        };
        let total = sum(&parts);
        let mut rows: Vec<Row> = parts
            .iter()
            .map(|(label, key, formula)| row(label, key, (*formula).clone()))
            .collect();
        rows.push(row("total", "total", total));
        let [frozen, state @ .., _, _, _, _] = &parts;
        rows.extend(self.rule_of_thumb([sum(&[*frozen]), sum(state), sum(&parts[4..])]));
        Section {
            notes: vec![
                "The rule takes 2 bytes for every weight, a gradient and each of two moments, and nothing for"
                    .into(),
                "what a pass takes: activations, working memory, logits and the program.".into(),
            ],
            ..section("memory at the peak of a step", rows)
        }
    }

    /// The rule that published peaks follow, and by how much each kind of memory departs from it.
    fn rule_of_thumb(&self, [weights, state, pass]: [Formula; 3]) -> [Row; 4] {
        let frozen = || (self.held.clone() - self.trained.clone()).named("frozen");
        let trained = || self.trained.named("trained");
        let row = |label: &str, key: &str, formula| {
            let key = format!("comparison.rule_of_thumb.{key}");
            Row::new(label, Figure::new(key, Unit::Bytes, formula))
        };
        [
            row(
                "rule of thumb: 2·frozen + 8·trained",
                "bytes",
                comparison::rule(frozen(), trained()),
            ),
            row(
                "  difference: frozen weights",
                "frozen_weights_difference",
                weights - Formula::constant(2) * frozen(),
            ),
            row(
                "  difference: trained state",
                "trained_state_difference",
                state - Formula::constant(8) * trained(),
            ),
            row("  difference: what a pass takes", "pass_difference", pass),
        ]
    }

    fn upload(&self) -> Section {
        let (config, layers) = (
            self.setup.config,
            moe_layers(self.setup).named("moe_layers"),
        );
        let (hidden, width) = (
            quantity("hidden_size", config.hidden_size),
            quantity("expert_width", config.mixture.width),
        );
        let experts = || quantity("K", self.experts) * layers.clone();
        let values = |bytes: u64| Formula::constant(bytes) * self.trained.named("trained");
        // Gate and up have a row for every column of the expert, down one for every hidden value.
        let rows = Formula::constant(2) * width.clone() + hidden.clone();
        let bits = Formula::constant(64) * (Formula::constant(12) + 2);
        let chunk = bits.over(8.into()) + 2;
        let chunks = Formula::constant(3) * (width * hidden).over(4096.into()) * experts();
        let codecs = [
            ("f32", "f32", values(4)),
            ("bf16", "bf16", values(2)),
            ("int8, values alone", "int8", values(1)),
            (
                "int8, an f32 scale a row",
                "int8_scaled",
                values(1) + Formula::constant(4) * rows * experts(),
            ),
            ("sparse: 64 of 4,096 a chunk", "sparse", chunk * chunks),
        ];
        let row = |(label, key, formula): (&str, &'static str, Formula)| {
            let bytes = formula.named(key);
            let row = Row::new(
                label,
                Figure::new(format!("upload_bytes.{key}"), Unit::Bytes, formula),
            );
            RATES.into_iter().fold(row, |row, rate| {
                let key = format!("upload_milliseconds.{key}.at_{rate}_mbit");
                let bits = Formula::constant(8) * bytes.clone();
                let time = bits.over(Formula::constant(rate) * 1000);
                row.with(Figure::new(key, Unit::Milliseconds, time))
            })
        };
        Section {
            columns: vec!["", "20 Mbit/s", "100 Mbit/s"],
            notes: vec![
                "A sparse value is an index of 12 bits and 2 bits; a chunk of a tensor has a scale of 2 bytes,"
                    .into(),
                "and a tensor's last chunk counts whole. File headers are not counted.".into(),
            ],
            ..section("one upload", codecs.into_iter().map(row).collect())
        }
    }

    fn workers(&self) -> Section {
        comparison::workers(&comparison::Worker {
            formulas: &self.formulas,
            layers: moe_layers(self.setup).named("moe_layers"),
            share: share(self.setup, self.experts),
            trained: &self.trained,
            groups: match self.setup.groups {
                Some(groups) => quantity("groups", groups.count),
                None => routed_experts(self.setup).over(quantity("K", self.experts)),
            },
        })
    }
}

/// What every worker holds of a model, whichever experts are its own.
fn hub(formulas: &ParameterFormulas) -> Formula {
    formulas.backbone.named("backbone") + formulas.shared.named("shared")
}

fn moe_layers(setup: &Setup<'_>) -> Formula {
    let dense = quantity("dense_layers", setup.config.dense_layers.len());
    quantity("num_hidden_layers", setup.config.num_hidden_layers) - dense
}

fn routed_experts(setup: &Setup<'_>) -> Formula {
    quantity("routed_experts", setup.config.mixture.experts)
}

/// A miner's own experts of a layer.
fn share(setup: &Setup<'_>, experts: usize) -> Formula {
    let name = if setup.groups.is_some() {
        "experts_per_group"
    } else {
        "K"
    };
    quantity(name, setup.share(experts))
}

fn quantity(name: &'static str, value: usize) -> Formula {
    Formula::quantity(name, value as u64)
}

fn section(title: &str, rows: Vec<Row>) -> Section {
    Section {
        title: title.to_owned(),
        columns: Vec::new(),
        rows,
        notes: Vec::new(),
    }
}
