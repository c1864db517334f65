//! The comparison as a page for people, at most 100 columns wide.

use connito_engine::formula::grouped;

use super::models::Slice;
use super::played::{Comparison, ModelResult};
use super::words::{CLAIMS, LEFT_OUT, SOURCES, label, setting};
use crate::wrap::wrapped;

/// Width of strategies' names.
const LABEL: usize = 36;

/// Width of a cost.
const COST: usize = 10;

/// Width of a rate: seven of them fit.
const RATE: usize = 9;

/// The whole page.
pub(super) fn page(comparison: &Comparison) -> String {
    let mut lines = headline(comparison);
    for result in &comparison.models {
        lines.push(String::new());
        lines.extend(model(comparison, result));
    }
    lines.extend(["".to_owned(), "how the strategies are played".to_owned()]);
    if let Some(result) = comparison
        .models
        .iter()
        .max_by_key(|model| model.strategies.len())
    {
        for strategy in &result.strategies {
            lines.extend(pair(label(strategy.kind), setting(strategy.kind)));
        }
    }
    lines.push(String::new());
    lines.push("what was said when this system was conceived, and what is public".to_owned());
    for claim in &CLAIMS {
        lines.push(format!("  {}", claim.about));
        lines.extend(named("said", 12, claim.said));
        lines.extend(named("public", 12, claim.public));
    }
    lines.extend(["".to_owned(), "what this leaves out".to_owned()]);
    lines.extend(LEFT_OUT.iter().flat_map(|text| named("-", 4, text)));
    lines.extend(["".to_owned(), "sources".to_owned()]);
    lines.extend(SOURCES.iter().flat_map(|(what, source)| pair(what, source)));
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    trimmed.join("\n")
}

/// What was played.
fn headline(comparison: &Comparison) -> Vec<String> {
    let (network, batch) = (&comparison.network, comparison.batch);
    let spread = network.spread * 100.0;
    vec![
        format!(
            "one network for all: {} workers, {}bit/s up, {}bit/s down, {:.1} Tflop/s, each ±{spread:.0} %",
            grouped(network.workers as i128),
            short(network.up_bits_per_second),
            short(network.down_bits_per_second),
            network.flop_per_second / 1e12,
        ),
        format!(
            "{:.0} ms of latency; the same outages, about {:.0} minutes each; {} × {} tokens a worker and step",
            network.latency_seconds * 1e3,
            network.outage_seconds / 60.0,
            batch.sequences,
            grouped(batch.sequence_tokens.into()),
        ),
        format!(
            "at least {:.0} hours of each strategy, seed {}",
            comparison.hours, comparison.seed
        ),
    ]
}

fn model(comparison: &Comparison, result: &ModelResult) -> Vec<String> {
    let model = &result.model;
    let mut lines = vec![format!(
        "{}: {} parameters, {} of them multiplied with a token",
        model.name,
        count(model.size.parameters),
        count(model.size.active)
    )];
    match &model.slice {
        Some(slice) => lines.extend(sliced(slice)),
        None => {
            lines.push("  has no routed experts, so that expert parallelism does not apply".into())
        }
    }
    lines.push(String::new());
    lines.extend(costs(comparison, result));
    lines.push(String::new());
    lines.extend(throughput(comparison, result));
    lines
}

fn sliced(slice: &Slice) -> [String; 2] {
    [
        format!(
            "  {} groups of {} experts a layer, {} of them trained: {} held, {} trained",
            slice.groups,
            slice.group_experts,
            slice.trained_experts,
            count(slice.size.held),
            count(slice.size.trained),
        ),
        format!(
            "  a miner's peak by connito plan, 8-bit moments, bf16: {}B",
            short(slice.planned_bytes as f64)
        ),
    ]
}

/// What a worker pays, with the fewest failing.
fn costs(comparison: &Comparison, result: &ModelResult) -> Vec<String> {
    let row = |label: &str, columns: [&str; 6]| row(label, COST, columns);
    let share = percent(comparison.failing.first().copied().unwrap_or(0.0));
    let failing = format!("of a worker, {share} failing");
    let mut lines = vec![
        row(
            &failing,
            ["sent", "received", "events", "weights", "training", "idle"],
        ),
        row(
            "",
            [
                "per hour",
                "per hour",
                "per hour*",
                "bf16",
                "state",
                "share",
            ],
        ),
    ];
    for strategy in &result.strategies {
        let (calm, memory) = (strategy.calm(), strategy.plan.memory);
        let columns = [
            format!("{}B", short(calm.sent_bytes_per_worker_hour)),
            format!("{}B", short(calm.received_bytes_per_worker_hour)),
            short(calm.events_per_hour),
            format!("{}B", short(memory.weights_bytes)),
            format!("{}B", short(memory.training_bytes)),
            format!("{:.2} %", calm.idle_share * 100.0),
        ];
        lines.push(row(
            label(strategy.kind),
            columns.each_ref().map(String::as_str),
        ));
    }
    let bubbles = result.strategies.iter().filter_map(|strategy| {
        let share = strategy.bubble_share()? * 100.0;
        let (stages, micro_batches) = strategy.plan.pipeline?;
        Some(format!(
            "{share:.1} % of {stages} stages and {micro_batches} micro-batches"
        ))
    });
    let bubbles: Vec<String> = bubbles.collect();
    lines.push("  * of the whole network".to_owned());
    let note = format!("bubbles, within idle: {}", bubbles.join(", "));
    lines.extend(named("", 2, &note));
    lines
}

/// Tokens of the whole network.
fn throughput(comparison: &Comparison, result: &ModelResult) -> Vec<String> {
    let shares: Vec<String> = comparison.failing.iter().copied().map(percent).collect();
    let first = shares.first().cloned().unwrap_or_default();
    let mut lines = vec![
        row(
            "tokens per second",
            RATE,
            ["processed", "  reaching the model, this share failing"],
        ),
        row(
            "",
            RATE,
            std::iter::once(first.as_str()).chain(shares.iter().map(String::as_str)),
        ),
    ];
    for strategy in &result.strategies {
        let processed = std::iter::once(short(strategy.calm().processed_tokens_per_second));
        let merged = strategy
            .outcomes
            .iter()
            .map(|outcome| short(outcome.merged_tokens_per_second));
        let columns: Vec<String> = processed.chain(merged).collect();
        lines.push(row(
            label(strategy.kind),
            RATE,
            columns.iter().map(String::as_str),
        ));
    }
    lines
}

/// A row of columns, each so wide.
fn row<'a>(label: &str, number: usize, columns: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = format!("  {label:<width$}", width = LABEL - 2);
    for column in columns {
        // A long heading begins where its column does.
        match column.chars().count() <= number {
            true => line.push_str(&format!("{column:>number$}")),
            false => line.push_str(column),
        }
    }
    line
}

/// A name and what belongs to it, beside each other.
fn pair(name: &str, text: &str) -> Vec<String> {
    match name.chars().count() < LABEL - 2 {
        true => named(name, LABEL, text),
        false => {
            let mut lines = vec![format!("  {name}")];
            lines.extend(named("", LABEL, text));
            lines
        }
    }
}

/// Text in lines, indented, with a name before the first.
fn named(name: &str, indent: usize, text: &str) -> Vec<String> {
    let before = if indent > 8 && name.len() < 8 { 4 } else { 2 };
    let width = indent.saturating_sub(before);
    let first = format!("{:before$}{name:<width$}", "");
    wrapped(&first, &" ".repeat(indent), text)
}

/// Parameters, whose billions are called so.
fn count(parameters: u64) -> String {
    short(parameters as f64).replace('G', "B")
}

/// A share in percent, with decimals only where there are any.
pub(super) fn percent(share: f64) -> String {
    let percent = (share * 1e6).round() / 1e4;
    format!("{percent} %")
}

/// A number to three digits with the letter of its thousands, ready for a unit.
pub(super) fn short(value: f64) -> String {
    let letters = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ];
    // What rounds to a thousand is a thousand.
    let found = letters.into_iter().find(|(size, _)| value >= size * 0.9995);
    let (scaled, letter) = found.map_or((value, ""), |(size, letter)| (value / size, letter));
    let number = match scaled {
        0.0 => "0".to_owned(),
        ..0.0005 => format!("{scaled:.0e}"),
        ..0.0995 => format!("{scaled:.3}"),
        ..9.995 => format!("{scaled:.2}"),
        ..99.95 => format!("{scaled:.1}"),
        _ => format!("{scaled:.0}"),
    };
    format!("{number} {letter}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrap::COLUMNS;

    #[test]
    fn numbers_have_three_digits_and_the_letter_of_their_thousands() {
        let numbers = [
            0.0, 0.0001, 0.0312, 0.31, 7.2, 83.46, 999.4, 999.6, 8.71e9, 1.12e12,
        ]
        .map(short);
        let expected = [
            "0", "1e-4", "0.031", "0.31", "7.20", "83.5", "999", "1.00 k", "8.71 G", "1.12 T",
        ];
        assert_eq!(numbers, expected);
        assert_eq!(
            [0.0, 0.05, 0.025, 0.3].map(percent),
            ["0 %", "5 %", "2.5 %", "30 %"]
        );
    }

    #[test]
    fn long_words_and_sentences_stay_within_the_page() {
        let lines = named("name", 36, &"seven letters ".repeat(20));
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS));
        assert!(lines[0].starts_with("    name") || lines[0].starts_with("  name"));
    }
}
