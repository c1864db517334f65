//! Weights as the subnet wants them: sealed to the beacon, padded, under its version key; and records
//! that are sealed.

use connito_chain::embedded::GenesisSpec;
use connito_chain::keys::Signer as _;
use connito_chain::{At, Chain, Confirmation, Field, Op, timelock};
use connito_protocol::ids::{Block, Uid};
use std::time::Duration;

use crate::network::*;

fn sealing() -> GenesisSpec {
    GenesisSpec {
        commit_reveal: true,
        tempo: 20,
        ..spec()
    }
}

/// Nobody can read them until the epoch after has begun; then they are there without anybody's doing.
#[tokio::test(start_paused = true)]
async fn sealed_weights_show_by_the_block_that_was_planned_and_not_before_their_epoch() {
    let (_, client) = running(sealing()).await;
    let receipt = client
        .submit(&pair(VALIDATOR), weigh(&[(2, 1), (3, 3)]))
        .await
        .unwrap();
    assert_eq!(receipt.confirmed_by, Confirmation::Effect);
    let plan = receipt.reveal.unwrap();
    assert!(client.weights(At::Head).await.unwrap().value.is_empty());

    let mut after = receipt.included.number;
    let mut shown = None;
    while after < plan.visible_by {
        let next = client.wait_block(after, Duration::from_secs(60)).await;
        after = next.unwrap().block.number;
        let rows = client.weights(At::Number(after)).await.unwrap().value;
        if let (None, Some(row)) = (shown, rows.first()) {
            assert_eq!(row.weights, [(Uid(2), 21_845), (Uid(3), 65_535)]);
            shown = Some(after);
        }
    }
    let shown = shown.expect("they show by the block that was planned");
    let epoch = client
        .metagraph(At::Number(shown))
        .await
        .unwrap()
        .value
        .epoch;
    assert!(epoch.index >= 1, "not in the epoch in which they were set");
}

/// A subnet that demands more entries than there are rewards gets zeros, and its own version key.
#[tokio::test(start_paused = true)]
async fn weights_take_the_form_that_the_subnet_demands() {
    let demanding = GenesisSpec {
        min_allowed_weights: 4,
        weights_version_key: 7,
        ..spec()
    };
    let (_, client) = running(demanding).await;
    let receipt = client.submit(&pair(VALIDATOR), weigh(&[(2, 5)])).await;
    assert_eq!(receipt.unwrap().confirmed_by, Confirmation::Effect);
    let rows = client.weights(At::Head).await.unwrap().value;
    assert!(rows[0].weights.contains(&(Uid(2), 65_535)));
    let others = rows[0].weights.iter().filter(|(uid, _)| *uid != Uid(2));
    assert!(others.clone().all(|(_, weight)| *weight == 0));
}

/// What should not happen: that a hotkey inherits what was said about the one before it in its slot.
#[tokio::test(start_paused = true)]
async fn weights_sealed_for_a_uid_do_not_reach_the_hotkey_that_took_it_over() {
    let crowded = GenesisSpec {
        max_uids: 4,
        immunity_period: 0,
        ..sealing()
    };
    let (_, client) = running(crowded).await;
    let sealed = client
        .submit(&pair(VALIDATOR), weigh(&[(2, 1), (3, 1)]))
        .await
        .unwrap();
    client
        .submit(&pair(STRANGER), register(STRANGER))
        .await
        .unwrap();
    let graph = client.metagraph(At::Head).await.unwrap().value;
    let taken = graph.neuron(pair(STRANGER).hotkey()).unwrap().uid;
    assert!([Uid(2), Uid(3)].contains(&taken));

    let plan = sealed.reveal.unwrap();
    let mut after = sealed.included.number;
    while after < plan.visible_by {
        let next = client.wait_block(after, Duration::from_secs(60)).await;
        after = next.unwrap().block.number;
    }
    let rows = client.weights(At::Head).await.unwrap().value;
    let row = &rows.first().expect("revealed").weights;
    let given = row.iter().find(|(uid, _)| *uid == taken);
    assert!(given.is_none_or(|(_, weight)| *weight == 0), "{row:?}");
    assert!(after > Block(0));
}

/// Nobody reads the record before its round is out; then the chain itself shows what it said.
#[tokio::test(start_paused = true)]
async fn a_sealed_record_is_opened_by_the_chain_when_its_round_is_out() {
    let (_, client) = running(spec()).await;
    let (beacon, now_ms) = client.beacon(At::Head).await.unwrap();
    let round = beacon.round_at(now_ms + 20_000);
    let ciphertext = timelock::seal(&beacon.public_key, round, b"what I promise").unwrap();
    assert!(!ciphertext.windows(7).any(|part| part == b"promise"));
    let sealed = Op::Commit(vec![Field::Timelocked { ciphertext, round }]);
    let receipt = client.submit(&pair(MINER), sealed).await.unwrap();
    assert_eq!(receipt.confirmed_by, Confirmation::Effect);

    let miner = pair(MINER).hotkey();
    let mut after = receipt.included.number;
    let opened = loop {
        let next = client.wait_block(after, Duration::from_secs(60)).await;
        after = next.unwrap().block.number;
        let revealed = client.revealed(miner, At::Number(after)).await.unwrap();
        if let Some(opened) = revealed.into_iter().next() {
            break opened;
        }
        assert!(after < Block(60), "the round is long out");
    };
    assert_eq!(opened, (after, b"what I promise".to_vec()));
    let (_, shown_ms) = client.beacon(At::Number(after)).await.unwrap();
    assert!(beacon.round_at(shown_ms) >= round, "not before its time");
}
