//! Routings that do not fit, each refused by name, and what the fitting ones become.

use std::collections::BTreeMap;

use super::{restricted, substituted};
use crate::config::ModelConfig;
use crate::routing::{ExpertMap, LayerRouting, Routing, RoutingError, RoutingPlan};

/// Layers 1, 2 and 3 have 8 experts, layer 0 is dense.
fn model() -> ModelConfig {
    ModelConfig::tiny(64)
}

fn everywhere(experts: &[usize]) -> ExpertMap {
    (1..4).map(|layer| (layer, experts.to_vec())).collect()
}

/// All experts are in memory.
fn plan(routing: &Routing) -> Result<RoutingPlan, RoutingError> {
    RoutingPlan::new(routing, &model(), &|_, _| true)
}

fn masked(experts: ExpertMap) -> Routing {
    Routing::Masked { experts }
}

#[test]
fn each_mode_becomes_its_layer_routing() {
    let (trained, kept) = (everywhere(&[5, 1, 1]), everywhere(&[0]));
    let cases = [
        (Routing::Classic, LayerRouting::Natural),
        (masked(trained.clone()), restricted(8, &[1, 5])),
        (
            Routing::FrozenKept {
                trained: trained.clone(),
                kept: kept.clone(),
            },
            restricted(8, &[0, 1, 5]),
        ),
        (
            Routing::Fallback { trained, kept },
            substituted(8, &[1, 5], &[0]),
        ),
    ];
    for (routing, expected) in cases {
        let plan = plan(&routing).unwrap();
        for layer in 1..4 {
            assert_eq!(plan.layer(layer), &expected);
        }
    }
}

/// An empty list is an answer, a missing one is not; with two maps, one of them suffices.
#[test]
fn a_forgotten_layer_is_refused_and_an_empty_list_is_not() {
    let mut experts = everywhere(&[]);
    assert!(plan(&masked(experts.clone())).is_ok());
    experts.remove(&2);
    let refusal = RoutingError::UnlistedLayer { layer: 2 };
    assert_eq!(plan(&masked(experts.clone())), Err(refusal));
    let fallback = |kept| Routing::Fallback {
        trained: experts.clone(),
        kept,
    };
    assert_eq!(plan(&fallback(ExpertMap::new())), Err(refusal));
    let plan = plan(&fallback(BTreeMap::from([(2, vec![4])]))).unwrap();
    assert_eq!(plan.layer(2), &substituted(8, &[], &[4]));
    assert_eq!(plan.layer(3), &substituted(8, &[], &[]));
}

#[test]
fn layers_and_experts_that_do_not_exist_are_refused_by_name() {
    for layer in [0, 4] {
        let mut experts = everywhere(&[0]);
        experts.insert(layer, vec![0]);
        let refusal = RoutingError::NoSuchMoeLayer { layer };
        assert_eq!(plan(&masked(experts)), Err(refusal));
    }
    let mut kept = everywhere(&[0]);
    kept.insert(3, vec![7, 8]);
    let refusal = RoutingError::NoSuchExpert {
        layer: 3,
        expert: 8,
    };
    assert_eq!(plan(&masked(kept.clone())), Err(refusal));
    let trained = everywhere(&[1]);
    assert_eq!(plan(&Routing::FrozenKept { trained, kept }), Err(refusal));
}

#[test]
fn an_expert_is_either_trained_or_kept() {
    let (trained, mut kept) = (everywhere(&[1, 2]), everywhere(&[3]));
    kept.insert(2, vec![3, 2]);
    let refusal = RoutingError::TrainedAndKept {
        layer: 2,
        expert: 2,
    };
    let routing = Routing::FrozenKept {
        trained: trained.clone(),
        kept: kept.clone(),
    };
    assert_eq!(plan(&routing), Err(refusal));
    assert_eq!(plan(&Routing::Fallback { trained, kept }), Err(refusal));
}

/// What should not happen: an absent expert's share of the output vanishing without a word.
#[test]
fn experts_that_may_be_chosen_have_to_be_in_memory() {
    let slice = |layer: usize, expert: usize| layer != 2 || expert != 6;
    let plan = |routing: &Routing| RoutingPlan::new(routing, &model(), &slice);
    let (layer, expert) = (2, 6);
    let refusal = RoutingError::ClassicNeedsAll { layer, expert };
    assert_eq!(plan(&Routing::Classic), Err(refusal));
    assert_eq!(
        refusal.to_string(),
        "classic routing needs every expert, expert 6 of layer 2 is not in memory"
    );
    let refusal = RoutingError::NotResident { layer, expert };
    assert_eq!(plan(&masked(everywhere(&[1, 6]))), Err(refusal));
    let (trained, kept) = (everywhere(&[1]), everywhere(&[0, 6]));
    assert_eq!(plan(&Routing::Fallback { trained, kept }), Err(refusal));
    assert!(plan(&masked(everywhere(&[1, 2]))).is_ok());
}
