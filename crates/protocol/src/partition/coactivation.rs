//! Experts that tokens visit together, in groups of given sizes.
//!
//! ```text
//! maximise  Σ over groups  Σ over pairs {a, b} in the group  count[a][b]
//! ```
//!
//! Finding the best such division is NP-hard (minimum bisection), so this is a search: from several
//! starts, exchange two experts of different groups for as long as an exchange helps, and keep the best
//! end. The contiguous division is one of the starts, so the result is never worse. All arithmetic is in
//! integers and all ties go to lower ids: every machine finds the same groups. Knows neither layers nor
//! tokens; the counts come from whoever ran a model.

use std::cmp::Reverse;

use super::division::{contiguous, strided};

/// How many tokens visited both of two experts, summed over layers: a symmetric matrix. Its diagonal
/// takes no part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoActivation {
    experts: usize,
    /// Row-major `[experts, experts]`.
    counts: Vec<u64>,
}

/// Why rows are no co-activation counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoActivationError {
    /// No rows.
    #[error("there are no counts")]
    Empty,
    /// A row of another length than there are rows.
    #[error("row {row} has {found} counts, there are {expected} rows")]
    NotSquare {
        /// The row.
        row: usize,
        /// Its length.
        found: usize,
        /// How many rows there are.
        expected: usize,
    },
    /// The two counts of a pair differ.
    #[error("counts of experts {first} and {second} differ by direction")]
    NotSymmetric {
        /// The lower expert.
        first: usize,
        /// The higher expert.
        second: usize,
    },
}

impl CoActivation {
    /// Takes the rows of a matrix, `[experts][experts]`.
    ///
    /// # Errors
    /// No rows, a row of another length, or counts that are not symmetric.
    pub fn from_rows(rows: &[Vec<u64>]) -> Result<Self, CoActivationError> {
        let expected = rows.len();
        if expected == 0 {
            return Err(CoActivationError::Empty);
        }
        if let Some(row) = rows.iter().position(|row| row.len() != expected) {
            let found = rows[row].len();
            return Err(CoActivationError::NotSquare {
                row,
                found,
                expected,
            });
        }
        for (first, row) in rows.iter().enumerate() {
            let differs = |second: &usize| row[*second] != rows[*second][first];
            if let Some(second) = (first + 1..expected).find(differs) {
                return Err(CoActivationError::NotSymmetric { first, second });
            }
        }
        Ok(Self {
            experts: expected,
            counts: rows.concat(),
        })
    }

    /// Experts counted.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Tokens that visited both; an expert has nothing in common with itself.
    #[must_use]
    pub fn together(&self, first: usize, second: usize) -> u64 {
        match first == second {
            true => 0,
            false => self.counts[first * self.experts + second],
        }
    }

    /// The sum over all pairs inside a group.
    #[must_use]
    pub fn within(&self, group: &[usize]) -> u128 {
        let pairs = group.iter().enumerate();
        pairs
            .flat_map(|(at, first)| group[at + 1..].iter().map(move |second| (*first, *second)))
            .map(|(first, second)| u128::from(self.together(first, second)))
            .sum()
    }
}

/// Groups of these sizes, which together are all experts. Among groups of one size, the one with the
/// lowest expert comes first.
pub(super) fn clusters(matrix: &CoActivation, sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut best: Option<(u128, Vec<Vec<usize>>)> = None;
    let starts = [
        contiguous(sizes),
        grown(matrix, sizes, Reverse),
        grown(matrix, sizes, |size| size),
        strided(sizes),
    ];
    for start in starts {
        let mut search = Search::new(matrix, start);
        search.exchange_while_it_helps();
        let total = search.groups.iter().map(|group| matrix.within(group)).sum();
        if best.as_ref().is_none_or(|(found, _)| total > *found) {
            best = Some((total, search.groups));
        }
    }
    let groups = best.map(|(_, groups)| groups).unwrap_or_default();
    numbered(groups, sizes)
}

/// One group after the other, in the order of `rank`: from the two experts that have most in common
/// among those left, always adding the one that has most in common with the group.
fn grown<K: Ord>(
    matrix: &CoActivation,
    sizes: &[usize],
    rank: impl Fn(usize) -> K,
) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|group| rank(sizes[*group]));
    let mut left: Vec<usize> = (0..matrix.experts()).collect();
    let mut groups = vec![Vec::new(); sizes.len()];
    for group in order {
        let mut affinity = vec![0_u128; matrix.experts()];
        while groups[group].len() < sizes[group] {
            let chosen = match groups[group].is_empty() {
                true => left.iter().copied().max_by_key(|expert| {
                    let others = left.iter();
                    let most = others.map(|other| matrix.together(*expert, *other)).max();
                    (most.unwrap_or(0), Reverse(*expert))
                }),
                false => {
                    let affine = |expert: &usize| (affinity[*expert], Reverse(*expert));
                    left.iter().copied().max_by_key(affine)
                }
            };
            // Sizes sum up to the number of experts, so there is one left.
            let Some(chosen) = chosen else { break };
            left.retain(|expert| *expert != chosen);
            for expert in &left {
                affinity[*expert] += u128::from(matrix.together(*expert, chosen));
            }
            groups[group].push(chosen);
        }
    }
    groups
}

/// A division that is being improved.
struct Search<'a> {
    matrix: &'a CoActivation,
    groups: Vec<Vec<usize>>,
    /// Each expert's group.
    home: Vec<usize>,
    /// What each expert has in common with each group, `[expert][group]`.
    affinity: Vec<Vec<i128>>,
}

impl<'a> Search<'a> {
    fn new(matrix: &'a CoActivation, groups: Vec<Vec<usize>>) -> Self {
        let mut home = vec![0; matrix.experts()];
        for (group, members) in groups.iter().enumerate() {
            members.iter().for_each(|expert| home[*expert] = group);
        }
        let shared = |expert: usize, members: &Vec<usize>| {
            let shared = members.iter().map(|other| matrix.together(expert, *other));
            shared.map(i128::from).sum()
        };
        let of_expert = |expert| groups.iter().map(|group| shared(expert, group)).collect();
        Self {
            affinity: (0..matrix.experts()).map(of_expert).collect(),
            matrix,
            groups,
            home,
        }
    }

    /// Every exchange raises an integer that is bounded, so this ends.
    fn exchange_while_it_helps(&mut self) {
        let experts = self.matrix.experts();
        loop {
            let mut helped = false;
            for first in 0..experts {
                for second in first + 1..experts {
                    if self.gain(first, second) > 0 {
                        self.exchange(first, second);
                        helped = true;
                    }
                }
            }
            if !helped {
                break;
            }
        }
        for group in &mut self.groups {
            group.clear();
        }
        for (expert, home) in self.home.iter().enumerate() {
            self.groups[*home].push(expert);
        }
    }

    /// By how much an exchange raises the sum; the two lose each other either way.
    fn gain(&self, first: usize, second: usize) -> i128 {
        let (from, to) = (self.home[first], self.home[second]);
        if from == to {
            return 0;
        }
        let moved = |expert: usize, from: usize, to: usize| {
            self.affinity[expert][to] - self.affinity[expert][from]
        };
        let between = i128::from(self.matrix.together(first, second));
        moved(first, from, to) + moved(second, to, from) - 2 * between
    }

    fn exchange(&mut self, first: usize, second: usize) {
        let (from, to) = (self.home[first], self.home[second]);
        for (expert, affinity) in self.affinity.iter_mut().enumerate() {
            let change = i128::from(self.matrix.together(expert, second))
                - i128::from(self.matrix.together(expert, first));
            affinity[from] += change;
            affinity[to] -= change;
        }
        self.home.swap(first, second);
    }
}

/// Puts groups where their sizes stand.
fn numbered(mut groups: Vec<Vec<usize>>, sizes: &[usize]) -> Vec<Vec<usize>> {
    groups.sort();
    let mut taken = vec![false; groups.len()];
    let place = |size: &usize| {
        let at = (0..groups.len()).find(|at| !taken[*at] && groups[*at].len() == *size);
        at.map(|at| {
            taken[at] = true;
            groups[at].clone()
        })
    };
    sizes.iter().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A symmetric matrix from a function of pairs.
    fn matrix(experts: usize, count: impl Fn(usize, usize) -> u64) -> CoActivation {
        let row = |first: usize| {
            let entry = |second: usize| count(first.min(second), first.max(second));
            (0..experts).map(entry).collect()
        };
        CoActivation::from_rows(&(0..experts).map(row).collect::<Vec<_>>()).unwrap()
    }

    /// Any number from 0 to `below`, the same for the same pair.
    fn noise(seed: u64, first: usize, second: usize, below: u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for number in [seed, first as u64, second as u64] {
            hasher.update(&number.to_le_bytes());
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(bytes) % below
    }

    fn total(matrix: &CoActivation, groups: &[Vec<usize>]) -> u128 {
        groups.iter().map(|group| matrix.within(group)).sum()
    }

    fn sorted(mut groups: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort();
        groups
    }

    proptest! {
        /// Whatever the counts: every expert once, the sizes as asked, never worse than consecutive
        /// experts, and no exchange left that would help.
        #[test]
        fn any_counts_give_groups_of_the_sizes_asked_for(
            sizes in prop::collection::vec(1..9_usize, 1..7), seed in any::<u64>(), below in 1..1000_u64,
        ) {
            let experts = sizes.iter().sum();
            let matrix = matrix(experts, |a, b| noise(seed, a, b, below));
            let groups = clusters(&matrix, &sizes);
            let found: Vec<_> = groups.iter().map(Vec::len).collect();
            prop_assert_eq!(found, sizes.clone());
            let mut all = groups.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..experts).collect::<Vec<_>>());
            prop_assert!(total(&matrix, &groups) >= total(&matrix, &contiguous(&sizes)));
            let search = Search::new(&matrix, groups);
            for first in 0..experts {
                for second in first + 1..experts {
                    prop_assert!(search.gain(first, second) <= 0);
                }
            }
        }

        /// Clusters whose members have more in common than strangers do, wherever they stand.
        #[test]
        fn planted_clusters_are_found_again(
            count in 1..9_usize, size in 1..9_usize, seed in any::<u64>(),
        ) {
            let experts = count * size;
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by_key(|expert| noise(seed, *expert, 0, u64::MAX));
            let mut cluster = vec![0; experts];
            for (at, expert) in order.iter().enumerate() {
                cluster[*expert] = at / size;
            }
            let matrix = matrix(experts, |a, b| {
                u64::from(cluster[a] == cluster[b]) * 100 + noise(seed, a, b, 100)
            });
            let planted = (0..count).map(|number| {
                (0..experts).filter(|expert| cluster[*expert] == number).collect()
            });
            prop_assert_eq!(clusters(&matrix, &vec![size; count]), sorted(planted.collect()));
        }
    }

    /// What should not happen: that a hot expert in the wrong place is left there.
    #[test]
    fn clusters_of_different_sizes_stand_where_their_sizes_do() {
        let of = |expert: usize| match expert {
            0..2 => 0,
            2..6 => 1,
            _ => 2,
        };
        let matrix = matrix(12, |a, b| u64::from(of(a) == of(b)) * 10 + 1);
        let groups = clusters(&matrix, &[4, 2, 6]);
        assert_eq!(
            groups,
            [vec![2, 3, 4, 5], vec![0, 1], vec![6, 7, 8, 9, 10, 11]]
        );
    }

    #[test]
    fn the_largest_counts_overflow_nothing() {
        let matrix = matrix(8, |_, _| u64::MAX);
        let first_four = vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7]];
        assert_eq!(clusters(&matrix, &[4, 4]), first_four);
    }

    #[test]
    fn rows_that_are_no_symmetric_matrix_are_named() {
        let error = |rows: &[Vec<u64>]| CoActivation::from_rows(rows).unwrap_err().to_string();
        assert_eq!(error(&[]), "there are no counts");
        assert_eq!(
            error(&[vec![0, 1], vec![1]]),
            "row 1 has 1 counts, there are 2 rows"
        );
        assert_eq!(
            error(&[vec![0, 1], vec![2, 0]]),
            "counts of experts 0 and 1 differ by direction"
        );
    }
}
