//! Error feedback: what a codec leaves out of one update goes into the next (P-38).
//!
//! ```text
//! e ← decay·e + Δ        for every tensor of the group; Δ is zero where nothing was trained
//! send Q(e)              for the tensors that were trained
//! e ← e − Q(e)           the residual; Q(e) is zero for what was not sent
//! ```
//!
//! A tensor that was not trained in this cycle is not sent either: an update is what its miner has just
//! seen to help (P-36), and what is owed elsewhere waits, decayed, until that expert is trained again.
//! Inputs are tensors; where the residual is kept, and when one takes the place of another, is the
//! learner's and the miner's business (arXiv 1901.09847; with decay, 2508.15706).

use connito_engine::Tensor;
use connito_protocol::rules::InnerRules;

use crate::shard::Shard;
use crate::wire;
use crate::wire::encoded::{CHUNK, Encoded};

/// An update as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is owed once it has been merged; `None` if nothing ever is.
    pub residual: Option<Shard>,
}

/// Encodes an update together with what is owed of earlier ones, of which the tensors have the shapes of
/// the update's. With an exact codec, or a decay of 0, nothing is ever owed.
#[must_use]
pub fn send(update: Shard, mut owed: Shard, rules: &InnerRules) -> Sent {
    let (codec, decay) = (rules.codec, rules.feedback_decay);
    if !codec.needs_feedback() || decay == 0.0 {
        return Sent {
            bytes: wire::encode(&update, codec),
            residual: None,
        };
    }
    let values = owed.0.values_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value *= decay);
    let mut total = update;
    for (name, tensor) in &mut total.0 {
        if let Some(owed) = owed.0.remove(name) {
            let pairs = tensor.values.iter_mut().zip(owed.values);
            pairs.for_each(|(value, owed)| *value += owed);
        }
    }
    let bytes = wire::encode(&total, codec);
    // What cannot be opened holds a value that is not finite: nobody will merge it, and nothing that is
    // owed after it will ever be asked for.
    if let Ok(sent) = Encoded::open(&bytes, &total.layout()) {
        for (name, tensor) in &mut total.0 {
            subtract(&sent, name, tensor);
        }
        owed.0.append(&mut total.0);
    }
    Sent {
        bytes,
        residual: Some(owed),
    }
}

fn subtract(sent: &Encoded<'_>, name: &str, tensor: &mut Tensor) {
    if let Some(sent) = sent.tensor(name) {
        for (number, values) in tensor.values.chunks_mut(CHUNK).enumerate() {
            sent.add_chunk(number, -1.0, values);
        }
    }
}

#[cfg(test)]
mod tests {
    use connito_protocol::rules::{Codec, Rules};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::decode;

    fn shard<const N: usize>(tensors: [(&str, &[f32]); N]) -> Shard {
        let tensor = |(name, values): (&str, &[f32])| {
            let (shape, values) = (vec![values.len()], values.to_vec());
            (name.to_owned(), Tensor { shape, values })
        };
        Shard(tensors.map(tensor).into())
    }

    fn rules(codec: Codec, feedback_decay: f32) -> InnerRules {
        InnerRules {
            codec,
            feedback_decay,
            ..Rules::default().inner
        }
    }

    /// Of 3 values one is kept. Owed 1 of the first at a decay of one half, learnt 1.25 and 1.5 of the
    /// others: what is owed is too little to be sent, the largest is.
    #[test]
    fn what_is_owed_decays_is_added_and_what_was_not_sent_is_owed_next() {
        let (update, owed) = (
            shard([("w", &[0.0, 1.25, 1.5])]),
            shard([("w", &[1.0, 0.0, 0.0])]),
        );
        let sent = send(update.clone(), owed, &rules(Codec::Sparse, 0.5));
        let (_, read) = decode(&sent.bytes, &update.layout()).unwrap();
        assert_eq!(read, shard([("w", &[0.0, 0.0, 1.5])]));
        let owed = sent.residual.unwrap();
        assert_eq!(owed, shard([("w", &[0.5, 1.25, 0.0])]));

        // Nothing new: the largest of what is owed comes next.
        let sent = send(shard([("w", &[0.0; 3])]), owed, &rules(Codec::Sparse, 1.0));
        let (_, read) = decode(&sent.bytes, &update.layout()).unwrap();
        assert_eq!(read, shard([("w", &[0.0, 1.25, 0.0])]));
        assert_eq!(sent.residual, Some(shard([("w", &[0.5, 0.0, 0.0])])));
    }

    /// What should happen: an expert that was not trained is not listed, and what it is owed waits.
    #[test]
    fn what_was_not_trained_is_not_sent_but_still_owed() {
        let (update, owed) = (shard([("a", &[1.0])]), shard([("b", &[8.0])]));
        let sent = send(update.clone(), owed, &rules(Codec::Sparse, 0.25));
        assert!(
            decode(&sent.bytes, &update.layout()).is_ok(),
            "lists a alone"
        );
        assert_eq!(sent.residual, Some(shard([("a", &[0.0]), ("b", &[2.0])])));
    }

    #[test]
    fn an_exact_codec_and_a_decay_of_nothing_owe_nothing() {
        let update = shard([("w", &[0.3, 0.1])]);
        for rules in [
            rules(Codec::F32, 0.95),
            rules(Codec::Bf16, 0.95),
            rules(Codec::Sparse, 0.0),
        ] {
            let sent = send(update.clone(), Shard::default(), &rules);
            assert_eq!(sent.residual, None);
            assert_eq!(sent.bytes, wire::encode(&update, rules.codec));
        }
    }

    /// What should not happen: a residual that is no number and spoils every later update.
    #[test]
    fn an_update_that_is_not_finite_leaves_what_was_owed_elsewhere() {
        let (update, owed) = (shard([("a", &[f32::NAN])]), shard([("b", &[8.0])]));
        let sent = send(update.clone(), owed, &rules(Codec::Sparse, 1.0));
        assert!(decode(&sent.bytes, &update.layout()).is_err());
        assert_eq!(sent.residual, Some(shard([("b", &[8.0])])));
    }

    proptest! {
        /// Nothing is lost: what is sent and what is left add up to what there was, to the last bit but
        /// one of what f32 can hold.
        #[test]
        fn sent_and_owed_are_the_whole(
            learnt in prop::collection::vec(-1.0..1.0_f32, 1..300), decay in 0.01..=1.0_f32,
            codec in prop::sample::select(vec![Codec::Int8, Codec::Sparse]),
        ) {
            let owed: Vec<f32> = learnt.iter().rev().map(|value| value * 0.5).collect();
            let update = shard([("w", &learnt)]);
            let sent = send(update.clone(), shard([("w", &owed)]), &rules(codec, decay));
            let (_, read) = decode(&sent.bytes, &update.layout()).unwrap();
            let left = sent.residual.unwrap();
            for (index, learnt) in learnt.iter().enumerate() {
                let whole = learnt + owed[index] * decay;
                let parts = read.0["w"].values[index] + left.0["w"].values[index];
                prop_assert!((whole - parts).abs() <= 2.0 * f32::EPSILON, "{whole} is not {parts}");
            }
        }
    }
}
