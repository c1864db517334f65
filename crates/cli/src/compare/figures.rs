//! The comparison in five figures: bytes, memory, events and the share of time computing on scales of powers of
//! ten, throughput against the share of failing workers.
//!
//! A figure has a panel for each model. Where one number of each strategy is shown, a strategy is a row and a
//! number a dot: filled and hollow dots are two numbers of one strategy. Labels stand beside what they name.

mod dots;
mod lines;

use connito_sim::comparison::Kind;

use super::models::Model;
use super::played::{Comparison, ModelResult, StrategyResult};
use super::text::percent;
use dots::{DotPlot, Mark, Series};

/// File name and text of every figure.
pub(super) fn all(comparison: &Comparison) -> [(&'static str, String); 5] {
    let share = percent(comparison.failing.first().copied().unwrap_or(0.0));
    let workers = comparison.network.workers;
    [
        ("bytes-per-hour.svg", bytes(comparison, &share)),
        ("memory-per-worker.svg", memory(comparison)),
        ("computing-share.svg", computing(comparison, &share)),
        (
            "throughput-under-failures.svg",
            lines::throughput(comparison),
        ),
        (
            "events-per-hour.svg",
            DotPlot {
                title: format!("Communication events per hour, {workers} workers, {share} failing"),
                axis: "events in an hour, whole network",
                unit: "",
                series: &[
                    Series {
                        name: "as played",
                        mark: Mark::Filled,
                        value: |_, strategy| Some(strategy.calm().events_per_hour),
                    },
                    Series {
                        name: "as counted: 100 steps a minute, or a cycle of 9 minutes, and links that take no time",
                        mark: Mark::Hollow,
                        value: |_, strategy| strategy.counted_events,
                    },
                ],
                guides: &[],
            }
            .svg(&comparison.models),
        ),
    ]
}

fn bytes(comparison: &Comparison, share: &str) -> String {
    let plot = DotPlot {
        title: format!("Bytes per hour and worker, {share} failing"),
        axis: "bytes in an hour, one worker",
        unit: "B",
        series: &[
            Series {
                name: "sent",
                mark: Mark::Filled,
                value: |_, strategy| Some(strategy.calm().sent_bytes_per_worker_hour),
            },
            Series {
                name: "received",
                mark: Mark::Hollow,
                value: |_, strategy| Some(strategy.calm().received_bytes_per_worker_hour),
            },
        ],
        guides: &[],
    };
    plot.svg(&comparison.models)
}

fn memory(comparison: &Comparison) -> String {
    let plot = DotPlot {
        title: "Memory of one worker".to_owned(),
        axis: "bytes",
        unit: "B",
        series: &[
            Series {
                name: "weights in bf16",
                mark: Mark::Filled,
                value: |_, strategy| Some(strategy.plan.memory.weights_bytes),
            },
            Series {
                name: "peak by connito plan",
                mark: Mark::Barred,
                value: planned,
            },
            Series {
                name: "with training state: 16 B a trained, 2 B a frozen parameter",
                mark: Mark::Hollow,
                value: |_, strategy| Some(strategy.plan.memory.training_bytes),
            },
        ],
        guides: &[(24e9, "24"), (48e9, "48"), (80e9, "80 GB cards")],
    };
    plot.svg(&comparison.models)
}

/// What is not idle: idle shares themselves would lie upon each other near 100 %.
fn computing(comparison: &Comparison, share: &str) -> String {
    let plot = DotPlot {
        title: format!("Share of the time in which a worker computes, {share} failing"),
        axis: "computing share; the rest is idle",
        unit: "%",
        series: &[
            Series {
                name: "as played",
                mark: Mark::Filled,
                value: |_, strategy| Some(100.0 * (1.0 - strategy.calm().idle_share)),
            },
            Series {
                name: "of a pipeline, if its bubble were all that idles",
                mark: Mark::Hollow,
                value: |_, strategy| Some(100.0 * (1.0 - strategy.bubble_share()?)),
            },
        ],
        guides: &[],
    };
    plot.svg(&comparison.models)
}

/// What the engine predicts, where it is the engine that trains.
fn planned(model: &Model, strategy: &StrategyResult) -> Option<f64> {
    let slice = model.slice.as_ref()?;
    (strategy.kind == Kind::ExpertParallel).then_some(slice.planned_bytes as f64)
}

/// A strategy's colour: one for each way of dividing a model.
fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::DataParallel | Kind::DataParallelInt8 | Kind::DataParallelSparse => "#5b7083",
        Kind::Pipeline | Kind::PipelineCompressed => "#b07a3f",
        Kind::ExpertParallel => "#0f766e",
    }
}

/// What a panel is headed by.
fn heading(result: &ModelResult) -> String {
    match &result.model.slice {
        Some(slice) => format!(
            "{}, {} groups, {} of {} experts of a layer trained",
            result.model.name, slice.groups, slice.trained_experts, slice.group_experts
        ),
        None => format!("{}, dense", result.model.name),
    }
}

/// A name that leaves room for other things.
fn clipped(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(letters.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests;
