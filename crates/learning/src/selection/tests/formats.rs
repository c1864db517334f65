//! The two public formats: what is written is read again, and what they should not hold is refused by name.

use crate::selection::{ExpertConfig, Score, ScoreSummary, SelectionError};

/// An error with its causes in one line, as the command line shows it.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn summary(token: &str, gate: &str) -> Result<ScoreSummary, SelectionError> {
    ScoreSummary::from_json(&format!(
        "{{\"token_scores\": {token}, \"gate_scores\": {gate}}}"
    ))
}

/// Half a unit goes to the even digit: 0.03125 and 0.09375 are exact in binary.
#[test]
fn scores_are_written_in_four_decimals_that_are_rounded_exactly() {
    let rows = r#"{"10": {"0": 0.03125, "1": 0.09375}, "2": {"1": 1, "0": 0.00005}}"#;
    let summary = summary(rows, rows).unwrap();
    let written = r#"{"10": {"0": 0.0312, "1": 0.0938}, "2": {"0": 0.0001, "1": 1.0}}"#;
    assert_eq!(
        summary.to_json(),
        format!("{{\"token_scores\": {written}, \"gate_scores\": {written}}}")
    );
    let again = ScoreSummary::from_json(&summary.to_json()).unwrap();
    assert_eq!(again.to_json(), summary.to_json());
    assert_eq!(summary.scores(Score::Gate).experts(), 2);
}

#[test]
fn what_a_summary_should_not_hold_is_refused_by_layer_and_expert() {
    let good = r#"{"1": {"0": 0.5, "1": 0.5}, "2": {"0": 0.5, "1": 0.5}}"#;
    let cases: [(&str, &[&str]); 13] = [
        (r#"{"1": {"0": 1e999, "1": 0.5}}"#, &["layer 1", "expert 0"]),
        (r#"{"1": {"0": 0.5, "1": NaN}}"#, &["layer 1", "expert 1"]),
        (
            r#"{"1": {"0": 0.5, "1": null}}"#,
            &["layer 1", "expert 1", "null"],
        ),
        (
            r#"{"1": {"0": 0.5, "1": -0.5}}"#,
            &["layer 1", "expert 1", "-0.5"],
        ),
        (r#"{"1": {"0": 0.5, "1": "0.5"}}"#, &["layer 1", "expert 1"]),
        (
            r#"{"1": {"0": 0.5, "0": 0.5}}"#,
            &["layer 1", "expert 0", "twice"],
        ),
        (
            r#"{"1": {"0": 0.5}, "1": {"0": 0.5}}"#,
            &["layer 1", "twice"],
        ),
        (r#"{"1": {"0": 0.5, "01": 0.5}}"#, &["layer 1", "\"01\""]),
        (r#"{"one": {"0": 0.5}}"#, &["layer \"one\""]),
        (r#"{"-1": {"0": 0.5}}"#, &["layer \"-1\""]),
        (
            r#"{"1": {"0": 0.5, "2": 0.5}, "2": {"0": 0.5, "1": 0.5}}"#,
            &["layer 1", "expert 1"],
        ),
        (
            r#"{"1": {"0": 0.5, "1": 0.5}, "2": {"0": 0.5}}"#,
            &["layer 2", "expert 1"],
        ),
        (
            r#"{"1": {"0": 0.5, "18446744073709551615": 0.5}, "2": {"0": 1}}"#,
            &["layer 1", "expert 1"],
        ),
    ];
    for (rows, names) in cases {
        for error in [
            summary(rows, good),
            summary(good, rows),
            summary(rows, rows),
        ] {
            let error = told(&error.unwrap_err());
            for name in names {
                assert!(error.contains(name), "{rows}: {error} does not name {name}");
            }
        }
    }
}

#[test]
fn both_kinds_of_score_are_of_the_same_experts() {
    let refused = |token, gate| told(&summary(token, gate).unwrap_err());
    let (one, two) = (r#"{"1": {"0": 1}}"#, r#"{"1": {"0": 1}, "2": {"0": 1}}"#);
    assert_eq!(refused(one, two), "layer 2 is missing from token_scores");
    assert_eq!(refused(two, one), "layer 2 is missing from gate_scores");
    let wide = r#"{"1": {"0": 0.5, "1": 0.5}}"#;
    assert_eq!(refused(one, wide), "layer 1 has no score for expert 1");
    assert_eq!(refused("{}", "{}"), "there are no scores");
    let lacking = ScoreSummary::from_json(&format!("{{\"token_scores\": {one}}}"));
    assert!(told(&lacking.unwrap_err()).contains("gate_scores"));
}

#[test]
fn a_configuration_is_read_as_it_was_written() {
    let text = "{\"experts\": {\"1\": [12, 40], \"10\": [], \"2\": [0]}, \
                \"shared_experts\": true, \"non_expert_modules\": false}";
    let config = ExpertConfig::from_json(text).unwrap();
    assert_eq!(config.experts[&1], [12, 40]);
    assert!(config.shared_experts && !config.non_expert_modules);
    assert_eq!(config.to_json(), text);
    assert_eq!(
        (config.count(), config.empty_layers().next()),
        (3, Some(10))
    );
}

#[test]
fn what_a_configuration_should_not_hold_is_refused_by_name() {
    for (experts, name) in [
        (r#"{"1": [0, 3, 0]}"#, "layer 1: expert 0"),
        (r#"{"1": [0], "1": [1]}"#, "layer 1"),
        (r#"{"one": [0]}"#, "layer \"one\""),
        (r#"{"1": [-1]}"#, "layer 1"),
        (r#"{"1": [0.5]}"#, "layer 1"),
        (r#"[[0]]"#, "a map from layers"),
    ] {
        let error = ExpertConfig::from_json(&format!("{{\"experts\": {experts}}}"));
        let error = told(&error.unwrap_err());
        assert!(error.contains(name), "{experts}: {error}");
    }
    assert!(ExpertConfig::from_json("{}").is_err());
}
