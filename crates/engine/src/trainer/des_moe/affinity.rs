//! Which experts a domain may train: those that its tokens visit about as often as their favourite.
//!
//! ```text
//! A_d[e] = tokens of d that visit e ÷ tokens of d          over the steps since the last refresh
//! Â ← 0.9·A_new + 0.1·Â                                    in every refresh; the first takes A as it is
//! M_{d,e} = 1 iff Â_d[e] ≥ φ·max Â_d                       for every layer
//! ```
//!
//! What is counted are the training passes themselves, so nothing is run twice. A domain of which nothing
//! is known yet may train everything. Knows nothing of gradients.

use std::collections::BTreeMap;

/// What a new measurement weighs against all before it.
const NEWEST: f64 = 0.9;

/// What every domain visits.
#[derive(Debug)]
pub(super) struct Affinity {
    /// φ.
    threshold: f64,
    domains: BTreeMap<usize, DomainAffinity>,
}

#[derive(Debug, Default)]
struct DomainAffinity {
    /// Since the last refresh.
    tokens: u64,
    /// Since the last refresh; layer → visits of every expert.
    visits: BTreeMap<usize, Vec<u64>>,
    /// Â; layer → share of every expert. Empty before the first refresh.
    shares: BTreeMap<usize, Vec<f64>>,
}

impl Affinity {
    pub(super) fn new(threshold: f64) -> Self {
        Self {
            threshold,
            domains: BTreeMap::new(),
        }
    }

    /// Notes what `tokens` of a domain have visited, layer by layer.
    pub(super) fn observe(
        &mut self,
        domain: usize,
        tokens: u64,
        visits: impl IntoIterator<Item = (usize, Vec<u64>)>,
    ) {
        let domain = self.domains.entry(domain).or_default();
        domain.tokens += tokens;
        for (layer, visits) in visits {
            let sums = domain.visits.entry(layer).or_default();
            sums.resize(visits.len(), 0);
            for (sum, visits) in sums.iter_mut().zip(visits) {
                *sum += visits;
            }
        }
    }

    /// Takes what has been noted into the masks. A domain that was not seen since keeps its own.
    pub(super) fn refresh(&mut self) {
        let seen = self.domains.values_mut().filter(|domain| domain.tokens > 0);
        for domain in seen {
            let tokens = std::mem::take(&mut domain.tokens) as f64;
            for (layer, visits) in std::mem::take(&mut domain.visits) {
                let newest = visits.iter().map(|&visits| visits as f64 / tokens);
                let known = domain.shares.get(&layer).into_iter().flatten();
                let known = known.copied().map(Some).chain(std::iter::repeat(None));
                let blended = newest.zip(known).map(|(newest, known)| {
                    known.map_or(newest, |known| NEWEST * newest + (1.0 - NEWEST) * known)
                });
                let blended = blended.collect();
                domain.shares.insert(layer, blended);
            }
        }
    }

    /// M of one expert.
    pub(super) fn trains(&self, domain: usize, layer: usize, expert: usize) -> bool {
        let shares = self.domains.get(&domain);
        let Some(shares) = shares.and_then(|domain| domain.shares.get(&layer)) else {
            return true;
        };
        let largest = shares.iter().copied().fold(0.0, f64::max);
        shares
            .get(expert)
            .is_some_and(|share| *share >= self.threshold * largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(affinity: &mut Affinity, domain: usize, visits: [u64; 4]) {
        affinity.observe(domain, 10, [(3, visits.to_vec())]);
    }

    fn mask(affinity: &Affinity, domain: usize) -> [bool; 4] {
        [0, 1, 2, 3].map(|expert| affinity.trains(domain, 3, expert))
    }

    #[test]
    fn an_expert_counts_from_six_tenths_of_the_favourite_on() {
        let mut affinity = Affinity::new(0.6);
        observe(&mut affinity, 0, [10, 6, 5, 0]);
        observe(&mut affinity, 1, [0, 1, 9, 10]);
        assert_eq!(mask(&affinity, 0), [true; 4], "nothing is known yet");
        affinity.refresh();
        assert_eq!(mask(&affinity, 0), [true, true, false, false]);
        assert_eq!(mask(&affinity, 1), [false, false, true, true]);
        assert_eq!(mask(&affinity, 2), [true; 4], "a domain never seen");
    }

    /// 0.9·(10, 0) + 0.1·(0, 10) has its second at a ninth of its first; after an equal measurement and a
    /// threshold of a tenth it counts.
    #[test]
    fn a_refresh_remembers_a_tenth_of_what_was_known() {
        for (threshold, counts) in [(0.11, true), (0.12, false)] {
            let mut affinity = Affinity::new(threshold);
            observe(&mut affinity, 0, [0, 10, 0, 0]);
            affinity.refresh();
            observe(&mut affinity, 0, [10, 0, 0, 0]);
            affinity.refresh();
            assert_eq!(mask(&affinity, 0), [true, counts, false, false]);
        }
    }

    #[test]
    fn a_domain_that_was_not_seen_keeps_its_mask() {
        let mut affinity = Affinity::new(0.6);
        observe(&mut affinity, 0, [10, 0, 0, 0]);
        affinity.refresh();
        observe(&mut affinity, 1, [0, 10, 0, 0]);
        affinity.refresh();
        assert_eq!(mask(&affinity, 0), [true, false, false, false]);
    }

    /// With nobody to visit, nobody is told apart.
    #[test]
    fn a_layer_without_visits_masks_nothing() {
        let mut affinity = Affinity::new(0.6);
        observe(&mut affinity, 0, [0; 4]);
        affinity.refresh();
        assert_eq!(mask(&affinity, 0), [true; 4]);
    }
}
