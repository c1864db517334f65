//! From a [`ModelConfig`] to the text of a `config.json`, spelled as the family's published files are.

use serde_json::{Map, Value, json};

use super::{AttentionConfig, Family, GateConfig, GroupScore, MixtureConfig, ModelConfig, rotary};

impl ModelConfig {
    /// The text of a `config.json` that [`Self::from_json`] reads as this configuration and
    /// `transformers` loads as the same model, for weights in single precision.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.to_json_for("float32")
    }

    /// As [`Self::to_json`], for weights of an element type as PyTorch names it.
    pub(crate) fn to_json_for(&self, element: &str) -> String {
        let mut text = match self.family {
            Family::DeepseekV2 | Family::DeepseekV3 => self.deepseek(),
            Family::Qwen3Moe | Family::Qwen3VlMoe => self.qwen3(),
            Family::Olmoe => self.olmoe(),
            Family::Mixtral => self.mixtral(),
        };
        self.write_common(&mut text);
        rotary::write(&self.rotary, self.family, &mut text);
        let mut top = match self.family {
            Family::Qwen3VlMoe => {
                text.insert("model_type".into(), "qwen3_vl_moe_text".into());
                object(json!({ "text_config": text }))
            }
            _ => text,
        };
        top.append(&mut object(json!({
            "architectures": [self.family.architecture()],
            "model_type": self.family.model_type(),
            "tie_word_embeddings": self.tied_head,
            "torch_dtype": element,
        })));
        format!("{:#}\n", Value::Object(top))
    }

    /// What every family spells alike.
    fn write_common(&self, text: &mut Map<String, Value>) {
        text.append(&mut object(json!({
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "max_position_embeddings": self.max_position_embeddings,
            "num_attention_heads": self.num_attention_heads,
            "num_experts_per_tok": self.mixture.per_token,
            "num_hidden_layers": self.num_hidden_layers,
            "rms_norm_eps": self.rms_norm_eps,
            "vocab_size": self.vocab_size,
        })));
        let MixtureConfig { experts, width, .. } = self.mixture;
        text.insert(self.family.experts_key().into(), experts.into());
        text.insert(self.family.width_key().into(), width.into());
        if let AttentionConfig::Grouped {
            key_heads, head, ..
        } = self.attention
        {
            text.insert("head_dim".into(), head.into());
            text.insert("num_key_value_heads".into(), key_heads.into());
        }
        if self.family != Family::Mixtral {
            text.insert("attention_bias".into(), false.into());
        }
    }

    /// The width of dense layers, and where there are none the number of published files.
    fn dense_width(&self) -> usize {
        match self.dense_layers.is_empty() {
            true => self.mixture.width * self.mixture.per_token,
            false => self.intermediate_size,
        }
    }

    fn deepseek(&self) -> Map<String, Value> {
        let MixtureConfig {
            width,
            shared_width,
            gate,
            ..
        } = self.mixture;
        let mut text = object(json!({
            "first_k_dense_replace": self.dense_layers.len(),
            "intermediate_size": self.dense_width(),
            "moe_layer_freq": 1,
            "n_shared_experts": shared_width.checked_div(width).unwrap_or(0),
            "norm_topk_prob": gate.renormalise,
            "num_key_value_heads": self.num_attention_heads,
            "routed_scaling_factor": gate.scaling,
        }));
        if let AttentionConfig::Latent {
            query_rank,
            rank,
            nope,
            rope,
            value,
        } = self.attention
        {
            text.append(&mut object(json!({
                "kv_lora_rank": rank,
                "q_lora_rank": query_rank,
                "qk_nope_head_dim": nope,
                "qk_rope_head_dim": rope,
                "v_head_dim": value,
            })));
        }
        text.append(&mut self.grouped_choice(&gate));
        text
    }

    fn grouped_choice(&self, gate: &GateConfig) -> Map<String, Value> {
        let (scoring, method) = match (self.family, gate.groups.map(|groups| groups.score)) {
            (Family::DeepseekV3, _) => ("sigmoid", "noaux_tc"),
            (_, Some(GroupScore::Best | GroupScore::BestTwo)) => {
                ("softmax", "group_limited_greedy")
            }
            (_, None) => ("softmax", "greedy"),
        };
        object(json!({
            "n_group": gate.groups.map_or(1, |groups| groups.count),
            "scoring_func": scoring,
            "topk_group": gate.groups.map_or(1, |groups| groups.kept),
            "topk_method": method,
        }))
    }

    fn qwen3(&self) -> Map<String, Value> {
        let window = match self.attention {
            AttentionConfig::Grouped { window, .. } => window,
            AttentionConfig::Latent { .. } => None,
        };
        let mut text = object(json!({
            "decoder_sparse_step": 1,
            "intermediate_size": self.dense_width(),
            "mlp_only_layers": self.dense_layers,
            "norm_topk_prob": self.mixture.gate.renormalise,
        }));
        if self.family == Family::Qwen3Moe {
            text.insert("sliding_window".into(), json!(window));
            text.insert("use_sliding_window".into(), window.is_some().into());
        }
        text
    }

    fn olmoe(&self) -> Map<String, Value> {
        let clip = match self.attention {
            AttentionConfig::Grouped { clip, .. } => clip,
            AttentionConfig::Latent { .. } => None,
        };
        object(json!({
            "clip_qkv": clip,
            "norm_topk_prob": self.mixture.gate.renormalise,
        }))
    }

    fn mixtral(&self) -> Map<String, Value> {
        let window = match self.attention {
            AttentionConfig::Grouped { window, .. } => window,
            AttentionConfig::Latent { .. } => None,
        };
        object(json!({ "sliding_window": window }))
    }
}

/// The keys of a literal object.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
