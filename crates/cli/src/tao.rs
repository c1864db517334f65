//! Amounts of TAO as people write them, exact to the rao.
//!
//! A TAO is a thousand million rao, the unit of the chain. Nothing is rounded: what has more than nine
//! decimals is refused, and so is what 64 bits of rao cannot hold.

use std::fmt;
use std::str::FromStr;

const RAO_IN_TAO: u64 = 1_000_000_000;
const DECIMALS: usize = 9;

/// An amount in rao, written in TAO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tao(pub(crate) u64);

impl FromStr for Tao {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, fraction),
            None => (text, "0"),
        };
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return Err("expected an amount of TAO, like 1000 or 0.5".to_owned());
        }
        if fraction.len() > DECIMALS {
            return Err("TAO have nine decimals".to_owned());
        }
        let whole = whole.parse().ok();
        let fraction = format!("{fraction:0<DECIMALS$}").parse().ok();
        let rao = whole
            .and_then(|whole: u64| whole.checked_mul(RAO_IN_TAO))
            .and_then(|whole| whole.checked_add(fraction?));
        rao.map(Self)
            .ok_or_else(|| "more than there can be".to_owned())
    }
}

impl fmt::Display for Tao {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / RAO_IN_TAO, self.0 % RAO_IN_TAO);
        if fraction == 0 {
            return write!(f, "{whole} TAO");
        }
        let digits = format!("{fraction:0DECIMALS$}");
        write!(f, "{whole}.{} TAO", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_to_the_rao() {
        for (text, rao, shown) in [
            ("1000", 1_000_000_000_000, "1000 TAO"),
            ("0.000000001", 1, "0.000000001 TAO"),
            ("0.1", 100_000_000, "0.1 TAO"),
            (
                "18446744073.709551615",
                u64::MAX,
                "18446744073.709551615 TAO",
            ),
            ("007.50", 7_500_000_000, "7.5 TAO"),
        ] {
            let parsed: Tao = text.parse().unwrap();
            assert_eq!((parsed, parsed.to_string().as_str()), (Tao(rao), shown));
        }
    }

    #[test]
    fn what_cannot_be_paid_exactly_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,000",
            "1.0000000001",
            "NaN",
            "1.2.3",
            "18446744073.709551616",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Tao>().is_err(), "{text}");
        }
    }
}
