//! Records: what is charged, what is replaced, and what becomes of seals.

use super::*;
use crate::embedded::data::{Bounded, CommitmentInfo, Data};
use crate::timelock::{Envelope, MAX_COMMITMENT_PLAINTEXT, PUBLIC_KEY_BYTES, seal};

fn commit(fields: impl IntoIterator<Item = Data>) -> call::Commitments {
    call::Commitments::SetCommitment {
        netuid: NETUID,
        info: CommitmentInfo {
            fields: fields.into_iter().collect(),
        },
    }
}

fn raw(text: &str) -> Data {
    Data::Raw(text.as_bytes().to_vec())
}

fn big(bytes: usize) -> Data {
    Data::BigRaw(Bounded(vec![0; bytes]))
}

/// The key that everything is sealed under, as a client finds it.
pub(super) fn beacon_key(chain: &Chain) -> [u8; PUBLIC_KEY_BYTES] {
    let configuration = chain.read("Drand", "BeaconConfig", &[]);
    let key = configuration.field("public_key").unwrap();
    key.as_array().unwrap()
}

fn sealed(encrypted: Vec<u8>, reveal_round: u64) -> Data {
    Data::TimelockEncrypted {
        encrypted: Bounded(encrypted),
        reveal_round,
    }
}

fn record(chain: &Chain, who: AccountId) -> Option<Value> {
    let keys = [number(NETUID), Value::Bytes(who.to_vec())];
    let record = chain.read("Commitments", "CommitmentOf", &keys);
    let info = record.field("info")?;
    info.field("fields").or(Some(info)).cloned()
}

/// The revealed plaintexts and the blocks they were revealed in.
fn revealed(chain: &Chain, who: AccountId) -> Vec<(Vec<u8>, u64)> {
    let keys = [number(NETUID), Value::Bytes(who.to_vec())];
    let list = chain.read("Commitments", "RevealedCommitments", &keys);
    let entry = |entry: &Value| {
        let [plaintext, block] = entry.items().unwrap() else {
            panic!("a plaintext and a block")
        };
        let plaintext = plaintext.as_bytes().unwrap().to_vec();
        (plaintext, block.number().unwrap())
    };
    list.items().unwrap().iter().map(entry).collect()
}

/// 31 small writes or 3,100 bytes, whichever comes first, until the epoch ends.
#[test]
fn an_epoch_has_room_for_31_small_commitments_or_3100_bytes() {
    let mut chain = Chain::with(|spec| spec.tempo = 50);
    for write in 0..31 {
        assert_eq!(chain.call(MINER, commit([raw("hello")])), "ok", "{write}");
    }
    assert_eq!(
        chain.call(MINER, commit([raw("hello")])),
        "SpaceLimitExceeded"
    );
    for bytes in [512, 512, 512, 512, 512, 200] {
        assert_eq!(chain.call(SECOND_MINER, commit([big(bytes)])), "ok");
    }
    assert_eq!(
        chain.call(SECOND_MINER, commit([big(512)])),
        "SpaceLimitExceeded",
        "2,760 + 512"
    );
    chain.advance_to(49);
    assert_eq!(
        chain.call(MINER, commit([raw("hello")])),
        "ok",
        "block 50 opens the next epoch"
    );
    let keys = [number(NETUID), Value::Bytes(MINER.to_vec())];
    let used = chain.read("Commitments", "UsedSpaceOf", &keys);
    assert_eq!(used.field("used_space"), Some(&number(100_u8)));
    assert_eq!(used.field("last_epoch"), Some(&number(1_u8)));
}

#[test]
fn a_commitment_replaces_the_whole_record() {
    let mut chain = Chain::new(spec());
    assert_eq!(
        chain.call(STRANGER, commit([raw("x")])),
        "AccountNotAllowedCommit"
    );
    let two = [raw("head"), Data::BlakeTwo256([5; 32])];
    assert_eq!(chain.call(MINER, commit(two)), "ok");
    assert_eq!(chain.happened(), ["Commitment"]);
    assert_eq!(record(&chain, MINER).unwrap().items().unwrap().len(), 2);
    assert_eq!(chain.call(MINER, commit([raw("only this")])), "ok");
    assert_eq!(record(&chain, MINER).unwrap().items().unwrap().len(), 1);
    let keys = [number(NETUID), Value::Bytes(MINER.to_vec())];
    let last = chain.read("Commitments", "LastCommitment", &keys);
    assert_eq!(last, number(3_u8));
}

/// Four fields, a 513-byte field or a 1,025-byte ciphertext are no call at all.
#[test]
fn a_commitment_beyond_the_bounds_cannot_be_decoded() {
    let bytes = |call: call::Commitments| Call::Commitments(call).encode();
    for fields in [
        vec![Data::None, Data::None, Data::None, Data::None],
        vec![big(513)],
        vec![sealed(vec![0; 1_025], 1)],
    ] {
        assert!(Call::decode(&bytes(commit(fields))).is_err());
    }
}

#[test]
fn only_the_chain_says_that_a_seal_could_not_be_opened() {
    let mut chain = Chain::new(spec());
    let forged = Data::TimelockRevealFailed {
        encrypted: Bounded(vec![1]),
        reveal_round: 1,
    };
    assert_eq!(
        chain.call(MINER, commit([forged])),
        "TimelockRevealFailedNotAllowed"
    );
}

/// Blocks are 12 s and rounds 3 s apart: block n knows the rounds up to 4n + 1.
#[test]
fn a_seal_opens_in_the_block_that_knows_its_round() {
    let mut chain = Chain::new(spec());
    let longest = vec![7; MAX_COMMITMENT_PLAINTEXT];
    assert_eq!(longest.len(), 780);
    let ciphertext = seal(&beacon_key(&chain), 14, &longest).unwrap();
    assert_eq!(ciphertext.len(), 1_024);
    let fields = [raw("header"), sealed(ciphertext, 14)];
    assert_eq!(chain.call(MINER, commit(fields)), "ok");
    assert_eq!(chain.happened(), ["TimelockCommitment"]);

    chain.advance_to(3);
    assert_eq!(revealed(&chain, MINER), []);
    chain.next();
    assert_eq!(chain.happened(), ["NewPulse", "CommitmentRevealed"]);
    assert_eq!(revealed(&chain, MINER), [(longest, 4)]);
    let left = record(&chain, MINER).unwrap();
    assert_eq!(left.items().unwrap().len(), 1, "the header stays");
    let index = chain.read("Commitments", "TimelockedIndex", &[]);
    assert_eq!(index.items().unwrap().len(), 0);
}

#[test]
fn a_record_that_was_only_a_seal_is_gone_when_it_opens_and_ten_reveals_are_kept() {
    let mut chain = Chain::with(|spec| spec.tempo = 50_000);
    let key = beacon_key(&chain);
    for text in 0..12_u8 {
        let round = 4 * (chain.number + 1) + 2;
        let ciphertext = seal(&key, round, &[text]).unwrap();
        // The client's envelope is taken as well.
        let ciphertext = match text % 2 {
            0 => ciphertext,
            _ => Envelope {
                inner: ciphertext,
                round,
            }
            .encode(),
        };
        let fields = [sealed(ciphertext, round)];
        let expected = if text < 9 { "ok" } else { "SpaceLimitExceeded" };
        if chain.call(MINER, commit(fields)) == "SpaceLimitExceeded" {
            assert_eq!(expected, "SpaceLimitExceeded");
            chain.state.change(|state| {
                commitments::MAX_SPACE.put(state, &(), &u32::MAX);
            });
            continue;
        }
        assert!(record(&chain, MINER).is_some());
        chain.next();
        assert_eq!(record(&chain, MINER), None);
    }
    let plaintexts: Vec<u8> = revealed(&chain, MINER)
        .into_iter()
        .map(|(plaintext, _)| plaintext[0])
        .collect();
    assert_eq!(plaintexts.len(), 10);
    assert_eq!(plaintexts.last(), Some(&11));
}

/// What the `timelock` crate writes itself lacks two lengths: the chain takes it and cannot read it.
#[test]
fn what_cannot_be_opened_stays_and_says_so() {
    let mut chain = Chain::new(spec());
    let ciphertext = seal(&beacon_key(&chain), 12, b"secret").unwrap();
    let unframed = [&ciphertext[..96], &ciphertext[104..136], &ciphertext[144..]].concat();
    assert_eq!(chain.call(MINER, commit([sealed(unframed, 12)])), "ok");
    let other_round = sealed(ciphertext, 13);
    assert_eq!(chain.call(SECOND_MINER, commit([other_round])), "ok");
    chain.next();
    assert_eq!(
        chain.happened(),
        [
            "NewPulse",
            "CommitmentRevealFailed",
            "CommitmentRevealFailed"
        ]
    );
    for who in [MINER, SECOND_MINER] {
        assert_eq!(revealed(&chain, who), []);
        let left = record(&chain, who).unwrap();
        let (kind, _) = left.items().unwrap()[0].variant().unwrap();
        assert_eq!(kind, "TimelockRevealFailed");
    }
}

#[test]
fn a_later_commitment_loses_a_seal_that_has_not_opened() {
    let mut chain = Chain::new(spec());
    let ciphertext = seal(&beacon_key(&chain), 20, b"lost").unwrap();
    assert_eq!(chain.call(MINER, commit([sealed(ciphertext, 20)])), "ok");
    assert_eq!(chain.call(MINER, commit([raw("plain")])), "ok");
    chain.advance(10);
    assert_eq!(revealed(&chain, MINER), []);
    assert_eq!(record(&chain, MINER).unwrap().items().unwrap().len(), 1);
}

/// A round whose pulse has been removed will not come back.
#[test]
fn a_seal_to_a_round_long_past_has_expired() {
    let mut chain = Chain::with(|spec| spec.block_time_ms = 3_000 * 30_000);
    chain.next();
    let oldest = chain.read("Drand", "OldestStoredRound", &[]);
    assert_eq!(oldest, number(30_001_u64 - 12_600));
    let ciphertext = seal(&beacon_key(&chain), 5, b"too late").unwrap();
    assert_eq!(chain.include(MINER, commit([sealed(ciphertext, 5)])), "ok");
    chain.next();
    assert!(chain.happened().contains(&"CommitmentRevealFailed".into()));
}
