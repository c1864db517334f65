//! Error feedback: what a codec leaves out of one update goes into the next (P-38).
//!
//! ```text
//! e ← decay·e
//! Δ = trained from base + e, less the base          for the experts that are trained
//! send Q(gain·Δ)                                    gain is a rule with `sparse`, 1 with `int8`
//! e ← Δ − Q(Δ) with `int8`; Δ where nothing was sent, 0 where something was, with `sparse`
//! ```
//!
//! Training starts from what the miner would hold had all of it been sent, so what is owed is not learnt
//! a second time. A sparse update moves one value in 64, and those that carry it are sent for more than
//! was learnt of them; for that reason they owe nothing afterwards, in either direction: to take the
//! excess back would undo it a cycle later. A tensor that was not trained in this cycle is not sent
//! either: an update is what its miner has just seen to help (P-36), and what is owed elsewhere waits,
//! decayed, until that expert is trained again. Inputs are tensors; where the residual is kept, and when
//! one takes the place of another, is the learner's and the miner's business (arXiv 1901.09847; with
//! decay, 2508.15706).

use connito_engine::Tensor;
use connito_protocol::rules::{Codec, InnerRules};

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

/// What is left of a residual a cycle later: what training starts from, added to the base. Nothing under
/// an exact codec or a decay of 0, whatever was owed under other rules.
#[must_use]
pub fn still_owed(mut residual: Shard, rules: &InnerRules) -> Shard {
    if !owes(rules) {
        return Shard::default();
    }
    scale(&mut residual, rules.feedback_decay);
    residual
}

/// Encodes what was learnt, counted from the base and thus with what was [`still_owed`] of its tensors,
/// which have the shapes of `owed`'s.
#[must_use]
pub fn send(mut learnt: Shard, mut owed: Shard, rules: &InnerRules) -> Sent {
    let bytes = encode(&learnt, rules);
    if !owes(rules) {
        return Sent {
            bytes,
            residual: None,
        };
    }
    owed.0.retain(|name, _| !learnt.0.contains_key(name));
    // What cannot be opened holds a value that is not finite: nobody will merge it, and nothing that is
    // owed after it will ever be asked for.
    if let Ok(sent) = Encoded::open(&bytes, &learnt.layout()) {
        for (name, tensor) in &mut learnt.0 {
            settle(&sent, name, tensor);
        }
        owed.0.append(&mut learnt.0);
    }
    Sent {
        bytes,
        residual: Some(owed),
    }
}

fn owes(rules: &InnerRules) -> bool {
    rules.codec.needs_feedback() && rules.feedback_decay > 0.0
}

/// Encodes what was learnt, a sparse update times its gain.
fn encode(learnt: &Shard, rules: &InnerRules) -> Vec<u8> {
    if rules.codec != Codec::Sparse || rules.sparse_gain == 1.0 {
        return wire::encode(learnt, rules.codec);
    }
    let mut sent = learnt.clone();
    scale(&mut sent, rules.sparse_gain);
    wire::encode(&sent, rules.codec)
}

fn scale(shard: &mut Shard, factor: f32) {
    let values = shard.0.values_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value *= factor);
}

/// Takes from what was learnt what was sent of it.
fn settle(sent: &Encoded<'_>, name: &str, learnt: &mut Tensor) {
    let Some(tensor) = sent.tensor(name) else {
        return;
    };
    let mut read = [0.0; CHUNK];
    for (number, values) in learnt.values.chunks_mut(CHUNK).enumerate() {
        let read = &mut read[..values.len()];
        tensor.read_chunk(number, read);
        for (value, sent_value) in values.iter_mut().zip(read) {
            match sent.codec() {
                Codec::Sparse if *sent_value != 0.0 => *value = 0.0,
                Codec::Sparse => {}
                Codec::F32 | Codec::Bf16 | Codec::Int8 => *value -= *sent_value,
            }
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
            sparse_gain: 1.0,
            ..Rules::default().inner
        }
    }

    /// Of 3 values one is kept. What should happen: the largest is sent for twice what was learnt of it,
    /// and the others wait. What should not: that the excess is owed back.
    #[test]
    fn what_was_not_sent_is_owed_next_and_what_was_sent_owes_nothing() {
        let rules = InnerRules {
            sparse_gain: 2.0,
            ..rules(Codec::Sparse, 0.5)
        };
        let learnt = shard([("w", &[0.5, 1.25, -1.5])]);
        let sent = send(learnt.clone(), shard([("w", &[0.5, 0.0, 0.0])]), &rules);
        let (_, read) = decode(&sent.bytes, &learnt.layout()).unwrap();
        assert_eq!(read, shard([("w", &[0.0, 0.0, -3.0])]));
        let residual = sent.residual.unwrap();
        assert_eq!(residual, shard([("w", &[0.5, 1.25, 0.0])]));

        // Nothing new is learnt from where training starts: the largest of what is owed comes next.
        let owed = still_owed(residual, &rules);
        assert_eq!(owed, shard([("w", &[0.25, 0.625, 0.0])]));
        let sent = send(owed.clone(), owed, &rules);
        let (_, read) = decode(&sent.bytes, &learnt.layout()).unwrap();
        assert_eq!(read, shard([("w", &[0.0, 1.25, 0.0])]));
        assert_eq!(sent.residual, Some(shard([("w", &[0.25, 0.0, 0.0])])));
    }

    /// What should happen: an expert that was not trained is not listed, and what it is owed waits.
    #[test]
    fn what_was_not_trained_is_not_sent_but_still_owed() {
        let rules = rules(Codec::Sparse, 0.25);
        let update = shard([("a", &[1.0])]);
        let owed = still_owed(shard([("b", &[8.0])]), &rules);
        let sent = send(update.clone(), owed, &rules);
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
            assert_eq!(still_owed(update.clone(), &rules), Shard::default());
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
        /// What should happen: what a byte a value cannot hold is owed, to the last bit but one of what
        /// f32 can hold.
        #[test]
        fn int8_sent_and_owed_are_the_whole(
            learnt in prop::collection::vec(-1.0..1.0_f32, 1..300),
        ) {
            let update = shard([("w", &learnt)]);
            let sent = send(update.clone(), Shard::default(), &rules(Codec::Int8, 0.95));
            let (_, read) = decode(&sent.bytes, &update.layout()).unwrap();
            let left = sent.residual.unwrap();
            for (index, whole) in learnt.iter().enumerate() {
                let parts = read.0["w"].values[index] + left.0["w"].values[index];
                prop_assert!((whole - parts).abs() <= 2.0 * f32::EPSILON, "{whole} is not {parts}");
            }
        }

        /// What should happen: every value is either sent, with its sign, or owed to the last bit.
        #[test]
        fn a_sparse_value_is_sent_or_owed_and_never_both(
            learnt in prop::collection::vec(-1.0..1.0_f32, 1..300), sparse_gain in 1.0..64.0_f32,
        ) {
            let update = shard([("w", &learnt)]);
            let rules = InnerRules { sparse_gain, ..rules(Codec::Sparse, 0.95) };
            let sent = send(update.clone(), Shard::default(), &rules);
            let (_, read) = decode(&sent.bytes, &update.layout()).unwrap();
            let left = sent.residual.unwrap();
            for (index, learnt) in learnt.iter().enumerate() {
                let (sent, owed) = (read.0["w"].values[index], left.0["w"].values[index]);
                let one = match sent == 0.0 {
                    true => owed == *learnt,
                    false => owed == 0.0 && sent.signum() == learnt.signum(),
                };
                prop_assert!(one, "{learnt}: sent {sent}, owed {owed}");
            }
        }
    }
}
