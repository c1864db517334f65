//! The rotary part of a `config.json`: read into constants, and spelled again.
//!
//! Newer files keep one description under `rope_parameters`, older ones the base on top and the scaling
//! under `rope_scaling`. YaRN (arXiv 2309.00071) comes with three rules of DeepSeek's about `mscale`;
//! they are applied here, so that nothing after this file knows of them:
//!
//! ```text
//! ms(s, m)         = 1 if s ≤ 1 else 0.1·m·ln s + 1
//! attention_factor = as given, else ms(s, mscale)/ms(s, mscale_all_dim), else ms(s, 1)
//! softmax_factor   = ms(s, mscale_all_dim)² in latent attention, else 1
//! ```

use serde_json::{Map, Value, json};

use super::error::ConfigError;
use super::keys::Keys;
use super::{Family, Pairing, RotaryConfig, YarnConfig};

/// Rotations above which frequencies are kept, in every published file and in the paper.
const BETA_FAST: f64 = 32.0;

/// Rotations below which frequencies are divided, likewise.
const BETA_SLOW: f64 = 1.0;

/// A thousand times what any published file has.
const LARGEST_MSCALE: f64 = 1000.0;

/// Reads how positions enter a model of `family`; `positions` is its longest sequence.
pub(super) fn read(
    keys: Keys<'_>,
    family: Family,
    positions: usize,
) -> Result<RotaryConfig, ConfigError> {
    // With the prefixes spelled out, a refusal inside names the whole path.
    let [newer, older] = match family {
        Family::Qwen3VlMoe => ["text_config.rope_parameters.", "text_config.rope_scaling."],
        Family::DeepseekV2
        | Family::DeepseekV3
        | Family::Qwen3Moe
        | Family::Olmoe
        | Family::Mixtral => ["rope_parameters.", "rope_scaling."],
    };
    let newer = keys.nested("rope_parameters", newer)?;
    let older = keys.nested("rope_scaling", older)?;
    let mut theta = None;
    for place in [newer, older, Some(keys)].into_iter().flatten() {
        if theta.is_none() {
            theta = place.number_where("rope_theta", "a number above 1", |base| base > 1.0)?;
        }
    }
    let descriptions = [newer, older].into_iter().flatten();
    let mut scalings = descriptions.map(|place| {
        // Newer files may describe every kind of layer by itself; here all are alike.
        place.refuse_nested("one description for all layers")?;
        scaling(place, keys, family, positions)
    });
    let first = scalings.next().transpose()?.flatten();
    if let Some(second) = scalings.next().transpose()?
        && second != first
    {
        return Err(keys.contradiction("rope_parameters", keys.name("rope_scaling")));
    }
    keys.only("partial_rotary_factor", "1", is_one)?;
    Ok(RotaryConfig {
        theta: theta.unwrap_or(family.default_theta()),
        pairing: match family {
            Family::DeepseekV2 => {
                keys.only("rope_interleave", "true", |value| value == true)?;
                Pairing::Interleaved
            }
            Family::DeepseekV3 if keys.flag("rope_interleave", true)? => Pairing::Interleaved,
            Family::DeepseekV3
            | Family::Qwen3Moe
            | Family::Qwen3VlMoe
            | Family::Olmoe
            | Family::Mixtral => Pairing::Halves,
        },
        scaling: first,
    })
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

/// What one description says about scaling; `top` is the object around it.
fn scaling(
    place: Keys<'_>,
    top: Keys<'_>,
    family: Family,
    positions: usize,
) -> Result<Option<YarnConfig>, ConfigError> {
    let key = match place.get("rope_type") {
        Some(_) => "rope_type",
        None => "type",
    };
    place.only("partial_rotary_factor", "1", is_one)?;
    match place.get(key) {
        None => Ok(None),
        Some(kind) if kind == "default" => Ok(None),
        // Without images the three position ids of a token are one, and mRoPE is ordinary RoPE.
        Some(kind) if kind == "mrope" && family == Family::Qwen3VlMoe => Ok(None),
        Some(kind) if kind == "yarn" => yarn(place, top, family, positions).map(Some),
        Some(other) => Err(place.unsupported(key, other, "\"default\" or \"yarn\"")),
    }
}

fn yarn(
    place: Keys<'_>,
    top: Keys<'_>,
    family: Family,
    positions: usize,
) -> Result<YarnConfig, ConfigError> {
    place.only("truncate", "true", |value| value == true)?;
    let factor = place
        .number_where("factor", "a number from 1", |factor| factor >= 1.0)?
        .ok_or_else(|| place.missing("factor"))?;
    let original = "original_max_position_embeddings";
    // `transformers` lets the outer key win, and takes the model's own positions where there is none.
    let original_positions = match top.optional_size(original)? {
        Some(outer) => outer,
        None => place.optional_size(original)?.unwrap_or(positions),
    };
    let beta_fast = place
        .number_where("beta_fast", "a number from 1", |beta| beta >= 1.0)?
        .unwrap_or(BETA_FAST);
    let slower = format!("a positive number up to beta_fast ({beta_fast})");
    let beta_slow = place
        .number_where("beta_slow", &slower, |beta| beta > 0.0 && beta <= beta_fast)?
        .unwrap_or(BETA_SLOW);
    let mscale = |key| {
        // Zero switches the rule off; the bound keeps every constant finite.
        let expected = format!("a number from 0 to {LARGEST_MSCALE}");
        let accepted = |number| (0.0..=LARGEST_MSCALE).contains(&number);
        let number = place.number_where(key, &expected, accepted)?;
        Ok::<_, ConfigError>(number.filter(|number| *number > 0.0))
    };
    let (mscale, mscale_all_dim) = (mscale("mscale")?, mscale("mscale_all_dim")?);
    let attention_factor = match (
        place.optional_number("attention_factor")?,
        mscale.zip(mscale_all_dim),
    ) {
        (Some(given), _) => given,
        (None, Some((mscale, all))) => magnitude(factor, mscale) / magnitude(factor, all),
        (None, None) => magnitude(factor, 1.0),
    };
    let softmax_factor = match mscale_all_dim {
        Some(mscale) if family.has_latent_attention() => magnitude(factor, mscale).powi(2),
        _ => 1.0,
    };
    Ok(YarnConfig {
        factor,
        original_positions: positions_as_number(original_positions),
        beta_fast,
        beta_slow,
        attention_factor,
        softmax_factor,
    })
}

/// `ms(s, m)` of the header.
fn magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 {
        1.0
    } else {
        0.1 * mscale * factor.ln() + 1.0
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "sizes are bounded by LARGEST_SIZE"
)]
fn positions_as_number(positions: usize) -> f64 {
    positions as f64
}

/// Spells what [`read`] reads, in the way that files of every age have in common.
pub(super) fn write(rotary: &RotaryConfig, family: Family, object: &mut Map<String, Value>) {
    object.insert("rope_theta".into(), json!(rotary.theta));
    if family == Family::DeepseekV3 {
        let interleaved = rotary.pairing == Pairing::Interleaved;
        object.insert("rope_interleave".into(), json!(interleaved));
    }
    let scaling = match (&rotary.scaling, family) {
        (Some(yarn), _) => write_yarn(yarn),
        // Older releases of `transformers` look into the description of this family without asking.
        (None, Family::Qwen3VlMoe) => json!({"rope_type": "default"}),
        (None, _) => Value::Null,
    };
    object.insert("rope_scaling".into(), scaling);
}

fn write_yarn(yarn: &YarnConfig) -> Value {
    let mut object = json!({
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
        "factor": yarn.factor,
        "original_max_position_embeddings": whole(yarn.original_positions),
        "rope_type": "yarn",
        "type": "yarn",
    });
    let mscale = mscale_of(yarn);
    if let Some(mscale) = mscale {
        object["mscale_all_dim"] = json!(mscale);
    }
    // Equal constants cancel, which DeepSeek's own code reads too; it does not know `attention_factor`.
    match mscale {
        Some(mscale) if yarn.attention_factor == 1.0 => object["mscale"] = json!(mscale),
        _ => object["attention_factor"] = json!(yarn.attention_factor),
    }
    object
}

/// The shortest decimal that gives the softmax factor, which is all that is kept of `mscale_all_dim`.
fn mscale_of(yarn: &YarnConfig) -> Option<f64> {
    if yarn.softmax_factor == 1.0 {
        return None;
    }
    let exact = (yarn.softmax_factor.sqrt() - 1.0) / (0.1 * yarn.factor.ln());
    let gives = |mscale: &f64| magnitude(yarn.factor, *mscale).powi(2) == yarn.softmax_factor;
    let decimals = (1..=17).filter_map(|digits| format!("{exact:.digits$}").parse().ok());
    // Rounding may leave the inverse a few steps away from the number that was read.
    let neighbours = (0..64u64).flat_map(|steps| {
        let bits = exact.to_bits();
        [bits.wrapping_add(steps), bits.wrapping_sub(steps)].map(f64::from_bits)
    });
    decimals.chain(neighbours).find(gives).or(Some(exact))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are whole and bounded by LARGEST_SIZE when they were read; casts saturate"
)]
fn whole(positions: f64) -> u64 {
    positions as u64
}
