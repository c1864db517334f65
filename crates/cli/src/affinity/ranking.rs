//! Groups in the order of their affinity for a domain, as tables and as JSON.
//!
//! An affinity is compared with the *uniform* one, which the group would have if all experts of a layer
//! scored the same: so groups of different sizes can be compared. Among equals the lower group comes first.

use std::fmt::Write as _;

use connito_engine::routing::ExpertMap;
use connito_learning::selection::{Scores, SelectionError, group_affinity};
use serde::Serialize;

use crate::args::select::AffinityArguments;

/// Longest bar, in characters.
const BAR: f64 = 30.0;

/// One domain's scores.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) tokens: u64,
    pub(super) scores: Scores,
}

/// What a miner can choose from.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    /// The experts of every group.
    pub(super) groups: &'a [ExpertMap],
    /// Miners that each of them has, where that is known.
    pub(super) miners: Option<&'a [usize]>,
}

/// The result as `--json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    /// `gate` or `token`.
    score: &'static str,
    /// How the text was routed.
    routing: &'static str,
    domains: Vec<Ranking>,
    /// The picture's file, if there is one.
    heat_map: Option<String>,
}

/// The groups of one domain, best first.
#[derive(Debug, Serialize)]
struct Ranking {
    domain: String,
    file: String,
    tokens: u64,
    groups: Vec<Ranked>,
}

/// One group's place.
#[derive(Debug, Clone, Copy, Serialize)]
struct Ranked {
    /// From 1.
    rank: usize,
    group: usize,
    /// Experts, all layers together.
    experts: usize,
    /// Mean over layers of the group's summed score.
    affinity: f64,
    /// What it would be if all experts of a layer scored the same.
    uniform: f64,
    /// The first over the second.
    relative: f64,
    /// Miners that are assigned to it already, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    miners: Option<usize>,
}

impl Report {
    pub(super) fn new(
        arguments: &AffinityArguments,
        domains: &[Domain],
        candidates: &Candidates<'_>,
    ) -> Result<Self, SelectionError> {
        let domains = domains.iter();
        let domains = domains.map(|domain| Ranking::new(domain, candidates));
        let heat_map = arguments.heat_map.as_ref();
        Ok(Self {
            model: arguments.model.display().to_string(),
            score: arguments.score.name(),
            routing: "classic",
            domains: domains.collect::<Result<_, _>>()?,
            heat_map: heat_map.map(|path| path.display().to_string()),
        })
    }

    /// A ranking for every domain, and all of them side by side where there are several.
    pub(super) fn text(&self) -> String {
        let mut parts: Vec<String> = self
            .domains
            .iter()
            .map(|ranking| ranking.text(self.score))
            .collect();
        if self.domains.len() > 1 {
            parts.push(self.comparison());
        }
        if let Some(path) = &self.heat_map {
            parts.push(format!("written    {path}"));
        }
        parts.join("\n\n")
    }

    /// Times the uniform affinity, a column for every domain.
    fn comparison(&self) -> String {
        let width = |ranking: &Ranking| ranking.domain.chars().count().max(6);
        let mut text = String::from("group");
        // Writing to a string cannot fail.
        for ranking in &self.domains {
            let _ = write!(text, "  {:>1$}", ranking.domain, width(ranking));
        }
        let groups = self
            .domains
            .first()
            .map_or(0, |ranking| ranking.groups.len());
        for group in 0..groups {
            let _ = write!(text, "\n{group:>5}");
            for ranking in &self.domains {
                let of_group = ranking.groups.iter().find(|ranked| ranked.group == group);
                let relative = of_group.map_or(0.0, |ranked| ranked.relative);
                let _ = write!(text, "  {:>1$}", format!("{relative:.2}×"), width(ranking));
            }
        }
        text
    }
}

impl Ranking {
    fn new(domain: &Domain, candidates: &Candidates<'_>) -> Result<Self, SelectionError> {
        let (scores, groups) = (&domain.scores, candidates.groups);
        let mut ranked = Vec::with_capacity(groups.len());
        for (group, experts) in groups.iter().enumerate() {
            let (affinity, uniform) = (group_affinity(scores, experts)?, uniform(scores, experts));
            ranked.push(Ranked {
                rank: 0,
                group,
                experts: experts.values().map(Vec::len).sum(),
                affinity,
                uniform,
                relative: if uniform > 0.0 {
                    affinity / uniform
                } else {
                    0.0
                },
                miners: candidates.miners.map(|miners| miners[group]),
            });
        }
        // Stable: groups come in ascending order.
        ranked.sort_by(|left, right| right.relative.total_cmp(&left.relative));
        for (rank, ranked) in (1..).zip(&mut ranked) {
            ranked.rank = rank;
        }
        Ok(Self {
            domain: domain.name.clone(),
            file: domain.file.clone(),
            tokens: domain.tokens,
            groups: ranked,
        })
    }

    fn text(&self, score: &str) -> String {
        let (domain, tokens) = (&self.domain, self.tokens);
        let known = self.groups.iter().any(|ranked| ranked.miners.is_some());
        let miners = if known { "  miners" } else { "" };
        let mut text = format!(
            "{domain}: {score} score over {tokens} tokens\nrank  group  affinity  of uniform{miners}"
        );
        let most = self.groups.first().map_or(0.0, |best| best.relative);
        for ranked in &self.groups {
            let Ranked {
                rank,
                group,
                affinity,
                relative,
                miners,
                ..
            } = ranked;
            let miners = miners.map_or_else(String::new, |miners| format!("  {miners:>6}"));
            let length = if most > 0.0 {
                BAR * relative / most
            } else {
                0.0
            };
            let bar = "█".repeat(length.round() as usize);
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n{rank:>4}  {group:>5}  {affinity:>8.4}  {relative:>9.2}×{miners}  {bar}"
            );
        }
        text
    }
}

/// The affinity of a group if all experts of a layer scored the same.
fn uniform(scores: &Scores, group: &ExpertMap) -> f64 {
    let of_layer = |(layer, row): (usize, &[f64])| {
        let members = group.get(&layer).map_or(0, Vec::len);
        row.iter().sum::<f64>() * members as f64 / row.len() as f64
    };
    let layers = scores.layers().count().max(1);
    scores.layers().map(of_layer).sum::<f64>() / layers as f64
}
