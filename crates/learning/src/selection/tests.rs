//! Selection against the rule written down naively, the published files, and misuse.

mod formats;
mod published;

use std::collections::BTreeMap;

use connito_engine::routing::ExpertMap;
use connito_engine::{Model, ModelConfig, Routing, RoutingStatistics};
use proptest::prelude::*;

use super::{
    Amount, Score, ScoreSummary, Scores, SelectionError, best_untrained, group_affinity, select,
    select_within,
};

/// One layer with these scores.
fn layer(row: &[f64]) -> Scores {
    Scores::new([(1, row.to_vec())].into()).unwrap()
}

fn group(experts: &[usize]) -> ExpertMap {
    [(1, experts.to_vec())].into()
}

fn top_p(p: f64) -> Amount {
    Amount::top_p(p).unwrap()
}

fn top_k(k: usize) -> Amount {
    Amount::top_k(k).unwrap()
}

/// The published tie: experts 3 and 55 of a layer score the same, and 3 is taken.
#[test]
fn the_lower_id_is_taken_among_equals() {
    let scores = layer(&[0.1, 0.3, 0.3, 0.3]);
    let selected = |amount| select(&scores, amount).unwrap().experts;
    assert_eq!(selected(top_p(0.5)), group(&[1, 2]));
    assert_eq!(selected(top_k(3)), group(&[1, 2, 3]));
}

/// 0.00314 and 0.00306 are equal in four decimals, whichever is larger before.
#[test]
fn scores_are_rounded_before_they_are_compared() {
    let selected = select(&layer(&[0.00306, 0.00314, 0.9]), top_k(2)).unwrap();
    assert_eq!(selected.experts, group(&[2, 0]));
}

/// What should happen: experts until the sum reaches the threshold, exactly reached being enough. What
/// should not: an expert that nobody visits, though rounded scores never reach 1.
#[test]
fn the_walk_ends_when_the_threshold_is_reached_or_nothing_is_left() {
    let scores = layer(&[0.25, 0.5, 0.125, 0.0, 0.1]);
    let selected = |p| select(&scores, top_p(p)).unwrap().experts;
    assert_eq!(selected(f64::MIN_POSITIVE), group(&[1]));
    assert_eq!(selected(0.5), group(&[1]));
    assert_eq!(selected(0.500_001), group(&[1, 0]));
    assert_eq!(selected(0.75), group(&[1, 0]));
    assert_eq!(selected(1.0), group(&[1, 0, 2, 4]));
}

/// Experts 2 and 3 have a fifth of the layer's score between them: 0.75 and 0.25 of the group's.
#[test]
fn within_a_group_a_threshold_is_a_share_of_the_groups_own_score() {
    let scores = layer(&[0.5, 0.3, 0.15, 0.05]);
    let selected = |amount| select_within(&scores, amount, &group(&[3, 2])).unwrap();
    assert_eq!(selected(top_p(0.75)).experts, group(&[2]));
    assert_eq!(selected(top_p(0.76)).experts, group(&[2, 3]));
    assert_eq!(selected(top_k(1)).experts, group(&[2]));
}

/// What should happen: a list without experts, which a routing can be made of, and a report.
#[test]
fn a_layer_in_which_the_group_is_not_visited_selects_nothing_and_is_told() {
    let rows = [(1, vec![0.5, 0.5, 0.0]), (2, vec![0.2, 0.3, 0.5])];
    let scores = Scores::new(rows.into()).unwrap();
    let members: ExpertMap = [(1, vec![2]), (2, vec![2])].into();
    for amount in [top_p(0.2), top_k(1)] {
        let selected = select_within(&scores, amount, &members).unwrap();
        assert_eq!(selected.experts, [(1, vec![]), (2, vec![2])].into());
        assert_eq!(selected.empty_layers().collect::<Vec<_>>(), [1]);
    }
    let absent: ExpertMap = [(2, vec![2])].into();
    let selected = select_within(&scores, top_k(1), &absent).unwrap();
    assert_eq!(selected.experts, [(1, vec![]), (2, vec![2])].into());
}

#[test]
fn amounts_that_mean_nothing_cannot_be_made() {
    for p in [0.0, -0.1, 1.000_001, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(Amount::top_p(p), Err(SelectionError::Threshold { .. })),
            "{p}"
        );
    }
    assert!(matches!(Amount::top_k(0), Err(SelectionError::Nothing)));
}

#[test]
fn more_experts_than_there_are_to_choose_from_are_refused_by_layer() {
    let scores = layer(&[0.5, 0.3, 0.2]);
    let told = |error: SelectionError| error.to_string();
    let error = told(select(&scores, top_k(4)).unwrap_err());
    assert!(error.contains('4') && error.contains("3 experts") && error.contains("layer 1"));
    // Listed twice is not two.
    let twice = group(&[0, 2, 0]);
    let error = told(select_within(&scores, top_k(3), &twice).unwrap_err());
    assert!(error.contains("2 experts"), "{error}");
}

#[test]
fn layers_and_experts_without_scores_are_named() {
    let scores = layer(&[0.5, 0.5]);
    let layer: ExpertMap = [(7, vec![0])].into();
    let expert: ExpertMap = [(1, vec![0, 9])].into();
    for (listed, named) in [(&layer, "layer 7"), (&expert, "expert 9")] {
        for error in [
            select_within(&scores, top_p(0.2), listed).unwrap_err(),
            best_untrained(&scores, listed, 1).unwrap_err(),
            group_affinity(&scores, listed).unwrap_err(),
        ] {
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

#[test]
fn scores_that_are_no_scores_are_named_by_layer_and_expert() {
    let refused = |rows: &[(usize, &[f64])]| {
        let rows = rows.iter().map(|(layer, row)| (*layer, row.to_vec()));
        Scores::new(rows.collect()).unwrap_err().to_string()
    };
    for score in [f64::NAN, f64::INFINITY, -0.5] {
        let error = refused(&[(1, &[0.5, 0.5]), (3, &[0.5, score])]);
        assert!(
            error.contains("layer 3") && error.contains("expert 1"),
            "{error}"
        );
    }
    let error = refused(&[(1, &[0.5, 0.5]), (3, &[0.5])]);
    assert!(
        error.contains("layer 3") && error.contains("expert 1"),
        "{error}"
    );
    assert!(refused(&[(4, &[f64::MAX, f64::MAX])]).contains("layer 4"));
    assert_eq!(refused(&[]), "there are no scores");
    assert_eq!(refused(&[(1, &[])]), "there are no scores");
}

#[test]
fn helpers_are_the_best_of_the_others_whichever_their_group() {
    let scores = layer(&[0.1, 0.4, 0.2, 0.2, 0.1]);
    let best = |count| best_untrained(&scores, &group(&[1]), count).unwrap();
    assert_eq!(best(3), group(&[2, 3, 0]));
    assert_eq!(best(9), group(&[2, 3, 0, 4]));
    assert_eq!(best(0), group(&[]));
}

/// Scores of a real pass, against the definitions written over its counts.
#[test]
fn scores_of_a_text_are_pooled_over_all_its_tokens() {
    let model = Model::random(&ModelConfig::tiny(40), 5);
    let texts: [&[u32]; 3] = [&[1, 2, 3, 4, 5, 6, 7, 8, 9], &[7], &[20, 30, 39]];
    let mut statistics = RoutingStatistics::new(model.config());
    for text in texts {
        statistics += model
            .routing_statistics(&[text], &Routing::Classic)
            .unwrap();
    }
    let summary = ScoreSummary::of(&statistics).unwrap();
    for (index, counted) in statistics.layers() {
        let of = |score| {
            summary
                .scores(score)
                .layers()
                .find(|row| row.0 == index)
                .unwrap()
                .1
        };
        let (token, gate) = (of(Score::Token), of(Score::Gate));
        assert!(
            (token.iter().sum::<f64>() - 1.0).abs() < 1e-12,
            "layer {index}"
        );
        let weights = counted.weights();
        for (expert, (&picks, weight)) in counted.picks().iter().zip(weights).enumerate() {
            assert_eq!(token[expert], picks as f64 / (2.0 * 13.0));
            assert_eq!(gate[expert], weight / 13.0);
        }
    }
    summary.scores(Score::Token).check(model.config()).unwrap();
}

#[test]
fn scores_of_another_model_are_told_apart() {
    let tiny = ModelConfig::tiny(40);
    let row = vec![0.125; 8];
    let refused = |layers: &[(usize, Vec<f64>)]| {
        let scores = Scores::new(layers.iter().cloned().collect()).unwrap();
        scores.check(&tiny).unwrap_err().to_string()
    };
    let layers =
        |indices: &[usize]| -> Vec<_> { indices.iter().map(|i| (*i, row.clone())).collect() };
    assert!(refused(&layers(&[0, 1, 2, 3])).contains("layer 0"));
    assert!(refused(&layers(&[1, 2, 3, 4])).contains("layer 4"));
    assert!(refused(&layers(&[1, 3])).contains("layer 2"));
    let wide: Vec<_> = [1, 2, 3].map(|i| (i, vec![0.1; 9])).into();
    assert!(refused(&wide).contains("9 experts"));
}

/// The rule as slowly as it is said: the best of what is left, again and again.
fn naive(row: &BTreeMap<usize, f64>, amount: Amount) -> Vec<usize> {
    let mut left: BTreeMap<usize, f64> = row
        .iter()
        .map(|(id, score)| (*id, (score * 1e4).round_ties_even() / 1e4))
        .collect();
    let (mut taken, mut sum) = (Vec::new(), 0.0);
    while let Some((&id, &score)) = left
        .iter()
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
    {
        let enough = match amount {
            Amount::TopP(p) => sum >= p.get() || score == 0.0,
            Amount::TopK(k) => taken.len() == k.get(),
        };
        if enough {
            break;
        }
        sum += score;
        taken.push(id);
        left.remove(&id);
    }
    taken
}

/// Scores of few distinct values, so that ties are the rule; zeros among them.
fn rows() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((0_u32..12).prop_map(|n| f64::from(n) / 64.0), 1..40)
        .prop_filter("somebody is visited", |row| {
            row.iter().any(|score| *score > 0.0)
        })
}

fn amounts() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (1_u32..=200).prop_map(|p| top_p(f64::from(p) / 200.0)),
        (1_usize..40).prop_map(top_k),
    ]
}

/// As many as there are, at most.
fn at_most(amount: Amount, experts: usize) -> Amount {
    match amount {
        Amount::TopK(k) => top_k(k.get().min(experts)),
        Amount::TopP(_) => amount,
    }
}

proptest! {
    #[test]
    fn what_is_selected_is_what_the_rule_says(row in rows(), amount in amounts()) {
        let amount = at_most(amount, row.len());
        let selected = select(&layer(&row), amount).unwrap();
        let row: BTreeMap<_, _> = row.into_iter().enumerate().collect();
        prop_assert_eq!(selected.experts, group(&naive(&row, amount)));
    }

    /// What should not matter: in which order a group lists its experts, or how often.
    #[test]
    fn within_a_group_too_however_it_is_listed(
        row in rows(), amount in amounts(), drawn in prop::collection::vec(any::<prop::sample::Index>(), 1..30),
    ) {
        let listed: Vec<usize> = drawn.iter().map(|index| index.index(row.len())).collect();
        let sum: f64 = super::distinct(&listed).into_iter().map(|id| row[id]).sum();
        let members = super::distinct(&listed);
        let amount = at_most(amount, members.len());
        let selected = select_within(&layer(&row), amount, &group(&listed)).unwrap();
        let shares = members.iter().map(|&id| (id, row[id] / sum));
        let expected = if sum > 0.0 { naive(&shares.collect(), amount) } else { Vec::new() };
        prop_assert_eq!(&selected.experts, &group(&expected));

        let mut reversed = listed;
        reversed.reverse();
        let again = select_within(&layer(&row), amount, &group(&reversed)).unwrap();
        prop_assert_eq!(again, selected);
    }

    /// A permutation of the experts permutes the selection, where no two score the same.
    #[test]
    fn ids_decide_nothing_but_ties(order in Just((1..20_usize).collect::<Vec<_>>()).prop_shuffle(), p in 0.01..1.0) {
        let scores: Vec<f64> = order.iter().map(|rank| *rank as f64 / 190.0).collect();
        let selected = select(&layer(&scores), top_p(p)).unwrap();
        let ranks: Vec<usize> = selected.experts[&1].iter().map(|&id| order[id]).collect();
        let expected: Vec<usize> = (1..20).rev().take(ranks.len()).collect();
        prop_assert_eq!(ranks, expected);
    }

    #[test]
    fn every_selection_is_a_prefix_of_one_order(row in rows(), amount in amounts()) {
        let scores = layer(&row);
        let order = &select(&scores, top_k(row.len())).unwrap().experts[&1];
        let selected = &select(&scores, at_most(amount, row.len())).unwrap().experts[&1];
        prop_assert_eq!(selected, &order[..selected.len()]);
    }

    #[test]
    fn affinities_of_a_partition_add_up_to_what_a_layer_has(
        rows in prop::collection::vec(prop::collection::vec(0.0..1.0, 12), 1..6), groups in 1_usize..12,
    ) {
        let normalised = rows.iter().map(|row: &Vec<f64>| {
            let sum: f64 = row.iter().sum::<f64>().max(1e-9);
            row.iter().map(|score| score / sum).collect()
        });
        let scores = Scores::new(normalised.enumerate().collect()).unwrap();
        let affinity = |part: usize| {
            let members: Vec<usize> = (0..12).filter(|id| id % groups == part).collect();
            let group = (0..rows.len()).map(|layer| (layer, members.clone())).collect();
            group_affinity(&scores, &group).unwrap()
        };
        let sum: f64 = (0..groups).map(affinity).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
