//! Subscriptions of one connection.

use std::sync::Arc;

use connito_chain::embedded::Session;
use serde_json::{Value, json};

use crate::network::*;

struct Connection {
    session: Session,
}

impl Connection {
    fn to(network: &Network) -> Self {
        Self {
            session: Session::new(Arc::clone(&network.chain)),
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.session.handle(body.to_string().as_bytes());
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].take()),
        }
    }

    /// The name, subscription and content of the next notification.
    async fn next(&mut self) -> (String, Value, Value) {
        let mut next: Value = serde_json::from_slice(&self.session.next().await).unwrap();
        let params = &mut next["params"];
        let (subscription, result) = (params["subscription"].take(), params["result"].take());
        (
            next["method"].as_str().unwrap().to_owned(),
            subscription,
            result,
        )
    }

    async fn result(&mut self) -> Value {
        self.next().await.2
    }

    /// There is nothing to tell.
    async fn assert_silent(&mut self) {
        let soon = std::time::Duration::from_secs(5);
        let next = tokio::time::timeout(soon, self.session.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn heads_come_one_by_one_until_they_are_not_wanted_any_more() {
    let network = Network::new();
    let mut connection = Connection::to(&network);
    let id = connection
        .ask("chain_subscribeNewHeads", json!([]))
        .unwrap();
    let (name, subscription, header) = connection.next().await;
    assert_eq!((name.as_str(), subscription), ("chain_newHead", id.clone()));
    assert_eq!(header["number"], "0x0");
    connection.assert_silent().await;
    network.chain.advance(40).unwrap();
    for number in 1..=40 {
        assert_eq!(connection.result().await["number"], format!("{number:#x}"));
    }
    assert_eq!(
        connection.ask("chain_unsubscribeNewHeads", json!([id])),
        Ok(json!(true))
    );
    network.chain.advance(1).unwrap();
    connection.assert_silent().await;
    assert_eq!(
        connection.ask("chain_unsubscribeNewHeads", json!([id])),
        Ok(json!(false))
    );
}

/// A connection that reads slowly misses what was discarded meanwhile, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_slow_connection_goes_on_with_the_oldest_block_that_is_left() {
    let network = Network::new();
    let mut connection = Connection::to(&network);
    connection
        .ask("chain_subscribeFinalizedHeads", json!([]))
        .unwrap();
    assert_eq!(connection.result().await["number"], "0x0");
    network.chain.advance(2_410).unwrap();
    assert_eq!(connection.next().await.0, "chain_finalizedHead");
    assert_eq!(connection.result().await["number"], format!("{:#x}", 12));
}

#[tokio::test(start_paused = true)]
async fn an_extrinsic_is_followed_into_its_block() {
    let network = Network::new();
    let mut connection = Connection::to(&network);
    let bytes = network.signed(MINER, 0, &commit("watched"));
    let id = connection.ask("author_submitAndWatchExtrinsic", json!([hex(&bytes)]));
    let id = id.unwrap();
    let (name, subscription, status) = connection.next().await;
    assert_eq!(
        (name.as_str(), subscription),
        ("author_extrinsicUpdate", id.clone())
    );
    assert_eq!(status, "ready");
    let head = hex(&network.chain.advance(1).unwrap().hash.0);
    assert_eq!(connection.result().await, json!({ "inBlock": head }));
    assert_eq!(connection.result().await, json!({ "finalized": head }));
    network.chain.advance(1).unwrap();
    connection.assert_silent().await;
    assert_eq!(
        connection.ask("author_unwatchExtrinsic", json!([id])),
        Ok(json!(false))
    );
}

#[tokio::test(start_paused = true)]
async fn an_extrinsic_that_waits_in_vain_is_reported_invalid() {
    let network = Network::new();
    let mut connection = Connection::to(&network);
    let refused = connection.ask("author_submitAndWatchExtrinsic", json!(["0x00"]));
    assert_eq!(refused.unwrap_err()["code"], 1002);
    let early = network.signed(MINER, 3, &commit("too early"));
    connection
        .ask("author_submitAndWatchExtrinsic", json!([hex(&early)]))
        .unwrap();
    assert_eq!(connection.result().await, "future");
    network.chain.advance(8).unwrap();
    assert_eq!(connection.result().await, "invalid");
}

#[tokio::test(start_paused = true)]
async fn a_value_is_told_when_it_changes() {
    let mut network = Network::new();
    let keys = [NETUID.into(), account(MINER)];
    let key = network
        .runtime
        .storage_key("Commitments", "CommitmentOf", &keys);
    let key = hex(&key.unwrap());
    let mut connection = Connection::to(&network);
    connection
        .ask("state_subscribeStorage", json!([[key]]))
        .unwrap();
    assert_eq!(connection.result().await["changes"], json!([[key, null]]));
    network.chain.advance(3).unwrap();
    connection.assert_silent().await;
    network.run(MINER, &commit("new"));
    let update = connection.result().await;
    assert_eq!(update["block"], hex(&network.chain.head().hash.0));
    let value = update["changes"][0][1].as_str().unwrap();
    assert!(value.contains(&hex::encode("new")), "{value}");
}

#[tokio::test(start_paused = true)]
async fn the_runtime_version_is_told_once_and_requests_are_answered_in_between() {
    let network = Network::new();
    let mut connection = Connection::to(&network);
    connection
        .ask("state_subscribeRuntimeVersion", json!([]))
        .unwrap();
    assert_eq!(connection.result().await["specVersion"], 461);
    network.chain.advance(1).unwrap();
    connection.assert_silent().await;
    let header = connection.ask("chain_getHeader", json!([])).unwrap();
    assert_eq!(header["number"], "0x1");
}

#[test]
fn a_connection_has_a_bounded_number_of_subscriptions() {
    let network = Network::new();
    let mut connection = Connection::to(&network);
    for _ in 0..64 {
        connection
            .ask("chain_subscribeNewHeads", json!([]))
            .unwrap();
    }
    let refused = connection.ask("chain_subscribeNewHeads", json!([]));
    assert_eq!(refused.unwrap_err()["message"], "too many subscriptions");
    let mut other = Connection::to(&network);
    let keys = vec!["0x00"; 1_025];
    let refused = other.ask("state_subscribeStorage", json!([keys]));
    assert_eq!(refused.unwrap_err()["code"], 4002);
}
