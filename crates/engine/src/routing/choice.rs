//! The choice and the mixing weights of one token, for every gate and every mode.
//!
//! ```text
//! s  scores over all experts      c  what experts compete by: s, with DeepSeek-V3 s + bias
//!
//! natural choice    with groups, first the best groups (by their best c, or the sum of their two best),
//!                   then the k best c within them; without groups, the k best c
//! restricted        the same among the routable experts: a group is judged by its routable members and
//!                   one without any does not compete
//! substituted       the natural choice; picks that are not resident give their places to as many of the
//!                   best helpers not chosen yet, whichever their group
//! weights           s, ÷ Σs over the filled slots where the family renormalises, × the scaling factor
//! ```
//!
//! Order is total, so that two devices agree: higher `c` first, lower id among equals, for groups too. A
//! NaN comes before every number, as in PyTorch's top-k: a spoilt logit is chosen and spoils the loss
//! where everybody sees it, instead of silently retiring its expert. A slot that nobody can fill is
//! `None`, never a sentinel score, which would become a mixing weight.

use super::LayerRouting;
use crate::config::{GateConfig, GateGroups, GroupScore, Scoring};

/// What DeepSeek-V3 adds to the sum of scores before dividing by it.
const SIGMOID_SUM_OFFSET: f32 = 1e-20;

/// One routed expert of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// The expert.
    pub expert: usize,
    /// Its score over all experts, before the family's weight rule.
    pub score: f32,
}

/// Chooses one token's experts into as many `slots` as it may visit.
///
/// `scores` and `choice` hold one value for each of the layer's experts: what becomes the weight, and
/// what experts compete by. Filled slots come first. A natural or restricted choice is best first; a
/// substituted one is what stands of the natural choice, then the helpers, each best first.
pub fn select(
    gate: &GateConfig,
    mode: &LayerRouting,
    scores: &[f32],
    choice: &[f32],
    slots: &mut [Option<Slot>],
) {
    Selector::new(gate, mode).select(scores, choice, slots);
}

/// The mixing weights of the filled `slots`, scaling factor included; 0 for an empty one.
///
/// Where scores are renormalised and all of them are 0, so are the weights.
pub fn weigh(gate: &GateConfig, slots: &[Option<Slot>], weights: &mut [f32]) {
    let mut divisor = 1.0;
    if gate.renormalise {
        let sum: f32 = slots.iter().flatten().map(|slot| slot.score).sum();
        if sum != 0.0 {
            divisor = match gate.scoring {
                Scoring::Softmax => sum,
                Scoring::SigmoidWithBias => sum + SIGMOID_SUM_OFFSET,
            };
        }
    }
    for (weight, slot) in weights.iter_mut().zip(slots) {
        *weight = slot.map_or(0.0, |slot| slot.score / divisor * gate.scaling);
    }
}

/// [`select`] for one token after the other: its memory is reused.
#[derive(Debug)]
pub(super) struct Selector<'a> {
    gate: &'a GateConfig,
    mode: &'a LayerRouting,
    /// What every group is judged by, until it is opened; `None` for one that does not compete.
    contenders: Vec<Option<f32>>,
    /// Groups that may be chosen from.
    open: Vec<bool>,
}

impl<'a> Selector<'a> {
    pub(super) fn new(gate: &'a GateConfig, mode: &'a LayerRouting) -> Self {
        Self {
            gate,
            mode,
            contenders: Vec::new(),
            open: Vec::new(),
        }
    }

    /// See [`select`].
    pub(super) fn select(&mut self, scores: &[f32], choice: &[f32], slots: &mut [Option<Slot>]) {
        match self.mode {
            LayerRouting::Natural => self.select_among(|_| true, scores, choice, slots),
            LayerRouting::Restricted { routable } => {
                self.select_among(|expert| routable[expert], scores, choice, slots);
            }
            LayerRouting::Substituted { resident, helpers } => {
                self.select_among(|_| true, scores, choice, slots);
                substitute(resident, helpers, scores, choice, slots);
            }
        }
    }

    /// The natural choice as if only the experts for which `routable` holds existed.
    fn select_among(
        &mut self,
        routable: impl Fn(usize) -> bool,
        scores: &[f32],
        choice: &[f32],
        slots: &mut [Option<Slot>],
    ) {
        match self.gate.groups {
            None => take_best(routable, scores, choice, slots),
            Some(groups) => {
                let size = choice.len().div_ceil(groups.count);
                self.open_best_groups(groups, size, choice, &routable);
                let open = |expert: usize| self.open[expert / size] && routable(expert);
                take_best(open, scores, choice, slots);
            }
        }
    }

    /// Opens the best groups of `size` consecutive experts among those with a routable member.
    fn open_best_groups(
        &mut self,
        groups: GateGroups,
        size: usize,
        choice: &[f32],
        routable: &impl Fn(usize) -> bool,
    ) {
        self.contenders.clear();
        let members = choice.chunks(size).enumerate();
        self.contenders.extend(members.map(|(group, members)| {
            let routable = |(index, _): &(usize, &f32)| routable(group * size + index);
            let members = members.iter().enumerate().filter(routable);
            group_score(groups.score, members.map(|(_, value)| *value))
        }));
        self.open.clear();
        self.open.resize(self.contenders.len(), false);
        for _ in 0..groups.kept {
            let contenders = self.contenders.iter().enumerate();
            let best = contenders
                .filter_map(|(group, score)| Some((group, (*score)?)))
                .reduce(|best, next| if precedes(next.1, best.1) { next } else { best });
            let Some((group, _)) = best else { break };
            self.contenders[group] = None;
            self.open[group] = true;
        }
    }
}

/// What a group of these members is judged by; `None` without any. A missing second best counts 0.
fn group_score(score: GroupScore, members: impl Iterator<Item = f32>) -> Option<f32> {
    let (mut first, mut second): (Option<f32>, Option<f32>) = (None, None);
    for member in members {
        if first.is_none_or(|first| precedes(member, first)) {
            (first, second) = (Some(member), first);
        } else if second.is_none_or(|second| precedes(member, second)) {
            second = Some(member);
        }
    }
    match score {
        GroupScore::Best => first,
        GroupScore::BestTwo => first.map(|first| first + second.unwrap_or(0.0)),
    }
}

/// Puts the best helpers that are not chosen yet into the places of picks that are not resident.
fn substitute(
    resident: &[bool],
    helpers: &[bool],
    scores: &[f32],
    choice: &[f32],
    slots: &mut [Option<Slot>],
) {
    let picked = slots.iter().flatten().count();
    let mut standing = 0;
    for index in 0..picked {
        if slots[index].is_some_and(|slot| resident[slot.expert]) {
            slots[standing] = slots[index];
            standing += 1;
        }
    }
    let (standing, absent) = slots[..picked].split_at_mut(standing);
    let chosen = |expert| standing.iter().flatten().any(|slot| slot.expert == expert);
    let free = |expert: usize| helpers[expert] && !chosen(expert);
    take_best(free, scores, choice, absent);
}

/// Fills `slots` with the best of the experts for which `eligible` holds, best first.
fn take_best(
    eligible: impl Fn(usize) -> bool,
    scores: &[f32],
    choice: &[f32],
    slots: &mut [Option<Slot>],
) {
    slots.fill(None);
    let Some(last) = slots.len().checked_sub(1) else {
        return;
    };
    for (expert, &score) in scores.iter().enumerate() {
        if !eligible(expert) {
            continue;
        }
        // Experts come by ascending id, so one stays behind all that it does not strictly precede.
        let ahead = |slot: &Option<Slot>| {
            slot.is_some_and(|slot| !precedes(choice[expert], choice[slot.expert]))
        };
        let place = slots.iter().rposition(ahead).map_or(0, |index| index + 1);
        if place <= last {
            slots.copy_within(place..last, place + 1);
            slots[place] = Some(Slot { expert, score });
        }
    }
}

/// Whether `left` is strictly better than `right`; NaN is better than every number.
fn precedes(left: f32, right: f32) -> bool {
    left > right || (left.is_nan() && !right.is_nan())
}
