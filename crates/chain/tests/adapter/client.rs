//! The client over an embedded chain in the same process: waiting, reading, writing. Time is paused
//! and jumps to the next timer, so a second of block time costs nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use connito_chain::embedded::EmbeddedChain;
use connito_chain::keys::Signer;
use connito_chain::{At, Chain, ChainError, Confirmation, Endpoint, Field, Op, Reject};
use connito_protocol::ids::{Block, Uid};
use tokio::time::Instant;

use crate::network::*;

const LONG: Duration = Duration::from_secs(60);

/// Any chain can stand behind the trait; the futures can be spawned.
#[allow(dead_code, reason = "compiling is the test")]
fn every_future_of_the_port_can_be_sent<C: Chain>(chain: &C, signer: &dyn Signer) {
    fn sent(_: impl Future + Send) {}
    sent(chain.block(At::Head));
    sent(chain.wait_block(Block(0), LONG));
    sent(chain.submit(signer, commit("x")));
}

#[tokio::test(start_paused = true)]
async fn a_block_comes_every_block_time_until_shutdown() {
    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let started = Instant::now();
    Arc::clone(&chain)
        .run(tokio::time::sleep(Duration::from_millis(4_500)))
        .await
        .unwrap();
    assert_eq!(chain.head().number, Block(4));
    assert_eq!(started.elapsed(), Duration::from_millis(4_500));
}

/// What should not happen: an empty batch of questions, which every server refuses.
#[tokio::test(start_paused = true)]
async fn a_subnet_without_neurons_is_read_and_gets_its_first() {
    let mut empty = spec();
    empty.neurons.clear();
    let (_, client) = running(empty).await;
    let metagraph = client.metagraph(At::Head).await.unwrap();
    assert!(metagraph.value.neurons.is_empty());
    let receipt = client.submit(&pair(OWNER), register(MINER)).await.unwrap();
    assert_eq!(receipt.confirmed_by, Confirmation::Effect);
}

/// After a gap the missing blocks come one by one, at once.
#[tokio::test(start_paused = true)]
async fn waiting_never_skips_a_block() {
    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let client = connect(Arc::clone(&chain)).await;
    chain.advance(3).unwrap();
    let started = Instant::now();
    for after in 0..3 {
        let arrival = client.wait_block(Block(after), LONG).await.unwrap();
        assert_eq!(arrival.block.number, Block(after + 1));
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_block_or_with_the_deadline() {
    let (_, client) = running(spec()).await;
    let started = Instant::now();
    assert_eq!(
        client
            .wait_block(Block(0), LONG)
            .await
            .unwrap()
            .block
            .number,
        Block(1)
    );
    assert!(started.elapsed() <= Duration::from_millis(1_010));
    let far = client.wait_block(Block(99), Duration::from_secs(5)).await;
    assert!(matches!(far, Err(ChainError::Timeout(Block(100)))));
}

/// The deadline is long; the watchdog is what ends it.
#[tokio::test(start_paused = true)]
async fn a_chain_that_stands_still_for_ten_block_times_is_a_transport_error() {
    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let client = connect(Arc::clone(&chain)).await;
    let error = client.wait_block(Block(0), LONG).await.unwrap_err();
    let ChainError::Transport(error) = error else {
        panic!("{error}")
    };
    assert!(error.retry);
    let expected = "chain endpoint in this process: no block after 0 for 10 block times";
    assert_eq!(error.to_string(), expected);

    // Repeated short waits do not hide the standstill, and a block ends it.
    let short = client.wait_block(Block(0), Duration::from_secs(1)).await;
    assert!(matches!(short, Err(ChainError::Transport(_))));
    chain.advance(1).unwrap();
    assert!(client.wait_block(Block(0), LONG).await.is_ok());
    let waiting = client.wait_block(Block(1), Duration::from_secs(5)).await;
    assert!(
        matches!(waiting, Err(ChainError::Timeout(_))),
        "the watchdog starts anew"
    );
}

#[tokio::test]
async fn a_chain_on_which_nothing_has_happened_yet_reads_as_one_that_is_empty() {
    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let client = connect(chain).await;
    assert!(client.commitments(At::Head).await.unwrap().value.is_empty());
    assert!(client.weights(At::Head).await.unwrap().value.is_empty());
    let nobody = connito_chain::embedded::GenesisSpec {
        neurons: Vec::new(),
        ..spec()
    };
    let client = connect(EmbeddedChain::in_memory(nobody).unwrap()).await;
    assert!(
        client
            .metagraph(At::Head)
            .await
            .unwrap()
            .value
            .neurons
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn each_operation_is_confirmed_by_its_effect() {
    let (_, client) = running(spec()).await;
    let operations = [
        (MINER, Op::Commit(vec![Field::Blake2_256([1; 32])])),
        (
            MINER,
            Op::Serve(Endpoint {
                ip: [127, 0, 0, 1].into(),
                port: 9,
            }),
        ),
        (STRANGER, register(STRANGER)),
        (VALIDATOR, weigh(&[(2, 1), (3, 1)])),
    ];
    for (seed, op) in operations {
        let receipt = client.submit(&pair(seed), op).await.unwrap();
        assert_eq!(receipt.confirmed_by, Confirmation::Effect);
        let block = client.block(At::Hash(receipt.included.hash)).await.unwrap();
        assert_eq!(block, receipt.included);
    }
    let records = client.commitments(At::Head).await.unwrap().value;
    assert_eq!(records[0].fields, [Field::Blake2_256([1; 32])]);
    let rows = client.weights(At::Head).await.unwrap().value;
    assert_eq!(rows[0].weights, [(Uid(2), 65_535), (Uid(3), 65_535)]);
    assert_eq!(
        client
            .metagraph(At::Head)
            .await
            .unwrap()
            .value
            .neurons
            .len(),
        5
    );
}

/// Three operations of one key at once: one after the other, each in its own block, none lost to a
/// nonce. Another key does not wait for them.
#[tokio::test(start_paused = true)]
async fn operations_of_one_signer_queue_and_those_of_others_do_not() {
    let (_, client) = running(spec()).await;
    let submit = |seed, text: &str| {
        let (client, op) = (Arc::clone(&client), commit(text));
        tokio::spawn(async move {
            client
                .submit(&pair(seed), op)
                .await
                .unwrap()
                .included
                .number
        })
    };
    let mine = [submit(MINER, "a"), submit(MINER, "b"), submit(MINER, "c")];
    let other = submit(SECOND_MINER, "x").await.unwrap();
    let mut blocks = Vec::new();
    for block in mine {
        blocks.push(block.await.unwrap());
    }
    blocks.sort();
    blocks.dedup();
    assert_eq!(blocks.len(), 3);
    assert_eq!(other, blocks[0]);
}

/// None of these reaches the pool: the account's nonce stays where it was.
#[tokio::test(start_paused = true)]
async fn foreseeable_rejections_cost_nothing_and_say_when_to_come_back() {
    let mut small = spec();
    (small.tempo, small.registration_burn_rao) = (100, 5);
    let (chain, client) = running(small).await;
    let validator = pair(VALIDATOR);
    client.submit(&validator, weigh(&[(2, 1)])).await.unwrap();
    client
        .submit(&validator, Op::Commit(vec![Field::BigRaw(vec![0; 512]); 3]))
        .await
        .unwrap();
    client
        .submit(&validator, Op::Commit(vec![Field::BigRaw(vec![1; 512]); 3]))
        .await
        .unwrap();

    let cheap = Op::Register {
        hotkey: pair(STRANGER).hotkey(),
        max_burn_rao: Some(4),
    };
    let port_zero = Op::Serve(Endpoint {
        ip: [10, 0, 0, 1].into(),
        port: 0,
    });
    let full = Reject::CommitSpace {
        used: Some(3_072),
        max: 3_100,
        resets_at: Some(Block(100)),
    };
    let cases = [
        (
            VALIDATOR,
            weigh(&[(2, 1)]),
            Reject::RateLimited {
                retry_at: Some(Block(101)),
            },
        ),
        (VALIDATOR, weigh(&[(2, 0), (3, 0)]), Reject::AllZeroWeights),
        (VALIDATOR, weigh(&[]), Reject::AllZeroWeights),
        (VALIDATOR, weigh(&[(2, 1), (2, 1)]), Reject::BadUids),
        (VALIDATOR, commit("x"), full),
        (
            VALIDATOR,
            Op::Commit(vec![Field::Raw(vec![0; 129])]),
            Reject::TooLarge,
        ),
        (VALIDATOR, register(MINER), Reject::AlreadyRegistered),
        (VALIDATOR, cheap, Reject::BurnTooHigh { price: Some(5) }),
        (VALIDATOR, port_zero, Reject::InvalidEndpoint),
        (MINER, weigh(&[(3, 1)]), Reject::NoPermit),
        (SECOND_VALIDATOR, weigh(&[(9, 1)]), Reject::BadUids),
        (STRANGER, commit("x"), Reject::NotRegistered),
        (STRANGER, weigh(&[(2, 1)]), Reject::NotRegistered),
    ];
    for (seed, op, expected) in cases {
        let before = nonce(&chain, seed);
        assert_eq!(rejection(client.submit(&pair(seed), op).await), expected);
        assert_eq!(nonce(&chain, seed), before, "{expected}");
    }
}

/// The chain itself refuses what the client could not foresee, by name or by number.
#[tokio::test(start_paused = true)]
async fn a_rejection_from_the_chain_comes_back_typed_and_with_its_figures() {
    let mut strict = spec();
    (strict.allow_loopback, strict.max_weight_limit) = (false, 30_000);
    let (_, client) = running(strict).await;
    let loopback = Op::Serve(Endpoint {
        ip: [127, 0, 0, 1].into(),
        port: 9,
    });
    assert_eq!(
        rejection(client.submit(&pair(MINER), loopback).await),
        Reject::InvalidEndpoint
    );
    let skewed = client
        .submit(&pair(VALIDATOR), weigh(&[(2, 9), (3, 1)]))
        .await;
    assert_eq!(rejection(skewed), Reject::WeightTooLarge);
}

/// Two processes with one key, which is one too many. The slower one finds its nonce taken and signs
/// again; what it asks for is not valid behind the other's any more, so no block takes it, and it says
/// that it does not know instead of claiming anything.
#[tokio::test(start_paused = true)]
async fn two_writers_of_one_key_disturb_but_do_not_break_each_other() {
    let (chain, first) = running(spec()).await;
    let second = connect(Arc::clone(&chain)).await;
    let endpoint = |port| {
        Op::Serve(Endpoint {
            ip: [10, 0, 0, 1].into(),
            port,
        })
    };
    let (one, other) = (pair(MINER), pair(MINER));
    let (one, other) = tokio::join!(
        first.submit(&one, endpoint(1)),
        second.submit(&other, endpoint(2))
    );
    assert_eq!(one.unwrap().included.number, Block(1));
    assert!(
        matches!(other, Err(ChainError::Unknown { .. })),
        "{other:?}"
    );
    let again = second.submit(&pair(MINER), endpoint(2)).await;
    let too_early = Reject::RateLimited {
        retry_at: Some(Block(51)),
    };
    assert_eq!(rejection(again), too_early);
    let commitment = second.submit(&pair(MINER), commit("go on")).await;
    assert_eq!(commitment.unwrap().confirmed_by, Confirmation::Effect);
}

#[tokio::test(start_paused = true)]
async fn a_pruned_state_is_an_error_and_not_the_head() {
    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let client = connect(Arc::clone(&chain)).await;
    chain.advance(2_500).unwrap();
    let pruned = client.metagraph(At::Number(Block(99))).await.unwrap_err();
    let ChainError::Pruned { wanted, oldest } = pruned else {
        panic!("{pruned}")
    };
    assert_eq!((wanted, oldest), (Block(99), Some(Block(101))));
    let waited = client.wait_block(Block(5), LONG).await;
    assert!(matches!(
        waited,
        Err(ChainError::Pruned {
            wanted: Block(6),
            ..
        })
    ));
    let future = client.weights(At::Number(Block(2_501))).await;
    assert!(matches!(
        future,
        Err(ChainError::UnknownBlock(At::Number(Block(2_501))))
    ));
}
