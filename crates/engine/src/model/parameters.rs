//! The parameters of a DeepSeek-V2 model as a tree: one place for names, shapes and order.
//!
//! [`Parameters<T>`] holds one `T` per weight: a name, a reference to a buffer, or a gradient that may
//! be wanted. All are built by the same walk, so they cannot disagree about what the model consists of.

use crate::config::ModelConfig;

/// One `T` for every weight of a model.
#[derive(Debug)]
pub(crate) struct Parameters<T> {
    /// `[vocabulary, hidden]`.
    pub(crate) embedding: T,
    pub(crate) layers: Vec<Layer<T>>,
    /// `[hidden]`.
    pub(crate) norm: T,
    /// `[vocabulary, hidden]`.
    pub(crate) head: T,
}

/// One decoder layer.
#[derive(Debug)]
pub(crate) struct Layer<T> {
    /// `[hidden]`, before attention.
    pub(crate) input_norm: T,
    pub(crate) attention: Attention<T>,
    /// `[hidden]`, before the feed-forward network.
    pub(crate) middle_norm: T,
    pub(crate) feed_forward: FeedForward<T>,
}

/// Multi-head latent attention; `n`, `r`, `v` are the nope, rope and value widths of a head, `c` the
/// latent's.
#[derive(Debug)]
pub(crate) struct Attention<T> {
    /// `[heads·(n+r), hidden]`.
    pub(crate) queries: T,
    /// `[c+r, hidden]`: the latent and the rotated key part.
    pub(crate) compress: T,
    /// `[c]`.
    pub(crate) latent_norm: T,
    /// `[heads·(n+v), c]`: from the latent to keys and values.
    pub(crate) expand: T,
    /// `[hidden, heads·v]`.
    pub(crate) output: T,
}

/// What follows attention.
#[derive(Debug)]
pub(crate) enum FeedForward<T> {
    Dense(SwiGlu<T>),
    Mixture(Box<Mixture<T>>),
}

/// Routed experts, and the shared ones as a single wide network.
#[derive(Debug)]
pub(crate) struct Mixture<T> {
    /// `[experts, hidden]`.
    pub(crate) router: T,
    pub(crate) experts: Vec<SwiGlu<T>>,
    pub(crate) shared: SwiGlu<T>,
}

/// `down(silu(gate·x) ⊙ up·x)`.
#[derive(Debug)]
pub(crate) struct SwiGlu<T> {
    /// `[width, hidden]`.
    pub(crate) gate: T,
    /// `[width, hidden]`.
    pub(crate) up: T,
    /// `[hidden, width]`.
    pub(crate) down: T,
}

impl<T> Parameters<T> {
    /// Asks `leaf` for every weight, by Hugging Face name and shape, in a fixed order.
    pub(crate) fn build<E>(
        config: &ModelConfig,
        leaf: &mut impl FnMut(String, &[usize]) -> Result<T, E>,
    ) -> Result<Self, E> {
        let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
        Ok(Self {
            embedding: leaf("model.embed_tokens.weight".into(), &[vocabulary, hidden])?,
            layers: (0..config.num_hidden_layers)
                .map(|layer| Layer::build(config, layer, leaf))
                .collect::<Result<_, E>>()?,
            norm: leaf("model.norm.weight".into(), &[hidden])?,
            head: leaf("lm_head.weight".into(), &[vocabulary, hidden])?,
        })
    }

    /// All weights, in the order of [`Self::build`].
    pub(crate) fn into_leaves(self) -> Vec<T> {
        let mut leaves = vec![self.embedding];
        for layer in self.layers {
            layer.push_leaves(&mut leaves);
        }
        leaves.extend([self.norm, self.head]);
        leaves
    }
}

impl<T> Layer<T> {
    fn build<E>(
        config: &ModelConfig,
        layer: usize,
        leaf: &mut impl FnMut(String, &[usize]) -> Result<T, E>,
    ) -> Result<Self, E> {
        let hidden = config.hidden_size;
        let prefix = format!("model.layers.{layer}");
        Ok(Self {
            input_norm: leaf(format!("{prefix}.input_layernorm.weight"), &[hidden])?,
            attention: Attention::build(config, &format!("{prefix}.self_attn"), leaf)?,
            middle_norm: leaf(
                format!("{prefix}.post_attention_layernorm.weight"),
                &[hidden],
            )?,
            feed_forward: if config.is_moe_layer(layer) {
                let mixture = Mixture::build(config, &format!("{prefix}.mlp"), leaf)?;
                FeedForward::Mixture(Box::new(mixture))
            } else {
                let sizes = [hidden, config.intermediate_size];
                FeedForward::Dense(SwiGlu::build(&format!("{prefix}.mlp"), sizes, leaf)?)
            },
        })
    }

    fn push_leaves(self, leaves: &mut Vec<T>) {
        let attention = self.attention;
        leaves.extend([
            self.input_norm,
            attention.queries,
            attention.compress,
            attention.latent_norm,
            attention.expand,
            attention.output,
            self.middle_norm,
        ]);
        match self.feed_forward {
            FeedForward::Dense(network) => leaves.extend(network.into_leaves()),
            FeedForward::Mixture(mixture) => {
                leaves.push(mixture.router);
                leaves.extend(mixture.experts.into_iter().flat_map(SwiGlu::into_leaves));
                leaves.extend(mixture.shared.into_leaves());
            }
        }
    }
}

impl<T> Attention<T> {
    fn build<E>(
        config: &ModelConfig,
        prefix: &str,
        leaf: &mut impl FnMut(String, &[usize]) -> Result<T, E>,
    ) -> Result<Self, E> {
        let (hidden, heads, latent) = (
            config.hidden_size,
            config.num_attention_heads,
            config.kv_lora_rank,
        );
        let (nope, rope, value) = (
            config.qk_nope_head_dim,
            config.qk_rope_head_dim,
            config.v_head_dim,
        );
        Ok(Self {
            queries: leaf(
                format!("{prefix}.q_proj.weight"),
                &[heads * (nope + rope), hidden],
            )?,
            compress: leaf(
                format!("{prefix}.kv_a_proj_with_mqa.weight"),
                &[latent + rope, hidden],
            )?,
            latent_norm: leaf(format!("{prefix}.kv_a_layernorm.weight"), &[latent])?,
            expand: leaf(
                format!("{prefix}.kv_b_proj.weight"),
                &[heads * (nope + value), latent],
            )?,
            output: leaf(format!("{prefix}.o_proj.weight"), &[hidden, heads * value])?,
        })
    }
}

impl<T> Mixture<T> {
    fn build<E>(
        config: &ModelConfig,
        prefix: &str,
        leaf: &mut impl FnMut(String, &[usize]) -> Result<T, E>,
    ) -> Result<Self, E> {
        let (hidden, width) = (config.hidden_size, config.moe_intermediate_size);
        let shared_width = width * config.n_shared_experts;
        Ok(Self {
            router: leaf(
                format!("{prefix}.gate.weight"),
                &[config.n_routed_experts, hidden],
            )?,
            experts: (0..config.n_routed_experts)
                .map(|expert| {
                    SwiGlu::build(&format!("{prefix}.experts.{expert}"), [hidden, width], leaf)
                })
                .collect::<Result<_, E>>()?,
            shared: SwiGlu::build(
                &format!("{prefix}.shared_experts"),
                [hidden, shared_width],
                leaf,
            )?,
        })
    }
}

impl<T> SwiGlu<T> {
    fn build<E>(
        prefix: &str,
        [hidden, width]: [usize; 2],
        leaf: &mut impl FnMut(String, &[usize]) -> Result<T, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            gate: leaf(format!("{prefix}.gate_proj.weight"), &[width, hidden])?,
            up: leaf(format!("{prefix}.up_proj.weight"), &[width, hidden])?,
            down: leaf(format!("{prefix}.down_proj.weight"), &[hidden, width])?,
        })
    }

    fn into_leaves(self) -> [T; 3] {
        [self.gate, self.up, self.down]
    }
}

/// The three matrices of one routed expert: gate, up, down.
#[must_use]
pub fn expert_parameter_names(layer: usize, expert: usize) -> [String; 3] {
    ["gate_proj", "up_proj", "down_proj"]
        .map(|matrix| format!("model.layers.{layer}.mlp.experts.{expert}.{matrix}.weight"))
}

/// The layer and expert of a routed expert's matrix; `None` for every other parameter.
#[must_use]
pub fn parse_expert_name(name: &str) -> Option<(usize, usize)> {
    let (layer, rest) = name
        .strip_prefix("model.layers.")?
        .split_once(".mlp.experts.")?;
    let (expert, _) = rest.split_once('.')?;
    let (layer, expert) = (layer.parse().ok()?, expert.parse().ok()?);
    // Spelling the names again refuses "007", "+7" and unknown matrices in one comparison.
    expert_parameter_names(layer, expert)
        .iter()
        .any(|known| known == name)
        .then_some((layer, expert))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: &ModelConfig) -> Parameters<String> {
        let mut leaf = |name, _: &[usize]| Ok::<_, std::convert::Infallible>(name);
        match Parameters::build(config, &mut leaf) {
            Ok(names) => names,
            Err(never) => match never {},
        }
    }

    /// Gradients are matched to names by position, so both walks must visit alike.
    #[test]
    fn leaves_come_back_in_the_order_in_which_they_were_built() {
        let config = ModelConfig::tiny(16);
        let mut built = Vec::new();
        let mut leaf = |name: String, _: &[usize]| {
            built.push(name.clone());
            Ok::<_, std::convert::Infallible>(name)
        };
        let Ok(parameters) = Parameters::build(&config, &mut leaf);
        assert_eq!(parameters.into_leaves(), built);
    }

    #[test]
    fn expert_names_are_recognised_and_nothing_else_is() {
        let config = ModelConfig::tiny(16);
        let experts = names(&config)
            .into_leaves()
            .iter()
            .filter_map(|name| parse_expert_name(name))
            .count();
        assert_eq!(
            experts,
            3 * 8 * 3,
            "three MoE layers of eight experts of three matrices"
        );
        for (layer, expert) in [(1, 0), (3, 7), (12, 345)] {
            for name in expert_parameter_names(layer, expert) {
                assert_eq!(parse_expert_name(&name), Some((layer, expert)));
            }
        }
        for stranger in [
            "model.layers.1.mlp.experts.07.gate_proj.weight",
            "model.layers.1.mlp.experts.7.gate_proj.weight.extra",
            "model.layers.1.mlp.experts.7.gate_proj.bias",
            "model.layers.1.mlp.shared_experts.gate_proj.weight",
            "model.layers.1.mlp.gate.weight",
        ] {
            assert_eq!(parse_expert_name(stranger), None, "{stranger}");
        }
    }
}
