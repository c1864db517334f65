//! The sizes and options of a DeepSeek-V2 model: read from and written to an ordinary Hugging Face
//! `config.json`.
//!
//! Reading is strict. A missing size is an error and never a reason to take a default, and an option
//! that this engine does not compute (query LoRA, scaled RoPE, grouped gates, biases, tied embeddings)
//! is refused by its key, because a model that runs with an option ignored is silently another model.
//! Knows nothing of files and tensors.

use serde_json::{Map, Value, json};

/// No size of a published model is larger; it keeps the product of three within 64 bits.
const LARGEST_SIZE: usize = 1 << 20;

/// Eight times what DeepSeek-V3 has in all its layers. Configurations come from other machines, and one
/// that asks for more tensors than can be listed must not be listed.
const MOST_EXPERTS: usize = 1 << 17;

/// The architecture of one DeepSeek-V2 model. Fields carry the names of their `config.json` keys.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network of a dense layer.
    pub intermediate_size: usize,
    /// Width of one routed expert, and of one shared expert.
    pub moe_intermediate_size: usize,
    /// Layers, dense and MoE together.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the latent from which keys and values are expanded.
    pub kv_lora_rank: usize,
    /// Columns of a query or key head without position.
    pub qk_nope_head_dim: usize,
    /// Columns of a query or key head that are rotated by position; even.
    pub qk_rope_head_dim: usize,
    /// Columns of a value head.
    pub v_head_dim: usize,
    /// Routed experts of an MoE layer.
    pub n_routed_experts: usize,
    /// Shared experts; together they are one network of this many expert widths.
    pub n_shared_experts: usize,
    /// Routed experts that a token visits.
    pub num_experts_per_tok: usize,
    /// Layers below this one are dense.
    pub first_k_dense_replace: usize,
    /// Factor on every routing weight.
    pub routed_scaling_factor: f64,
    /// ε of the layer norms (the latent norm has its own, fixed one).
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// First token of a text, where the tokenizer has one.
    pub bos_token_id: Option<u32>,
    /// Last token of a text, where the tokenizer has one.
    pub eos_token_id: Option<u32>,
}

/// Which key of a `config.json` cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not a JSON object.
    #[error("the configuration is not a JSON object")]
    Syntax {
        /// Where the syntax breaks.
        #[source]
        source: serde_json::Error,
    },
    /// Another architecture.
    #[error("model_type is {found}, only \"deepseek_v2\" is supported")]
    ModelType {
        /// The value, as JSON.
        found: String,
    },
    /// A size that has no default.
    #[error("key {key} is missing")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A value of the wrong kind or outside its range.
    #[error("key {key} is {found}, expected {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, as JSON.
        found: String,
        /// What would do.
        expected: String,
    },
    /// An option that this engine does not compute.
    #[error("key {key} is {found}, which is not supported ({supported} is)")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// The value, as JSON.
        found: String,
        /// The value that is computed here.
        supported: &'static str,
    },
}

impl ModelConfig {
    /// The local network's default model: about a million parameters, 3 MoE layers of 8 experts.
    #[must_use]
    pub fn tiny(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            hidden_size: 128,
            intermediate_size: 256,
            moe_intermediate_size: 64,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            kv_lora_rank: 32,
            qk_nope_head_dim: 16,
            qk_rope_head_dim: 16,
            v_head_dim: 32,
            n_routed_experts: 8,
            n_shared_experts: 1,
            num_experts_per_tok: 2,
            first_k_dense_replace: 1,
            routed_scaling_factor: 1.0,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            max_position_embeddings: 256,
            bos_token_id: None,
            eos_token_id: None,
        }
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// When the text is not a JSON object, `model_type` is not `deepseek_v2`, a size is missing or
    /// impossible, or an option is set that this engine does not compute. The error names the key.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|source| ConfigError::Syntax { source })?;
        let keys = Keys(&object);
        match keys.0.get("model_type") {
            None => return Err(ConfigError::MissingKey { key: "model_type" }),
            Some(Value::String(name)) if name == "deepseek_v2" => {}
            Some(other) => {
                return Err(ConfigError::ModelType {
                    found: other.to_string(),
                });
            }
        }
        keys.refuse_unsupported()?;
        let config = keys.sizes()?;
        config.check()?;
        Ok(config)
    }

    /// The text of a `config.json` that this engine and `transformers` read.
    #[must_use]
    pub fn to_json(&self) -> String {
        let object = json!({
            "architectures": ["DeepseekV2ForCausalLM"],
            "attention_bias": false,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "first_k_dense_replace": self.first_k_dense_replace,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "kv_lora_rank": self.kv_lora_rank,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": "deepseek_v2",
            "moe_intermediate_size": self.moe_intermediate_size,
            "moe_layer_freq": 1,
            "n_group": 1,
            "n_routed_experts": self.n_routed_experts,
            "n_shared_experts": self.n_shared_experts,
            "norm_topk_prob": false,
            "num_attention_heads": self.num_attention_heads,
            "num_experts_per_tok": self.num_experts_per_tok,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_attention_heads,
            "q_lora_rank": null,
            "qk_nope_head_dim": self.qk_nope_head_dim,
            "qk_rope_head_dim": self.qk_rope_head_dim,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "routed_scaling_factor": self.routed_scaling_factor,
            "scoring_func": "softmax",
            "tie_word_embeddings": false,
            "topk_group": 1,
            "topk_method": "greedy",
            "torch_dtype": "float32",
            "v_head_dim": self.v_head_dim,
            "vocab_size": self.vocab_size,
        });
        format!("{object:#}\n")
    }

    /// Whether `layer` has routed experts.
    #[must_use]
    pub fn is_moe_layer(&self, layer: usize) -> bool {
        (self.first_k_dense_replace..self.num_hidden_layers).contains(&layer)
    }

    /// The layers that have routed experts, ascending.
    pub fn moe_layers(&self) -> impl Iterator<Item = usize> + use<> {
        self.first_k_dense_replace..self.num_hidden_layers
    }

    /// Columns of one query or key head.
    pub(crate) fn query_head_width(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Relations between sizes that no single key can violate.
    fn check(&self) -> Result<(), ConfigError> {
        if !self.qk_rope_head_dim.is_multiple_of(2) {
            return Err(bad(
                "qk_rope_head_dim",
                self.qk_rope_head_dim,
                "an even number",
            ));
        }
        if self.num_experts_per_tok > self.n_routed_experts {
            let expected = format!("at most n_routed_experts ({})", self.n_routed_experts);
            return Err(bad(
                "num_experts_per_tok",
                self.num_experts_per_tok,
                expected,
            ));
        }
        if self.first_k_dense_replace > self.num_hidden_layers {
            let expected = format!("at most num_hidden_layers ({})", self.num_hidden_layers);
            return Err(bad(
                "first_k_dense_replace",
                self.first_k_dense_replace,
                expected,
            ));
        }
        if self.n_routed_experts > MOST_EXPERTS / self.num_hidden_layers {
            let expected = format!("at most {MOST_EXPERTS} in all layers together");
            return Err(bad("n_routed_experts", self.n_routed_experts, expected));
        }
        // Not needed here, but `transformers` refuses such a model, so nobody could load what we save.
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!(
                "a multiple of num_attention_heads ({})",
                self.num_attention_heads
            );
            return Err(bad("hidden_size", self.hidden_size, expected));
        }
        Ok(())
    }
}

/// The object of a `config.json`, asked key by key.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    /// Every key whose other values change what the model computes.
    fn refuse_unsupported(&self) -> Result<(), ConfigError> {
        self.only("q_lora_rank", "null", Value::is_null)?;
        self.only("topk_method", "\"greedy\"", |value| value == "greedy")?;
        self.only("scoring_func", "\"softmax\"", |value| value == "softmax")?;
        self.only("moe_layer_freq", "1", |value| value == 1)?;
        self.only("hidden_act", "\"silu\"", |value| value == "silu")?;
        self.only("attention_bias", "false", |value| value == false)?;
        self.only("mlp_bias", "false", |value| value == false)?;
        self.only("tie_word_embeddings", "false", |value| value == false)?;
        // `transformers` ignores this key and never renormalises; a model trained to would differ.
        self.only("norm_topk_prob", "false", |value| value == false)?;
        self.only("rope_scaling", "null", is_unscaled)?;
        self.only("rope_parameters", "rope_type \"default\"", is_unscaled)?;
        let heads = self.0.get("num_attention_heads");
        self.only("num_key_value_heads", "num_attention_heads", |value| {
            Some(value) == heads
        })
    }

    /// Accepts a key that is absent, null or satisfies `supported`.
    fn only(
        &self,
        key: &'static str,
        description: &'static str,
        supported: impl Fn(&Value) -> bool,
    ) -> Result<(), ConfigError> {
        match self.0.get(key) {
            Some(value) if !value.is_null() && !supported(value) => Err(ConfigError::Unsupported {
                key,
                found: value.to_string(),
                supported: description,
            }),
            _ => Ok(()),
        }
    }

    fn sizes(&self) -> Result<ModelConfig, ConfigError> {
        Ok(ModelConfig {
            vocab_size: self.size("vocab_size")?,
            hidden_size: self.size("hidden_size")?,
            intermediate_size: self.size("intermediate_size")?,
            moe_intermediate_size: self.size("moe_intermediate_size")?,
            num_hidden_layers: self.size("num_hidden_layers")?,
            num_attention_heads: self.size("num_attention_heads")?,
            kv_lora_rank: self.size("kv_lora_rank")?,
            qk_nope_head_dim: self.size("qk_nope_head_dim")?,
            qk_rope_head_dim: self.size("qk_rope_head_dim")?,
            v_head_dim: self.size("v_head_dim")?,
            n_routed_experts: self.size("n_routed_experts")?,
            n_shared_experts: self.size("n_shared_experts")?,
            num_experts_per_tok: self.size("num_experts_per_tok")?,
            first_k_dense_replace: self.whole("first_k_dense_replace", 0)?,
            routed_scaling_factor: self.number("routed_scaling_factor", self.0, 1.0)?,
            rms_norm_eps: self.number("rms_norm_eps", self.0, 1e-6)?,
            rope_theta: self.rope_theta()?,
            max_position_embeddings: self.size("max_position_embeddings")?,
            bos_token_id: self.token("bos_token_id")?,
            eos_token_id: self.token("eos_token_id")?,
        })
    }

    /// A size: present and positive.
    fn size(&self, key: &'static str) -> Result<usize, ConfigError> {
        self.whole(key, 1)
    }

    /// A whole number that is present and at least `smallest`.
    fn whole(&self, key: &'static str, smallest: usize) -> Result<usize, ConfigError> {
        let value = self.0.get(key).ok_or(ConfigError::MissingKey { key })?;
        value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (smallest..=LARGEST_SIZE).contains(number))
            .ok_or_else(|| {
                let expected = format!("a whole number from {smallest} to {LARGEST_SIZE}");
                bad(key, value, expected)
            })
    }

    /// A positive number of `object`; the family's constant when absent, as in every published file.
    fn number(
        &self,
        key: &'static str,
        object: &Map<String, Value>,
        absent: f64,
    ) -> Result<f64, ConfigError> {
        match object.get(key) {
            None | Some(Value::Null) => Ok(absent),
            Some(value) => value
                .as_f64()
                .filter(|number| number.is_finite() && *number > 0.0)
                .ok_or_else(|| bad(key, value, "a positive number")),
        }
    }

    /// Newer files nest the base under `rope_parameters`, older ones have it on top.
    fn rope_theta(&self) -> Result<f64, ConfigError> {
        let top = self.number("rope_theta", self.0, 10_000.0)?;
        match self.0.get("rope_parameters").and_then(Value::as_object) {
            Some(nested) => self.number("rope_theta", nested, top),
            None => Ok(top),
        }
    }

    fn token(&self, key: &'static str) -> Result<Option<u32>, ConfigError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().map(u32::try_from) {
                Some(Ok(id)) => Ok(Some(id)),
                _ => Err(bad(key, value, "a token id or null")),
            },
        }
    }
}

/// Whether a RoPE description leaves the frequencies alone.
fn is_unscaled(description: &Value) -> bool {
    let kind = description.get("rope_type").or(description.get("type"));
    description.is_object() && kind.is_none_or(|kind| kind == "default")
}

fn bad(key: &'static str, found: impl ToString, expected: impl Into<String>) -> ConfigError {
    ConfigError::BadValue {
        key,
        found: found.to_string(),
        expected: expected.into(),
    }
}
