//! What makes tensors an update: whole experts of one group, in any codec (P-19).
//!
//! Inputs are bytes and the group's layout. Knows nothing of norms, copies or losses: those are
//! judged, this is only read.

use std::collections::BTreeSet;

use connito_protocol::reason::ReasonCode;

use crate::shard::{Layout, Shard};
use crate::wire::{self, Encoded, Rejection};

/// Reads an update of a group. Tensors that it does not list are zero.
///
/// # Errors
/// Anything that [`wire::decode`] refuses, and an expert with only some of its tensors.
pub fn read(bytes: &[u8], layout: &Layout) -> Result<Shard, Rejection> {
    let (_, update) = wire::decode(bytes, layout)?;
    let names: Vec<&str> = update.0.keys().map(String::as_str).collect();
    complete_experts(&names, layout)?;
    Ok(update)
}

/// Opens an update of a group, to be read where it lies. Refuses what [`read`] refuses.
///
/// # Errors
/// As for [`read`].
pub fn open<'a>(bytes: &'a [u8], layout: &Layout) -> Result<Encoded<'a>, Rejection> {
    let update = Encoded::open(bytes, layout)?;
    complete_experts(&update.names().collect::<Vec<_>>(), layout)?;
    Ok(update)
}

/// The expert that a tensor belongs to: tensors of one expert share all of their name but its last two
/// parts.
pub(crate) fn expert_of(name: &str) -> &str {
    name.rsplitn(3, '.').nth(2).unwrap_or(name)
}

/// An expert that is listed carries all of its tensors.
fn complete_experts(names: &[&str], layout: &Layout) -> Result<(), Rejection> {
    let names: BTreeSet<&str> = names.iter().copied().collect();
    let listed: BTreeSet<&str> = names.iter().map(|name| expert_of(name)).collect();
    let missing = layout
        .keys()
        .find(|name| listed.contains(expert_of(name.as_str())) && !names.contains(name.as_str()));
    missing.map_or(Ok(()), |name| {
        Err(Rejection {
            code: ReasonCode::MissingTensor,
            detail: format!("{name} is missing while its expert is listed"),
        })
    })
}

#[cfg(test)]
mod tests {
    use connito_engine::Tensor;
    use connito_protocol::rules::Codec;

    use super::*;

    #[test]
    fn an_update_lists_whole_experts_or_is_refused() {
        let names = [
            "experts.0.gate.weight",
            "experts.0.up.weight",
            "experts.1.gate.weight",
        ];
        let tensor = Tensor::zeros(&[2]);
        let whole = Shard(names.map(|name| (name.to_owned(), tensor.clone())).into());
        let layout = whole.layout();
        let mut one = whole.clone();
        one.0.remove(names[2]);
        assert_eq!(
            read(&wire::encode(&one, Codec::Bf16), &layout),
            Ok(one.clone())
        );
        one.0.remove(names[1]);
        let refused = read(&wire::encode(&one, Codec::Bf16), &layout).unwrap_err();
        assert_eq!(refused.code, ReasonCode::MissingTensor);
        assert!(refused.detail.contains(names[1]), "{}", refused.detail);
    }
}
