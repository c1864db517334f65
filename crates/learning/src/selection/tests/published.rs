//! The published selections of two tasks from their published scores, and what the reference computed.
//!
//! The files are those of deepseek-ai/ESFT. They lie beside the repository, not in it; without them these
//! tests say so and check nothing.

use std::path::Path;

use super::{Amount, Score, ScoreSummary, group_affinity, select, top_p};
use crate::selection::ExpertConfig;

/// Text of a published file, or `None` where the files are not.
fn published(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/esft")
        .join(name);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!("skipped: there is no {}", path.display());
    }
    text
}

fn summary(task: &str) -> Option<(String, ScoreSummary)> {
    let text = published(&format!("expert_scores/{task}/summary.json"))?;
    let summary = ScoreSummary::from_json(&text).unwrap();
    Some((text, summary))
}

/// Token score and p = 0.2, as the paper has it: the same experts in the same order, in the same bytes.
#[test]
fn the_published_configurations_follow_from_the_published_scores() {
    for (task, experts) in [("law", 153), ("summary", 128)] {
        let Some((_, summary)) = summary(task) else {
            return;
        };
        let expected = published(&format!("expert_configs/{task}.json")).unwrap();
        let amount = Amount::TopP(Score::Token.usual_threshold());
        let selected = select(summary.scores(Score::Token), amount).unwrap();
        assert_eq!(selected, ExpertConfig::from_json(&expected).unwrap());
        assert_eq!(selected.to_json(), expected);
        assert_eq!(selected.count(), experts);
    }
}

#[test]
fn the_gate_score_selects_as_many_as_the_reference_computed() {
    for (task, experts) in [("law", 163), ("summary", 193)] {
        let Some((_, summary)) = summary(task) else {
            return;
        };
        assert_eq!(Score::Gate.usual_threshold().get(), 0.1);
        let selected = select(summary.scores(Score::Gate), top_p(0.1)).unwrap();
        assert_eq!(selected.count(), experts, "{task}");
    }
}

#[test]
fn a_published_summary_is_written_as_it_was_read() {
    for task in ["law", "summary"] {
        let Some((text, summary)) = summary(task) else {
            return;
        };
        assert_eq!(summary.to_json(), text);
    }
}

/// Rounded rows add up to 1 within half a unit of the last decimal for each of 64 experts.
#[test]
fn affinities_of_eight_groups_add_up_to_one() {
    let Some((_, summary)) = summary("law") else {
        return;
    };
    let scores = summary.scores(Score::Token);
    let affinity = |group: usize| {
        let members: Vec<usize> = (group * 8..group * 8 + 8).collect();
        let group = (1..=26).map(|layer| (layer, members.clone())).collect();
        group_affinity(scores, &group).unwrap()
    };
    let sum: f64 = (0..8).map(affinity).sum();
    assert!((sum - 1.0).abs() < 64.0 * 5e-5, "{sum}");
}
