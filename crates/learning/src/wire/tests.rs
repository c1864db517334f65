//! What is written reads back, and nothing else is read: in every codec, at every length.

use proptest::prelude::*;

use super::*;

fn shard() -> Shard {
    let tensor = |shape: &[usize], from: f32| Tensor {
        shape: shape.to_vec(),
        values: (0..shape.iter().product::<usize>())
            .map(|i| from + i as f32 * 0.25)
            .collect(),
    };
    Shard(
        [
            ("b".to_owned(), tensor(&[2, 3], 1.0)),
            ("a".to_owned(), tensor(&[4], 7.5)),
        ]
        .into(),
    )
}

fn refused(bytes: &[u8]) -> ReasonCode {
    decode(bytes, &shard().layout()).unwrap_err().code
}

#[test]
fn a_shard_reads_back_bit_for_bit_and_bf16_to_its_precision() {
    let bytes = encode(&shard(), Codec::F32);
    assert_eq!(decode_shard(&bytes, &shard().layout()), Ok(shard()));
    let bytes = encode(&shard(), Codec::Bf16);
    // Quarters up to 9 need no more than bf16's eight significant bits.
    assert_eq!(
        decode(&bytes, &shard().layout()),
        Ok((Codec::Bf16, shard()))
    );
    assert_eq!(
        bytes.len() as u64,
        encoded_bytes(&shard().layout(), Codec::Bf16)
    );
}

#[test]
fn other_readers_of_safetensors_see_the_same_tensors() {
    let bytes = encode(&shard(), Codec::F32);
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.tensor("b").unwrap().shape(), [2, 3]);
    let first: [u8; 4] = read.tensor("b").unwrap().data()[..4].try_into().unwrap();
    assert_eq!(f32::from_le_bytes(first), 1.0);
}

#[test]
fn every_departure_has_its_own_reason() {
    let mut other = shard();
    let moved = other.0.remove("a").unwrap();
    other.0.insert("router".to_owned(), moved.clone());
    assert_eq!(
        refused(&encode(&other, Codec::F32)),
        ReasonCode::UnexpectedTensor
    );

    let mut other = shard();
    other.0.insert(
        "a".to_owned(),
        Tensor {
            shape: vec![1, 4],
            ..moved
        },
    );
    assert_eq!(refused(&encode(&other, Codec::F32)), ReasonCode::WrongShape);

    let mut other = shard();
    other.0.get_mut("a").unwrap().values[1] = f32::NAN;
    assert_eq!(
        refused(&encode(&other, Codec::Bf16)),
        ReasonCode::NonFiniteUpdate
    );

    let huge = u64::MAX.to_le_bytes();
    assert_eq!(refused(&huge), ReasonCode::TooLarge);
    assert_eq!(
        refused(b"\x80\x04\x95"),
        ReasonCode::BadLayout,
        "a pickle is refused unread"
    );

    let twice = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let mut bytes = (twice.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(twice);
    assert_eq!(refused(&bytes), ReasonCode::DuplicateTensor);

    let overlapping = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    let mut bytes = (overlapping.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(overlapping);
    bytes.extend_from_slice(&[0; 40]);
    assert_eq!(refused(&bytes), ReasonCode::BadLayout);
}

#[test]
fn subnormal_values_become_zero_on_the_way_in() {
    let mut tiny = shard();
    tiny.0.get_mut("a").unwrap().values[0] = 1e-40;
    let (_, read) = decode(&encode(&tiny, Codec::F32), &tiny.layout()).unwrap();
    assert_eq!(read.0["a"].values[0], 0.0);
}

/// Numbers as updates have them: of all signs, of magnitudes that vary, some of them zero.
fn update(seed: u64, lengths: &[usize]) -> Shard {
    let tensors = lengths.iter().enumerate().map(|(number, length)| {
        let mut bytes = vec![0; length * 2];
        let name = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize();
        let hasher = blake3::Hasher::new_keyed(name.as_bytes());
        hasher
            .clone()
            .update(&[number as u8])
            .finalize_xof()
            .fill(&mut bytes);
        let value = |(index, pair): (usize, &[u8; 2])| match index % 11 {
            5 => 0.0,
            _ => (f32::from(i16::from_le_bytes(*pair)) / 32_768.0).powi(3) * 1e-3,
        };
        let values = bytes.as_chunks::<2>().0.iter().enumerate().map(value);
        let (values, shape) = (values.collect(), vec![*length]);
        (format!("t{number}"), Tensor { shape, values })
    });
    Shard(tensors.collect())
}

/// Where the values of a file begin.
fn body_of(bytes: &[u8]) -> usize {
    let (length, _) = bytes.split_first_chunk::<8>().unwrap();
    8 + usize::try_from(u64::from_le_bytes(*length)).unwrap()
}

/// A file of one tensor of so many values, with these bytes for values.
fn file(codec: Codec, values: usize, body: &[u8]) -> (Vec<u8>, Layout) {
    let layout = Layout::from([("w".to_owned(), vec![values])]);
    let mut bytes = header::write(&layout, codec);
    bytes.extend_from_slice(body);
    (bytes, layout)
}

fn refusal(codec: Codec, values: usize, body: &[u8]) -> Option<ReasonCode> {
    let (bytes, layout) = file(codec, values, body);
    decode(&bytes, &layout).err().map(|refused| refused.code)
}

#[test]
fn no_prefix_of_a_file_is_a_file_and_nothing_may_follow_one() {
    let shard = update(1, &[5_000, 3, 64]);
    for codec in Codec::ALL {
        let mut bytes = encode(&shard, codec);
        assert_eq!(bytes.len() as u64, encoded_bytes(&shard.layout(), codec));
        for length in 0..bytes.len() {
            let refused = decode(&bytes[..length], &shard.layout()).unwrap_err();
            assert_eq!(
                refused.code,
                ReasonCode::BadLayout,
                "{codec:?}, {length} bytes"
            );
        }
        bytes.push(0);
        let refused = decode(&bytes, &shard.layout()).unwrap_err();
        assert_eq!(refused.code, ReasonCode::BadLayout, "{codec:?}");
    }
}

#[test]
fn a_value_that_is_not_finite_is_named_in_every_codec() {
    for damage in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for codec in Codec::ALL {
            let mut shard = update(2, &[100, 5_000]);
            shard.0.get_mut("t1").unwrap().values[4_500] = damage;
            let refused = decode(&encode(&shard, codec), &shard.layout()).unwrap_err();
            assert_eq!(refused.code, ReasonCode::NonFiniteUpdate, "{codec:?}");
            assert!(refused.detail.starts_with("t1, chunk 1"), "{refused}");
        }
    }
}

/// The sizes are part of the format: 14 bits a kept value and two bytes a chunk, a byte a value and two
/// bytes a chunk.
#[test]
fn a_sparse_tensor_has_fourteen_bits_a_kept_value_and_two_percent() {
    let kept = |values: usize| values / 64;
    for values in [4_096, 8_192, 1_408 * 2_048] {
        let bytes = chunk::tensor_bytes(Codec::Sparse, values);
        let bits = (bytes * 8) as f64 / kept(values) as f64;
        assert!((14.0..=14.0 * 1.02).contains(&bits), "{bits} bits");
    }
    assert_eq!(chunk::tensor_bytes(Codec::Sparse, 4_096), 2 + 112);
    assert_eq!(chunk::tensor_bytes(Codec::Sparse, 1), 2 + 2);
    assert_eq!(chunk::tensor_bytes(Codec::Sparse, 65), 2 + 4);
    assert_eq!(chunk::tensor_bytes(Codec::Sparse, 4_096 + 129), 114 + 2 + 6);
    assert_eq!(chunk::tensor_bytes(Codec::Int8, 4_097), 4_098 + 3);
}

#[test]
fn a_chunk_keeps_its_largest_and_of_equals_the_first() {
    let mut values = vec![0.5_f32; 200];
    (values[150], values[7], values[3]) = (-9.0, 8.0, f32::MIN_POSITIVE / 2.0);
    let shard = Shard(
        [(
            "w".to_owned(),
            Tensor {
                shape: vec![200],
                values,
            },
        )]
        .into(),
    );
    let (codec, read) = decode(&encode(&shard, Codec::Sparse), &shard.layout()).unwrap();
    assert_eq!(codec, Codec::Sparse);
    let kept: Vec<usize> = (0..200).filter(|i| read.0["w"].values[*i] != 0.0).collect();
    assert_eq!(kept, [0, 1, 7, 150], "⌈200/64⌉ of them");
    assert!(read.0["w"].values[150] < 0.0);
}

/// What should happen: a chunk with fewer values than it could keep says so. What should not: noise in
/// the places of zeros.
#[test]
fn zeros_are_never_kept() {
    let mut values = vec![0.0_f32; 4_096];
    (values[0], values[4_095]) = (0.25, -0.25);
    let shard = Shard(
        [(
            "w".to_owned(),
            Tensor {
                shape: vec![4_096],
                values,
            },
        )]
        .into(),
    );
    let bytes = encode(&shard, Codec::Sparse);
    assert_eq!(decode(&bytes, &shard.layout()), Ok((Codec::Sparse, shard)));
    let zero = Shard::zeros(&Layout::from([("w".to_owned(), vec![4_100])]));
    for codec in Codec::ALL {
        let bytes = encode(&zero, codec);
        assert!(bytes[body_of(&bytes)..].iter().all(|byte| *byte == 0));
        assert_eq!(decode(&bytes, &zero.layout()), Ok((codec, zero.clone())));
    }
}

#[test]
fn int8_is_off_by_half_a_step_at_most() {
    let shard = update(3, &[4_096 + 70]);
    let (_, read) = decode(&encode(&shard, Codec::Int8), &shard.layout()).unwrap();
    let (values, read) = (&shard.0["t0"].values, &read.0["t0"].values);
    for (values, read) in values.chunks(CHUNK).zip(read.chunks(CHUNK)) {
        let largest = values.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        for (value, read) in values.iter().zip(read) {
            assert!(
                (value - read).abs() <= largest / 127.0 * 0.505,
                "{value} {read}"
            );
        }
    }
}

/// Every way to write a sparse chunk that is not the one (A-48 to A-51). A chunk of 130 values keeps 3,
/// in 6 bytes of which the upper 6 bits belong to no word.
#[test]
fn every_other_spelling_of_a_sparse_chunk_is_refused() {
    let chunk = |scale: u16, words: [u16; 3], padding: u64| {
        let [a, b, c] = words.map(u64::from);
        let bits = a | b << 14 | c << 28 | padding << 42;
        [&scale.to_le_bytes()[..], &bits.to_le_bytes()[..6]].concat()
    };
    let (large, negative) = (0x1000, 0x2000);
    let sound = chunk(0x3f80, [5, 64 | large, 129 | negative], 0);
    assert_eq!(refusal(Codec::Sparse, 130, &sound), None);
    let malformed = Some(ReasonCode::Malformed);
    for (what, body) in [
        ("repeated", chunk(0x3f80, [5, 5, 129], 0)),
        ("unsorted", chunk(0x3f80, [5, 4, 129], 0)),
        ("beyond a short chunk", chunk(0x3f80, [5, 64, 130], 0)),
        ("after the last", chunk(0x3f80, [5, 0, 129], 0)),
        ("a sign after the last", chunk(0x3f80, [5, 0, negative], 0)),
        ("padding", chunk(0x3f80, [5, 64, 129], 1)),
        ("padding alone", chunk(0x3f80, [5, 0, 0], 1 << 5)),
        ("all large", chunk(0x3f80, [5 | large, 0, 0], 0)),
        ("negative scale", chunk(0xbf80, [5, 64, 129], 0)),
        ("minus zero", chunk(0x8000, [0, 0, 0], 0)),
        ("subnormal scale", chunk(0x007f, [5, 64, 129], 0)),
        ("zero scale", chunk(0, [5, 64, 129], 0)),
        ("zero scale and padding", chunk(0, [0, 0, 0], 1)),
    ] {
        assert_eq!(refusal(Codec::Sparse, 130, &body), malformed, "{what}");
    }
    for scale in [0x7f80, 0x7fc0, 0xffc0, 0xff80, 0x7f7f] {
        let code = refusal(Codec::Sparse, 130, &chunk(scale, [5, 64, 129], 0));
        assert_eq!(code, Some(ReasonCode::NonFiniteUpdate), "{scale:x}");
    }
}

#[test]
fn every_other_spelling_of_an_int8_chunk_is_refused() {
    let chunk = |scale: u16, codes: [i8; 3]| {
        [&scale.to_le_bytes()[..], &codes.map(i8::cast_unsigned)].concat()
    };
    assert_eq!(
        refusal(Codec::Int8, 3, &chunk(0x3f80, [-127, 0, 126])),
        None
    );
    let malformed = Some(ReasonCode::Malformed);
    for (what, body) in [
        ("no code is largest", chunk(0x3f80, [126, 0, 5])),
        ("below the least code", chunk(0x3f80, [-128, 0, 127])),
        ("negative scale", chunk(0xbf80, [127, 0, 0])),
        ("minus zero", chunk(0x8000, [0, 0, 0])),
        ("subnormal scale", chunk(0x0001, [127, 0, 0])),
        ("zero scale", chunk(0, [127, 0, 0])),
        ("a scale for nothing", chunk(0x3f80, [0, 0, 0])),
    ] {
        assert_eq!(refusal(Codec::Int8, 3, &body), malformed, "{what}");
    }
    for scale in [0x7f80, 0x7fc0, 0xff80, 0x7c02] {
        let code = refusal(Codec::Int8, 3, &chunk(scale, [127, 0, 0]));
        assert_eq!(code, Some(ReasonCode::NonFiniteUpdate), "{scale:x}");
    }
}

#[test]
fn the_largest_and_the_smallest_numbers_stay_finite_and_canonical() {
    for value in [
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE * 126.0,
        1e-40,
    ] {
        for values in [
            vec![value],
            vec![value, -value, value * 0.9],
            vec![value, value / 1.4],
        ] {
            let shape = vec![values.len()];
            let shard = Shard([("w".to_owned(), Tensor { shape, values })].into());
            for codec in Codec::ALL {
                let bytes = encode(&shard, codec);
                let read = decode(&bytes, &shard.layout());
                // Only bf16 rounds the largest number up to infinity.
                if codec == Codec::Bf16 && value == f32::MAX {
                    assert_eq!(read.unwrap_err().code, ReasonCode::NonFiniteUpdate);
                    continue;
                }
                let (_, read) = read.unwrap();
                let again = encode(&read, codec);
                assert!(again == bytes || value.is_subnormal() || value / 1.4 < f32::MIN_POSITIVE);
                assert_eq!(decode(&again, &shard.layout()), Ok((codec, read)));
            }
        }
    }
}

/// A header may not say one codec while the body's length fits another, and one file has one type.
#[test]
fn a_file_has_one_known_type() {
    let shard = update(4, &[128, 64]);
    let text = |codec| {
        let bytes = encode(&shard, codec);
        String::from_utf8(bytes[8..body_of(&bytes)].to_vec()).unwrap()
    };
    for (from, to, code) in [
        ("S64", "S65", ReasonCode::WrongDtype),
        ("S64", "I8C", ReasonCode::BadLayout),
        ("S64", "F32", ReasonCode::BadLayout),
    ] {
        let json = text(Codec::Sparse).replace(from, to);
        let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
        assert_eq!(decode(&bytes, &shard.layout()).unwrap_err().code, code);
    }
    let json = text(Codec::Sparse).replacen("S64", "I8C", 1);
    let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let refused = decode(&bytes, &shard.layout()).unwrap_err();
    assert_eq!(refused.code, ReasonCode::WrongDtype);
}

/// What should happen: a refusal of a few words, before a number in the header has decided anything
/// (A-46). What should not: a product that overflows, or a message as long as the header.
#[test]
fn a_shape_of_huge_or_of_countless_dimensions_is_refused_unread() {
    let names = (0..2_000).map(|number| (format!("t{number}"), vec![CHUNK]));
    let layout: Layout = names.collect();
    let countless = "0,".repeat(20_000) + "0";
    for shape in ["18446744073709551615,18446744073709551615", &countless] {
        let json = format!(r#"{{"t0":{{"dtype":"S64","shape":[{shape}],"data_offsets":[0,9]}}}}"#);
        let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
        let refused = decode(&bytes, &layout).unwrap_err();
        assert_eq!(refused.code, ReasonCode::WrongShape, "{refused}");
        assert!(refused.detail.len() < 200, "{refused}");
    }
}

/// The two ways to read a chunk say the same, product and sum rounded one after the other.
#[test]
fn adding_a_chunk_is_adding_its_values() {
    let shard = update(5, &[2 * CHUNK + 70]);
    for codec in Codec::ALL {
        let bytes = encode(&shard, codec);
        let file = Encoded::open(&bytes, &shard.layout()).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["t0"]);
        let tensor = file.tensor("t0").unwrap();
        assert_eq!((file.codec(), tensor.len()), (codec, 2 * CHUNK + 70));
        for (number, length) in [(0, CHUNK), (1, CHUNK), (2, 70)] {
            let (mut values, mut sum) = (vec![7.0; length], vec![0.1_f32; length]);
            tensor.read_chunk(number, &mut values);
            tensor.add_chunk(number, 0.3, &mut sum);
            let expected = values.iter().map(|value| 0.1 + 0.3 * value);
            assert_eq!(
                sum,
                expected.collect::<Vec<f32>>(),
                "{codec:?} chunk {number}"
            );
        }
    }
}

/// Values of every kind, the odd ones often.
fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => any::<f32>(),
        4 => -1.0..1.0_f32,
        2 => prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 1.5, 0.75, f32::MIN_POSITIVE, f32::MAX]),
    ]
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(Codec::ALL.to_vec())
}

proptest! {
    /// Whatever finite values are written, what is read of them is written as the same bytes (A-51);
    /// subnormals have gone on the way (A-42).
    #[test]
    fn writing_what_was_read_gives_the_same_bytes(
        values in prop::collection::vec(any_value(), 1..400), codec in any_codec(),
    ) {
        let flushed = values.iter().map(|value| if value.is_subnormal() { 0.0 } else { *value });
        let shape = vec![values.len()];
        let values = flushed.collect();
        let shard = Shard([("w".to_owned(), Tensor { shape, values })].into());
        let bytes = encode(&shard, codec);
        match decode(&bytes, &shard.layout()) {
            Ok((_, read)) => prop_assert_eq!(encode(&read, codec), bytes),
            Err(refused) => prop_assert_eq!(refused.code, ReasonCode::NonFiniteUpdate),
        }
    }

    /// Total and canonical: whatever is accepted is what would be written (A-51), but for a value
    /// that the flip has made subnormal, which is read as zero (A-42).
    #[test]
    fn a_file_with_a_flipped_bit_is_refused_or_is_another_canonical_file(
        position in any::<prop::sample::Index>(), bit in 0..8_u8, seed in 0..20_u64,
        codec in any_codec(),
    ) {
        let shard = update(seed, &[200, 7]);
        let mut bytes = encode(&shard, codec);
        let position = position.index(bytes.len());
        bytes[position] ^= 1 << bit;
        if let Ok((codec, read)) = decode(&bytes, &shard.layout()) {
            let flushed = matches!(codec, Codec::F32 | Codec::Bf16)
                && read.0.values().any(|tensor| tensor.values.contains(&0.0));
            prop_assert!(encode(&read, codec) == bytes || flushed);
            prop_assert!(read.0.values().all(|t| t.values.iter().all(|v| v.is_finite())));
        }
    }

    /// The values of a chunk are arbitrary bytes: accepted only if they are what would be written.
    #[test]
    fn arbitrary_values_are_refused_or_canonical(
        body in prop::collection::vec(any::<u8>(), 6 + 2), words in prop::collection::vec(0..0x4000_u16, 3),
        codec in prop::sample::select(vec![Codec::Int8, Codec::Sparse]),
    ) {
        let values = match codec { Codec::Sparse => 130, _ => 6 };
        // Random bytes alone would hardly ever have ascending indices.
        let mut words: Vec<u64> = words.iter().map(|word| u64::from(word & 0x30ff)).collect();
        words.sort_by_key(|word| word & 0xfff);
        let bits = words[0] | words[1] << 14 | words[2] << 28;
        let ascending = [&body[..2], &bits.to_le_bytes()[..6]].concat();
        for body in [body, ascending] {
            let (bytes, layout) = file(codec, values, &body);
            if let Ok((_, read)) = decode(&bytes, &layout) {
                prop_assert_eq!(encode(&read, codec), bytes);
            }
        }
    }

    /// A chunk's choice against the plain definition: sorted by magnitude, then by index.
    #[test]
    fn the_chosen_values_are_the_first_of_all_when_sorted(
        values in prop::collection::vec(prop_oneof![-4.0..4.0_f32, Just(1.0), Just(0.0)], 1..300),
    ) {
        let shape = vec![values.len()];
        let mut order: Vec<usize> = (0..values.len()).filter(|i| values[*i] != 0.0).collect();
        order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)));
        order.truncate(values.len().div_ceil(64));
        order.sort_unstable();
        let shard = Shard([("w".to_owned(), Tensor { shape, values })].into());
        let (_, read) = decode(&encode(&shard, Codec::Sparse), &shard.layout()).unwrap();
        let read = &read.0["w"].values;
        let kept: Vec<usize> = (0..read.len()).filter(|i| read[*i] != 0.0).collect();
        prop_assert_eq!(kept, order);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes, &shard().layout());
    }
}
