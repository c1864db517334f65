//! The walk over a configuration that names and sizes every parameter, in the order in which trees list
//! their leaves. Shapes follow the published checkpoints of each family.

use super::{
    Attention, FeedForward, GroupedAttention, LatentAttention, LatentQueries, Layer, Mixture,
    Parameter, Parameters, Role, SwiGlu, block, expert_parameter_names, prefix,
};
use crate::config::{AttentionConfig, HeadNorm, ModelConfig, Scoring};

/// The names of a dense or shared network's matrices.
const MATRICES: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// What [`Parameters::build`] carries from node to node.
pub(super) struct Walk<'a, L> {
    pub(super) config: &'a ModelConfig,
    pub(super) resident: &'a dyn Fn(usize, usize) -> bool,
    pub(super) leaf: &'a mut L,
}

impl<L> Walk<'_, L> {
    pub(super) fn model<T, E>(&mut self) -> Result<Parameters<T>, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        let config = self.config;
        let table = [config.vocab_size, config.hidden_size];
        let prefix = prefix(config.family);
        let embedding = format!("{prefix}embed_tokens.weight");
        Ok(Parameters {
            embedding: self.leaf(embedding, &table, Role::Embedding)?,
            layers: (0..config.num_hidden_layers)
                .map(|layer| self.layer(layer))
                .collect::<Result<_, E>>()?,
            norm: self.norm(format!("{prefix}norm.weight"), config.hidden_size)?,
            head: if config.tied_head {
                None
            } else {
                Some(self.leaf("lm_head.weight".into(), &table, Role::Head)?)
            },
        })
    }

    fn leaf<T, E>(&mut self, name: String, shape: &[usize], role: Role) -> Result<T, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        (self.leaf)(Parameter { name, shape, role })
    }

    fn norm<T, E>(&mut self, name: String, length: usize) -> Result<T, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        self.leaf(name, &[length], Role::Norm)
    }

    fn layer<T, E>(&mut self, layer: usize) -> Result<Layer<T>, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        let hidden = self.config.hidden_size;
        let at = format!("{}layers.{layer}.", prefix(self.config.family));
        Ok(Layer {
            input_norm: self.norm(format!("{at}input_layernorm.weight"), hidden)?,
            attention: self.attention(&format!("{at}self_attn."))?,
            middle_norm: self.norm(format!("{at}post_attention_layernorm.weight"), hidden)?,
            feed_forward: if self.config.is_moe_layer(layer) {
                FeedForward::Mixture(Box::new(self.mixture(&at, layer)?))
            } else {
                let matrices = MATRICES.map(|matrix| format!("{at}mlp.{matrix}.weight"));
                let width = self.config.intermediate_size;
                FeedForward::Dense(self.network(matrices, width, Role::Dense)?)
            },
        })
    }

    fn attention<T, E>(&mut self, at: &str) -> Result<Attention<T>, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        let hidden = self.config.hidden_size;
        let heads = self.config.num_attention_heads;
        let matrix = |name: &str| format!("{at}{name}.weight");
        match self.config.attention {
            AttentionConfig::Latent {
                query_rank,
                rank,
                nope,
                rope,
                value,
            } => {
                let compressed = [rank + rope, hidden];
                let expanded = [heads * (nope + value), rank];
                Ok(Attention::Latent(LatentAttention {
                    queries: self.latent_queries(at, query_rank, heads * (nope + rope))?,
                    compress: self.linear(matrix("kv_a_proj_with_mqa"), compressed)?,
                    latent_norm: self.norm(matrix("kv_a_layernorm"), rank)?,
                    expand: self.linear(matrix("kv_b_proj"), expanded)?,
                    output: self.linear(matrix("o_proj"), [hidden, heads * value])?,
                }))
            }
            AttentionConfig::Grouped {
                key_heads,
                head,
                norm,
                ..
            } => {
                let (queries, keys) = (heads * head, key_heads * head);
                Ok(Attention::Grouped(GroupedAttention {
                    queries: self.linear(matrix("q_proj"), [queries, hidden])?,
                    keys: self.linear(matrix("k_proj"), [keys, hidden])?,
                    values: self.linear(matrix("v_proj"), [keys, hidden])?,
                    norms: match norm {
                        HeadNorm::Absent => None,
                        HeadNorm::PerHead => Some(self.head_norms(at, [head, head])?),
                        HeadNorm::Whole => Some(self.head_norms(at, [queries, keys])?),
                    },
                    output: self.linear(matrix("o_proj"), [hidden, queries])?,
                }))
            }
        }
    }

    fn latent_queries<T, E>(
        &mut self,
        at: &str,
        rank: Option<usize>,
        width: usize,
    ) -> Result<LatentQueries<T>, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        let hidden = self.config.hidden_size;
        let matrix = |name: &str| format!("{at}{name}.weight");
        Ok(match rank {
            None => LatentQueries::Direct(self.linear(matrix("q_proj"), [width, hidden])?),
            Some(rank) => LatentQueries::LowRank {
                compress: self.linear(matrix("q_a_proj"), [rank, hidden])?,
                norm: self.norm(matrix("q_a_layernorm"), rank)?,
                expand: self.linear(matrix("q_b_proj"), [width, rank])?,
            },
        })
    }

    fn head_norms<T, E>(&mut self, at: &str, [query, key]: [usize; 2]) -> Result<[T; 2], E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        Ok([
            self.norm(format!("{at}q_norm.weight"), query)?,
            self.norm(format!("{at}k_norm.weight"), key)?,
        ])
    }

    fn linear<T, E>(&mut self, name: String, shape: [usize; 2]) -> Result<T, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        self.leaf(name, &shape, Role::Attention)
    }

    fn mixture<T, E>(&mut self, at: &str, layer: usize) -> Result<Mixture<T>, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        let (config, resident) = (self.config, self.resident);
        let mixture = config.mixture;
        let block = block(config.family);
        Ok(Mixture {
            router: self.leaf(
                format!("{at}{block}.gate.weight"),
                &[mixture.experts, config.hidden_size],
                Role::Router,
            )?,
            bias: match mixture.gate.scoring {
                Scoring::Softmax => None,
                Scoring::SigmoidWithBias => Some(self.leaf(
                    format!("{at}{block}.gate.e_score_correction_bias"),
                    &[mixture.experts],
                    Role::RouterBias,
                )?),
            },
            experts: (0..mixture.experts)
                .map(|expert| {
                    resident(layer, expert)
                        .then(|| {
                            let names = expert_parameter_names(config.family, layer, expert);
                            let role = Role::Expert { layer, expert };
                            self.network(names, mixture.width, role)
                        })
                        .transpose()
                })
                .collect::<Result<_, E>>()?,
            shared: match mixture.shared_width {
                0 => None,
                width => {
                    let matrices = MATRICES
                        .map(|matrix| format!("{at}{block}.shared_experts.{matrix}.weight"));
                    Some(self.network(matrices, width, Role::Shared)?)
                }
            },
        })
    }

    fn network<T, E>(
        &mut self,
        [gate, up, down]: [String; 3],
        width: usize,
        role: Role,
    ) -> Result<SwiGlu<T>, E>
    where
        L: FnMut(Parameter<'_>) -> Result<T, E>,
    {
        let hidden = self.config.hidden_size;
        Ok(SwiGlu {
            gate: self.leaf(gate, &[width, hidden], role)?,
            up: self.leaf(up, &[width, hidden], role)?,
            down: self.leaf(down, &[hidden, width], role)?,
        })
    }
}
