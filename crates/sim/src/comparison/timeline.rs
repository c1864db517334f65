//! When one worker is there: outages drawn from a seed, as far into the future as anybody asks.
//!
//! Up and down times are exponential, so that the share of time down is the asked one at every moment, the first
//! included. A worker that comes back has its disk: a download goes on where it stopped. Draws depend on seed and
//! worker alone, so that every strategy meets the same outages.

/// A stream of random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Draws(u64);

/// What a stream is for, so that two streams of one worker share nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Rates,
    Outages,
}

impl Draws {
    pub(super) fn new(seed: u64, worker: usize, purpose: Purpose) -> Self {
        let label: u64 = match purpose {
            Purpose::Rates => 0x7261_7465,
            Purpose::Outages => 0x646f_776e,
        };
        let mut mixed = Self(seed ^ label);
        Self(mixed.next() ^ (worker as u64).wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Uniform, above 0 and at most 1.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with a mean.
    fn wait(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }
}

/// A worker's times up and down, in seconds since the beginning.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    draws: Draws,
    mean_up: f64,
    mean_down: f64,
    begins_up: bool,
    /// Moments at which the worker fails or comes back; a state begins at its edge.
    edges: Vec<f64>,
}

impl Timeline {
    /// `failing` is the share of time down, `outage_seconds` the mean length of an outage.
    pub(super) fn new(mut draws: Draws, failing: f64, outage_seconds: f64) -> Self {
        let begins_up = draws.unit() > failing;
        let mut timeline = Self {
            draws,
            mean_up: if failing > 0.0 {
                outage_seconds * (1.0 - failing) / failing
            } else {
                f64::INFINITY
            },
            mean_down: outage_seconds,
            begins_up,
            edges: Vec::new(),
        };
        timeline.reach(0.0);
        timeline
    }

    /// Draws edges until one is beyond `time`.
    fn reach(&mut self, time: f64) {
        while self.edges.last().is_none_or(|last| *last <= time) {
            let up = self.begins_up == self.edges.len().is_multiple_of(2);
            let mean = if up { self.mean_up } else { self.mean_down };
            let last = self.edges.last().copied().unwrap_or(0.0);
            let edge = if mean.is_finite() {
                last + self.draws.wait(mean)
            } else {
                f64::INFINITY
            };
            self.edges.push(edge);
        }
    }

    /// Edges up to and including `time`, and whether the worker is up then.
    fn at(&mut self, time: f64) -> (usize, bool) {
        self.reach(time);
        let passed = self.edges.partition_point(|edge| *edge <= time);
        (passed, self.begins_up == passed.is_multiple_of(2))
    }

    pub(super) fn is_up(&mut self, time: f64) -> bool {
        self.at(time).1
    }

    /// When a worker that is up at `time` fails next; `time` itself where it is down.
    pub(super) fn up_until(&mut self, time: f64) -> f64 {
        match self.at(time) {
            (passed, true) => self.edges[passed],
            (_, false) => time,
        }
    }

    /// Since when a worker that is up at `time` has been up; nothing where it is down.
    pub(super) fn up_since(&mut self, time: f64) -> Option<f64> {
        match self.at(time) {
            (0, true) => Some(0.0),
            (passed, true) => Some(self.edges[passed - 1]),
            (_, false) => None,
        }
    }

    /// The first moment from `time` on at which the worker is up.
    pub(super) fn next_up(&mut self, time: f64) -> f64 {
        match self.at(time) {
            (_, true) => time,
            (passed, false) => self.edges[passed],
        }
    }

    /// Moments after `from` and up to `to` at which the worker fails or comes back.
    pub(super) fn changes(&mut self, from: f64, to: f64) -> &[f64] {
        let (last, first) = (self.at(to).0, self.at(from).0);
        &self.edges[first..last]
    }

    /// Seconds up between two moments.
    pub(super) fn up_seconds(&mut self, from: f64, to: f64) -> f64 {
        let (mut sum, mut time) = (0.0, from);
        while time < to {
            let (passed, up) = self.at(time);
            let end = self.edges[passed].min(to);
            sum += if up { end - time } else { 0.0 };
            time = end;
        }
        sum
    }

    /// When something that takes so many seconds is done, begun at `from` and going on whenever the worker is up.
    pub(super) fn finish(&mut self, from: f64, seconds: f64) -> f64 {
        let (mut time, mut left) = (self.next_up(from), seconds);
        loop {
            let end = self.up_until(time);
            if end - time >= left {
                return time + left;
            }
            left -= end - time;
            time = self.next_up(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(worker: usize, failing: f64) -> Timeline {
        Timeline::new(Draws::new(7, worker, Purpose::Outages), failing, 600.0)
    }

    #[test]
    fn the_share_of_time_down_is_the_asked_one_from_the_first_moment_on() {
        for failing in [0.05, 0.3] {
            let mut down_at_first = 0;
            let mut up = 0.0;
            for worker in 0..4000 {
                let mut timeline = timeline(worker, failing);
                down_at_first += usize::from(!timeline.is_up(0.0));
                up += timeline.up_seconds(0.0, 36_000.0);
            }
            let first = down_at_first as f64 / 4000.0;
            assert!((first - failing).abs() < 0.03, "{first} of {failing}");
            let down = 1.0 - up / (4000.0 * 36_000.0);
            assert!((down - failing).abs() < 0.01, "{down} of {failing}");
        }
    }

    #[test]
    fn a_worker_that_never_fails_has_no_edges() {
        let mut timeline = timeline(3, 0.0);
        assert!(timeline.is_up(1e12));
        assert_eq!(timeline.up_until(5.0), f64::INFINITY);
        assert_eq!(timeline.finish(5.0, 7.0), 12.0);
        assert_eq!(timeline.changes(0.0, 1e12), [0.0; 0]);
    }

    /// What should happen: every question gives the same answer whatever was asked before.
    #[test]
    fn answers_do_not_depend_on_the_order_of_questions() {
        let mut asked_late = timeline(9, 0.3);
        let late = asked_late.up_seconds(0.0, 1e6);
        let mut asked_often = timeline(9, 0.3);
        let pieces: f64 = (0..1000)
            .map(|piece| asked_often.up_seconds(f64::from(piece) * 1e3, f64::from(piece + 1) * 1e3))
            .sum();
        assert!((late - pieces).abs() < 1e-3);
        let done = asked_late.finish(100.0, 5e4);
        assert!((asked_often.up_seconds(100.0, done) - 5e4).abs() < 1e-6);
    }
}
