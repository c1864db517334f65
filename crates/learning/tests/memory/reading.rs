//! Reading a stranger's file: never more than the expected shard and a small multiple of its header,
//! whatever the file says (A-46, A-47, A-52).

use connito_learning::shard::{Layout, Shard};
use connito_learning::wire::{Encoded, decode, decode_shard, encode};
use connito_protocol::rules::Codec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{alone, most_held};

/// Tensors of the expected shard: enough that a stranger's header has room to be wasteful.
const TENSORS: usize = 20;

/// Values of all of them.
const VALUES: usize = TENSORS * (TENSORS + 1) / 2;

/// Two bytes of text may be a dimension, which takes eight of memory; a list that grows has up to twice
/// the room that it needs, and while it moves, the old room besides.
const HEADER_MULTIPLE: usize = 12;

/// Room for a message.
const CONSTANT: usize = 4 << 10;

fn layout() -> Layout {
    (1..=TENSORS)
        .map(|tensor| (format!("experts.{tensor}.up.weight"), vec![1, tensor]))
        .collect()
}

fn bound() -> usize {
    let longest = Codec::ALL.map(|codec| header_of(&encode(&Shard::zeros(&layout()), codec)));
    let longest = longest.into_iter().max().unwrap_or(0);
    VALUES * size_of::<f32>() + longest * HEADER_MULTIPLE + CONSTANT
}

/// Bytes of a sound file's header, without the length before it.
fn header_of(file: &[u8]) -> usize {
    let length = file.first_chunk().copied().map(u64::from_le_bytes);
    usize::try_from(length.unwrap()).unwrap()
}

/// The most that any of the three ways to read a file holds.
fn held_while_reading(file: &[u8]) -> usize {
    let layout = layout();
    let held = [
        most_held(|| Encoded::open(file, &layout).map(|_| ())),
        most_held(|| decode(file, &layout)),
        most_held(|| decode_shard(file, &layout)),
    ];
    held.into_iter().max().unwrap_or(0)
}

/// A header's JSON with a length before it: its own, unless it claims another.
fn framed(json: &str, claimed: Option<u64>, body: &[u8]) -> Vec<u8> {
    let length = claimed.unwrap_or(json.len() as u64);
    [&length.to_le_bytes(), json.as_bytes(), body].concat()
}

/// Numbers as a header may spell them: any, and those at which sums and products overflow.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..200_u64,
        select(vec![u64::MAX, 1 << 63, 1 << 61, 1 << 32]),
    ]
}

/// Tensors of known and unknown names, of any type, shape and place, more or fewer than fit.
fn hostile_header() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        select(layout().into_keys().collect::<Vec<_>>()),
        "[a-z.]{0,300}",
    ];
    let dtype = select(vec!["F32", "BF16", "I8", "I8C", "x"]);
    let shape = proptest::collection::vec(number(), 0..100);
    let tensor =
        (name, dtype, shape, number(), number()).prop_map(|(name, dtype, shape, start, end)| {
            format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
            )
        });
    proptest::collection::vec(tensor, 0..8).prop_map(|tensors| format!("{{{}}}", tensors.join(",")))
}

/// Files that are sound but for a few bytes, or for where they end.
fn damaged_file() -> impl Strategy<Value = Vec<u8>> {
    let damage = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let ends = prop_oneof![Just(None), any::<Index>().prop_map(Some)];
    (select(Codec::ALL.to_vec()), damage, ends).prop_map(|(codec, damage, ends)| {
        let mut file = encode(&Shard::zeros(&layout()), codec);
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(end) = ends {
            file.truncate(end.index(file.len()));
        }
        file
    })
}

fn hostile_file() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..1_000);
    let claimed = prop_oneof![3 => Just(None), 1 => number().prop_map(Some)];
    prop_oneof![
        bytes(),
        (hostile_header(), claimed, bytes())
            .prop_map(|(header, claimed, body)| framed(&header, claimed, &body)),
        damaged_file(),
    ]
}

/// What should happen: a complete file takes the shard's values, which shows that all of it is counted.
/// What should not: headers that are just short enough to be parsed, and as wasteful as can be, taking
/// more than the bound. Longer ones are not parsed at all.
#[test]
fn the_most_wasteful_header_stays_within_the_bound() {
    let _alone = alone();
    let sound = encode(&Shard::zeros(&layout()), Codec::F32);
    assert!(held_while_reading(&sound) > VALUES * size_of::<f32>());
    let room = header_of(&sound);
    let wasteful = [
        (r#"{"x":{"dtype":"F32","shape":["#, "0,"),
        (r#"{"x":"#, "["),
        (r#"{"x":{"dtype":""#, "\\n"),
        (r#"{""#, "x"),
    ];
    for (opening, filling) in wasteful {
        for length in [room - 1, room, room + 1, room * 100] {
            let json = opening.to_owned() + &filling.repeat(length);
            let held = held_while_reading(&framed(&json[..length], None, &[]));
            assert!(held <= bound(), "{held} bytes for {length} of {filling:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_file_makes_a_decoder_hold_more_than_the_expected_shard_and_a_little(
        file in hostile_file(),
    ) {
        let _alone = alone();
        let held = held_while_reading(&file);
        prop_assert!(held <= bound(), "{} bytes of at most {}", held, bound());
    }
}
