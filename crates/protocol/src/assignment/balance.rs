//! Tickets that even out the load of known hotkeys, changing as few as it takes.
//!
//! A group's load is within bounds when it differs from its share of the hotkeys by at most a tenth of
//! the share, or by at most one hotkey where a tenth is less than that. The group furthest outside is
//! given the tickets that bring its load to its share, again and again; since tickets only attract and
//! repel, the right number can be read off the draws. What this leaves outside is found by moving single
//! hotkeys, always the one that helps most (a tabu search). At the end every group's tickets go back towards
//! where they started for as long as all loads stay within bounds, so that calibrating again moves
//! little. Integers only, ties to lower groups: everybody finds the same tickets.

use std::cmp::Reverse;

use super::{Draws, MOST_TICKETS, TicketsError, check_tickets, drawing};
use crate::ids::{GroupId, Hotkey};

/// A group's tickets grow to so many times what they were at most: each is drawn for every hotkey.
const MOST_GROWTH: u16 = 4;

/// Pairs of hotkey and group whose draws are held at a time, about half a gibibyte.
const MOST_PAIRS: usize = 1 << 22;

/// Steps for each group, and for all of them, before the best that was found has to do.
const STEPS_A_GROUP: usize = 50;
const STEPS_TOGETHER: usize = 8_000;

/// Moves of single hotkeys that are tried after that, and the work that they may take together, in looks
/// at a hotkey.
const SINGLE_MOVES: usize = 400;
const WORK_ON_SINGLE_MOVES: usize = 1 << 26;

/// Moves for which a group is left alone after its tickets have changed, or two groups could give each
/// other the same hotkey for ever.
const REST: usize = 25;

/// Rounds in which tickets go back to where they started; later ones find little.
const ROUNDS_BACK: usize = 4;

/// What calibration has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Tickets of each group.
    pub tickets: Vec<u16>,
    /// Hotkeys assigned to each group with these tickets.
    pub loads: Vec<usize>,
    /// Whether every load is within bounds. Where it is not, this is the best that was found: hotkeys
    /// cannot always be divided, least of all when they are fewer than groups.
    pub within_bounds: bool,
}

/// Finds tickets with which `hotkeys` spread over the groups by `shares` (relative; one a group, all 1
/// for even loads), beginning with the tickets of `start`.
///
/// # Errors
/// `start` breaks a rule of [`check_tickets`], shares counted as groups; or there are too many pairs of
/// hotkey and group to hold the draws of.
pub fn balanced_tickets(
    hotkeys: &[Hotkey],
    shares: &[u32],
    start: &[u16],
) -> Result<Balance, TicketsError> {
    check_tickets(start, shares.len())?;
    if hotkeys.len().saturating_mul(start.len()) > MOST_PAIRS {
        return Err(TicketsError::Pairs {
            hotkeys: hotkeys.len(),
            groups: start.len(),
        });
    }
    if start.is_empty() {
        // Nowhere to go: hotkeys have no group, and no group is out of bounds.
        return Ok(Balance {
            tickets: Vec::new(),
            loads: Vec::new(),
            within_bounds: true,
        });
    }
    let mut search = Search::new(hotkeys, shares, start);
    search.bring_within_bounds();
    search.move_single_hotkeys();
    search.go_back_towards(start);
    Ok(Balance {
        within_bounds: search.outside() == 0,
        tickets: search.tickets,
        loads: search.loads,
    })
}

/// Loads that a group may have, and those that it is brought to: from below to the lower one and from
/// above to the higher one, for aiming at the nearer one would ask for more hotkeys than there are.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    least: usize,
    most: usize,
    /// The whole numbers on either side of the exact share, or the share itself twice.
    below: usize,
    above: usize,
}

impl Bounds {
    /// Of `share` parts of `all`.
    fn new(hotkeys: usize, share: u32, all: u64) -> Self {
        // In units of 1/(10·all) of a hotkey, so that everything is whole.
        let one = 10 * u128::from(all.max(1));
        let exact = 10 * hotkeys as u128 * u128::from(share);
        let margin = (exact / 10).max(one);
        let hotkeys = |units: u128| usize::try_from(units).unwrap_or(usize::MAX);
        Self {
            least: hotkeys(exact.saturating_sub(margin).div_ceil(one)),
            most: hotkeys((exact + margin) / one),
            below: hotkeys(exact / one),
            above: hotkeys(exact.div_ceil(one)),
        }
    }

    /// The load that a group with this one is brought to.
    fn aim(&self, load: usize) -> usize {
        if load < self.least {
            self.below
        } else {
            self.above
        }
    }

    /// By how many hotkeys a load is too small or too large.
    fn outside(&self, load: usize) -> usize {
        self.least.saturating_sub(load) + load.saturating_sub(self.most)
    }
}

/// A draw that is higher than all before it, and the number of tickets that it takes to have it.
type Record = (u64, u16);

struct Search {
    bounds: Vec<Bounds>,
    /// The most tickets of each group that draws are held for.
    reach: Vec<u16>,
    tickets: Vec<u16>,
    loads: Vec<usize>,
    hotkeys: Vec<Standing>,
}

/// One hotkey.
struct Standing {
    /// Draws that matter, ascending, of each group.
    records: Vec<Vec<Record>>,
    /// The highest draw of each group with the tickets of now.
    best: Vec<u64>,
    /// The group that it is assigned to with the tickets of now.
    winner: usize,
}

impl Standing {
    fn new(hotkey: Hotkey, start: &[u16]) -> Self {
        let groups = (0..=u16::MAX).map(GroupId).zip(start);
        let drawing = drawing(hotkey);
        let records: Vec<_> = groups
            .map(|(group, held)| records(Draws::of(&drawing, group), reach(*held)))
            .collect();
        let best = records.iter().zip(start);
        let best = best.map(|(records, held)| highest(records, *held));
        let mut standing = Self {
            best: best.collect(),
            records,
            winner: 0,
        };
        standing.winner = standing.first_but(usize::MAX).unwrap_or(0);
        standing
    }

    /// The group with the highest draw, one left out; equal draws go to the lower one, as in
    /// [`super::assigned_group`].
    fn first_but(&self, left_out: usize) -> Option<usize> {
        let groups = (0..self.best.len()).filter(|group| *group != left_out);
        groups.max_by_key(|group| (self.best[*group], Reverse(*group)))
    }

    /// Gives a group this many tickets.
    fn set(&mut self, group: usize, tickets: u16) {
        self.best[group] = highest(&self.records[group], tickets);
        let rival = match self.winner == group {
            true => self.first_but(group),
            false => Some(self.winner),
        };
        let key = |group: usize| (self.best[group], Reverse(group));
        self.winner = match rival {
            Some(rival) if key(rival) > key(group) => rival,
            _ => group,
        };
    }

    /// The fewest tickets with which a group wins, within its reach.
    fn needed(&self, group: usize) -> Option<u16> {
        let rival = match self.winner == group {
            true => self.first_but(group),
            false => Some(self.winner),
        };
        let wins = |draw: u64| {
            rival.is_none_or(|rival| (draw, Reverse(group)) > (self.best[rival], Reverse(rival)))
        };
        let mut records = self.records[group].iter();
        records.find(|(draw, _)| wins(*draw)).map(|(_, at)| *at)
    }
}

/// The highest draw with this many tickets.
fn highest(records: &[Record], tickets: u16) -> u64 {
    let held = records.iter().take_while(|(_, at)| *at <= tickets);
    held.last().map_or(0, |(draw, _)| *draw)
}

impl Search {
    fn new(hotkeys: &[Hotkey], shares: &[u32], start: &[u16]) -> Self {
        let all = shares.iter().map(|share| u64::from(*share)).sum();
        let bounds = shares
            .iter()
            .map(|share| Bounds::new(hotkeys.len(), *share, all));
        let hotkeys = hotkeys.iter().map(|hotkey| Standing::new(*hotkey, start));
        let hotkeys: Vec<_> = hotkeys.collect();
        let mut loads = vec![0; start.len()];
        for standing in &hotkeys {
            loads[standing.winner] += 1;
        }
        Self {
            bounds: bounds.collect(),
            reach: start.iter().copied().map(reach).collect(),
            tickets: start.to_vec(),
            loads,
            hotkeys,
        }
    }

    /// Gives a group this many tickets.
    fn set(&mut self, group: usize, tickets: u16) {
        self.tickets[group] = tickets;
        for standing in &mut self.hotkeys {
            self.loads[standing.winner] -= 1;
            standing.set(group, tickets);
            self.loads[standing.winner] += 1;
        }
    }

    /// By how many hotkeys all groups together are outside their bounds.
    fn outside(&self) -> usize {
        let groups = self.bounds.iter().zip(&self.loads);
        groups.map(|(bounds, load)| bounds.outside(*load)).sum()
    }

    fn bring_within_bounds(&mut self) {
        let mut best = (usize::MAX, self.tickets.clone());
        // When each group was last changed: of those equally far outside, the one left alone for
        // longest is next, or two could take hotkeys from each other for ever.
        let mut changed = vec![0; self.tickets.len()];
        let steps = STEPS_TOGETHER.min(STEPS_A_GROUP * self.tickets.len());
        for step in 1..=steps {
            let outside = self.outside();
            if outside < best.0 {
                best = (outside, self.tickets.clone());
            }
            let urgent = |group: &usize| {
                let bounds = self.bounds[*group];
                // Relative to what it should have, in thousandths.
                let by = bounds.outside(self.loads[*group]) * 1000 / bounds.above.max(1);
                (by, Reverse(changed[*group]))
            };
            let groups = (0..self.loads.len()).rev();
            match groups.max_by_key(urgent) {
                Some(group) if outside > 0 => {
                    changed[group] = step;
                    let aim = self.bounds[group].aim(self.loads[group]);
                    let tickets = self.tickets_for(group, aim);
                    self.set(group, tickets);
                }
                _ => break,
            }
        }
        for (group, tickets) in best.1.into_iter().enumerate() {
            self.set(group, tickets);
        }
    }

    /// How far from what is wanted all loads are: hotkeys outside of bounds, then squares of the distance
    /// to the exact share, which tell a step towards it from one away before a bound is reached.
    fn cost(&self) -> (usize, usize) {
        let groups = self.bounds.iter().zip(&self.loads);
        let square = |(bounds, load): (&Bounds, &usize)| {
            let distance = bounds.below.saturating_sub(*load) + load.saturating_sub(bounds.above);
            distance.saturating_mul(distance)
        };
        (self.outside(), groups.map(square).sum())
    }

    /// Gives or takes a group one hotkey at a time.
    fn move_single_hotkeys(&mut self) {
        let groups = self.tickets.len();
        let work = (4 * groups).saturating_mul(self.hotkeys.len()).max(1);
        let mut best = (self.cost(), self.tickets.clone());
        let mut rested = vec![0; groups];
        for step in 0..SINGLE_MOVES.min(WORK_ON_SINGLE_MOVES / work) {
            if best.0.0 == 0 {
                break;
            }
            let ready = (0..groups).filter(|group| rested[*group] <= step);
            let moves: Vec<usize> = ready.collect();
            let Some((cost, group, tickets)) = self.best_move(&moves) else {
                break;
            };
            self.set(group, tickets);
            rested[group] = step + REST;
            if cost < best.0 {
                best = (cost, self.tickets.clone());
            }
        }
        for (group, tickets) in best.1.into_iter().enumerate() {
            self.set(group, tickets);
        }
    }

    /// The change by one hotkey of one of these groups that leaves the lowest cost.
    fn best_move(&mut self, groups: &[usize]) -> Option<((usize, usize), usize, u16)> {
        let mut best = None;
        for &group in groups {
            let (now, load) = (self.tickets[group], self.loads[group]);
            for aim in [load.saturating_sub(1), load + 1] {
                let tickets = self.tickets_for(group, aim);
                if tickets == now {
                    continue;
                }
                self.set(group, tickets);
                let found = (self.cost(), group, tickets);
                self.set(group, now);
                if best.is_none_or(|best| found < best) {
                    best = Some(found);
                }
            }
        }
        best
    }

    /// The tickets nearest to those of now with which a group's load is as near to `aim` as it gets.
    fn tickets_for(&self, group: usize, aim: usize) -> u16 {
        let hotkeys = self.hotkeys.iter();
        let mut needed: Vec<u16> = hotkeys
            .filter_map(|standing| standing.needed(group))
            .collect();
        needed.sort_unstable();
        let now = self.tickets[group];
        let most = self.reach[group];
        // With fewer than this it has too few hotkeys, with more than that too many.
        let least = match aim.checked_sub(1) {
            Some(last) => needed.get(last).copied().unwrap_or(most),
            None => 1,
        };
        let most = needed.get(aim).map_or(most, |next| next - 1);
        now.min(most).max(least).max(1)
    }

    /// Takes back what was not needed. Loads rise and fall with a group's tickets and never turn, so the
    /// tickets with which all stay within bounds are a range, and its end can be found by halving.
    fn go_back_towards(&mut self, start: &[u16]) {
        let allowed = self.outside();
        for _ in 0..ROUNDS_BACK {
            let before = self.tickets.clone();
            for (group, wanted) in start.iter().enumerate() {
                let (mut good, mut unknown) = (self.tickets[group], *wanted);
                while good != unknown {
                    self.set(group, unknown);
                    if self.outside() <= allowed {
                        good = unknown;
                        break;
                    }
                    // Halfway, rounded towards what is known to be good.
                    unknown = match good < unknown {
                        true => good + (unknown - good) / 2,
                        false => good - (good - unknown) / 2,
                    };
                }
                self.set(group, good);
            }
            if self.tickets == before {
                break;
            }
        }
    }
}

/// The most tickets that a group which began with `held` is tried with.
fn reach(held: u16) -> u16 {
    held.saturating_mul(MOST_GROWTH).min(MOST_TICKETS)
}

/// The draws among the first `reach` that are higher than all before.
fn records(draws: Draws, reach: u16) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for (draw, at) in draws.zip(1..=reach) {
        if records.last().is_none_or(|(highest, _)| draw > *highest) {
            records.push((draw, at));
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::assignment::{EVEN_TICKETS, assigned_group};

    fn hotkeys(from: u32, count: u32) -> Vec<Hotkey> {
        let hotkey = |number: u32| Hotkey(*blake3::hash(&number.to_le_bytes()).as_bytes());
        (from..from + count).map(hotkey).collect()
    }

    fn even(groups: usize) -> Vec<u16> {
        vec![EVEN_TICKETS; groups]
    }

    /// The loads that everybody else computes from the tickets.
    fn loads(hotkeys: &[Hotkey], tickets: &[u16]) -> Vec<usize> {
        let mut loads = vec![0; tickets.len()];
        for hotkey in hotkeys {
            loads[usize::from(assigned_group(*hotkey, tickets).unwrap().0)] += 1;
        }
        loads
    }

    /// Whether every load is within a tenth of its share, or within one hotkey of it.
    fn near(loads: &[usize], shares: &[u32]) -> bool {
        let hotkeys: usize = loads.iter().sum();
        let all: u32 = shares.iter().sum();
        loads.iter().zip(shares).all(|(load, share)| {
            let expected = hotkeys as f64 * f64::from(*share) / f64::from(all);
            (*load as f64 - expected).abs() <= (expected / 10.0).max(1.0) + 1e-9
        })
    }

    #[test]
    fn a_thousand_hotkeys_come_within_a_tenth_of_an_even_load() {
        let hotkeys = hotkeys(0, 1000);
        for groups in [1, 2, 3, 8, 33, 100] {
            let shares = vec![1; groups];
            let balance = balanced_tickets(&hotkeys, &shares, &even(groups)).unwrap();
            assert_eq!(balance.loads, loads(&hotkeys, &balance.tickets));
            assert!(balance.within_bounds, "{groups}");
            assert!(near(&balance.loads, &shares), "{:?}", balance.loads);
            assert_eq!(check_tickets(&balance.tickets, groups), Ok(()));
        }
    }

    #[test]
    fn uneven_shares_are_met_as_well() {
        let hotkeys = hotkeys(0, 1000);
        let shares = [4, 2, 1, 1];
        let balance = balanced_tickets(&hotkeys, &shares, &[256, 128, 64, 64]).unwrap();
        assert!(
            balance.within_bounds && near(&balance.loads, &shares),
            "{:?}",
            balance.loads
        );
    }

    /// What should not happen: tickets that change although no load asks for it.
    #[test]
    fn groups_that_are_within_bounds_keep_their_tickets() {
        let hotkeys = hotkeys(0, 1000);
        let balance = balanced_tickets(&hotkeys, &[1; 3], &even(3)).unwrap();
        assert_eq!(
            balance.tickets,
            even(3),
            "chance is enough for three groups"
        );
        let changed = balanced_tickets(&hotkeys, &[1; 8], &even(8)).unwrap();
        let kept = changed.tickets.iter().filter(|held| **held == EVEN_TICKETS);
        assert!(kept.count() >= 5, "{:?}", changed.tickets);
        let again = balanced_tickets(&hotkeys, &[1; 8], &changed.tickets).unwrap();
        assert_eq!(again, changed, "what is balanced stays as it is");
    }

    /// A twentieth of the hotkeys is exchanged: few of the others move.
    #[test]
    fn calibrating_again_moves_little() {
        let old = balanced_tickets(&hotkeys(0, 1000), &[1; 16], &even(16)).unwrap();
        let now = hotkeys(50, 1000);
        let new = balanced_tickets(&now, &[1; 16], &old.tickets).unwrap();
        assert!(new.within_bounds);
        let group = |hotkey: &&Hotkey, tickets: &[u16]| assigned_group(**hotkey, tickets);
        let moved = now
            .iter()
            .filter(|hotkey| group(hotkey, &old.tickets) != group(hotkey, &new.tickets));
        let moved = moved.count();
        assert!(moved <= 30, "{moved} of 1000 moved");
    }

    #[test]
    fn few_hotkeys_are_divided_as_well_as_they_can_be() {
        for (count, groups) in [(0, 3), (1, 3), (5, 2), (7, 7), (3, 40)] {
            let hotkeys = hotkeys(0, count);
            let balance = balanced_tickets(&hotkeys, &vec![1; groups], &even(groups)).unwrap();
            assert_eq!(balance.loads, loads(&hotkeys, &balance.tickets));
            assert!(
                balance.within_bounds,
                "{count} hotkeys, {groups} groups: {:?}",
                balance.loads
            );
        }
    }

    #[test]
    fn tickets_to_start_from_are_checked() {
        let error = balanced_tickets(&[], &[1, 1], &[64]).unwrap_err();
        assert!(matches!(error, TicketsError::Count { .. }), "{error}");
        let crowd = vec![Hotkey([0; 32]); 5000];
        let error = balanced_tickets(&crowd, &[1; 1000], &even(1000)).unwrap_err();
        assert!(matches!(error, TicketsError::Pairs { .. }), "{error}");
        let nobody = balanced_tickets(&hotkeys(0, 9), &[0, 0], &[64, 64]).unwrap();
        assert!(!nobody.within_bounds, "no share, yet hotkeys");
        let none = balanced_tickets(&hotkeys(0, 2), &[], &[]).unwrap();
        assert!(none.within_bounds);
    }

    proptest! {
        /// Whatever is asked for: tickets that a task may have, and loads that are what they are said
        /// to be.
        #[test]
        fn any_shares_end_in_tickets_that_can_be_used(
            parts in prop::collection::vec((0..50_u32, 1..300_u16), 1..9), count in 0..120_u32,
        ) {
            let (shares, start): (Vec<u32>, Vec<u16>) = parts.into_iter().unzip();
            let hotkeys = hotkeys(0, count);
            let balance = balanced_tickets(&hotkeys, &shares, &start).unwrap();
            prop_assert_eq!(check_tickets(&balance.tickets, shares.len()), Ok(()));
            prop_assert_eq!(&balance.loads, &loads(&hotkeys, &balance.tickets));
            if balance.within_bounds {
                prop_assert!(near(&balance.loads, &shares) || shares.iter().all(|share| *share == 0));
            }
        }
    }
}
