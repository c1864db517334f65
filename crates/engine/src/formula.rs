//! A number together with how it comes about.
//!
//! An account that only sums up can be believed or not; one that is written as formulas can be checked.
//! A [`Formula`] is a small expression over named quantities: its value, its text in names and its text
//! in numbers are three readings of the one expression, so that none of them can be wrong alone.
//! Arithmetic is that of whole numbers, wide enough for every model, and saturates. Knows nothing of
//! models, bytes or how numbers are shown.

use std::fmt::{self, Write};
use std::ops::{Add, Mul, Sub};

/// An expression over named quantities.
///
/// ```
/// use connito_engine::formula::Formula;
///
/// let trained = Formula::quantity("per_expert", 8_650_752) * Formula::quantity("K", 8) * 26;
/// assert_eq!(trained.count(), 1_799_356_416);
/// assert_eq!(trained.symbols(), "per_expert · K · 26");
/// assert_eq!(trained.numbers(), "8,650,752 · 8 · 26");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formula(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Constant(u64),
    Quantity {
        name: &'static str,
        value: i128,
    },
    Operation {
        operator: Operator,
        operands: Box<[Node; 2]>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Plus,
    Minus,
    Times,
    /// Division, rounded up.
    Over,
}

impl Operator {
    /// What binds tighter is larger.
    fn precedence(self) -> u8 {
        match self {
            Self::Plus | Self::Minus => 1,
            Self::Times => 2,
            // Its own brackets enclose it.
            Self::Over => 3,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Plus => " + ",
            Self::Minus => " − ",
            Self::Times => " · ",
            Self::Over => " / ",
        }
    }

    fn apply(self, left: i128, right: i128) -> i128 {
        match self {
            Self::Plus => left.saturating_add(right),
            Self::Minus => left.saturating_sub(right),
            Self::Times => left.saturating_mul(right),
            // What is divided here is never negative; nothing among nobody is nothing.
            Self::Over if right <= 0 => 0,
            Self::Over => left.saturating_add(right - 1) / right,
        }
    }
}

impl Formula {
    /// A number that is the same in every model, such as the bytes of a value.
    #[must_use]
    pub fn constant(value: u64) -> Self {
        Self(Node::Constant(value))
    }

    /// A number that has a name.
    #[must_use]
    pub fn quantity(name: &'static str, value: u64) -> Self {
        let value = value.into();
        Self(Node::Quantity { name, value })
    }

    /// The same number under a name, for use in other formulas: where it comes from is no longer shown.
    #[must_use]
    pub fn named(&self, name: &'static str) -> Self {
        let value = self.value();
        Self(Node::Quantity { name, value })
    }

    /// The quotient, rounded up; 0 where the divisor is.
    #[must_use]
    pub fn over(self, divisor: Self) -> Self {
        self.with(Operator::Over, divisor)
    }

    /// This and `other`, unless that is nothing and would only lengthen the formula.
    #[must_use]
    pub fn plus_if_any(self, other: Self) -> Self {
        if other.value() == 0 {
            self
        } else {
            self + other
        }
    }

    /// The number, which a difference may make negative.
    #[must_use]
    pub fn value(&self) -> i128 {
        self.0.value()
    }

    /// The number as a count: nothing where it is negative, the largest where it is larger.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::try_from(self.value().max(0)).unwrap_or(u64::MAX)
    }

    /// The formula in names.
    #[must_use]
    pub fn symbols(&self) -> String {
        self.text(Reading::Symbols)
    }

    /// The formula in numbers, with groups of three digits.
    #[must_use]
    pub fn numbers(&self) -> String {
        self.text(Reading::Numbers)
    }

    fn text(&self, reading: Reading) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.0.write(reading, &mut text);
        text
    }

    fn with(self, operator: Operator, other: Self) -> Self {
        let operands = Box::new([self.0, other.0]);
        Self(Node::Operation { operator, operands })
    }
}

/// Which of its two texts a formula is written as.
#[derive(Debug, Clone, Copy)]
enum Reading {
    Symbols,
    Numbers,
}

impl Node {
    fn value(&self) -> i128 {
        match self {
            Self::Constant(value) => (*value).into(),
            Self::Quantity { value, .. } => *value,
            Self::Operation { operator, operands } => {
                let [left, right] = &**operands;
                operator.apply(left.value(), right.value())
            }
        }
    }

    /// What stands alone needs no parentheses.
    fn precedence(&self) -> u8 {
        match self {
            Self::Operation { operator, .. } => operator.precedence(),
            Self::Constant(_) | Self::Quantity { .. } => u8::MAX,
        }
    }

    fn write(&self, reading: Reading, text: &mut String) -> fmt::Result {
        match (self, reading) {
            (Self::Quantity { name, .. }, Reading::Symbols) => text.write_str(name),
            (Self::Quantity { value, .. }, Reading::Numbers) => text.write_str(&grouped(*value)),
            (Self::Constant(value), _) => text.write_str(&grouped((*value).into())),
            (Self::Operation { operator, operands }, _) => {
                let [left, right] = &**operands;
                let (enclosed, own) = (*operator == Operator::Over, operator.precedence());
                text.write_str(if enclosed { "⌈" } else { "" })?;
                left.write_within(left.precedence() < own && !enclosed, reading, text)?;
                text.write_str(operator.sign())?;
                // A difference takes what is right of it as one number.
                let looser = match operator {
                    Operator::Plus | Operator::Times => right.precedence() < own,
                    Operator::Minus => right.precedence() <= own,
                    Operator::Over => right.precedence() < Operator::Over.precedence(),
                };
                right.write_within(looser, reading, text)?;
                text.write_str(if enclosed { "⌉" } else { "" })
            }
        }
    }

    fn write_within(&self, parentheses: bool, reading: Reading, text: &mut String) -> fmt::Result {
        if !parentheses {
            return self.write(reading, text);
        }
        text.write_char('(')?;
        self.write(reading, text)?;
        text.write_char(')')
    }
}

impl From<u64> for Formula {
    fn from(value: u64) -> Self {
        Self::constant(value)
    }
}

impl<T: Into<Self>> Add<T> for Formula {
    type Output = Self;

    fn add(self, other: T) -> Self {
        self.with(Operator::Plus, other.into())
    }
}

impl<T: Into<Self>> Sub<T> for Formula {
    type Output = Self;

    fn sub(self, other: T) -> Self {
        self.with(Operator::Minus, other.into())
    }
}

impl<T: Into<Self>> Mul<T> for Formula {
    type Output = Self;

    fn mul(self, other: T) -> Self {
        self.with(Operator::Times, other.into())
    }
}

/// A whole number in groups of three digits.
#[must_use]
pub fn grouped(value: i128) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "−" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, value: u64) -> Formula {
        Formula::quantity(name, value)
    }

    #[test]
    fn parentheses_stand_where_the_value_needs_them_and_nowhere_else() {
        let (a, b, c) = (of("a", 7), of("b", 2), of("c", 1000));
        for (formula, symbols, numbers, value) in [
            (
                a.clone() + b.clone() * c.clone(),
                "a + b · c",
                "7 + 2 · 1,000",
                2007,
            ),
            (
                (a.clone() + b.clone()) * c.clone(),
                "(a + b) · c",
                "(7 + 2) · 1,000",
                9000,
            ),
            (
                c.clone() - (a.clone() - b.clone()),
                "c − (a − b)",
                "1,000 − (7 − 2)",
                995,
            ),
            (
                c.clone() - a.clone() - b.clone(),
                "c − a − b",
                "1,000 − 7 − 2",
                991,
            ),
            (a.clone() - c.clone(), "a − c", "7 − 1,000", -993),
            (
                a.clone().over(b.clone()) * c.clone(),
                "⌈a / b⌉ · c",
                "⌈7 / 2⌉ · 1,000",
                4000,
            ),
            (
                (c.clone() * a.clone()).over(b.clone() * a.clone()),
                "⌈c · a / (b · a)⌉",
                "⌈1,000 · 7 / (2 · 7)⌉",
                500,
            ),
            (
                a.clone() * (b.clone() + c.clone()),
                "a · (b + c)",
                "7 · (2 + 1,000)",
                7014,
            ),
        ] {
            assert_eq!(formula.symbols(), symbols);
            assert_eq!(formula.numbers(), numbers);
            assert_eq!(formula.value(), value, "{symbols}");
        }
    }

    #[test]
    fn a_named_formula_is_one_quantity_and_nothing_is_not_added() {
        let sum = (of("a", 1) + of("b", 2)).named("sum");
        assert_eq!((sum.clone() * 3).symbols(), "sum · 3");
        assert_eq!(sum.plus_if_any(of("none", 0)).symbols(), "sum");
    }

    /// What should not happen: a wrapped sum, or a panic of a division.
    #[test]
    fn numbers_that_no_memory_holds_saturate() {
        let most = of("most", u64::MAX);
        let huge = most.clone() * most.clone() * most.clone();
        assert_eq!(huge.value(), i128::MAX);
        assert_eq!((huge.clone() + huge.clone()).count(), u64::MAX);
        assert_eq!(huge.over(of("two", 2)).count(), u64::MAX);
        assert_eq!((of("less", 1) - most.clone()).count(), 0);
        assert_eq!(most.over(of("none", 0)).count(), 0);
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        let texts = [0, 12, 999, 1000, 123_456, -1_234_567].map(grouped);
        assert_eq!(texts, ["0", "12", "999", "1,000", "123,456", "−1,234,567"]);
    }
}
