//! From the text of a `config.json` to a [`ModelConfig`].
//!
//! Reading is strict. A missing size is an error and never a reason to take a default, and an option
//! that this engine does not compute (biases, other activations, layers of several kinds) is refused by
//! its key, because a model that runs with an option ignored is silently another model. The same fact
//! has several names, depending on the version of `transformers` that wrote the file; where a file has
//! more than one of them, they must agree.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::error::{ConfigError, quote};
use super::keys::Keys;
use super::{
    AttentionConfig, Family, GateConfig, GateGroups, GroupScore, HeadNorm, MixtureConfig,
    ModelConfig, Scoring, rotary,
};

/// All names that routed experts are counted under.
const EXPERTS: [&str; 3] = ["n_routed_experts", "num_experts", "num_local_experts"];

/// Block of the scales of 8-bit weights; other blocks are not read.
const SCALE_BLOCK: [u64; 2] = [128, 128];

impl ModelConfig {
    /// Reads the text of a `config.json` of any [`Family`].
    ///
    /// # Errors
    ///
    /// When the text is not a JSON object, `model_type` is none of the families, a size is missing or
    /// impossible, two keys contradict each other, or an option is set that this engine does not
    /// compute. The error names the key.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let object = parse(text)?;
        let top = Keys::new(&object, "");
        let family = family(top)?;
        let reader = Reader {
            family,
            top,
            keys: text_model(top, family)?,
        };
        reader.refuse_unsupported()?;
        let config = reader.model()?;
        config.check()?;
        Ok(config)
    }

    /// What a `config.json` asks for that published code disagrees about, one sentence each. Empty for
    /// every released model and for texts that [`Self::from_json`] refuses.
    #[must_use]
    pub fn warnings(text: &str) -> Vec<String> {
        let renormalised = parse(text).is_ok_and(|object| {
            let top = Keys::new(&object, "");
            matches!(family(top), Ok(Family::DeepseekV2))
                && top.get("norm_topk_prob") == Some(&Value::Bool(true))
        });
        let warning = "key norm_topk_prob is true, which transformers ignores in deepseek_v2 and so \
            does this engine: routing weights are scaled and not divided by their sum";
        renormalised
            .then(|| warning.to_owned())
            .into_iter()
            .collect()
    }
}

fn parse(text: &str) -> Result<Map<String, Value>, ConfigError> {
    serde_json::from_str(text).map_err(|source| ConfigError::Syntax { source })
}

fn family(top: Keys<'_>) -> Result<Family, ConfigError> {
    let found = top
        .get("model_type")
        .ok_or_else(|| top.missing("model_type"))?;
    let named = Family::ALL
        .into_iter()
        .find(|family| found == family.model_type());
    named.ok_or_else(|| ConfigError::ModelType {
        found: quote(found),
        known: Family::ALL.map(Family::model_type).join(", "),
    })
}

/// The object that describes the decoder.
fn text_model(top: Keys<'_>, family: Family) -> Result<Keys<'_>, ConfigError> {
    if family != Family::Qwen3VlMoe {
        return Ok(top);
    }
    let nested = top.nested("text_config", family.key_prefix())?;
    let keys = nested.ok_or_else(|| top.missing("text_config"))?;
    let known = "qwen3_vl_moe_text";
    keys.only("model_type", &format!("{known:?}"), |kind| kind == known)?;
    Ok(keys)
}

/// A file being read.
struct Reader<'a> {
    family: Family,
    /// The whole file.
    top: Keys<'a>,
    /// The object of the text model.
    keys: Keys<'a>,
}

impl Reader<'_> {
    /// Every key whose other values change what the model computes, whatever the family.
    fn refuse_unsupported(&self) -> Result<(), ConfigError> {
        let keys = &self.keys;
        let off = |value: &Value| value == false;
        let zero = |value: &Value| value.as_f64() == Some(0.0);
        keys.only("hidden_act", "\"silu\"", |value| value == "silu")?;
        keys.only("attention_bias", "false", off)?;
        keys.only("mlp_bias", "false", off)?;
        keys.only("attention_dropout", "0", zero)?;
        keys.only("router_jitter_noise", "0", zero)?;
        keys.only("moe_layer_freq", "1", |value| value == 1)?;
        self.refuse_quantisation()
    }

    /// Eight-bit floats with a scale per block are read; every other kind has tensors of its own.
    fn refuse_quantisation(&self) -> Result<(), ConfigError> {
        let prefix = "quantization_config.";
        let Some(kind) = self.top.nested("quantization_config", prefix)? else {
            return Ok(());
        };
        if kind.get("quant_method").is_none() {
            return Err(kind.missing("quant_method"));
        }
        kind.only("quant_method", "\"fp8\"", |method| method == "fp8")?;
        kind.only("fmt", "\"e4m3\"", |format| format == "e4m3")?;
        let block = json!(SCALE_BLOCK);
        kind.only("weight_block_size", &block.to_string(), |size| {
            *size == block
        })
    }

    fn model(&self) -> Result<ModelConfig, ConfigError> {
        let keys = &self.keys;
        let layers = keys.size("num_hidden_layers")?;
        let positions = keys.size("max_position_embeddings")?;
        let dense_layers = self.dense_layers(layers)?;
        let token = |key| match keys.get(key) {
            Some(_) => keys.token(key),
            None => self.top.token(key),
        };
        keys.optional_single("rms_norm_eps")?; // in which it is used
        Ok(ModelConfig {
            family: self.family,
            vocab_size: keys.size("vocab_size")?,
            hidden_size: keys.size("hidden_size")?,
            num_hidden_layers: layers,
            num_attention_heads: keys.size("num_attention_heads")?,
            attention: self.attention()?,
            rotary: rotary::read(self.keys, self.family, positions)?,
            intermediate_size: if dense_layers.is_empty() {
                0
            } else {
                keys.size("intermediate_size")?
            },
            dense_layers,
            mixture: self.mixture()?,
            rms_norm_eps: keys.number("rms_norm_eps", self.family.default_eps())?,
            max_position_embeddings: positions,
            // The text model's own flag has a default that no release means.
            tied_head: self.top.flag("tie_word_embeddings", false)?,
            bos_token_id: token("bos_token_id")?,
            eos_token_id: token("eos_token_id")?,
        })
    }

    fn dense_layers(&self, layers: usize) -> Result<Vec<usize>, ConfigError> {
        let keys = &self.keys;
        match self.family {
            Family::DeepseekV2 | Family::DeepseekV3 => {
                let key = "first_k_dense_replace";
                let first = keys.whole(key, 0)?;
                if first > layers {
                    let expected = format!("at most num_hidden_layers ({layers})");
                    return Err(keys.bad(key, &first.into(), &expected));
                }
                Ok((0..first).collect())
            }
            Family::Qwen3Moe | Family::Qwen3VlMoe => {
                let step = keys.optional_size("decoder_sparse_step")?.unwrap_or(1);
                let listed = self.listed_dense_layers(layers)?;
                let is_dense =
                    |layer: &usize| listed.contains(layer) || !(layer + 1).is_multiple_of(step);
                Ok((0..layers).filter(is_dense).collect())
            }
            Family::Olmoe | Family::Mixtral => Ok(Vec::new()),
        }
    }

    fn listed_dense_layers(&self, layers: usize) -> Result<BTreeSet<usize>, ConfigError> {
        let key = "mlp_only_layers";
        let Some(value) = self.keys.get(key) else {
            return Ok(BTreeSet::new());
        };
        let layer = |value: &Value| {
            let layer = usize::try_from(value.as_u64()?).ok()?;
            (layer < layers).then_some(layer)
        };
        value
            .as_array()
            .and_then(|list| list.iter().map(layer).collect())
            .ok_or_else(|| {
                let expected = format!("a list of layers below num_hidden_layers ({layers})");
                self.keys.bad(key, value, &expected)
            })
    }

    fn attention(&self) -> Result<AttentionConfig, ConfigError> {
        if self.family.has_latent_attention() {
            self.latent_attention()
        } else {
            self.grouped_attention()
        }
    }

    fn latent_attention(&self) -> Result<AttentionConfig, ConfigError> {
        let keys = &self.keys;
        let heads = keys.get("num_attention_heads");
        keys.only("num_key_value_heads", "num_attention_heads", |value| {
            Some(value) == heads
        })?;
        self.refuse_window()?;
        Ok(AttentionConfig::Latent {
            query_rank: keys.optional_size("q_lora_rank")?,
            rank: keys.size("kv_lora_rank")?,
            nope: keys.size("qk_nope_head_dim")?,
            rope: keys.size("qk_rope_head_dim")?,
            value: keys.size("v_head_dim")?,
        })
    }

    fn grouped_attention(&self) -> Result<AttentionConfig, ConfigError> {
        let keys = &self.keys;
        let heads = keys.size("num_attention_heads")?;
        let head = match keys.optional_size("head_dim")? {
            Some(head) => head,
            None => self.head_of_hidden_size(heads)?,
        };
        Ok(AttentionConfig::Grouped {
            key_heads: self.key_heads(heads)?,
            head,
            norm: match self.family {
                Family::Qwen3Moe | Family::Qwen3VlMoe => HeadNorm::PerHead,
                Family::Olmoe => HeadNorm::Whole,
                Family::Mixtral | Family::DeepseekV2 | Family::DeepseekV3 => HeadNorm::Absent,
            },
            clip: match self.family {
                Family::Olmoe => keys.optional_single("clip_qkv")?,
                _ => {
                    keys.only("clip_qkv", "null", Value::is_null)?;
                    None
                }
            },
            window: self.window()?,
        })
    }

    /// Null says one for every query head, and so does a key that OLMoE's files may lack.
    fn key_heads(&self, heads: usize) -> Result<usize, ConfigError> {
        let key = "num_key_value_heads";
        match self.keys.optional_size(key)? {
            Some(key_heads) => Ok(key_heads),
            None if self.keys.contains(key) || self.family == Family::Olmoe => Ok(heads),
            None => Err(self.keys.missing(key)),
        }
    }

    /// The head dimension where the file leaves it to the hidden size.
    fn head_of_hidden_size(&self, heads: usize) -> Result<usize, ConfigError> {
        let hidden = self.keys.size("hidden_size")?;
        if !hidden.is_multiple_of(heads) {
            let expected = format!("a multiple of num_attention_heads ({heads})");
            return Err(self.keys.bad("hidden_size", &hidden.into(), &expected));
        }
        Ok(hidden / heads)
    }

    /// How far back a query sees.
    fn window(&self) -> Result<Option<usize>, ConfigError> {
        let keys = &self.keys;
        let window = match self.family {
            Family::Mixtral => keys.optional_size("sliding_window")?,
            Family::Qwen3Moe if keys.flag("use_sliding_window", false)? => {
                // Qwen's own code begins to slide at this layer, `transformers` in all layers.
                keys.only("max_window_layers", "0", |value| value == 0)?;
                keys.optional_size("sliding_window")?
            }
            // Published files of this family carry a window that their flag turns off.
            Family::Qwen3Moe => None,
            _ => {
                self.refuse_window()?;
                None
            }
        };
        let kind = match window {
            None => "full_attention",
            Some(_) => "sliding_attention",
        };
        keys.only(
            "layer_types",
            &format!("{kind:?} in every layer"),
            |types| {
                types
                    .as_array()
                    .is_some_and(|types| types.iter().all(|found| found == kind))
            },
        )?;
        Ok(window)
    }

    fn refuse_window(&self) -> Result<(), ConfigError> {
        self.keys.only("sliding_window", "null", Value::is_null)?;
        let off = |value: &Value| value == false;
        self.keys.only("use_sliding_window", "false", off)
    }

    fn mixture(&self) -> Result<MixtureConfig, ConfigError> {
        let keys = &self.keys;
        let width = keys.size(self.family.width_key())?;
        let shared = if !self.family.has_latent_attention() {
            0
        } else if keys.contains("n_shared_experts") {
            // Null is how DeepSeek's own files say that there are none.
            keys.get("n_shared_experts")
                .map_or(Ok(0), |_| keys.whole("n_shared_experts", 0))?
        } else {
            return Err(keys.missing("n_shared_experts"));
        };
        Ok(MixtureConfig {
            experts: self.experts()?,
            per_token: keys.size("num_experts_per_tok")?,
            width,
            shared_width: width * shared,
            gate: self.gate()?,
        })
    }

    fn experts(&self) -> Result<usize, ConfigError> {
        let own = self.family.experts_key();
        let mut names = vec![own];
        names.extend(EXPERTS.into_iter().filter(|name| *name != own));
        self.keys.size_of(&names)
    }

    fn gate(&self) -> Result<GateConfig, ConfigError> {
        let keys = &self.keys;
        let on = |value: &Value| value == true;
        let softmax = |groups, renormalise, scaling| GateConfig {
            scoring: Scoring::Softmax,
            groups,
            renormalise,
            scaling,
        };
        match self.family {
            Family::DeepseekV3 => {
                keys.only("scoring_func", "\"sigmoid\"", |value| value == "sigmoid")?;
                keys.only("topk_method", "\"noaux_tc\"", |value| value == "noaux_tc")?;
                let scaling = "routed_scaling_factor";
                Ok(GateConfig {
                    scoring: Scoring::SigmoidWithBias,
                    groups: Some(self.groups(GroupScore::BestTwo)?),
                    renormalise: keys.flag("norm_topk_prob", true)?,
                    scaling: keys
                        .optional_single(scaling)?
                        .ok_or_else(|| keys.missing(scaling))?,
                })
            }
            Family::DeepseekV2 => {
                keys.only("scoring_func", "\"softmax\"", |value| value == "softmax")?;
                // A flag that is ignored must be one all the same; see the warnings.
                keys.flag("norm_topk_prob", false)?;
                let scaling = keys.optional_single("routed_scaling_factor")?;
                Ok(softmax(self.limits()?, false, scaling.unwrap_or(1.0)))
            }
            Family::Qwen3Moe | Family::Olmoe => {
                Ok(softmax(None, keys.flag("norm_topk_prob", false)?, 1.0))
            }
            Family::Qwen3VlMoe | Family::Mixtral => {
                keys.only("norm_topk_prob", "true", on)?;
                Ok(softmax(None, true, 1.0))
            }
        }
    }

    /// DeepSeek-V2's two methods of choice.
    fn limits(&self) -> Result<Option<GateGroups>, ConfigError> {
        let key = "topk_method";
        match self.keys.get(key) {
            None => Ok(None),
            Some(method) if method == "greedy" => Ok(None),
            Some(method) if method == "group_limited_greedy" => {
                Ok(Some(self.groups(GroupScore::Best)?))
            }
            Some(other) => {
                let supported = "\"greedy\" or \"group_limited_greedy\"";
                Err(self.keys.unsupported(key, other, supported))
            }
        }
    }

    fn groups(&self, score: GroupScore) -> Result<GateGroups, ConfigError> {
        Ok(GateGroups {
            count: self.keys.size("n_group")?,
            kept: self.keys.size("topk_group")?,
            score,
        })
    }
}
