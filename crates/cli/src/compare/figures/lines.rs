//! Throughput against the share of workers that fail, each strategy relative to itself with the fewest failing.
//!
//! Relative, because the strategies are powers of ten apart: what they reach stands beside their names.

use super::super::played::{Comparison, ModelResult, StrategyResult};
use super::super::svg::{Anchor, FAINT, GRID, Picture, Style, apart};
use super::super::text::{percent, short};
use super::super::words::label;
use super::{clipped, colour, heading};
use connito_sim::comparison::Kind;

/// Where things are, in pixels.
const WIDTH: f64 = 920.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 520.0;
const MARGIN: f64 = 24.0;
const TOP: f64 = 76.0;
const HEAD: f64 = 30.0;
const PANEL: f64 = 190.0;
const GAP: f64 = 58.0;

/// From one label to the next.
const LABELS: f64 = 17.0;

/// Letters of a heading that fit.
const HEADING_LETTERS: usize = 100;

/// The picture's text.
pub(super) fn throughput(comparison: &Comparison) -> String {
    let workers = comparison.network.workers;
    let title = format!("Throughput of {workers} workers when some of them fail");
    let mut picture = Picture::new(WIDTH, &title);
    picture.text((MARGIN, 34.0), Style::HEADING, &title);
    let least = percent(comparison.failing.first().copied().unwrap_or(0.0));
    let note = format!(
        "tokens that reach the shared model, relative to {least} failing; what that is stands beside the names"
    );
    picture.text((MARGIN, 56.0), Style::NOTE, &note);
    let mut y = TOP;
    for result in &comparison.models {
        let bold = Style {
            bold: true,
            ..Style::PLAIN
        };
        let heading = clipped(&heading(result), HEADING_LETTERS);
        picture.text((MARGIN, y + 14.0), bold, &heading);
        let panel = Panel {
            top: y + HEAD,
            failing: &comparison.failing,
        };
        panel.axes(&mut picture);
        panel.lines(&mut picture, result);
        y += HEAD + PANEL + GAP;
    }
    picture.finish(y)
}

struct Panel<'a> {
    top: f64,
    failing: &'a [f64],
}

impl Panel<'_> {
    fn x(&self, share: f64) -> f64 {
        let last = self.failing.last().copied().unwrap_or(0.0).max(0.01);
        LEFT + share / last * (RIGHT - LEFT)
    }

    /// What is more than at first is drawn as that.
    fn y(&self, relative: f64) -> f64 {
        self.top + PANEL * (1.0 - relative.clamp(0.0, 1.0))
    }

    fn axes(&self, picture: &mut Picture) {
        let look = format!("stroke=\"{GRID}\"");
        for percent in [0, 25, 50, 75, 100] {
            let y = self.y(f64::from(percent) / 100.0);
            picture.line((LEFT, y), (RIGHT, y), &look);
            let style = Style::NOTE.at(Anchor::End);
            picture.text((LEFT - 10.0, y + 4.0), style, &format!("{percent} %"));
        }
        let mut free = f64::NEG_INFINITY;
        for share in self.failing {
            let (x, bottom) = (self.x(*share), self.top + PANEL);
            let tick = format!("stroke=\"{FAINT}\"");
            picture.line((x, bottom), (x, bottom + 5.0), &tick);
            let label = percent(*share);
            let half = label.chars().count() as f64 * 4.0;
            if x - half > free {
                picture.text((x, bottom + 19.0), Style::NOTE.at(Anchor::Middle), &label);
                free = x + half;
            }
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let axis = "share of the workers that are down at any time";
        let style = Style::NOTE.at(Anchor::Middle);
        picture.text((middle, self.top + PANEL + 37.0), style, axis);
    }

    fn lines(&self, picture: &mut Picture, result: &ModelResult) {
        let curves: Vec<Vec<(f64, f64)>> =
            result.strategies.iter().map(|s| self.curve(s)).collect();
        let ends: Vec<f64> = curves
            .iter()
            .map(|curve| curve.last().map_or(self.top, |(_, y)| *y))
            .collect();
        let labels = apart(&ends, LABELS, (self.top, self.top + PANEL));
        let strategies = result.strategies.iter().zip(&curves).zip(labels);
        // This system's line lies above the others.
        for ((strategy, curve), label_y) in strategies {
            let colour = colour(strategy.kind);
            let width = if strategy.kind == Kind::ExpertParallel {
                3.0
            } else {
                2.0
            };
            let dashes = dashes(strategy.kind);
            let look = format!("stroke=\"{colour}\" stroke-width=\"{width}\"{dashes}");
            picture.path(curve, &look);
            let end = curve.last().copied().unwrap_or((RIGHT, label_y));
            let leader = format!("stroke=\"{colour}\" stroke-opacity=\"0.5\"");
            picture.path(&[(end.0 + 3.0, end.1), (RIGHT + 22.0, label_y)], &leader);
            let merged = strategy.calm().merged_tokens_per_second;
            let text = format!("{}: {} tokens/s", label(strategy.kind), short(merged));
            let style = Style {
                colour,
                ..Style::PLAIN
            };
            picture.text((RIGHT + 28.0, label_y + 4.0), style, &text);
        }
    }

    fn curve(&self, strategy: &StrategyResult) -> Vec<(f64, f64)> {
        let most = strategy.calm().merged_tokens_per_second;
        let shares = self.failing.iter().zip(&strategy.outcomes);
        let place = |(share, outcome): (&f64, &connito_sim::comparison::Outcome)| {
            let merged = outcome.merged_tokens_per_second;
            let relative = if most > 0.0 { merged / most } else { 0.0 };
            (self.x(*share), self.y(relative))
        };
        shares.map(place).collect()
    }
}

/// Tells strategies of one colour apart.
fn dashes(kind: Kind) -> &'static str {
    match kind {
        Kind::DataParallel | Kind::Pipeline | Kind::ExpertParallel => "",
        Kind::DataParallelInt8 | Kind::PipelineCompressed => " stroke-dasharray=\"7 4\"",
        Kind::DataParallelSparse => " stroke-dasharray=\"2 4\"",
    }
}
