//! How parameters are held.

use super::*;
use crate::config::Family;
use crate::config::samples::small;

const FAMILIES: [Family; 6] = [
    Family::DeepseekV2,
    Family::DeepseekV3,
    Family::Qwen3Moe,
    Family::Qwen3VlMoe,
    Family::Olmoe,
    Family::Mixtral,
];

/// Decisions hang on routers and everything on norms: both stay exact whatever the plan says. The rest is
/// held as the plan says for what is frozen and what is trained.
#[test]
fn only_matrices_are_held_in_fewer_bits() {
    for family in FAMILIES {
        let config = small(family);
        let holding = Holding {
            residency: Residency::Whole,
            trainable: TrainableSet::experts(ExpertMap::from([(1, vec![2])])),
            plan: MemoryPlan {
                frozen: Element::Int8,
                trained: Element::Bf16,
                ..MemoryPlan::default()
            },
        };
        let held = Model::random_on(Cpu::single(), &config, &holding, 1);
        let exact = Model::random(&config, 1);
        for description in held.descriptions().iter() {
            let expected = match description.role {
                Role::Norm | Role::Router | Role::RouterBias => Element::F32,
                Role::Expert {
                    layer: 1,
                    expert: 2,
                } => Element::Bf16,
                _ => Element::Int8,
            };
            let name = &description.name;
            assert_eq!(description.element, expected, "{name} of {family:?}");
            let same = held.tensor(name) == exact.tensor(name);
            assert_eq!(same, expected == Element::F32, "{name} of {family:?}");
        }
    }
}

/// Names, shapes and values of every family go out as they came in.
#[test]
fn what_is_taken_out_can_be_put_together_again() {
    for family in FAMILIES {
        let config = small(family);
        let model = Model::random(&config, 1);
        let tensor = |name: &str| (name.to_owned(), model.tensor(name).expect("its own name"));
        let tensors: BTreeMap<String, Tensor> = model.names().map(tensor).collect();
        let shapes = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()));
        assert_eq!(
            shapes.collect::<BTreeMap<_, _>>(),
            Model::expected_tensors(&config)
        );

        let again = Model::from_tensors(&config, &tensors).expect("all parameters");
        let ids = [1, 2, 3, 4, 5];
        let logits = |model: &Model| model.logits(&ids, &Routing::Classic).expect("ids");
        assert_eq!(logits(&again), logits(&model), "{family:?}");
    }
}

#[test]
fn tensors_that_do_not_make_the_model_are_refused_by_name() {
    let config = small(Family::Olmoe);
    let model = Model::random(&config, 1);
    let tensor = |name: &str| (name.to_owned(), model.tensor(name).expect("its own name"));
    let tensors: BTreeMap<String, Tensor> = model.names().map(tensor).collect();
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        let error = Model::from_tensors(&config, &tensors).expect_err("not the model");
        error.to_string()
    };
    let name = "model.layers.1.mlp.gate.weight";
    let missing = refused(&|tensors| drop(tensors.remove(name)));
    assert_eq!(missing, format!("tensor {name} is missing"));
    let misshapen = refused(&|tensors| {
        tensors.insert(name.to_owned(), Tensor::zeros(&[16, 8]));
    });
    assert_eq!(
        misshapen,
        format!("tensor {name} should have shape [8, 16], found [16, 8]")
    );
    let unfilled = refused(&|tensors| {
        tensors.get_mut(name).expect("there").values.pop();
    });
    assert_eq!(
        unfilled,
        format!("tensor {name} should have shape [8, 16], found [127]")
    );
    let unexpected = refused(&|tensors| {
        tensors.insert("model.layers.9.extra".into(), Tensor::zeros(&[1]));
    });
    assert_eq!(
        unexpected,
        "tensor model.layers.9.extra does not belong to the configured model"
    );
}
