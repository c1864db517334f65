//! Weights under the beacon's seal.

use super::records::beacon_key;
use super::*;
use crate::embedded::data::Bounded;
use crate::timelock::seal;

/// Blocks of 12 s and rounds of 3 s: block n knows the rounds up to 4n + 1.
fn chain() -> Chain {
    Chain::with(|spec| {
        (spec.commit_reveal, spec.tempo, spec.weights_rate_limit) = (true, 20, 0);
    })
}

/// The round that block `number` is the first to know.
fn round_of(number: u64) -> u64 {
    4 * number + 1
}

fn payload(who: AccountId, weights: &[(u16, u16)]) -> Vec<u8> {
    let weights = list(weights);
    (who.to_vec(), weights.uids, weights.values, 0_u64).encode()
}

fn commit(commit: Vec<u8>, reveal_round: u64, commit_reveal_version: u16) -> call::Subtensor {
    call::Subtensor::CommitTimelockedWeights {
        netuid: NETUID,
        seal: call::Seal {
            commit: Bounded(commit),
            reveal_round,
            commit_reveal_version,
        },
    }
}

fn sealed(chain: &Chain, who: AccountId, weights: &[(u16, u16)], round: u64) -> call::Subtensor {
    let ciphertext = seal(&beacon_key(chain), round, &payload(who, weights)).unwrap();
    commit(ciphertext, round, 4)
}

/// Weights 2 : 1 of one validator pay exactly 2/3 : 1/3, from the first block of the next epoch on.
#[test]
fn sealed_weights_take_effect_when_the_next_epoch_begins() {
    let mut chain = chain();
    let call = sealed(&chain, VALIDATOR, &[(2, 2), (3, 1)], round_of(20));
    assert_eq!(chain.call(VALIDATOR, call), "ok");
    assert_eq!(chain.happened(), ["TimelockedWeightsCommitted"]);
    chain.advance_to(19);
    assert_eq!(chain.weights(0), []);
    chain.next();
    assert_eq!(
        chain.happened(),
        ["NewPulse", "WeightsSet", "TimelockedWeightsRevealed"]
    );
    assert_eq!(chain.weights(0), [(2, 65_535), (3, 32_768)]);
    // 65,535 : 32,768 is as near as 16 bits come.
    assert_eq!(chain.incentive(), [0, 0, 43_689, 21_845]);
    let updated = neurons::entry(&neurons::LAST_UPDATE, &chain.state, NETUID, 0);
    assert_eq!(updated, 1, "moved when it was committed");
}

#[test]
fn what_is_no_sealed_commitment_is_refused_by_name() {
    let mut chain = chain();
    let old = commit(vec![1], round_of(20), 3);
    assert_eq!(chain.call(VALIDATOR, old), "IncorrectCommitRevealVersion");
    let call = sealed(&chain, VALIDATOR, &[(2, 1)], 3);
    chain.advance(3);
    assert_eq!(chain.asks(VALIDATOR, call.clone()), Err(15));
    assert_eq!(chain.include(VALIDATOR, call), "InvalidRevealRound");
    let stranger = sealed(&chain, STRANGER, &[(2, 1)], round_of(20));
    assert_eq!(
        chain.call(STRANGER, stranger),
        "HotKeyNotRegisteredInSubNet"
    );
    let elsewhere = call::Subtensor::CommitTimelockedMechanismWeights {
        netuid: NETUID,
        mecid: 1,
        seal: call::Seal {
            commit: Bounded(vec![1]),
            reveal_round: round_of(20),
            commit_reveal_version: 4,
        },
    };
    assert_eq!(chain.call(VALIDATOR, elsewhere), "MechanismDoesNotExist");
    let too_large = commit(vec![0; 5_001], 99, 4);
    assert!(Call::decode(&Call::Subtensor(too_large).encode()).is_err());
}

/// They are taken when they are committed, and never appear: only looking at the weights tells.
#[test]
fn what_cannot_be_opened_or_may_not_be_set_never_appears() {
    let mut chain = chain();
    let blob = commit(vec![9; 300], round_of(20), 4);
    assert_eq!(chain.call(VALIDATOR, blob), "ok");
    let without_permit = sealed(&chain, MINER, &[(3, 1)], round_of(20));
    assert_eq!(chain.call(MINER, without_permit), "ok");
    let copied = sealed(&chain, VALIDATOR, &[(2, 1)], round_of(20));
    assert_eq!(chain.call(SECOND_VALIDATOR, copied), "ok");
    chain.advance_to(45);
    for uid in 0..4 {
        assert_eq!(chain.weights(uid), [], "{uid}");
    }
}

#[test]
fn ten_commitments_may_wait_in_an_epoch() {
    let mut chain = chain();
    for _ in 0..10 {
        assert_eq!(chain.call(VALIDATOR, commit(vec![1], 999, 4)), "ok");
    }
    assert_eq!(
        chain.call(VALIDATOR, commit(vec![1], 999, 4)),
        "TooManyUnrevealedCommits"
    );
    assert_eq!(chain.call(SECOND_VALIDATOR, commit(vec![1], 999, 4)), "ok");
}

/// A round that the epoch's first block does not know yet is tried again in each of its blocks, and one
/// that comes after its last is missed for good.
#[test]
fn a_late_round_is_waited_for_until_the_epoch_ends() {
    let mut chain = chain();
    let late = sealed(&chain, VALIDATOR, &[(2, 1)], round_of(30));
    assert_eq!(chain.call(VALIDATOR, late), "ok");
    let too_late = sealed(&chain, SECOND_VALIDATOR, &[(2, 1)], round_of(41));
    assert_eq!(chain.call(SECOND_VALIDATOR, too_late), "ok");
    chain.advance_to(29);
    assert_eq!(chain.weights(0), []);
    chain.next();
    assert_eq!(chain.weights(0), [(2, 65_535)]);
    chain.advance_to(60);
    assert_eq!(chain.weights(1), []);
}

#[test]
fn the_reveal_period_counts_epochs() {
    let mut chain = chain();
    let interval = call::AdminUtils::CommitRevealWeightsInterval {
        netuid: NETUID,
        value: 2,
    };
    assert_eq!(chain.call(ROOT, interval), "ok");
    let call = sealed(&chain, VALIDATOR, &[(2, 1)], round_of(20));
    assert_eq!(chain.call(VALIDATOR, call), "ok");
    chain.advance_to(39);
    assert_eq!(chain.weights(0), []);
    chain.next();
    assert_eq!(chain.weights(0), [(2, 65_535)]);
}

#[test]
fn a_slot_taken_over_before_the_reveal_inherits_nothing() {
    let mut chain = chain();
    chain.state.change(|state| {
        parameters::MAX_ALLOWED_UIDS.put(state, NETUID, 4);
        parameters::IMMUNITY_PERIOD.put(state, NETUID, 0);
    });
    let call = sealed(&chain, VALIDATOR, &[(2, 3), (3, 1)], round_of(20));
    assert_eq!(chain.call(VALIDATOR, call), "ok");
    assert_eq!(chain.call(RICH, register(STRANGER)), "ok");
    assert_eq!(chain.uid(STRANGER), Some(2));
    chain.advance_to(20);
    assert_eq!(chain.weights(0), [(3, 21_845)]);
    assert_eq!(chain.incentive(), [0, 0, 0, 65_535]);
}
