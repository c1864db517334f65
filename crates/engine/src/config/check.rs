//! Relations between sizes that no single key can violate, because each lies in its own range.

use super::error::ConfigError;
use super::{AttentionConfig, Family, GateGroups, GroupScore, ModelConfig};

/// No size of a published model is larger; it keeps the parameters of a whole model within 64 bits.
pub(super) const LARGEST_SIZE: usize = 1 << 20;

/// Forty times the deepest published model's. Configurations come from other machines, and one that asks
/// for more tensors than can be listed must not be listed.
const MOST_LAYERS: usize = 1 << 12;

/// Eight times what DeepSeek-V3 has in all its layers, for the same reason.
const MOST_EXPERTS: usize = 1 << 17;

impl ModelConfig {
    /// Refuses sizes that do not fit each other, by the key under which the family's files keep them.
    /// Every size lies within its own range already.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.num_hidden_layers > MOST_LAYERS {
            let expected = format!("at most {MOST_LAYERS}");
            return Err(self.bad("num_hidden_layers", self.num_hidden_layers, &expected));
        }
        self.check_attention()?;
        self.check_mixture()?;
        self.check_groups()?;
        self.check_hidden_size()
    }

    /// Nothing here needs these, but `transformers` refuses the models that break them, so nobody could
    /// load what we save.
    fn check_hidden_size(&self) -> Result<(), ConfigError> {
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        match (self.family, self.attention) {
            (Family::DeepseekV2, _) => {
                self.multiple("hidden_size", hidden, "num_attention_heads", heads)
            }
            (Family::Olmoe, AttentionConfig::Grouped { head, .. }) if heads * head != hidden => {
                let expected = "hidden_size over num_attention_heads, as norms of this family need";
                Err(self.bad("head_dim", head, expected))
            }
            _ => Ok(()),
        }
    }

    fn check_attention(&self) -> Result<(), ConfigError> {
        let heads = self.num_attention_heads;
        let even = |key, width: usize| match width.is_multiple_of(2) {
            true => Ok(()),
            false => Err(self.bad(key, width, "an even number")),
        };
        let widths = match self.attention {
            AttentionConfig::Latent {
                query_rank: _,
                rank,
                nope,
                rope,
                value,
            } => {
                even("qk_rope_head_dim", rope)?;
                [rank + rope, heads * (nope + rope), heads * (nope + value)]
            }
            AttentionConfig::Grouped {
                key_heads, head, ..
            } => {
                even("head_dim", head)?;
                let key = "num_attention_heads";
                self.multiple(key, heads, "num_key_value_heads", key_heads)?;
                [heads * head; 3]
            }
        };
        match widths.into_iter().find(|width| *width > LARGEST_SIZE) {
            None => Ok(()),
            Some(width) => {
                let expected = format!(
                    "heads of together at most {LARGEST_SIZE} columns (these have {width})"
                );
                Err(self.bad("num_attention_heads", heads, &expected))
            }
        }
    }

    fn check_mixture(&self) -> Result<(), ConfigError> {
        let mixture = &self.mixture;
        let key = self.family.experts_key();
        self.at_most(
            "num_experts_per_tok",
            mixture.per_token,
            key,
            mixture.experts,
        )?;
        let most = MOST_EXPERTS / self.num_hidden_layers.max(1);
        if mixture.experts > most {
            let expected = format!("at most {MOST_EXPERTS} in all layers together");
            return Err(self.bad(key, mixture.experts, &expected));
        }
        if mixture.shared_width > LARGEST_SIZE {
            let shared = mixture.shared_width / mixture.width.max(1);
            let expected = format!("at most {LARGEST_SIZE} columns together");
            return Err(self.bad("n_shared_experts", shared, &expected));
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), ConfigError> {
        let mixture = &self.mixture;
        let Some(GateGroups { count, kept, score }) = mixture.gate.groups else {
            return Ok(());
        };
        let key = self.family.experts_key();
        self.multiple(key, mixture.experts, "n_group", count)?;
        self.at_most("topk_group", kept, "n_group", count)?;
        let members = mixture.experts / count;
        if score == GroupScore::BestTwo && members < 2 {
            let expected = format!("at most half of {key} ({})", mixture.experts);
            return Err(self.bad("n_group", count, &expected));
        }
        if mixture.per_token > kept * members {
            let expected = format!(
                "at most the {} experts of topk_group groups",
                kept * members
            );
            return Err(self.bad("num_experts_per_tok", mixture.per_token, &expected));
        }
        Ok(())
    }

    fn multiple(
        &self,
        key: &str,
        number: usize,
        of: &str,
        divisor: usize,
    ) -> Result<(), ConfigError> {
        if divisor > 0 && number.is_multiple_of(divisor) {
            return Ok(());
        }
        Err(self.bad(key, number, &format!("a multiple of {of} ({divisor})")))
    }

    fn at_most(
        &self,
        key: &str,
        number: usize,
        of: &str,
        largest: usize,
    ) -> Result<(), ConfigError> {
        if number <= largest {
            return Ok(());
        }
        Err(self.bad(key, number, &format!("at most {of} ({largest})")))
    }

    fn bad(&self, key: &str, found: usize, expected: &str) -> ConfigError {
        ConfigError::BadValue {
            key: format!("{}{key}", self.family.key_prefix()),
            found: found.to_string(),
            expected: expected.into(),
        }
    }
}
