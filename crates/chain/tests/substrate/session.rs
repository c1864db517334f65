//! Subscriptions of one connection.

use std::sync::Arc;
use std::time::Duration;

use connito_chain::embedded::Session;
use serde_json::{Value, json};
use tokio::time::timeout;

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
        let soon = Duration::from_secs(5);
        let next = timeout(soon, self.session.next()).await;
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

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_subscription_is_dropped_when_it_is_closed() {
    let network = Network::new();
    let mut connection = Connection::to(&network);
    let closed = connection.ask("chain_subscribeNewHeads", json!([]));
    let kept = connection.ask("chain_subscribeAllHeads", json!([]));
    network.chain.advance(3).unwrap();
    // The first notification makes those of the new blocks wait behind it.
    connection.result().await;
    connection.result().await;
    assert_eq!(connection.next().await.1, closed.clone().unwrap());
    let answer = connection.ask("chain_unsubscribeNewHeads", json!([closed.unwrap()]));
    assert_eq!(answer, Ok(json!(true)));
    for number in 1..=3 {
        let (_, subscription, header) = connection.next().await;
        assert_eq!(subscription, *kept.as_ref().unwrap());
        assert_eq!(header["number"], format!("{number:#x}"));
    }
    connection.assert_silent().await;
}

/// What should not happen: a client that takes nothing and makes the node hold whatever it asks for.
#[tokio::test(start_paused = true)]
async fn notifications_that_nobody_takes_are_bounded_in_bytes() {
    let network = Network::new();
    let key = hex(&[7; 400_000]);
    let mut connection = Connection::to(&network);
    let refused = (0..64).find_map(|_| {
        let asked = connection.ask("state_subscribeStorage", json!([[key]]));
        asked.err()
    });
    assert_eq!(refused.unwrap()["message"], "too many notifications wait");
    let mut taken = 0;
    while let Ok(text) = timeout(Duration::from_secs(5), connection.session.next()).await {
        taken += text.len();
    }
    assert!(taken < 17 * 1024 * 1024, "{taken}");
    let asked = connection.ask("state_subscribeStorage", json!([[key]]));
    assert!(asked.is_ok(), "there is room again");
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
    let keys: Vec<String> = (0..1_025_u16).map(|n| hex(&n.to_be_bytes())).collect();
    let refused = other.ask("state_subscribeStorage", json!([keys]));
    assert_eq!(refused.unwrap_err()["code"], 4002);
}
