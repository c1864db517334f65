//! Bytes that round-trip and bytes that lie; samples and batches that can be repeated.

use std::collections::BTreeSet;

use proptest::prelude::*;
use safetensors::serialize;
use safetensors::tensor::TensorView;

use super::*;

const LIMITS: Limits = Limits {
    vocabulary: 100,
    sequence_length: 8,
};

fn documents(lengths: &[usize]) -> TokenDocuments {
    let sequence = |(i, &length): (usize, &usize)| vec![i as u32 % 100; length];
    TokenDocuments::from_sequences(lengths.iter().enumerate().map(sequence)).unwrap()
}

/// A file as a stranger might write it: any offsets, any ids.
fn forged(offsets: &[i64], ids: &[i32]) -> Vec<u8> {
    let offset_bytes: Vec<u8> = offsets.iter().flat_map(|n| n.to_le_bytes()).collect();
    let id_bytes: Vec<u8> = ids.iter().flat_map(|n| n.to_le_bytes()).collect();
    let tensors = [
        (
            "offsets",
            TensorView::new(Dtype::I64, vec![offsets.len()], &offset_bytes).unwrap(),
        ),
        (
            "ids",
            TensorView::new(Dtype::I32, vec![ids.len()], &id_bytes).unwrap(),
        ),
    ];
    serialize(tensors, None).unwrap()
}

#[test]
fn a_sequence_of_one_token_is_refused() {
    let fault = TokenDocuments::from_sequences([vec![1, 2], vec![3]]).unwrap_err();
    assert_eq!(fault, DocumentsFault::TooShort { index: 1 });
}

#[test]
fn writes_the_bytes_the_safetensors_library_would_write() {
    let documents = documents(&[2, 5, 3]);
    let bytes = documents.to_bytes();
    assert_eq!(
        bytes,
        forged(&[0, 2, 7, 10], &[0, 0, 1, 1, 1, 1, 1, 2, 2, 2])
    );
    assert_eq!(
        TokenDocuments::from_bytes(&bytes, LIMITS).unwrap(),
        documents
    );
}

/// What should happen: each lie named for what it is.
/// What should not happen: a sequence that the engine would have to refuse later.
#[test]
fn refuses_what_the_model_could_not_run() {
    let fault = |offsets: &[i64], ids: &[i32]| {
        TokenDocuments::from_bytes(&forged(offsets, ids), LIMITS).unwrap_err()
    };
    let ids = [1; 10];
    assert_eq!(
        fault(&[0, 2, 9], &ids),
        DocumentsFault::OffsetOutOfOrder { index: 2 }
    );
    assert_eq!(
        fault(&[1, 5, 10], &ids),
        DocumentsFault::OffsetOutOfOrder { index: 0 }
    );
    assert_eq!(
        fault(&[0, 6, 4, 10], &ids),
        DocumentsFault::OffsetOutOfOrder { index: 2 }
    );
    assert_eq!(
        fault(&[0, -1, 10], &ids),
        DocumentsFault::OffsetOutOfOrder { index: 1 }
    );
    assert_eq!(
        fault(&[0, i64::MAX, 10], &ids),
        DocumentsFault::OffsetOutOfOrder { index: 1 }
    );
    assert_eq!(
        fault(&[], &[]),
        DocumentsFault::OffsetOutOfOrder { index: 0 }
    );
    assert_eq!(
        fault(&[0, 5, 6, 10], &ids),
        DocumentsFault::TooShort { index: 1 }
    );
    assert_eq!(
        fault(&[0, 9, 10], &ids),
        DocumentsFault::TooLong {
            index: 0,
            longest: 8
        }
    );
    let out = |position, id| DocumentsFault::IdOutOfVocabulary {
        position,
        id,
        vocabulary: 100,
    };
    assert_eq!(fault(&[0, 2], &[99, 100]), out(1, 100));
    assert_eq!(fault(&[0, 2], &[-1, 0]), out(0, -1));
}

#[test]
fn refuses_other_files() {
    let fault = |bytes: &[u8]| TokenDocuments::from_bytes(bytes, LIMITS).unwrap_err();
    assert_eq!(fault(b""), DocumentsFault::NotSafetensors);
    assert_eq!(fault(&[0xff; 64]), DocumentsFault::NotSafetensors);
    let data = [0; 8];
    let of = |name: &'static str, dtype, shape: &[usize]| {
        (name, TensorView::new(dtype, shape.to_vec(), &data).unwrap())
    };
    let only = serialize([of("ids", Dtype::I32, &[2])], None).unwrap();
    assert_eq!(fault(&only), DocumentsFault::WrongTensors);
    let square = serialize(
        [
            of("ids", Dtype::I32, &[1, 2]),
            of("offsets", Dtype::I64, &[1]),
        ],
        None,
    );
    assert_eq!(fault(&square.unwrap()), DocumentsFault::WrongTensors);
    let float = serialize(
        [of("ids", Dtype::F32, &[2]), of("offsets", Dtype::I64, &[1])],
        None,
    );
    assert_eq!(
        fault(&float.unwrap()),
        DocumentsFault::WrongType {
            tensor: "ids",
            expected: "I32"
        }
    );
}

#[test]
fn appending_keeps_order_and_content() {
    let mut mixture = documents(&[2, 3]);
    mixture.append(&documents(&[4]));
    assert_eq!(mixture.len(), 3);
    assert_eq!(mixture.tokens(), 9);
    assert_eq!(mixture.select(&[2, 0, 3]), [&[0, 0, 0, 0][..], &[0, 0]]);
}

/// Validators of every version must draw the same documents: this sample is part of the protocol
/// and was worked out by an independent program from the description of `sample`.
#[test]
fn draws_the_recorded_sample() {
    assert_eq!(
        documents(&[2; 100]).sample(&[7; 32], 6),
        [76, 77, 61, 56, 54, 96]
    );
}

#[test]
fn every_document_is_drawn_equally_often() {
    let documents = documents(&[2; 10]);
    let mut counts = [0u32; 10];
    for i in 0..10_000u32 {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&i.to_le_bytes());
        documents
            .sample(&seed, 3)
            .into_iter()
            .for_each(|index| counts[index] += 1);
    }
    // 3,000 expected each; five standard errors of a binomial count.
    assert!(
        counts.iter().all(|&n| (2_771..3_229).contains(&n)),
        "{counts:?}"
    );
}

/// What should happen: every document once per pass, passes in different orders, the same again
/// for the same seed.
/// What should not happen: an endless loop over nothing.
#[test]
fn batches_cover_the_documents_pass_by_pass() {
    let indices: Vec<usize> = Batches::new(10, 4, 5).take(10).flatten().collect();
    assert_eq!(
        indices,
        Batches::new(10, 4, 5)
            .take(10)
            .flatten()
            .collect::<Vec<_>>()
    );
    assert_ne!(
        indices,
        Batches::new(10, 4, 6)
            .take(10)
            .flatten()
            .collect::<Vec<_>>()
    );
    for pass in indices.chunks(10) {
        assert_eq!(
            pass.iter().copied().collect::<BTreeSet<_>>(),
            (0..10).collect()
        );
    }
    assert_ne!(indices[..10], indices[10..20]);
    assert_eq!(Batches::new(0, 4, 5).next(), None);
    assert_eq!(Batches::new(10, 0, 5).next(), None);
}

proptest! {
    #[test]
    fn bytes_round_trip(lengths in prop::collection::vec(2usize..=8, 0..40)) {
        let documents = documents(&lengths);
        let read = TokenDocuments::from_bytes(&documents.to_bytes(), LIMITS);
        prop_assert_eq!(read.as_ref(), Ok(&documents));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = TokenDocuments::from_bytes(&bytes, LIMITS);
    }

    /// One byte changed anywhere: refused, or documents that still keep every promise.
    #[test]
    fn corrupted_bytes_never_break_the_promises(
        lengths in prop::collection::vec(2usize..=8, 0..10),
        position in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = documents(&lengths).to_bytes();
        let position = position.index(bytes.len());
        bytes[position] = value;
        if let Ok(read) = TokenDocuments::from_bytes(&bytes, LIMITS) {
            prop_assert!(read.iter().all(|sequence| (2..=8).contains(&sequence.len())));
            prop_assert!(read.iter().flatten().all(|&id| id < 100));
            prop_assert_eq!(read.iter().flatten().count(), read.tokens());
        }
    }

    #[test]
    fn samples_are_distinct_and_as_many_as_asked(
        count in 0usize..30, length in 0usize..20, seed in any::<[u8; 32]>(),
    ) {
        let documents = documents(&vec![2; length]);
        let sample = documents.sample(&seed, count);
        prop_assert_eq!(sample.len(), count.min(length));
        prop_assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), sample.len());
        prop_assert!(sample.iter().all(|&index| index < length));
        prop_assert_eq!(documents.sample(&seed, count), sample);
    }
}
