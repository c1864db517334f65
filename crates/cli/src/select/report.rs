//! What `select` says: which experts of which layers, how much of the score they cover, and what training
//! them takes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use connito_engine::routing::ExpertMap;
use connito_learning::selection::{Amount, ExpertConfig, SelectionError, group_affinity};
use serde::Serialize;

use super::{Rule, Scored};
use crate::args::select::SelectArguments;

/// The result as `--json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// `gate` or `token`.
    score: &'static str,
    /// The threshold, unless a number was asked for.
    top_p: Option<f64>,
    /// The number, if one was asked for.
    top_k: Option<usize>,
    /// How the text was routed; `null` for recorded scores.
    routing: Option<&'static str>,
    /// Tokens that were run; `null` for recorded scores.
    tokens: Option<u64>,
    /// The group that was chosen among; `null` for all experts.
    group: Option<u16>,
    layers: usize,
    /// Experts to choose from, all layers together.
    candidates: usize,
    selected: usize,
    smallest_layer: usize,
    mean_layer: f64,
    largest_layer: usize,
    /// Share of all experts' score, mean over layers.
    covered: f64,
    /// Share of the group's score; `null` where it has none, and without a group.
    covered_of_group: Option<f64>,
    /// Layers in which nothing is selected.
    empty_layers: Vec<usize>,
    /// `null` where the model is not known.
    trained_parameters: Option<u64>,
    /// In bf16.
    trained_bytes: Option<u64>,
    /// Selected experts by layer, best first.
    experts: ExpertMap,
    /// Share of the layer's score by layer.
    #[serde(skip)]
    covered_by_layer: BTreeMap<usize, f64>,
    out: String,
}

impl Report {
    pub(super) fn new(
        arguments: &SelectArguments,
        rule: Rule,
        scored: &Scored,
        selected: &ExpertConfig,
    ) -> Result<Self, SelectionError> {
        let scores = scored.summary.scores(rule.score);
        let group = scored.group.as_ref();
        let candidates = group.map_or_else(|| scores.all(), |group| group.experts.clone());
        let (top_p, top_k) = match rule.amount {
            Amount::TopP(p) => (Some(p.get()), None),
            Amount::TopK(k) => (None, Some(k.get())),
        };
        let sizes = || selected.experts.values().map(Vec::len);
        let all = group_affinity(scores, &scores.all())?;
        let taken = group_affinity(scores, &selected.experts)?;
        let of_group = group.map(|group| group_affinity(scores, &group.experts));
        let of_group = of_group.transpose()?.filter(|whole| *whole > 0.0);
        let of_layer = |(layer, row): (usize, &[f64])| {
            let taken = selected.experts.get(&layer).into_iter().flatten();
            let taken: f64 = taken.map(|&expert| row[expert]).sum();
            (layer, share(taken, row.iter().sum()))
        };
        let count = selected.count();
        let config = scored.config.as_ref();
        let parameters = config.map(|config| count as u64 * config.parameters().per_expert);
        Ok(Self {
            score: arguments.score.name(),
            top_p,
            top_k,
            routing: scored.tokens.map(|_| "classic"),
            tokens: scored.tokens,
            group: group.map(|group| group.number),
            layers: selected.experts.len(),
            candidates: candidates.values().map(Vec::len).sum(),
            selected: count,
            smallest_layer: sizes().min().unwrap_or(0),
            mean_layer: count as f64 / selected.experts.len().max(1) as f64,
            largest_layer: sizes().max().unwrap_or(0),
            covered: share(taken, all),
            covered_of_group: of_group.map(|whole| share(taken, whole)),
            empty_layers: selected.empty_layers().collect(),
            trained_parameters: parameters,
            trained_bytes: parameters.map(|parameters| 2 * parameters),
            experts: selected.experts.clone(),
            covered_by_layer: scores.layers().map(of_layer).collect(),
            out: arguments.out.display().to_string(),
        })
    }

    /// The same as a table and a few sentences.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("layer  experts  covered  best first\n");
        for (layer, experts) in &self.experts {
            let covered = self.covered_by_layer.get(layer).unwrap_or(&0.0);
            let ids: Vec<String> = experts.iter().map(usize::to_string).collect();
            let (count, ids) = (experts.len(), ids.join(" "));
            let percent = 100.0 * covered;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{layer:>5}  {count:>7}  {percent:>5.1} %  {ids}");
        }
        let lines = self.sentences();
        format!("{text}\n{}", lines.join("\n"))
    }

    fn sentences(&self) -> Vec<String> {
        let whose = match self.group {
            None => "experts".to_owned(),
            Some(group) => format!("experts of group {group}"),
        };
        let mut lines = vec![format!(
            "selected   {} of {} {whose} in {} layers: {} to {} a layer, {:.2} in the mean",
            self.selected,
            self.candidates,
            self.layers,
            self.smallest_layer,
            self.largest_layer,
            self.mean_layer
        )];
        let amount = match (self.top_p, self.top_k) {
            (Some(p), _) => format!("top-p {p}"),
            (None, k) => format!("top-k {}", k.unwrap_or(0)),
        };
        let text = match self.tokens {
            Some(tokens) => format!("over {tokens} tokens, routed as the model is"),
            None => "as recorded".to_owned(),
        };
        lines.push(format!("rule       {} score {text}; {amount}", self.score));
        let of_group = self.covered_of_group.zip(self.group);
        let of_group = of_group.map_or_else(String::new, |(share, group)| {
            format!(", {:.1} % of group {group}'s", 100.0 * share)
        });
        lines.push(format!(
            "covered    {:.1} % of all experts' score{of_group}",
            100.0 * self.covered
        ));
        if let Some((parameters, bytes)) = self.trained_parameters.zip(self.trained_bytes) {
            let gigabytes = bytes as f64 / 1e9;
            lines.push(format!(
                "trained    {parameters} parameters, {bytes} bytes in bf16 ({gigabytes:.2} GB)"
            ));
        }
        if !self.empty_layers.is_empty() {
            let layers: Vec<String> = self.empty_layers.iter().map(usize::to_string).collect();
            let layers = layers.join(", ");
            lines.push(format!(
                "nothing    is selected in layers {layers}: the group has no experts there, or no token visits them"
            ));
        }
        lines.push(format!("written    {}", self.out));
        lines
    }
}

fn share(part: f64, whole: f64) -> f64 {
    // The sum of nothing is minus zero.
    if whole > 0.0 { part / whole + 0.0 } else { 0.0 }
}
