//! A number that is told: its key, its label, its unit and the formula that produced it.
//!
//! Text, JSON and explanation are readings of this one type. Knows nothing of plans.

use connito_engine::formula::Formula;

/// Numbers that belong together.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: String,
    /// What the columns beside the exact number are, where that is not plain.
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
    /// What the numbers do not say, one sentence each.
    pub(super) notes: Vec<String>,
}

/// One line of the text: the first figure is shown exactly, the others in short.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) label: String,
    pub(super) figures: Vec<Figure>,
    /// Beside the numbers.
    pub(super) note: String,
}

impl Row {
    pub(super) fn new(label: impl Into<String>, figure: Figure) -> Self {
        Self {
            label: label.into(),
            figures: vec![figure],
            note: String::new(),
        }
    }

    pub(super) fn with(mut self, figure: Figure) -> Self {
        self.figures.push(figure);
        self
    }

    pub(super) fn noted(self, note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }
}

/// A number and where it comes from.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    /// Where it lies in the JSON: names joined by dots.
    pub(super) key: String,
    pub(super) unit: Unit,
    pub(super) formula: Formula,
}

impl Figure {
    pub(super) fn new(key: impl Into<String>, unit: Unit, formula: Formula) -> Self {
        Self {
            key: key.into(),
            unit,
            formula,
        }
    }

    /// The number. What no machine could hold is the largest count.
    pub(super) fn value(&self) -> i128 {
        self.formula.value().clamp(i64::MIN.into(), u64::MAX.into())
    }

    /// The number to about three digits.
    pub(super) fn short(&self) -> String {
        let value = self.value();
        match self.unit {
            Unit::Count => count_short(value),
            Unit::Bytes => bytes_short(value),
            Unit::Milliseconds => time_short(value),
        }
    }
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Parameters, layers, experts.
    Count,
    Bytes,
    Milliseconds,
}

/// A number with a unit of which there is at least one.
fn scaled(value: i128, units: &[(f64, &str)], places: usize) -> Option<String> {
    let magnitude = value.unsigned_abs() as f64;
    let (size, unit) = units.iter().find(|(size, _)| magnitude >= *size)?;
    let sign = if value < 0 { "−" } else { "" };
    Some(format!("{sign}{:.places$} {unit}", magnitude / size))
}

/// Nothing below a thousand, which is short as it is.
fn count_short(value: i128) -> String {
    let units = [(1e12, "T"), (1e9, "B")];
    let coarse = scaled(value, &units, 2);
    let fine = || scaled(value, &[(1e6, "M"), (1e3, "k")], 1);
    coarse.or_else(fine).unwrap_or_default()
}

/// In units of ten, as files and links are measured.
pub(super) fn bytes_short(value: i128) -> String {
    let units = [(1e18, "EB"), (1e15, "PB"), (1e12, "TB"), (1e9, "GB")];
    let coarse = scaled(value, &units, 2);
    let fine = || scaled(value, &[(1e6, "MB"), (1e3, "kB")], 1);
    coarse.or_else(fine).unwrap_or_else(|| format!("{value} B"))
}

fn time_short(milliseconds: i128) -> String {
    let units = [
        (86_400e3, "days"),
        (3_600e3, "h"),
        (60e3, "min"),
        (1e3, "s"),
    ];
    scaled(milliseconds, &units, 1).unwrap_or_else(|| format!("{milliseconds} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_in_the_unit_of_which_there_is_one() {
        assert_eq!(count_short(15_706_484_224), "15.71 B");
        assert_eq!(count_short(861_793_792), "861.8 M");
        assert_eq!(count_short(26), "");
        assert_eq!(bytes_short(-6_076_000_000), "−6.08 GB");
        assert_eq!(bytes_short(50_079_744), "50.1 MB");
        assert_eq!(bytes_short(17), "17 B");
        assert_eq!(bytes_short(u64::MAX.into()), "18.45 EB");
        assert_eq!(time_short(20_032), "20.0 s");
        assert_eq!(time_short(2_878_971), "48.0 min");
        assert_eq!(time_short(7), "7 ms");
    }
}
