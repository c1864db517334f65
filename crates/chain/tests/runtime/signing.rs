//! What is signed and what is sent.

use connito_chain::keys::{Keypair, SIGNATURE_BYTES, Signer, verify};
use connito_chain::runtime::{Era, SigningTerms};
use connito_protocol::ids::Hotkey;
use proptest::prelude::*;

use crate::{ALICE, BOB, SPECS, account, bytes, runtime};

const GENESIS: &str = "1dc00e76a13fc48b9c932e076622c5920295afaad4fd805c284a5cf3222ce452";
const BIRTH: &str = "d9f2d5c7e6b387e32b3f41d7808094cc966fbbbbd4709d96471c52d9b1a2b2aa";

/// Alice's account with a signature that anybody can type.
struct Counting;

impl Signer for Counting {
    fn hotkey(&self) -> Hotkey {
        account(ALICE)
    }

    fn sign(&self, _: &[u8]) -> [u8; SIGNATURE_BYTES] {
        std::array::from_fn(|place| place as u8 + 1)
    }
}

fn transfer() -> Vec<u8> {
    bytes(&format!("050300{BOB}e5c0"))
}

fn terms(nonce: u64, era: Era) -> SigningTerms {
    SigningTerms {
        genesis: bytes(GENESIS).try_into().unwrap(),
        nonce,
        tip: 0,
        era,
    }
}

/// An era of 64 blocks around block 66.
fn mortal() -> Era {
    Era::Mortal {
        period: 64,
        current: 66,
        hash: bytes(BIRTH).try_into().unwrap(),
    }
}

#[test]
fn payloads_are_the_official_clients() {
    let runtime = runtime(461);
    let call = hex::encode(transfer());
    let payload = |terms| hex::encode(runtime.signing_payload(&transfer(), &terms).unwrap());
    assert_eq!(
        payload(terms(7, Era::Immortal)),
        format!("{call}001c0000cd01000001000000{GENESIS}{GENESIS}00")
    );
    assert_eq!(
        payload(terms(3, mortal())),
        format!("{call}25000c0000cd01000001000000{GENESIS}{BIRTH}00")
    );
}

#[test]
fn extrinsics_are_the_official_clients() {
    let runtime = runtime(461);
    let signature: String = (1..=64).map(|byte| format!("{byte:02x}")).collect();
    let call = hex::encode(transfer());
    let sign = |terms| runtime.sign(&Counting, &transfer(), &terms).unwrap();

    let immortal = sign(terms(0, Era::Immortal));
    let expected = format!("31028400{ALICE}01{signature}00000000{call}");
    assert_eq!(hex::encode(&immortal.bytes), expected);
    assert_eq!(
        hex::encode(immortal.hash),
        "2da12d35e770dbfe53a2c66c76d5c6d21f64f99fcbda35a757c021cc41ace46b"
    );

    let mortal = sign(terms(11, mortal()));
    let expected = format!("35028400{ALICE}01{signature}25002c0000{call}");
    assert_eq!(hex::encode(&mortal.bytes), expected);
    assert_eq!(
        hex::encode(mortal.hash),
        "b5e1c30f6da7e2a335003ba340581245c07ca75ee128421679a09eb46bc7bb54"
    );
}

/// The list of extensions is read from each version's metadata; they come to the same bytes.
#[test]
fn every_version_is_signed_for() {
    let sent = |spec| runtime(spec).sign(&Counting, &transfer(), &terms(7, Era::Immortal));
    for spec in SPECS {
        assert_eq!(sent(spec), sent(461), "{spec}");
        let payload = runtime(spec).signing_payload(&transfer(), &terms(7, Era::Immortal));
        let version = hex::encode(spec.to_le_bytes());
        let call = hex::encode(transfer());
        assert_eq!(
            hex::encode(payload.unwrap()),
            format!("{call}001c0000{version}01000000{GENESIS}{GENESIS}00"),
            "{spec}"
        );
    }
}

/// Exactly at 256 bytes the payload itself is signed, one byte further its hash.
#[test]
fn long_payloads_are_signed_by_their_hash() {
    use blake2::Digest as _;
    let runtime = runtime(461);
    let pair = Keypair::from_seed(&[7; 32]);
    let terms = terms(0, Era::Immortal);
    let rest = runtime.signing_payload(&[], &terms).unwrap().len();
    for (length, hashed) in [(256 - rest, false), (257 - rest, true)] {
        let call = vec![9; length];
        let extrinsic = runtime.sign(&pair, &call, &terms).unwrap();
        let signature = extrinsic.bytes[extrinsic.bytes.len() - length - 4 - 64..][..64].try_into();
        let payload = runtime.signing_payload(&call, &terms).unwrap();
        let signed = if hashed {
            blake2::Blake2b::<blake2::digest::consts::U32>::digest(&payload).to_vec()
        } else {
            payload
        };
        assert!(
            verify(pair.hotkey(), &signed, &signature.unwrap()),
            "{length}"
        );
    }
}

#[test]
fn an_era_ends_with_its_period() {
    let era = |period, current| Era::Mortal {
        period,
        current,
        hash: [0; 32],
    };
    assert_eq!(
        (era(64, 66).birth(), era(64, 66).last_block()),
        (66, Some(129))
    );
    assert_eq!(era(128, 1_000).last_block(), Some(1_127));
    assert_eq!(Era::Immortal.last_block(), None);
    // Long periods have coarse phases: the era began before the block it was made at.
    assert_eq!(era(65_536, 1_000_005).birth(), 1_000_000);
    assert_eq!(era(100, 7), era(100, 7));
    assert_eq!(era(100, 7).last_block(), Some(7 + 127), "rounded up to 128");
    assert_eq!(era(0, 7).last_block(), Some(7 + 3), "at least four");
}

/// Substrate's own account of an era: exponent in the low four bits, phase in the others.
fn birth_and_death(encoded: [u8; 2], block: u64) -> (u64, u64) {
    let encoded = u64::from(u16::from_le_bytes(encoded));
    let period = 2_u64 << (encoded % (1 << 4));
    let phase = (encoded >> 4) * (period >> 12).max(1);
    assert!(
        period >= 4 && phase < period,
        "a runtime refuses such an era"
    );
    let birth = (block.max(phase) - phase) / period * period + phase;
    (birth, birth + period)
}

proptest! {
    /// What should not happen: the chain and the client disagree on the block whose hash is signed.
    #[test]
    fn the_chain_reads_an_era_as_it_was_meant(period in 0_u64..200_000, current: u32, later in 0_u64..4) {
        let current = u64::from(current);
        let era = Era::Mortal { period, current, hash: [0; 32] };
        let payload = runtime(439).signing_payload(&[], &terms(0, era)).unwrap();
        let (birth, death) = birth_and_death([payload[0], payload[1]], current);
        prop_assert_eq!(birth, era.birth());
        prop_assert_eq!(Some(death - 1), era.last_block());
        prop_assert!(birth <= current && current < death);
        let block = current + later;
        if block < death {
            prop_assert_eq!(birth_and_death([payload[0], payload[1]], block).0, birth);
        }
    }
}
