//! What each family calls things in `config.json`, and the constants that it leaves out.

use super::Family;

impl Family {
    /// Every family that this engine runs.
    pub const ALL: [Self; 6] = [
        Self::DeepseekV2,
        Self::DeepseekV3,
        Self::Qwen3Moe,
        Self::Qwen3VlMoe,
        Self::Olmoe,
        Self::Mixtral,
    ];

    /// The value of `model_type`.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::DeepseekV2 => "deepseek_v2",
            Self::DeepseekV3 => "deepseek_v3",
            Self::Qwen3Moe => "qwen3_moe",
            Self::Qwen3VlMoe => "qwen3_vl_moe",
            Self::Olmoe => "olmoe",
            Self::Mixtral => "mixtral",
        }
    }

    /// The class of `transformers` that loads the model.
    pub(super) fn architecture(self) -> &'static str {
        match self {
            Self::DeepseekV2 => "DeepseekV2ForCausalLM",
            Self::DeepseekV3 => "DeepseekV3ForCausalLM",
            Self::Qwen3Moe => "Qwen3MoeForCausalLM",
            Self::Qwen3VlMoe => "Qwen3VLMoeForConditionalGeneration",
            Self::Olmoe => "OlmoeForCausalLM",
            Self::Mixtral => "MixtralForCausalLM",
        }
    }

    /// Whether attention goes through a latent.
    pub(super) fn has_latent_attention(self) -> bool {
        matches!(self, Self::DeepseekV2 | Self::DeepseekV3)
    }

    /// The key under which published files count the routed experts.
    pub(super) fn experts_key(self) -> &'static str {
        match self {
            Self::DeepseekV2 | Self::DeepseekV3 => "n_routed_experts",
            Self::Qwen3Moe | Self::Qwen3VlMoe | Self::Olmoe => "num_experts",
            Self::Mixtral => "num_local_experts",
        }
    }

    /// The key of a routed expert's width.
    pub(super) fn width_key(self) -> &'static str {
        match self {
            Self::DeepseekV2 | Self::DeepseekV3 | Self::Qwen3Moe | Self::Qwen3VlMoe => {
                "moe_intermediate_size"
            }
            Self::Olmoe | Self::Mixtral => "intermediate_size",
        }
    }

    /// Where the keys of the text model lie.
    pub(super) fn key_prefix(self) -> &'static str {
        match self {
            Self::Qwen3VlMoe => "text_config.",
            Self::DeepseekV2 | Self::DeepseekV3 | Self::Qwen3Moe | Self::Olmoe | Self::Mixtral => {
                ""
            }
        }
    }

    /// Base of the rotary frequencies where a file does not say.
    pub(super) fn default_theta(self) -> f64 {
        match self {
            Self::Mixtral => 1_000_000.0,
            Self::Qwen3VlMoe => 500_000.0,
            Self::DeepseekV2 | Self::DeepseekV3 | Self::Qwen3Moe | Self::Olmoe => 10_000.0,
        }
    }

    /// ε of the layer norms where a file does not say.
    pub(super) fn default_eps(self) -> f64 {
        match self {
            Self::Olmoe | Self::Mixtral => 1e-5,
            Self::DeepseekV2 | Self::DeepseekV3 | Self::Qwen3Moe | Self::Qwen3VlMoe => 1e-6,
        }
    }
}
