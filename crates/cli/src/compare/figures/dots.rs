//! Numbers of strategies as dots on a common scale of powers of ten.

use super::super::models::Model;
use super::super::played::{ModelResult, StrategyResult};
use super::super::svg::{Anchor, Decades, FAINT, GRID, Picture, Style};
use super::super::text::short;
use super::super::words::label;
use super::{clipped, colour, heading};

/// Where things are, in pixels.
const WIDTH: f64 = 920.0;
const LEFT: f64 = 266.0;
const RIGHT: f64 = 740.0;
const MARGIN: f64 = 24.0;
const TOP: f64 = 92.0;
const HEAD: f64 = 30.0;
const ROW: f64 = 24.0;
const GAP: f64 = 22.0;
const FOOT: f64 = 52.0;

/// Letters of a heading that fit.
const HEADING_LETTERS: usize = 100;

/// What a dot looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Filled,
    Hollow,
    Barred,
}

/// One number of every strategy.
#[derive(Clone, Copy)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) mark: Mark,
    pub(super) value: fn(&Model, &StrategyResult) -> Option<f64>,
}

/// A figure.
pub(super) struct DotPlot<'a> {
    pub(super) title: String,
    /// What the scale is of.
    pub(super) axis: &'static str,
    /// What follows a number.
    pub(super) unit: &'static str,
    pub(super) series: &'a [Series],
    /// Numbers to compare with, from left to right.
    pub(super) guides: &'a [(f64, &'static str)],
}

impl DotPlot<'_> {
    /// The picture's text.
    pub(super) fn svg(&self, models: &[ModelResult]) -> String {
        let values = models.iter().flat_map(|result| {
            let strategies = result.strategies.iter();
            strategies.flat_map(|strategy| self.values(result, strategy))
        });
        let guides = self.guides.iter().map(|(value, _)| *value);
        let scale = Decades::around(values.map(|(_, value)| value).chain(guides), (LEFT, RIGHT));
        let panels = models
            .iter()
            .map(|result| HEAD + ROW * result.strategies.len() as f64 + GAP);
        let bottom = TOP + panels.sum::<f64>();
        let mut picture = Picture::new(WIDTH, &self.title);
        picture.text((MARGIN, 34.0), Style::HEADING, &self.title);
        self.legend(&mut picture);
        self.grid(&mut picture, scale, bottom);
        let mut y = TOP;
        for result in models {
            let heading = clipped(&heading(result), HEADING_LETTERS);
            let bold = Style {
                bold: true,
                ..Style::PLAIN
            };
            picture.text((MARGIN, y + 14.0), bold, &heading);
            y += HEAD;
            for strategy in &result.strategies {
                self.row(&mut picture, scale, (result, strategy), y + ROW / 2.0);
                y += ROW;
            }
            y += GAP;
        }
        picture.finish(bottom + FOOT)
    }

    fn values(&self, result: &ModelResult, strategy: &StrategyResult) -> Vec<(Mark, f64)> {
        let value = |series: &Series| Some((series.mark, (series.value)(&result.model, strategy)?));
        self.series.iter().filter_map(value).collect()
    }

    /// What the dots are.
    fn legend(&self, picture: &mut Picture) {
        let mut x = MARGIN + 5.0;
        for series in self.series {
            if self.series.len() > 1 {
                mark(picture, (x, 56.0), series.mark, FAINT);
                x += 12.0;
            }
            picture.text((x, 60.0), Style::NOTE, series.name);
            x += series.name.chars().count() as f64 * 7.0 + 24.0;
        }
    }

    fn grid(&self, picture: &mut Picture, scale: Decades, bottom: f64) {
        let look = format!("stroke=\"{GRID}\"");
        let ticks: Vec<f64> = scale.ticks().collect();
        // At most eight labels, whatever the range.
        let every = ticks.len().div_ceil(8);
        for (index, tick) in ticks.iter().enumerate() {
            let x = scale.place(*tick);
            picture.line((x, TOP), (x, bottom), &look);
            if index % every == 0 {
                let style = Style::NOTE.at(Anchor::Middle);
                picture.text((x, bottom + 18.0), style, &self.tick(*tick));
            }
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let style = Style::NOTE.at(Anchor::Middle);
        let axis = format!("{}, in powers of ten", self.axis);
        picture.text((middle, bottom + 38.0), style, &axis);
        for (index, (value, name)) in self.guides.iter().enumerate() {
            let x = scale.place(*value);
            let look = "stroke=\"#9aa5b1\" stroke-dasharray=\"3 3\"";
            picture.line((x, TOP - 4.0), (x, bottom), look);
            // The last one has room to its right.
            let last = index + 1 == self.guides.len();
            let (anchor, x) = if last {
                (Anchor::Start, x - 6.0)
            } else {
                (Anchor::Middle, x)
            };
            let style = Style {
                size: 10.0,
                ..Style::NOTE
            };
            picture.text((x, TOP - 9.0), style.at(anchor), name);
        }
    }

    /// A power of ten, without decimals that say nothing.
    fn tick(&self, tick: f64) -> String {
        let number = short(tick);
        let (number, letter) = number.split_once(' ').unwrap_or((&number, ""));
        let whole = match number.contains('.') {
            true => number.trim_end_matches('0').trim_end_matches('.'),
            false => number,
        };
        self.with_unit(whole, letter)
    }

    fn with_unit(&self, number: &str, letter: &str) -> String {
        format!("{number} {letter}{}", self.unit)
            .trim_end()
            .to_owned()
    }

    fn row(
        &self,
        picture: &mut Picture,
        scale: Decades,
        (result, strategy): (&ModelResult, &StrategyResult),
        y: f64,
    ) {
        let colour = colour(strategy.kind);
        let name = Style::PLAIN.at(Anchor::End);
        picture.text((LEFT - 14.0, y + 4.0), name, label(strategy.kind));
        let values = self.values(result, strategy);
        let places = values.iter().map(|(_, value)| scale.place(*value));
        let (first, last) = places.fold((RIGHT, LEFT), |(first, last), place| {
            (first.min(place), last.max(place))
        });
        let look = format!("stroke=\"{colour}\" stroke-opacity=\"0.4\" stroke-width=\"2\"");
        picture.line((first, y), (last, y), &look);
        // What is filled covers what is hollow.
        for (shape, value) in values.iter().rev() {
            if *value > 0.0 {
                mark(picture, (scale.place(*value), y), *shape, colour);
            }
        }
        let numbers = values.iter().map(|(_, value)| {
            let number = short(*value);
            let (number, letter) = number.split_once(' ').unwrap_or((&number, ""));
            self.with_unit(number, letter)
        });
        let mut numbers: Vec<String> = numbers.collect();
        // Two equal numbers are one.
        numbers.dedup();
        let style = Style {
            colour,
            ..Style::PLAIN
        };
        picture.text((last + 12.0, y + 4.0), style, &numbers.join(" · "));
    }
}

fn mark(picture: &mut Picture, place: (f64, f64), mark: Mark, colour: &str) {
    match mark {
        Mark::Filled => picture.dot(place, &format!("fill=\"{colour}\"")),
        Mark::Hollow => {
            let look = format!("fill=\"#ffffff\" stroke=\"{colour}\" stroke-width=\"2\"");
            picture.dot(place, &look);
        }
        Mark::Barred => {
            let (x, y) = place;
            let look = format!("stroke=\"{colour}\" stroke-width=\"3\"");
            picture.line((x, y - 7.0), (x, y + 7.0), &look);
        }
    }
}
