//! What `sim` prints for people: one short table a scenario.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use connito_sim::Summary;

use super::Printed;

/// The table.
pub(super) fn text(printed: &Printed<'_>) -> String {
    let summary = printed.summary;
    let last = summary.first_seed + summary.seeds.saturating_sub(1);
    let mut text = format!(
        "scenario     {}, seed {}",
        printed.scenario, summary.first_seed
    );
    if summary.seeds > 1 {
        let _ = write!(text, " to {last}");
    }
    let cycles = &summary.cycles;
    let _ = write!(
        text,
        "\ncycles       {} judged, {} with a quorum, {} decided, {} passed the gate",
        cycles.judged, cycles.quorum, cycles.decided, cycles.passed
    );
    if summary.captures + summary.caught > 0 {
        let _ = write!(
            text,
            "\ncommittees   {} captured by hostile validators, {} of whom reviews excluded",
            summary.captures, summary.caught
        );
    }
    let _ = write!(text, "\nverdicts     {}", counted(&summary.codes));
    let traffic = &summary.traffic;
    let gigabytes = |bytes: f64| format!("{:.1} GB", bytes / 1e9);
    let _ = write!(
        text,
        "\nbytes        {} from miners, {} to miners, {} between servers",
        gigabytes(traffic.miner_upload_bytes),
        gigabytes(traffic.miner_download_bytes),
        gigabytes(traffic.validator_bytes)
    );
    let _ = write!(
        text,
        "\nmishaps      {} crashes, {} broken transfers, {} refused writes, {} told to come back",
        traffic.crashes, traffic.broken, traffic.refused_writes, traffic.busy
    );
    let _ = write!(
        text,
        "\nmachines     {} steps in {:.1} s, {:.0} s simulated",
        summary.steps, printed.elapsed_seconds, summary.simulated_seconds
    );
    write_miners(summary, &mut text);
    write_end(printed, &mut text);
    text
}

fn write_miners(summary: &Summary, text: &mut String) {
    text.push_str(
        "\n\nminers             hotkeys   reward  unearned  a hotkey    a step  verdicts\n",
    );
    for (name, kind) in &summary.kinds {
        let share = |reward: f64| 100.0 * reward / summary.paid.max(f64::MIN_POSITIVE);
        let step = kind
            .reward_per_step
            .map_or("–".to_owned(), |step| format!("{step:.2}"));
        let _ = writeln!(
            text,
            "{name:<18} {:>7}  {:>6.2}%  {:>7.2}%  {:>8.2}  {step:>8}  {}",
            kind.hotkeys,
            share(kind.reward),
            share(kind.unearned),
            kind.reward_per_hotkey,
            counted(&kind.codes)
        );
    }
}

/// What held, and what did not.
fn write_end(printed: &Printed<'_>, text: &mut String) {
    let summary = printed.summary;
    let share = summary.honest_reward_share;
    let share = share.map_or("nobody earned".to_owned(), |share| {
        format!("{:.2} % of what was paid", 100.0 * share)
    });
    let unearned = summary.unearned_reward_share.unwrap_or(0.0);
    let _ = write!(
        text,
        "\nhonest       {share}\nunearned     {:.2} %: paid to hostile miners beyond honest pay for as many \
         steps\nviolations   {}",
        100.0 * unearned,
        summary.violations
    );
    for failure in &summary.failures {
        let _ = write!(
            text,
            "\n  seed {}, step {}: {}: {}",
            failure.seed, failure.step, failure.invariant, failure.detail
        );
    }
    if let Some(trace) = &printed.trace {
        let _ = write!(text, "\ntrace        {trace}");
    }
}

fn counted(counts: &BTreeMap<String, u64>) -> String {
    let counts = counts.iter().map(|(word, count)| format!("{count} {word}"));
    counts.collect::<Vec<_>>().join(", ")
}
