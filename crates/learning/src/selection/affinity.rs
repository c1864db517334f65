//! How much of a text's routing falls on a group of experts: what a miner looks at before it registers.
//!
//! `affinity(group) = mean over MoE layers of Σ score over the group's experts`. Token scores add up to 1
//! in every layer, so the affinities of a partition's groups do too. Knows nothing of miners.

use connito_engine::routing::ExpertMap;

use super::{Scores, SelectionError, distinct};

/// The mean over all layers of the group's summed score; a layer where the group has no experts counts 0.
///
/// # Errors
/// The group lists a layer or an expert without a score.
pub fn group_affinity(scores: &Scores, group: &ExpertMap) -> Result<f64, SelectionError> {
    scores.check_known(group)?;
    let of_layer = |(layer, row): (usize, &[f64])| -> f64 {
        let members = distinct(group.get(&layer).map_or(&[], Vec::as_slice));
        members.into_iter().map(|expert| row[expert]).sum()
    };
    let layers = scores.layers().count().max(1);
    Ok(scores.layers().map(of_layer).sum::<f64>() / layers as f64)
}
