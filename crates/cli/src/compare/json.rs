//! The comparison as one JSON object on one line. Rates are rounded to six digits, which is more than they mean.

use serde_json::{Map, Value, json};

use super::models::Slice;
use super::played::{Comparison, ModelResult, StrategyResult};
use super::words::{CLAIMS, LEFT_OUT, SOURCES, label, setting};

/// The whole comparison.
pub(super) fn line(comparison: &Comparison) -> String {
    let claim = |claim: &super::words::Claim| json!({ "about": claim.about, "said": claim.said, "public": claim.public });
    let source = |(what, source): &(&str, &str)| json!({ "what": what, "source": source });
    let models = comparison.models.iter();
    let models: Vec<Value> = models.map(|result| model(comparison, result)).collect();
    json!({
        "parameters": parameters(comparison),
        "models": models,
        "claims": CLAIMS.iter().map(claim).collect::<Vec<_>>(),
        "left_out": LEFT_OUT,
        "sources": SOURCES.iter().map(source).collect::<Vec<_>>(),
    })
    .to_string()
}

fn parameters(comparison: &Comparison) -> Value {
    let (network, batch) = (&comparison.network, comparison.batch);
    json!({
        "workers": network.workers,
        "up_bits_per_second": network.up_bits_per_second,
        "down_bits_per_second": network.down_bits_per_second,
        "latency_seconds": network.latency_seconds,
        "flop_per_second": network.flop_per_second,
        "spread": network.spread,
        "outage_seconds": network.outage_seconds,
        "sequence_tokens": batch.sequence_tokens,
        "step_sequences": batch.sequences,
        "pipeline_replicas": comparison.replicas,
        "hours": comparison.hours,
        "seed": comparison.seed,
        "failing": comparison.failing,
    })
}

fn model(comparison: &Comparison, result: &ModelResult) -> Value {
    let model = &result.model;
    let strategies = result.strategies.iter();
    let strategies: Vec<Value> = strategies
        .map(|played| strategy(comparison, played))
        .collect();
    json!({
        "model": model.name,
        "parameters": model.size.parameters,
        "multiplied_parameters": model.size.active,
        "hidden_size": model.size.hidden,
        "slice": model.slice.as_ref().map(slice),
        "strategies": strategies,
    })
}

fn slice(slice: &Slice) -> Value {
    json!({
        "groups": slice.groups,
        "group_experts": slice.group_experts,
        "trained_experts": slice.trained_experts,
        "held_parameters": slice.size.held,
        "trained_parameters": slice.size.trained,
        "planned_peak_bytes": slice.planned_bytes,
    })
}

fn strategy(comparison: &Comparison, played: &StrategyResult) -> Value {
    let pipeline = played.plan.pipeline;
    let shares = comparison.failing.iter().zip(&played.outcomes);
    let outcomes: Vec<Value> = shares
        .map(|(share, outcome)| of_share(*share, outcome))
        .collect();
    json!({
        "strategy": played.kind.key(),
        "label": label(played.kind),
        "setting": setting(played.kind),
        "weights_bytes": played.plan.memory.weights_bytes,
        "training_bytes": played.plan.memory.training_bytes,
        "event_bytes": rounded(played.plan.event_bytes),
        "event_seconds": rounded(played.event_seconds(&comparison.network)),
        "counted_events_per_hour": played.counted_events.map(rounded),
        "stages": pipeline.map(|(stages, _)| stages),
        "micro_batches": pipeline.map(|(_, micro_batches)| micro_batches),
        "bubble_share": played.bubble_share().map(rounded),
        "outcomes": outcomes,
    })
}

fn of_share(share: f64, outcome: &connito_sim::comparison::Outcome) -> Value {
    let mut object = Map::new();
    for (key, value) in [
        ("failing", share),
        ("hours", outcome.hours),
        (
            "processed_tokens_per_second",
            outcome.processed_tokens_per_second,
        ),
        ("merged_tokens_per_second", outcome.merged_tokens_per_second),
        (
            "sent_bytes_per_worker_hour",
            outcome.sent_bytes_per_worker_hour,
        ),
        (
            "received_bytes_per_worker_hour",
            outcome.received_bytes_per_worker_hour,
        ),
        ("events_per_hour", outcome.events_per_hour),
        ("idle_share", outcome.idle_share),
    ] {
        object.insert(key.to_owned(), json!(rounded(value)));
    }
    object.insert("workers".to_owned(), json!(outcome.workers));
    object.insert("rounds".to_owned(), json!(outcome.rounds));
    object.insert(
        "running_share".to_owned(),
        json!(outcome.running_share.map(rounded)),
    );
    Value::Object(object)
}

/// Six digits.
fn rounded(value: f64) -> f64 {
    // A number that was just written is one that can be read.
    format!("{value:.5e}").parse().unwrap_or(value)
}
