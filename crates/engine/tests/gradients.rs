//! Gradients against central differences of the loss.
//!
//! For a direction `d` of ±1 entries, `(ℓ(w+εd) − ℓ(w−εd)) / 2ε` should be `⟨g, d⟩`, whose typical size
//! is ‖g‖: a wrong term of more than a few per cent of the gradient shows in one of several directions.
//! The loss is a mean of f32 values near 3 and so carries an error of about 1e-7, over 2ε = 4e-3 some
//! 3e-5; the third-order term shrinks with ε² and is below a per cent. Hence `0.02·‖g‖ + 5e-5`.

use std::collections::BTreeMap;

use connito_engine::{
    Model, ModelConfig, Routing, Tensor, TrainableSet, expert_parameter_names, gradients,
};

const STEP: f32 = 5e-4;

fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: 16,
        intermediate_size: 20,
        moe_intermediate_size: 12,
        num_hidden_layers: 4,
        num_attention_heads: 2,
        kv_lora_rank: 8,
        qk_nope_head_dim: 4,
        qk_rope_head_dim: 4,
        v_head_dim: 6,
        n_routed_experts: 4,
        n_shared_experts: 2,
        routed_scaling_factor: 1.5,
        max_position_embeddings: 32,
        ..ModelConfig::tiny(24)
    }
}

/// A model whose every part matters: the head is enlarged so that the loss feels the layers.
fn model() -> Model {
    let mut model = Model::random(&config(), 11);
    for name in ["lm_head.weight", "model.embed_tokens.weight"] {
        let larger: Vec<f32> = values(&model, name)
            .iter()
            .map(|value| value * 20.0)
            .collect();
        model
            .set_tensor(name, &larger)
            .expect("as many values as before");
    }
    model
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    model
        .tensor(name)
        .expect("a name of the model")
        .values
        .clone()
}

/// Differing lengths, one of them the shortest that predicts anything.
fn sequences() -> Vec<Vec<u32>> {
    [19, 2, 11, 7]
        .iter()
        .map(|&length| {
            (0..length)
                .map(|position| (position * 7 + length * 5) % 24)
                .collect()
        })
        .collect()
}

fn loss(model: &Model, routing: &Routing) -> f64 {
    let sequences = sequences();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let losses = model
        .sequence_losses(&sequences, 1, routing)
        .expect("sequences of the model");
    let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
    losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64
}

fn computed(trainable: &TrainableSet, routing: &Routing) -> BTreeMap<String, Tensor> {
    let sequences = sequences();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let (mean, gradients) =
        gradients(&model(), trainable, routing, &sequences).expect("experts of the model");
    assert!(
        (mean - loss(&model(), routing)).abs() < 1e-9,
        "both ways give one loss"
    );
    gradients
}

/// Compares one parameter's gradient with the loss along four directions.
fn check(name: &str, gradient: &Tensor, routing: &Routing) {
    let mut model = model();
    let original = values(&model, name);
    let size = gradient
        .values
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt();
    assert!(
        size > 1e-3,
        "{name} has a gradient of only {size}: the test would show nothing"
    );
    for seed in 0..4u32 {
        let direction = |index: usize| {
            let bits =
                (index as u32 + 1).wrapping_mul(0x9e37_79b1) ^ (seed + 1).wrapping_mul(0x85eb_ca6b);
            if (bits.wrapping_mul(0xc2b2_ae35) >> 16) & 1 == 0 {
                1.0
            } else {
                -1.0
            }
        };
        let mut moved = |step: f32| {
            let moved = original
                .iter()
                .enumerate()
                .map(|(index, value)| value + step * direction(index));
            model
                .set_tensor(name, &moved.collect::<Vec<_>>())
                .expect("as many values as before");
            loss(&model, routing)
        };
        let difference = ((moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP)) as f32;
        let inner: f32 = gradient
            .values
            .iter()
            .enumerate()
            .map(|(index, value)| value * direction(index))
            .sum();
        assert!(
            (difference - inner).abs() < 0.01 * size + 1e-4,
            "{name}: the loss changes by {difference}, the gradient says {inner} (norm {size})"
        );
    }
}

#[test]
fn every_parameter_has_the_gradient_of_the_loss() {
    let found = computed(&TrainableSet::Everything, &Routing::Classic);
    assert!(found.keys().eq(Model::expected_tensors(&config()).keys()));
    for (name, gradient) in &found {
        check(name, gradient, &Routing::Classic);
    }
}

/// An expert of the lowest MoE layer changes what the routers of the two layers above see, so its
/// gradient passes through their weights although they are frozen. What should not happen: a gradient for
/// anything that is not listed.
#[test]
fn listed_experts_have_their_gradients_and_nothing_else_has_one() {
    let listed = BTreeMap::from([(1, vec![0, 3]), (3, vec![2])]);
    let found = computed(&TrainableSet::Experts(listed), &Routing::Classic);
    let mut names: Vec<String> = [(1, 0), (1, 3), (3, 2)]
        .map(|(layer, expert)| expert_parameter_names(layer, expert))
        .concat();
    names.sort();
    assert!(found.keys().eq(names.iter()));
    for (name, gradient) in &found {
        check(name, gradient, &Routing::Classic);
    }
}

/// Not computing what is frozen must not change what is computed: the same arithmetic, the same bits.
#[test]
fn freezing_the_rest_leaves_an_experts_gradient_as_it_was() {
    let everything = computed(&TrainableSet::Everything, &Routing::Classic);
    for layer in 1..4 {
        let listed = BTreeMap::from([(layer, vec![1])]);
        for (name, gradient) in computed(&TrainableSet::Experts(listed), &Routing::Classic) {
            assert_eq!(gradient, everything[&name], "{name}");
        }
    }
}

/// Layer 1 has fewer routable experts than slots, layer 3 has none: empty slots carry no gradient, and
/// the weights are not renormalised.
#[test]
fn masked_routing_has_the_gradient_of_its_own_loss() {
    let experts = BTreeMap::from([(1, vec![2]), (2, vec![0, 1, 3]), (3, vec![])]);
    let routing = Routing::Masked { experts };
    let found = computed(&TrainableSet::Everything, &routing);
    for (name, gradient) in &found {
        let unused = gradient.values.iter().all(|value| *value == 0.0);
        let routable = match connito_engine::parse_expert_name(name) {
            Some((layer, expert)) => [vec![2], vec![0, 1, 3], vec![]][layer - 1].contains(&expert),
            None => name != "model.layers.3.mlp.gate.weight",
        };
        assert_eq!(
            unused, !routable,
            "{name}: only what is used has a gradient"
        );
        if routable {
            check(name, gradient, &routing);
        }
    }
}
