//! Pictures written by hand: text, lines and dots, and scales for them.
//!
//! Every element says where it is and what it looks like by attributes of its own, so that a picture can be
//! checked by reading it. The ground is painted, so that it does not matter what a viewer puts behind it. Knows
//! nothing of what is drawn.

use std::fmt::Write as _;

use crate::xml::escaped;

/// Letters.
pub(super) const INK: &str = "#1f2933";
/// Letters of less weight.
pub(super) const FAINT: &str = "#6b7785";
/// Lines that only help to read.
pub(super) const GRID: &str = "#e3e7ec";

/// Keeps lines out of letters.
const HALO: &str =
    "stroke=\"#ffffff\" stroke-width=\"3\" stroke-linejoin=\"round\" paint-order=\"stroke\"";

/// Size of ordinary letters.
pub(super) const LETTERS: f64 = 12.0;

/// Where a text is held.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) anchor: Anchor,
    pub(super) size: f64,
    pub(super) colour: &'static str,
    pub(super) bold: bool,
}

impl Style {
    pub(super) const PLAIN: Self = Self {
        anchor: Anchor::Start,
        size: LETTERS,
        colour: INK,
        bold: false,
    };
    pub(super) const NOTE: Self = Self {
        colour: FAINT,
        ..Self::PLAIN
    };
    pub(super) const HEADING: Self = Self {
        size: 16.0,
        bold: true,
        ..Self::PLAIN
    };

    pub(super) const fn at(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}

/// A picture in the making.
#[derive(Debug)]
pub(super) struct Picture {
    width: f64,
    title: String,
    body: String,
}

impl Picture {
    pub(super) fn new(width: f64, title: &str) -> Self {
        Self {
            width,
            title: escaped(title),
            body: String::new(),
        }
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), style: Style, content: &str) {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if style.bold {
            " font-weight=\"bold\""
        } else {
            ""
        };
        self.element(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{}\" fill=\"{}\"{weight} {HALO}>{}</text>",
            style.size,
            style.colour,
            escaped(content)
        ));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), look: &str) {
        self.element(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {look}/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn path(&mut self, points: &[(f64, f64)], look: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let points = points.join(" ");
        self.element(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" {look}/>"
        ));
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), look: &str) {
        self.element(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" {look}/>"
        ));
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// The file's text.
    pub(super) fn finish(self, height: f64) -> String {
        let Self { width, title, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\">\n<title>{title}</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

/// A scale in powers of ten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decades {
    /// Exponents of both ends.
    first: i32,
    last: i32,
    /// Pixels of both ends.
    left: f64,
    right: f64,
}

impl Decades {
    /// A scale that has room for all positive numbers among these.
    pub(super) fn around(values: impl Iterator<Item = f64>, (left, right): (f64, f64)) -> Self {
        let positive = values.filter(|value| *value > 0.0);
        let ends = positive.fold(None, |ends: Option<(f64, f64)>, value| {
            let (least, most) = ends.unwrap_or((value, value));
            Some((least.min(value), most.max(value)))
        });
        let (least, most) = ends.unwrap_or((1.0, 10.0));
        let first = least.log10().floor() as i32;
        Self {
            first,
            last: (most.log10().ceil() as i32).max(first + 1),
            left,
            right,
        }
    }

    /// Where a number is; what is not positive is at the left end.
    pub(super) fn place(self, value: f64) -> f64 {
        let decades = f64::from(self.last - self.first);
        let place = if value > 0.0 {
            (value.log10() - f64::from(self.first)) / decades
        } else {
            0.0
        };
        self.left + place.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// The powers of ten on it.
    pub(super) fn ticks(self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|exponent| 10_f64.powi(exponent))
    }
}

/// Moves labels apart that would lie upon each other, as little as possible and in their order: `wanted` are their
/// places from top to bottom, in any order.
pub(super) fn apart(wanted: &[f64], least: f64, (top, bottom): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|left, right| wanted[*left].total_cmp(&wanted[*right]));
    let mut places = wanted.to_vec();
    let mut free = top;
    for index in &order {
        places[*index] = places[*index].max(free);
        free = places[*index] + least;
    }
    let mut free = bottom;
    for index in order.iter().rev() {
        places[*index] = places[*index].min(free);
        free = places[*index] - least;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_would_touch_move_apart_within_the_panel() {
        let moved = apart(&[50.0, 10.0, 12.0, 11.0], 5.0, (10.0, 60.0));
        assert_eq!(moved, [50.0, 10.0, 20.0, 15.0]);
        let pushed_up = apart(&[59.0, 60.0, 58.0], 5.0, (0.0, 60.0));
        assert_eq!(pushed_up, [55.0, 60.0, 50.0]);
    }

    #[test]
    fn a_scale_has_room_for_everything_positive() {
        let scale = Decades::around([0.0, 30.0, 4e6].into_iter(), (100.0, 700.0));
        assert_eq!(scale.ticks().count(), 7);
        assert_eq!(scale.place(10.0), 100.0);
        assert_eq!(scale.place(1e7), 700.0);
        assert_eq!(scale.place(0.0), 100.0);
        let nothing = Decades::around(std::iter::empty(), (0.0, 1.0));
        assert_eq!(nothing.ticks().count(), 2);
    }

    #[test]
    fn names_cannot_break_a_picture() {
        let mut picture = Picture::new(10.0, "a<b");
        picture.text((0.0, 0.0), Style::PLAIN, "\"&\u{1}");
        let svg = picture.finish(10.0);
        assert!(svg.contains("a&lt;b") && svg.contains("&quot;&amp;\u{fffd}"));
    }
}
