//! The scores of all layers and experts as a picture: an SVG file written by hand.
//!
//! One panel for each domain, a row for each layer, a cell for each expert. Experts stand in the order of
//! their groups, with a gap between two groups. A cell's colour is its score relative to the layer's mean,
//! on a logarithmic scale from a quarter to four times: the same in every picture, so that pictures can be
//! compared. Colours are those of viridis (matplotlib), even to the eye and to those who see few colours.
//! The ground is painted, so that it does not matter what a viewer puts behind it. Knows no files.

use std::fmt::{self, Write as _};

use connito_engine::routing::ExpertMap;

use super::ranking::Domain;
use crate::xml::escaped;

/// Viridis at even steps.
const COLOURS: [[u8; 3]; 9] = [
    [0x44, 0x01, 0x54],
    [0x47, 0x2d, 0x7b],
    [0x3b, 0x52, 0x8b],
    [0x2c, 0x72, 0x8e],
    [0x21, 0x91, 0x8c],
    [0x28, 0xae, 0x80],
    [0x5e, 0xc9, 0x62],
    [0xad, 0xdc, 0x30],
    [0xfd, 0xe7, 0x25],
];

/// Doublings from the middle of the scale to either end.
const DOUBLINGS: f64 = 2.0;

/// Where things are, in pixels.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TITLE: f64 = 52.0;
const PANEL_HEAD: f64 = 44.0;
const PANEL_FOOT: f64 = 40.0;
const LEGEND: f64 = 64.0;
const LEGEND_WIDTH: f64 = 240.0;
const ROW: f64 = 14.0;
const GAP: f64 = 5.0;
/// What the cells of a row take together, if they are not too small or too large for it.
const CELLS: f64 = 768.0;
/// Room for two digits of a label.
const LABEL: f64 = 16.0;

/// How text is set, as attributes.
const START: &str = "text-anchor=\"start\"";
const MIDDLE: &str = "text-anchor=\"middle\"";
const END: &str = "text-anchor=\"end\"";
const SMALL: &str = "text-anchor=\"middle\" font-size=\"9\"";
const NAME: &str = "font-size=\"13\"";
const HEADING: &str = "font-size=\"15\" font-weight=\"bold\"";

/// What a picture says about itself.
#[derive(Debug)]
pub(super) struct Caption {
    pub(super) model: String,
    pub(super) score: &'static str,
}

/// What is drawn.
#[derive(Debug)]
pub(super) struct HeatMap<'a> {
    groups: &'a [ExpertMap],
    domains: &'a [Domain],
    /// Width of a cell.
    cell: f64,
}

impl<'a> HeatMap<'a> {
    /// The scores of every domain, in the order of these groups.
    pub(super) fn new(groups: &'a [ExpertMap], domains: &'a [Domain]) -> Self {
        let experts = domains.iter().map(|domain| domain.scores.experts()).max();
        let cell = CELLS / experts.unwrap_or(1).max(1) as f64;
        Self {
            groups,
            domains,
            cell: cell.clamp(3.0, 28.0),
        }
    }

    /// The picture's text.
    pub(super) fn svg(&self, caption: &Caption) -> String {
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut svg, caption);
        svg
    }

    fn write(&self, svg: &mut String, caption: &Caption) -> fmt::Result {
        let heights = self.domains.iter().map(panel_height);
        let height = TITLE + heights.sum::<f64>() + LEGEND;
        let width = (LEFT + self.row_width() + RIGHT).max(LEFT + 480.0);
        let title = escaped(&format!(
            "{}: {} scores by expert group",
            caption.model, caption.score
        ));
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width:.0}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             font-family=\"sans-serif\" font-size=\"11\" fill=\"#222222\">"
        )?;
        writeln!(svg, "<title>{title}</title>")?;
        writeln!(
            svg,
            "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
        )?;
        text(svg, (LEFT, 26.0), HEADING, &title)?;
        let mut top = TITLE;
        for domain in self.domains {
            self.panel(svg, domain, top)?;
            top += panel_height(domain);
        }
        legend(svg, top + 12.0)?;
        writeln!(svg, "</svg>")
    }

    fn row_width(&self) -> f64 {
        let experts = self
            .domains
            .iter()
            .map(|domain| domain.scores.experts())
            .max();
        let gaps = self.groups.len().saturating_sub(1);
        experts.unwrap_or(0) as f64 * self.cell + gaps as f64 * GAP
    }

    /// One domain: its name, its groups, its layers.
    fn panel(&self, svg: &mut String, domain: &Domain, top: f64) -> fmt::Result {
        let name = escaped(&format!("{}, {} tokens", domain.name, domain.tokens));
        text(svg, (LEFT, top + 12.0), NAME, &name)?;
        let layers = domain.scores.layers().count();
        let first_row = top + PANEL_HEAD;
        let last_row = first_row + layers as f64 * ROW;
        if let Some((layer, _)) = domain.scores.layers().next() {
            self.group_labels(svg, layer, first_row - 6.0)?;
        }
        for (index, (layer, row)) in domain.scores.layers().enumerate() {
            let y = first_row + index as f64 * ROW;
            text(svg, (LEFT - 8.0, y + ROW - 3.5), END, &layer.to_string())?;
            self.layer(svg, layer, row, y)?;
        }
        let middle = (first_row + last_row) / 2.0;
        writeln!(
            svg,
            "<text transform=\"translate(18 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">layer</text>"
        )?;
        let middle = LEFT + self.row_width() / 2.0;
        self.expert_labels(svg, domain, last_row + 12.0)?;
        text(
            svg,
            (middle, last_row + 26.0),
            MIDDLE,
            "expert, in the order of the groups",
        )
    }

    /// The groups' numbers above their columns; those of narrow groups only as often as they fit.
    fn group_labels(&self, svg: &mut String, layer: usize, y: f64) -> fmt::Result {
        text(svg, (LEFT - 8.0, y), END, "group")?;
        let mut free = f64::NEG_INFINITY;
        let mut x = LEFT;
        for (group, experts) in self.groups.iter().enumerate() {
            let width = experts.get(&layer).map_or(0, Vec::len) as f64 * self.cell;
            let middle = x + width / 2.0;
            if middle - LABEL / 2.0 >= free {
                text(svg, (middle, y), MIDDLE, &group.to_string())?;
                free = middle + LABEL / 2.0;
            }
            x += width + GAP;
        }
        Ok(())
    }

    /// Experts' numbers below their columns, where they are the same in every layer.
    fn expert_labels(&self, svg: &mut String, domain: &Domain, y: f64) -> fmt::Result {
        let columns = |layer| self.columns(layer).map(|(_, expert, _)| expert);
        let mut layers = domain.scores.layers().map(|(layer, _)| layer);
        let Some(first) = layers.next() else {
            return Ok(());
        };
        if layers.any(|layer| columns(layer).ne(columns(first))) {
            return Ok(());
        }
        let mut free = f64::NEG_INFINITY;
        for (_, expert, x) in self.columns(first) {
            let middle = x + self.cell / 2.0;
            if middle - LABEL / 2.0 >= free {
                text(svg, (middle, y), SMALL, &expert.to_string())?;
                free = middle + LABEL;
            }
        }
        Ok(())
    }

    /// One layer's cells, each with what it stands for.
    fn layer(&self, svg: &mut String, layer: usize, row: &[f64], y: f64) -> fmt::Result {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let (width, height) = (self.cell, ROW);
        for (group, expert, x) in self.columns(layer) {
            let score = row.get(expert).copied().unwrap_or(0.0);
            let relative = if mean > 0.0 { score / mean } else { 0.0 };
            let colour = Colour::of(relative);
            writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" \
                 fill=\"{colour}\"><title>layer {layer}, expert {expert}, group {group}: \
                 {relative:.2} times the mean ({score:.4})</title></rect>"
            )?;
        }
        Ok(())
    }

    /// Group, expert and left edge of every cell of a layer.
    fn columns(&self, layer: usize) -> impl Iterator<Item = (usize, usize, f64)> {
        let of_group = move |(group, experts): (usize, &'a ExpertMap)| {
            let listed = experts.get(&layer).into_iter().flatten();
            listed.map(move |expert| (group, *expert))
        };
        let cells = self.groups.iter().enumerate().flat_map(of_group);
        let place = |(index, (group, expert))| {
            let x = LEFT + index as f64 * self.cell + group as f64 * GAP;
            (group, expert, x)
        };
        cells.enumerate().map(place)
    }
}

fn panel_height(domain: &Domain) -> f64 {
    PANEL_HEAD + domain.scores.layers().count() as f64 * ROW + PANEL_FOOT
}

/// The scale, with its ends and its middle.
fn legend(svg: &mut String, top: f64) -> fmt::Result {
    writeln!(svg, "<defs><linearGradient id=\"scale\">")?;
    for (index, colour) in COLOURS.into_iter().enumerate() {
        let offset = index as f64 / (COLOURS.len() - 1) as f64;
        let colour = Colour(colour);
        writeln!(
            svg,
            "<stop offset=\"{offset:.3}\" stop-color=\"{colour}\"/>"
        )?;
    }
    writeln!(svg, "</linearGradient></defs>")?;
    writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{LEGEND_WIDTH}\" height=\"12\" fill=\"url(#scale)\"/>"
    )?;
    for (index, label) in ["≤ ¼", "½", "1", "2", "≥ 4"].into_iter().enumerate() {
        let x = LEFT + LEGEND_WIDTH * index as f64 / 4.0;
        text(svg, (x, top + 26.0), MIDDLE, label)?;
    }
    let beside = (LEFT + LEGEND_WIDTH + 24.0, top + 10.0);
    text(
        svg,
        beside,
        START,
        "times the mean score of the layer's experts",
    )
}

/// A line of text.
fn text(svg: &mut String, (x, y): (f64, f64), style: &str, content: &str) -> fmt::Result {
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{content}</text>"
    )
}

/// A colour as SVG writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Colour([u8; 3]);

impl Colour {
    /// The place on the scale of so many times the mean.
    fn of(relative: f64) -> Self {
        let doublings = relative.log2().clamp(-DOUBLINGS, DOUBLINGS);
        let place = (doublings + DOUBLINGS) / (2.0 * DOUBLINGS) * (COLOURS.len() - 1) as f64;
        let below = (place as usize).min(COLOURS.len() - 2);
        let part = place - below as f64;
        let mix = |channel: usize| {
            let [low, high] = [below, below + 1].map(|stop| f64::from(COLOURS[stop][channel]));
            (low + part * (high - low)).round() as u8
        };
        Self([mix(0), mix(1), mix(2)])
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_even_in_doublings_and_ends_at_both_ends() {
        let stops = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 1e9].map(Colour::of);
        let expected = [0, 0, 2, 4, 6, 8, 8].map(|stop: usize| Colour(COLOURS[stop]));
        assert_eq!(stops, expected);
        assert_eq!(Colour::of(1.0).to_string(), "#21918c");
    }
}
