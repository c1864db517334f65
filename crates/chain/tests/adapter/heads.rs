//! Endpoints that are wrong about the newest block: none of them stops a role for longer than it is
//! asked, and nothing of what they said outlives them.

use std::time::Duration;

use connito_chain::rpc::RpcTransport;
use connito_chain::subtensor::SubtensorChain;
use connito_chain::{Arrival, Chain, ChainError};
use connito_protocol::ids::Block;
use serde_json::{Value, json};

use crate::endpoints::{Switched, chain, pooled, two};

/// The head is said to be block four billion; everything else is as it is.
fn boast(question: &Value, answer: Value) -> Value {
    name_head(question, answer, "0xee6b2800")
}

/// The head is said to be block 5.
fn boast_a_little(question: &Value, answer: Value) -> Value {
    name_head(question, answer, "0x5")
}

fn name_head(question: &Value, mut answer: Value, number: &str) -> Value {
    if question["method"] == "chain_getHeader" && question["params"] == json!([]) {
        answer["result"]["number"] = number.into();
    }
    answer
}

async fn after_block_0<T: RpcTransport>(client: &SubtensorChain<T>) -> Result<Arrival, ChainError> {
    client.wait_block(Block(0), Duration::from_secs(60)).await
}

fn is_block_1(arrival: Arrival) {
    assert_eq!((arrival.block.number, arrival.head), (Block(1), Block(1)));
}

/// One of two endpoints alters what it says of a chain with one block: it is passed over, with these words.
async fn is_passed_over(alter: fn(&Value, Value) -> Value, words: &str) {
    let chain = chain();
    let (client, lying, _) = two(["lying", "honest"], [&chain; 2]).await;
    chain.advance(1).unwrap();
    lying.alter(alter);
    let lie = after_block_0(&client).await.unwrap_err().to_string();
    assert_eq!(lie, format!("chain endpoint lying: {words}"));
    is_block_1(after_block_0(&client).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_no_chain_can_have_come_to_is_not_believed() {
    is_passed_over(boast, "is at block 4000000000, which is too far ahead").await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_its_endpoint_does_not_have_is_not_believed() {
    let words = "calls block 5 its newest and does not have it";
    is_passed_over(boast_a_little, words).await;
}

/// A whole chain of its own, made in no time.
#[tokio::test(start_paused = true)]
async fn a_chain_that_runs_away_is_left_for_one_that_keeps_time() {
    let (fast, steady) = (chain(), chain());
    let (client, _, _) = two(["fast", "steady"], [&fast, &steady]).await;
    fast.advance(500).unwrap();
    steady.advance(1).unwrap();
    let lie = after_block_0(&client).await.unwrap_err().to_string();
    let expected = "chain endpoint fast: is at block 500, which is too far ahead";
    assert_eq!(lie, expected);
    is_block_1(after_block_0(&client).await.unwrap());
}

/// With nobody else to ask, lies are errors, and the truth is taken up when it comes back.
#[tokio::test(start_paused = true)]
async fn the_only_endpoint_is_believed_again_once_it_stops_lying() {
    let chain = chain();
    let only = Switched::new("only", &chain);
    let client = pooled(&[&only], Duration::ZERO).await.unwrap();
    chain.advance(1).unwrap();
    only.alter(boast);
    for _ in 0..5 {
        assert!(matches!(
            after_block_0(&client).await,
            Err(ChainError::Transport(_))
        ));
    }
    only.behave();
    is_block_1(after_block_0(&client).await.unwrap());
}

/// A computer that slept counts no time; the chain went on all the same.
#[tokio::test(start_paused = true)]
async fn a_head_far_ahead_that_everybody_names_is_believed() {
    let chain = chain();
    let (client, _, _) = two(["one", "other"], [&chain; 2]).await;
    chain.advance(500).unwrap();
    for _ in 0..2 {
        assert!(after_block_0(&client).await.is_err());
    }
    let arrival = after_block_0(&client).await.unwrap();
    assert_eq!((arrival.block.number, arrival.head), (Block(1), Block(500)));
}
