//! Both scores of every expert: from what a forward pass counted, or from a published `summary.json`.
//!
//! ```text
//! token score = picks ÷ (K·tokens)        gate score = Σ weights ÷ tokens        over all tokens pooled
//! {"token_scores": {"1": {"0": 0.0103, …}, …}, "gate_scores": {…}}       layers and experts as text keys
//! ```
//!
//! Reading is strict: whatever a score summary should not hold is an error that names layer and expert.
//! Writing rounds to four decimals in the layout of the published files, byte for byte. Knows no paths.

use std::fmt::Write as _;
use std::marker::PhantomData;

use connito_engine::RoutingStatistics;
use serde::de::{DeserializeSeed, Error};
use serde::{Deserialize, Deserializer};

use super::by_index::{ByIndex, from_object, in_text_order};
use super::scores::rounded;
use super::{ByLayer, Score, Scores, SelectionError};

const TOKEN_SCORES: &str = "token_scores";
const GATE_SCORES: &str = "gate_scores";

/// Token and gate scores of the same experts.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreSummary {
    token: Scores,
    gate: Scores,
}

impl ScoreSummary {
    /// The scores of one kind.
    #[must_use]
    pub fn scores(&self, score: Score) -> &Scores {
        match score {
            Score::Gate => &self.gate,
            Score::Token => &self.token,
        }
    }

    /// The scores of a counted text.
    ///
    /// # Errors
    /// The model that the text was counted with has no routed experts.
    pub fn of(statistics: &RoutingStatistics) -> Result<Self, SelectionError> {
        let (mut token, mut gate) = (ByLayer::new(), ByLayer::new());
        for (index, layer) in statistics.layers() {
            // Without tokens every score is 0 over 1.
            let tokens = layer.tokens().max(1) as f64;
            let picks = tokens * statistics.per_token().max(1) as f64;
            let shares = layer.picks().iter().map(|&count| count as f64 / picks);
            token.insert(index, shares.collect());
            gate.insert(index, layer.weights().map(|sum| sum / tokens).collect());
        }
        Ok(Self {
            token: Scores::new(token)?,
            gate: Scores::new(gate)?,
        })
    }

    /// Reads a `summary.json`.
    ///
    /// # Errors
    /// The text is not of this format, a score is negative or no number, a layer or an expert is listed
    /// twice, is missing, or has one kind of score only.
    pub fn from_json(json: &str) -> Result<Self, SelectionError> {
        let file: File = from_object(json).map_err(SelectionError::Summary)?;
        let (token, gate) = (file.token_scores, file.gate_scores);
        for (one, other, lacking) in [(&token, &gate, GATE_SCORES), (&gate, &token, TOKEN_SCORES)] {
            if let Some(&layer) = one.keys().find(|layer| !other.contains_key(layer)) {
                return Err(SelectionError::OneKind { layer, lacking });
            }
        }
        let (token, gate) = (rows(token)?, rows(gate)?);
        let (token, gate) = (Scores::new(token)?, Scores::new(gate)?);
        let (fewer, more) = match token.experts() < gate.experts() {
            true => (&token, &gate),
            false => (&gate, &token),
        };
        fewer.check_known(&more.all())?;
        Ok(Self { token, gate })
    }

    /// The text of a `summary.json`: four decimals, layers in the order of their keys as text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let kind = |scores: &Scores| {
            let rows: ByLayer<&[f64]> = scores.layers().collect();
            joined(in_text_order(&rows).map(|(layer, row)| {
                let scores = row.iter().enumerate();
                // `{:?}` has a decimal point in every number, as the published files do.
                let scores =
                    scores.map(|(id, &score)| (id.to_string(), format!("{:?}", rounded(score))));
                (layer, joined(scores))
            }))
        };
        let kinds = [(TOKEN_SCORES, &self.token), (GATE_SCORES, &self.gate)];
        joined(
            kinds
                .into_iter()
                .map(|(name, scores)| (name.to_owned(), kind(scores))),
        )
    }
}

/// An object of values that are JSON already, with the blanks that Python puts.
fn joined(entries: impl Iterator<Item = (String, String)>) -> String {
    let mut object = String::from("{");
    for (index, (key, value)) in entries.enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(object, "{comma}\"{key}\": {value}");
    }
    object.push('}');
    object
}

/// Rows without gaps.
fn rows(layers: ByLayer<ByLayer<f64>>) -> Result<ByLayer<Vec<f64>>, SelectionError> {
    let row = |(layer, scores): (usize, ByLayer<f64>)| match scores
        .keys()
        .enumerate()
        .find(|(index, expert)| index != *expert)
    {
        Some((expert, _)) => Err(SelectionError::UnknownExpert { layer, expert }),
        None => Ok((layer, scores.into_values().collect())),
    };
    layers.into_iter().map(row).collect()
}

/// A summary as it stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(deserialize_with = "by_layer_and_expert")]
    token_scores: ByLayer<ByLayer<f64>>,
    #[serde(deserialize_with = "by_layer_and_expert")]
    gate_scores: ByLayer<ByLayer<f64>>,
}

fn by_layer_and_expert<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ByLayer<ByLayer<f64>>, D::Error> {
    let experts = ByIndex {
        what: "expert",
        value: PhantomData::<NotNegative>,
    };
    let layers = ByIndex {
        what: "layer",
        value: experts,
    };
    let read = layers.deserialize(deserializer)?.into_iter();
    let row = |row: ByLayer<NotNegative>| row.into_iter().map(|(expert, score)| (expert, score.0));
    Ok(read
        .map(|(layer, scores)| (layer, row(scores).collect()))
        .collect())
}

/// A score, refused where it stands, so that the message has its line.
struct NotNegative(f64);

impl<'de> Deserialize<'de> for NotNegative {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let score = f64::deserialize(deserializer)?;
        if score < 0.0 {
            return Err(D::Error::custom(format!("a score cannot be {score}")));
        }
        Ok(Self(score))
    }
}
