//! Which experts a token visits: worked examples, a naive reference, and the whole model.

use std::collections::BTreeMap;

use connito_engine::routing::{Slot, select};
use connito_engine::{EngineError, Model, ModelConfig, Routing};
use proptest::prelude::*;

/// softmax(2, 1, .5, 1.5, 0, 1, −1, 3): experts 1 and 5 tie.
const SCORES: [f32; 8] = [
    0.182_855, 0.067_268, 0.040_800, 0.110_907, 0.024_747, 0.067_268, 0.009_104, 0.497_051,
];

fn selected(scores: &[f32], routable: Option<&[usize]>, count: usize) -> Vec<Option<(usize, f32)>> {
    let marks = routable.map(|listed| {
        (0..scores.len())
            .map(|id| listed.contains(&id))
            .collect::<Vec<_>>()
    });
    let mut slots = vec![None; count];
    select(scores, marks.as_deref(), &mut slots);
    slots
        .into_iter()
        .map(|slot: Option<Slot>| slot.map(|slot| (slot.expert, slot.score)))
        .collect()
}

#[test]
fn classic_takes_the_best_and_breaks_the_tie_by_id() {
    let three = [
        Some((7, SCORES[7])),
        Some((0, SCORES[0])),
        Some((3, SCORES[3])),
    ];
    assert_eq!(selected(&SCORES, None, 3), three);
    let order: Vec<usize> = selected(&SCORES, None, 8)
        .into_iter()
        .flatten()
        .map(|(expert, _)| expert)
        .collect();
    assert_eq!(order, [7, 0, 3, 1, 5, 2, 4, 6]);
}

/// Weights stay the probabilities over all eight experts; a slot without an expert is empty, not an
/// expert with a sentinel for a weight.
#[test]
fn masked_takes_only_routable_experts_with_their_own_scores() {
    let full = [
        Some((1, SCORES[1])),
        Some((2, SCORES[2])),
        Some((4, SCORES[4])),
    ];
    assert_eq!(selected(&SCORES, Some(&[1, 2, 4]), 3), full);
    let short = [Some((1, SCORES[1])), Some((4, SCORES[4])), None];
    assert_eq!(selected(&SCORES, Some(&[1, 4]), 3), short);
    assert_eq!(selected(&SCORES, Some(&[]), 3), [None; 3]);
}

/// Sort every routable expert by (score descending, id ascending) and take the first ones.
fn naive(scores: &[f32], routable: &[usize], count: usize) -> Vec<Option<(usize, f32)>> {
    let mut order: Vec<usize> = (0..scores.len())
        .filter(|id| routable.contains(id))
        .collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    (0..count)
        .map(|slot| order.get(slot).map(|&id| (id, scores[id])))
        .collect()
}

proptest! {
    /// Scores of few distinct values, so that ties are the rule.
    #[test]
    fn selection_agrees_with_sorting(
        scores in prop::collection::vec((0u8..5).prop_map(|tenth| f32::from(tenth) / 10.0), 1..20),
        routable in prop::collection::vec(0usize..20, 0..12),
        count in 1usize..8,
    ) {
        prop_assert_eq!(selected(&scores, Some(&routable), count), naive(&scores, &routable, count));
        let every: Vec<usize> = (0..scores.len()).collect();
        prop_assert_eq!(selected(&scores, None, count), naive(&scores, &every, count));
    }
}

fn loss(model: &Model, routing: &Routing) -> f64 {
    let ids: Vec<u32> = (0..40).map(|index| index * 11 % 64).collect();
    model
        .sequence_losses(&[&ids], 1, routing)
        .expect("ids of the model")[0]
        .sum
}

fn masked(experts: Vec<usize>) -> Routing {
    Routing::Masked {
        experts: (1..4).map(|layer| (layer, experts.clone())).collect(),
    }
}

#[test]
fn masking_nothing_out_is_the_classic_model() {
    let model = Model::random(&ModelConfig::tiny(64), 3);
    assert_eq!(
        loss(&model, &masked((0..8).collect())),
        loss(&model, &Routing::Classic)
    );
}

/// What should happen: an expert that may not be chosen has no influence at all.
#[test]
fn experts_outside_the_mask_change_nothing() {
    let mut model = Model::random(&ModelConfig::tiny(64), 3);
    let routing = masked(vec![0, 5]);
    let (before, natural) = (loss(&model, &routing), loss(&model, &Routing::Classic));
    let name = "model.layers.2.mlp.experts.4.down_proj.weight";
    let spoilt = vec![3.0; model.tensor(name).unwrap().values.len()];
    model.set_tensor(name, &spoilt).unwrap();
    assert_eq!(loss(&model, &routing), before);
    assert_ne!(
        loss(&model, &Routing::Classic),
        natural,
        "the classic model does visit expert 4"
    );
}

#[test]
fn routing_that_does_not_fit_the_model_is_refused_by_name() {
    let model = Model::random(&ModelConfig::tiny(64), 3);
    let refused = |experts: BTreeMap<usize, Vec<usize>>| {
        let routing = Routing::Masked { experts };
        model.sequence_losses(&[&[1, 2]], 1, &routing).unwrap_err()
    };
    let complete = BTreeMap::from([(1, vec![0]), (2, vec![0]), (3, vec![0])]);

    let mut dense = complete.clone();
    dense.insert(0, vec![0]);
    assert!(matches!(
        refused(dense),
        EngineError::NoSuchMoeLayer { layer: 0 }
    ));

    let mut unknown = complete.clone();
    unknown.insert(2, vec![8]);
    assert!(matches!(
        refused(unknown),
        EngineError::NoSuchExpert {
            layer: 2,
            expert: 8
        }
    ));

    let mut silent = complete;
    silent.remove(&3);
    assert!(matches!(
        refused(silent),
        EngineError::UnroutedLayer { layer: 3 }
    ));
}
