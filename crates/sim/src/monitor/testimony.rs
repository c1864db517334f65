//! Whether a verdict can have come of what honest members of a committee found (P-22, P-28, P-29, A-29, A-86).
//!
//! What hostile members say is not looked at. They may say anything, so a verdict is in order if there is
//! *something* that they can have said to bring it about. With few seats that leaves them only what honest
//! members bear out; with most of them a committee is captured, and nothing that it says is held against
//! the protocol. Inputs are weights and what honest members found, never where they come from.

use connito_protocol::consensus::Verdict;
use connito_protocol::reason::ReasonCode;
use connito_protocol::report::Measurement;
use connito_protocol::scoring::judge;

/// What an honest member of a committee says of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Word {
    /// Its measurement.
    Measured(Measurement),
    /// A fault of the miner.
    Fault(ReasonCode),
    /// Nothing, for it lacks the update; or that it was not uploaded.
    Lacks,
}

/// What a committee's members bring to the verdict on one update.
#[derive(Debug, Clone, Default)]
pub(crate) struct Testimonies {
    /// What the whole committee weighs, those who are not heard included.
    pub(crate) all: u128,
    /// Weight of those who may say anything.
    pub(crate) hostile: u128,
    /// What honest members that were heard say, and what that weighs.
    pub(crate) honest: Vec<(Word, u128)>,
}

impl Testimonies {
    /// Whether hostile members can have said something that, with what honest ones say, gives this
    /// verdict. `tolerance` is how far two honest measurements of one gain may lie apart.
    pub(crate) fn allow(&self, verdict: &Verdict, significance: f64, tolerance: f64) -> bool {
        if (self.weigh(|_| true) + self.hostile) * 2 <= self.all {
            return false;
        }
        let Some(measurement) = verdict.measurement else {
            return self.allow_fault(verdict.code);
        };
        let faults = self.weigh(|word| matches!(word, Word::Fault(_)));
        let measuring = self.weigh(|word| matches!(word, Word::Measured(_)));
        let follows = judge(measurement, significance) == verdict.code
            && verdict.weight == verdict.outcome().weight(significance);
        let gain = measurement.significant_gain(significance);
        follows
            && measuring + self.hostile >= faults
            && self.have_median(gain, (significance, tolerance))
    }

    /// Whether most weight can have gone to faults, and most of that to this one.
    fn allow_fault(&self, code: ReasonCode) -> bool {
        let says = |wanted: ReasonCode| self.weigh(|word| *word == Word::Fault(wanted));
        let heaviest = ReasonCode::ALL.iter().map(|code| says(*code)).max();
        let lacking = self.weigh(|word| *word == Word::Lacks);
        // Whoever lacks it may have said so, or nothing.
        let may_say = match code {
            ReasonCode::NotUploaded => lacking,
            _ => 0,
        };
        let for_it = says(code) + may_say + self.hostile;
        let measuring = self.weigh(|word| matches!(word, Word::Measured(_)));
        let not_measuring = self.weigh(|_| true) - measuring + self.hostile;
        for_it > 0 && Some(for_it) >= heaviest && not_measuring > measuring
    }

    /// Whether this gain can be the weighted lower median: if all hostile weight lies on it, less than
    /// half is below, and at least half not above.
    fn have_median(&self, gain: f64, (significance, tolerance): (f64, f64)) -> bool {
        let gains = |counts: &dyn Fn(f64) -> bool| {
            self.weigh(|word| match word {
                Word::Measured(own) => counts(own.significant_gain(significance)),
                Word::Fault(_) | Word::Lacks => false,
            })
        };
        // A report carries f32.
        let tolerance = tolerance + gain.abs() * f64::from(f32::EPSILON);
        let below = gains(&|own| own < gain - tolerance);
        let above = gains(&|own| own > gain + tolerance);
        let at = gains(&|own| (own - gain).abs() <= tolerance) + self.hostile;
        at > 0 && below < at + above && below + at >= above
    }

    fn weigh(&self, counts: impl Fn(&Word) -> bool) -> u128 {
        let counted = self.honest.iter().filter(|(word, _)| counts(word));
        counted.map(|(_, weight)| weight).sum()
    }
}

#[cfg(test)]
mod tests;
