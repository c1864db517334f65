//! What a validator measured in a cycle, in the few bytes that the chain has room for (P-25).
//!
//! Entries stand in the order of the cycle's submissions (P-15), which everyone derives from the
//! chain, so no hotkey is repeated; a digest of that list tells a report about another list from one
//! about this. Which submissions have an entry follows from the committees (P-43); reviews of the
//! cycle before come last (P-46). Knows nothing of how the numbers were measured.

use serde::{Deserialize, Serialize};

use crate::announcement::Reader;
use crate::ids::Cycle;
use crate::job::Finding;
use crate::reason::ReasonCode;

/// First bytes of the hash of a cycle's submissions.
pub type SubmissionsDigest = [u8; 8];

/// A validator's measurements of the submissions that it was to score, and of those to review.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreReport {
    /// The cycle that was scored.
    pub cycle: Cycle,
    /// Which list of submissions the entries belong to.
    pub submissions: SubmissionsDigest,
    /// One entry a submission, in the list's order, then one a review.
    pub entries: Vec<Entry>,
}

/// What a validator says of one submission.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// Its loss was measured.
    Measured(Measurement),
    /// It was refused without measuring, or could not be judged.
    Refused(ReasonCode),
}

/// A utility with its standard error, in nats a token. Both finite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Loss before minus loss after.
    pub utility: f32,
    /// Standard error of the utility; not negative.
    pub standard_error: f32,
}

const MEASURED: u8 = 0;

/// Bytes of a report without entries, with the announcement around it.
pub const EMPTY_BYTES: usize = 20;

/// Bytes of an entry that holds a measurement, the longest there is.
pub const MEASURED_BYTES: usize = 9;

impl ScoreReport {
    pub(crate) fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.cycle.0.to_le_bytes());
        bytes.extend_from_slice(&self.submissions);
        for entry in &self.entries {
            match entry {
                Entry::Measured(measurement) => {
                    bytes.push(MEASURED);
                    bytes.extend_from_slice(&measurement.utility.to_le_bytes());
                    bytes.extend_from_slice(&measurement.standard_error.to_le_bytes());
                }
                Entry::Refused(code) => bytes.push(code.wire()),
            }
        }
    }

    pub(crate) fn decode(rest: &mut Reader<'_>) -> Option<Self> {
        let cycle = rest.cycle()?;
        let submissions = rest.array()?;
        let mut entries = Vec::new();
        while let Some(kind) = rest.byte() {
            entries.push(match kind {
                MEASURED => Entry::Measured(Measurement::decode(rest)?),
                code => Entry::Refused(ReasonCode::from_wire(code)?),
            });
        }
        Some(Self {
            cycle,
            submissions,
            entries,
        })
    }
}

impl From<&Finding> for Entry {
    /// A report has no room for details.
    fn from(finding: &Finding) -> Self {
        match finding {
            Finding::Measured { measurement, .. } => Self::Measured(*measurement),
            Finding::Refused { code } => Self::Refused(*code),
            Finding::Copy { .. } => Self::Refused(ReasonCode::Duplicate),
        }
    }
}

impl Measurement {
    fn decode(rest: &mut Reader<'_>) -> Option<Self> {
        let utility = f32::from_le_bytes(rest.array()?);
        let standard_error = f32::from_le_bytes(rest.array()?);
        let sound = utility.is_finite() && standard_error.is_finite() && standard_error >= 0.0;
        // Minus zero is a second spelling of zero, and a report has one.
        let canonical = standard_error.is_sign_positive();
        (sound && canonical).then_some(Self {
            utility,
            standard_error,
        })
    }

    /// The gain that is left after `significance` standard errors are taken off.
    #[must_use]
    pub fn significant_gain(&self, significance: f64) -> f64 {
        f64::from(self.utility) - significance * f64::from(self.standard_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::Announcement;

    #[test]
    fn the_stated_lengths_are_those_of_the_bytes() {
        let report = |entries| {
            Announcement::Scored(ScoreReport {
                cycle: Cycle(1),
                submissions: [0; 8],
                entries,
            })
        };
        let measured = Entry::Measured(Measurement {
            utility: 0.1,
            standard_error: 0.1,
        });
        assert_eq!(report(Vec::new()).encode().len(), EMPTY_BYTES);
        let two = report(vec![measured, measured]).encode().len();
        assert_eq!(two, EMPTY_BYTES + 2 * MEASURED_BYTES);
    }

    #[test]
    fn a_number_that_is_not_finite_makes_the_report_unreadable() {
        for (utility, standard_error) in [(f32::NAN, 0.1), (0.1, f32::INFINITY), (0.1, -0.1)] {
            let report = ScoreReport {
                cycle: Cycle(1),
                submissions: [0; 8],
                entries: vec![Entry::Measured(Measurement {
                    utility,
                    standard_error,
                })],
            };
            let bytes = Announcement::Scored(report).encode();
            assert_eq!(Announcement::decode(&bytes), None);
        }
    }
}
