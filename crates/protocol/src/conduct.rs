//! What validators did wrong in a cycle, as everyone can see it (P-45).
//!
//! Derived from the chain and the bodies that it names, so all observers name the same validators for
//! the same reason. It is recorded and shown; only a void report and a review have consequences
//! (P-44, P-46). Knows nothing of intentions: a validator that crashed is `report_missing` too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::consensus::{Hearing, Outcome, Verdict};
use crate::ids::Hotkey;
use crate::reason::{Charged, ReasonCode};
use crate::report::Entry;

/// What a voter did wrong in a cycle; the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misconduct {
    /// Two different reports within one score window: neither counts.
    Equivocation,
    /// A report after the score window, and none in it.
    ReportLate,
    /// No report.
    ReportMissing,
    /// A report that does not fit the cycle, or whose body is not there or another's.
    ReportMismatch,
    /// An entry that contradicts the verdict.
    ReportOutlier,
    /// A vote for another pair of states than the decided one.
    StateMismatch,
}

impl Misconduct {
    /// Everything that there is a word for, the first that applies first.
    pub const ALL: [Self; 6] = [
        Self::Equivocation,
        Self::ReportLate,
        Self::ReportMissing,
        Self::ReportMismatch,
        Self::ReportOutlier,
        Self::StateMismatch,
    ];

    /// The word for it, as files spell it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Equivocation => "equivocation",
            Self::ReportLate => "report_late",
            Self::ReportMissing => "report_missing",
            Self::ReportMismatch => "report_mismatch",
            Self::ReportOutlier => "report_outlier",
            Self::StateMismatch => "state_mismatch",
        }
    }
}

/// How what is said of an update is compared.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Standard errors that are taken off a gain.
    pub significance: f64,
    /// How far two weights may lie apart and still agree, in nats a token.
    pub agreement: f64,
}

impl Tolerance {
    /// Whether an entry and an outcome cannot both be true: the weights that follow from them differ.
    ///
    /// Weights and not losses: of an update that blows the model up, honest validators on different
    /// processors may measure very different losses, or none, and all of them rightly give it nothing.
    #[must_use]
    pub fn contradicts(&self, entry: &Entry, outcome: &Outcome) -> bool {
        let said = match entry {
            Entry::Measured(own) => own.significant_gain(self.significance).max(0.0),
            Entry::Refused(code) if is_repeatable(*code) => 0.0,
            Entry::Refused(_) => return false,
        };
        let apart = (said - outcome.weight(self.significance)).abs();
        is_repeatable(outcome.code) && apart > self.agreement
    }
}

/// Whether scoring an update again, alone and later, shows the same code to everyone.
///
/// Two codes cannot be repeated by whoever was not there: whether an update is a `duplicate` depends on
/// all others of its group, and whether it was `not_uploaded` on the moment. What says either is held
/// against nobody: otherwise one liar and a miner could have honest members excluded.
pub(crate) fn is_repeatable(code: ReasonCode) -> bool {
    let depends_on_others = matches!(code, ReasonCode::Duplicate | ReasonCode::NotUploaded);
    code.charged_to() != Charged::Network && !depends_on_others
}

/// Whose report contradicts a verdict.
#[must_use]
pub fn outliers(
    hearing: &Hearing<'_>,
    verdicts: &[Verdict],
    tolerance: &Tolerance,
) -> BTreeSet<Hotkey> {
    let mut outliers = BTreeSet::new();
    hearing.for_each(|place, testimonies| {
        let Some(outcome) = verdicts.get(place).map(Verdict::outcome) else {
            return;
        };
        let mistaken = testimonies
            .iter()
            .filter(|testimony| tolerance.contradicts(&testimony.entry, &outcome));
        outliers.extend(mistaken.map(|testimony| testimony.member.hotkey));
    });
    outliers
}

/// Adds what somebody did wrong, unless something that comes first is known of it.
pub(crate) fn blame(
    known: &mut BTreeMap<Hotkey, Misconduct>,
    voters: impl IntoIterator<Item = Hotkey>,
    what: Misconduct,
) {
    for voter in voters {
        let worst = known.entry(voter).or_insert(what);
        *worst = what.min(*worst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Measurement;

    const TOLERANCE: Tolerance = Tolerance {
        significance: 1.0,
        agreement: 1e-3,
    };

    fn measured(utility: f32) -> Measurement {
        Measurement {
            utility,
            standard_error: 0.0,
        }
    }

    fn accepted(utility: f32) -> Outcome {
        Outcome {
            code: ReasonCode::Accepted,
            measurement: Some(measured(utility)),
        }
    }

    fn refused(code: ReasonCode) -> Outcome {
        Outcome {
            code,
            measurement: None,
        }
    }

    /// What should not happen: that honest validators on different processors, of which one overflows
    /// where the other does not, are held to contradict each other over an update worth nothing.
    #[test]
    fn whoever_gives_nothing_agrees_with_whoever_gives_nothing() {
        let worthless = [
            Entry::Measured(measured(-1.0)),
            Entry::Measured(measured(-2_000.0)),
            Entry::Refused(ReasonCode::NonFiniteLoss),
            Entry::Refused(ReasonCode::Malformed),
        ];
        let harmful = Outcome {
            code: ReasonCode::Harmful,
            measurement: Some(measured(-1_990.0)),
        };
        for entry in worthless {
            assert!(!TOLERANCE.contradicts(&entry, &harmful), "{entry:?}");
            assert!(TOLERANCE.contradicts(&entry, &accepted(0.1)), "{entry:?}");
            let other = refused(ReasonCode::NonFiniteLoss);
            assert!(!TOLERANCE.contradicts(&entry, &other), "{entry:?}");
        }
        let praise = Entry::Measured(measured(5.0));
        assert!(TOLERANCE.contradicts(&praise, &harmful));
        assert!(!TOLERANCE.contradicts(&praise, &accepted(5.0005)));
    }

    #[test]
    fn what_nobody_can_repeat_contradicts_nothing_and_nothing_contradicts_it() {
        let unrepeatable = [
            ReasonCode::Duplicate,
            ReasonCode::NotUploaded,
            ReasonCode::Unscored,
        ];
        for code in unrepeatable {
            assert!(!TOLERANCE.contradicts(&Entry::Refused(code), &accepted(9.0)));
            let praise = Entry::Measured(measured(9.0));
            assert!(!TOLERANCE.contradicts(&praise, &refused(code)));
        }
    }

    #[test]
    fn of_two_faults_the_first_in_the_list_is_told_whatever_the_order_of_finding() {
        let voter = Hotkey([1; 32]);
        for (place, first) in Misconduct::ALL.into_iter().enumerate() {
            for second in Misconduct::ALL.into_iter().skip(place) {
                for found in [[first, second], [second, first]] {
                    let mut known = BTreeMap::new();
                    for fault in found {
                        blame(&mut known, [voter], fault);
                    }
                    assert_eq!(known[&voter], first);
                }
            }
        }
    }

    #[test]
    fn the_spelling_in_files_is_the_spelling_in_code() {
        for misconduct in Misconduct::ALL {
            let spelled = serde_json::to_string(&misconduct).unwrap();
            assert_eq!(spelled, format!("\"{}\"", misconduct.text()));
        }
    }
}
