//! The parameters of a model as a tree: one place for names, shapes and order.
//!
//! [`Parameters<T>`] holds one `T` per parameter: a name, a buffer, or a gradient that may be wanted. All
//! trees come from the same walk over a [`ModelConfig`], so they cannot disagree about what the model
//! consists of. A parameter's name here is canonical: the Hugging Face name that its family uses with one
//! tensor per expert matrix. How a checkpoint really stores it is the checkpoint's business. Knows
//! nothing of files and values.

mod map;
mod walk;

use crate::config::{Family, ModelConfig};
use walk::Walk;

/// One `T` for every parameter of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameters<T> {
    /// `[vocabulary, hidden]`.
    pub(crate) embedding: T,
    pub(crate) layers: Vec<Layer<T>>,
    /// `[hidden]`.
    pub(crate) norm: T,
    /// `[vocabulary, hidden]`; `None` where the embedding is the head too.
    pub(crate) head: Option<T>,
}

/// One decoder layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layer<T> {
    /// `[hidden]`, before attention.
    pub(crate) input_norm: T,
    pub(crate) attention: Attention<T>,
    /// `[hidden]`, before the feed-forward network.
    pub(crate) middle_norm: T,
    pub(crate) feed_forward: FeedForward<T>,
}

/// How a layer attends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attention<T> {
    Latent(LatentAttention<T>),
    Grouped(GroupedAttention<T>),
}

/// Multi-head latent attention; `n`, `r`, `v` are the nope, rope and value widths of a head, `c` the
/// latent's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LatentAttention<T> {
    pub(crate) queries: LatentQueries<T>,
    /// `[c+r, hidden]`: the latent and the rotated key part.
    pub(crate) compress: T,
    /// `[c]`.
    pub(crate) latent_norm: T,
    /// `[heads·(n+v), c]`: from the latent to keys and values.
    pub(crate) expand: T,
    /// `[hidden, heads·v]`.
    pub(crate) output: T,
}

/// Queries of latent attention; `q` is the width of their own latent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LatentQueries<T> {
    /// `[heads·(n+r), hidden]`.
    Direct(T),
    LowRank {
        /// `[q, hidden]`.
        compress: T,
        /// `[q]`.
        norm: T,
        /// `[heads·(n+r), q]`.
        expand: T,
    },
}

/// Grouped-query attention; `d` is the width of a head.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupedAttention<T> {
    /// `[heads·d, hidden]`.
    pub(crate) queries: T,
    /// `[key heads·d, hidden]`.
    pub(crate) keys: T,
    /// `[key heads·d, hidden]`.
    pub(crate) values: T,
    /// Of queries and of keys: `[d]` each, or the whole width of the projection.
    pub(crate) norms: Option<[T; 2]>,
    /// `[hidden, heads·d]`.
    pub(crate) output: T,
}

/// What follows attention.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FeedForward<T> {
    Dense(SwiGlu<T>),
    Mixture(Box<Mixture<T>>),
}

/// Routed experts, and the shared ones as a single wide network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mixture<T> {
    /// `[experts, hidden]`; has a row for every expert, resident or not.
    pub(crate) router: T,
    /// `[experts]`, added for the choice only (DeepSeek-V3).
    pub(crate) bias: Option<T>,
    /// By expert id; `None` for those that are not resident.
    pub(crate) experts: Vec<Option<SwiGlu<T>>>,
    pub(crate) shared: Option<SwiGlu<T>>,
}

/// `down(silu(gate·x) ⊙ up·x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct SwiGlu<T> {
    /// `[width, hidden]`.
    pub gate: T,
    /// `[width, hidden]`.
    pub up: T,
    /// `[hidden, width]`.
    pub down: T,
}

/// What a parameter does; decides who may train it and in which precision it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Embedding,
    Head,
    /// Any norm's weights, a vector.
    Norm,
    /// A linear map of attention.
    Attention,
    /// A matrix of a dense layer's network.
    Dense,
    Router,
    /// The vector that shifts a router's choice.
    RouterBias,
    /// A matrix of one routed expert.
    Expert {
        layer: usize,
        expert: usize,
    },
    /// A matrix of the shared experts' network.
    Shared,
}

/// One parameter as it is asked for.
#[derive(Debug)]
pub(crate) struct Parameter<'a> {
    /// The canonical name.
    pub(crate) name: String,
    /// `[rows, columns]` of a matrix, `[length]` of a vector.
    pub(crate) shape: &'a [usize],
    pub(crate) role: Role,
}

impl<T> Parameters<T> {
    /// Asks `leaf` for every parameter in a fixed order, leaving out the experts of a layer that are not
    /// `resident(layer, expert)`. The first refusal ends the walk.
    pub(crate) fn build<E>(
        config: &ModelConfig,
        resident: &dyn Fn(usize, usize) -> bool,
        leaf: &mut impl FnMut(Parameter<'_>) -> Result<T, E>,
    ) -> Result<Self, E> {
        let mut walk = Walk {
            config,
            resident,
            leaf,
        };
        walk.model()
    }

    /// All leaves, in the order of [`Self::build`].
    pub(crate) fn into_leaves(self) -> Vec<T> {
        let mut leaves = Vec::new();
        self.map(&mut |leaf| leaves.push(leaf));
        leaves
    }

    /// All leaves, in the order of [`Self::build`].
    pub(crate) fn leaves(&self) -> Vec<&T> {
        let mut leaves = Vec::new();
        self.map_ref(&mut |leaf| leaves.push(leaf));
        leaves
    }

    /// All leaves to be changed, in the order of [`Self::build`].
    pub(crate) fn leaves_mut(&mut self) -> Vec<&mut T> {
        let mut leaves = Vec::new();
        self.map_mut(&mut |leaf| leaves.push(leaf));
        leaves
    }
}

/// What every name but the head's begins with.
pub(crate) fn prefix(family: Family) -> &'static str {
    match family {
        Family::Qwen3VlMoe => "model.language_model.",
        Family::DeepseekV2
        | Family::DeepseekV3
        | Family::Qwen3Moe
        | Family::Olmoe
        | Family::Mixtral => "model.",
    }
}

/// What a family calls the block of router and experts.
pub(crate) fn block(family: Family) -> &'static str {
    match family {
        Family::Mixtral => "block_sparse_moe",
        Family::DeepseekV2
        | Family::DeepseekV3
        | Family::Qwen3Moe
        | Family::Qwen3VlMoe
        | Family::Olmoe => "mlp",
    }
}

/// The canonical names of one routed expert's matrices: gate, up, down.
#[must_use]
pub fn expert_parameter_names(family: Family, layer: usize, expert: usize) -> [String; 3] {
    let (prefix, block) = (prefix(family), block(family));
    let matrices = match family {
        Family::Mixtral => ["w1", "w3", "w2"],
        Family::DeepseekV2
        | Family::DeepseekV3
        | Family::Qwen3Moe
        | Family::Qwen3VlMoe
        | Family::Olmoe => ["gate_proj", "up_proj", "down_proj"],
    };
    matrices
        .map(|matrix| format!("{prefix}layers.{layer}.{block}.experts.{expert}.{matrix}.weight"))
}

/// The layer and expert of a routed expert's matrix under its canonical name in any family; `None` for
/// every other name.
#[must_use]
pub fn parse_expert_name(name: &str) -> Option<(usize, usize)> {
    let (_, from_layer) = name.split_once("layers.")?;
    let (layer, _) = from_layer.split_once('.')?;
    let (_, from_expert) = from_layer.split_once(".experts.")?;
    let (expert, _) = from_expert.split_once('.')?;
    let (layer, expert) = (layer.parse().ok()?, expert.parse().ok()?);
    // Spelling the names again refuses "007", "+7" and unknown matrices in one comparison. These three
    // families spell in the three ways that there are.
    [Family::DeepseekV2, Family::Qwen3VlMoe, Family::Mixtral]
        .iter()
        .flat_map(|family| expert_parameter_names(*family, layer, expert))
        .any(|known| known == name)
        .then_some((layer, expert))
}

#[cfg(test)]
mod tests;
