//! Sealing and opening, against the public beacon, another implementation and hostile bytes.

use proptest::prelude::*;

use super::*;

/// The signature that quicknet published for its round 1000.
const PULSE_1000: &str = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125\
                          e342b73a8dd2bacbe47e4b6b63ed5e39";

/// Sealed to that round by `bittensor_core` 0.1.5, the official implementation, with its envelope.
const OFFICIAL: &str = "4504\
     a7c5b6e76488a1a2298d8c4c27c60dfed1394daccdd9c0d707c119b13fcadd0e9fe1aa34c3c16f8d8ab791e0b467\
     68fa050b7b03d54d57cb3495708ea1175e67c871a219cdbbdfc8de2ba3c28dd8903eb762d751049a27f3a5b4d47e\
     c6885147200000000000000070b27590192c466c1418f1b88daf2ad3829f4e29f95698fb855704fd23a3b93c2000\
     0000000000009e49cc8eadea58ffefc26d34cf30a1d2d7ded43f49adc9c8f3623b55693b5edb4900000000000000\
     2d0000000000000045c1bf7959850dee5c5c7694788ae173f88ee3c816624f21c4d36727c092620294f4df67242c\
     617e2820ebb74a0c000000000000009e4b9de0794fa07025c0325708000000000000004145535f47434d5f\
     e803000000000000";

fn pulse() -> Vec<u8> {
    hex::decode(PULSE_1000).unwrap()
}

fn sealed(plaintext: &[u8]) -> Vec<u8> {
    seal(&Beacon::quicknet().public_key, 1000, plaintext).unwrap()
}

#[test]
fn a_published_signature_verifies_for_its_round_and_beacon_only() {
    let key = Beacon::quicknet().public_key;
    assert!(verify_pulse(&key, 1000, &pulse()));
    assert!(!verify_pulse(&key, 1001, &pulse()));
    let other = LocalBeacon::from_seed(&[1; 32]);
    assert!(!verify_pulse(&other.public_key(), 1000, &pulse()));
    assert!(!verify_pulse(&key, 1000, &other.sign(1000)));
    assert!(!verify_pulse(&key, 1000, &pulse()[..47]));
}

#[test]
fn what_is_sealed_to_a_round_opens_with_its_published_signature() {
    assert_eq!(open(&pulse(), &sealed(b"promise")).unwrap(), b"promise");
    assert_eq!(open(&pulse(), &sealed(b"")).unwrap(), b"");
}

#[test]
fn what_the_official_implementation_sealed_opens() {
    let envelope = Envelope::from_bytes(&hex::decode(OFFICIAL).unwrap()).unwrap();
    assert_eq!(envelope.round, 1000);
    let opened = open(&pulse(), &envelope.inner).unwrap();
    assert_eq!(opened, b"hello from the official wheel");
}

/// What should not happen: the signature of another round, or of another beacon, opening it.
#[test]
fn nothing_else_opens_it() {
    let beacon = LocalBeacon::from_seed(&[7; 32]);
    let inner = seal(&beacon.public_key(), 5, b"secret").unwrap();
    assert_eq!(open(&beacon.sign(5), &inner).unwrap(), b"secret");
    assert_eq!(open(&beacon.sign(4), &inner), None);
    assert_eq!(
        open(&LocalBeacon::from_seed(&[8; 32]).sign(5), &inner),
        None
    );
    assert_eq!(open(&[], &inner), None);
}

/// 780 bytes are the most that a commitment field takes, sealed.
#[test]
fn sealing_adds_244_bytes() {
    for length in [0, 1, 100, MAX_COMMITMENT_PLAINTEXT] {
        assert_eq!(sealed(&vec![7; length]).len(), length + OVERHEAD);
    }
    assert_eq!(MAX_COMMITMENT_PLAINTEXT, 780);
    assert_eq!(
        sealed(&[7; MAX_COMMITMENT_PLAINTEXT]).len(),
        MAX_COMMITMENT_CIPHERTEXT
    );
}

#[test]
fn an_envelope_reads_back_and_nothing_may_follow_it() {
    let envelope = Envelope {
        inner: sealed(b"x"),
        round: 1000,
    };
    let mut bytes = envelope.encode();
    assert_eq!(Envelope::from_bytes(&bytes), Some(envelope));
    assert_eq!(Envelope::from_bytes(&bytes[1..]), None);
    bytes.push(0);
    assert_eq!(Envelope::from_bytes(&bytes), None);
}

/// The neutral point is nobody's key: everything sealed to it would be open to everybody.
#[test]
fn no_key_is_taken_that_is_none() {
    let mut neutral = [0; PUBLIC_KEY_BYTES];
    neutral[0] = 0xc0;
    let mut signature = [0; PULSE_BYTES];
    signature[0] = 0xc0;
    for key in [
        neutral,
        [0; PUBLIC_KEY_BYTES],
        [0xff; PUBLIC_KEY_BYTES],
        [0x80; PUBLIC_KEY_BYTES],
    ] {
        assert!(matches!(seal(&key, 1, b""), Err(SealError::PublicKey)));
        assert!(!verify_pulse(&key, 1, &signature));
    }
}

#[test]
fn a_local_beacon_follows_from_its_seed() {
    let [one, again, other] = [[1; 32], [1; 32], [2; 32]].map(|seed| LocalBeacon::from_seed(&seed));
    assert_eq!(one.public_key(), again.public_key());
    assert_eq!(one.sign(9), again.sign(9));
    assert_ne!(one.public_key(), other.public_key());
    assert!(verify_pulse(&one.public_key(), 9, &one.sign(9)));
    assert_eq!(format!("{one:?}"), "LocalBeacon { .. }");
}

#[test]
fn round_one_is_published_at_the_genesis_and_each_other_a_period_later() {
    let beacon = Beacon::quicknet();
    let genesis = beacon.genesis_ms;
    assert_eq!(beacon.round_at(0), 0);
    assert_eq!(beacon.round_at(genesis - 1), 0);
    assert_eq!(beacon.round_at(genesis), 1);
    assert_eq!(beacon.round_at(genesis + 2_999), 1);
    assert_eq!(beacon.round_at(genesis + 3_000), 2);
    assert_eq!(beacon.time_of(1), genesis);
    assert_eq!(beacon.time_of(1000), genesis + 999 * 3_000);
    let stopped = Beacon {
        period_ms: 0,
        ..beacon
    };
    assert_eq!(stopped.round_at(u64::MAX), u64::MAX - genesis + 1);
    assert_eq!(stopped.time_of(u64::MAX), u64::MAX);
}

proptest! {
    #[test]
    fn a_round_is_published_from_its_time_on(round in 1..u64::MAX / 4_000) {
        let beacon = Beacon::quicknet();
        let time = beacon.time_of(round);
        prop_assert_eq!(beacon.round_at(time), round);
        prop_assert_eq!(beacon.round_at(time - 1), round - 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_that_are_no_ciphertext_open_to_nothing(
        inner in proptest::collection::vec(any::<u8>(), 0..400),
        signature in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        prop_assert_eq!(open(&pulse(), &inner), None);
        prop_assert_eq!(open(&signature, &inner), None);
        let _ = Envelope::from_bytes(&inner);
    }

    /// Points of the curve with a changed byte, huge lengths, cut ends: nothing or the message.
    #[test]
    fn a_damaged_ciphertext_never_gives_another_message(
        position in 0..300_usize, byte in any::<u8>(), length in 0..300_usize,
    ) {
        let mut inner = Envelope::from_bytes(&hex::decode(OFFICIAL).unwrap()).unwrap().inner;
        if let Some(place) = inner.get_mut(position) {
            *place = byte;
        }
        inner.truncate(length);
        if let Some(opened) = open(&pulse(), &inner) {
            prop_assert_eq!(opened, b"hello from the official wheel");
        }
    }
}
