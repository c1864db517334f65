//! Writing over a transport that loses answers or requests: nothing is done twice, nothing is
//! claimed that was not seen.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connito_chain::embedded::EmbeddedChain;
use connito_chain::rpc::RpcTransport;
use connito_chain::subtensor::SubtensorChain;
use connito_chain::{At, Chain, ChainError, Confirmation, TransportError};
use connito_protocol::ids::Block;

use crate::network::*;

/// What happens to the next requests whose body contains a text.
#[derive(Clone, Copy)]
enum Fault {
    LoseRequest,
    LoseAnswer,
    /// Nothing: the next fault waits for this request.
    Pass,
}

#[derive(Clone)]
struct Faulty {
    chain: Arc<EmbeddedChain>,
    faults: Faults,
}

type Faults = Arc<Mutex<VecDeque<(&'static str, Fault)>>>;

impl Faulty {
    fn next_fault(&self, body: &[u8]) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (text, _) = faults.front()?;
        let body = String::from_utf8_lossy(body);
        body.contains(text)
            .then(|| faults.pop_front().map(|(_, fault)| fault))?
    }
}

impl RpcTransport for Faulty {
    fn endpoint(&self) -> &str {
        "faulty"
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let fault = self.next_fault(&body);
        let lost = || TransportError::new("faulty", "lost");
        if matches!(fault, Some(Fault::LoseRequest)) {
            return Err(lost());
        }
        let answer = self.chain.handle_async(&body).await;
        if matches!(fault, Some(Fault::LoseAnswer)) {
            Err(lost())
        } else {
            Ok(answer)
        }
    }
}

struct Setting {
    chain: Arc<EmbeddedChain>,
    client: Arc<SubtensorChain<Faulty>>,
    faults: Faults,
}

impl Setting {
    async fn new() -> Self {
        let chain = EmbeddedChain::in_memory(spec()).unwrap();
        let faults = Arc::default();
        let transport = Faulty {
            chain: Arc::clone(&chain),
            faults: Arc::clone(&faults),
        };
        let client = Arc::new(connect(transport).await);
        Self {
            chain,
            client,
            faults,
        }
    }

    fn fault(&self, method: &'static str, fault: Fault) {
        self.faults.lock().unwrap().push_back((method, fault));
    }

    fn start(&self) {
        tokio::spawn(Arc::clone(&self.chain).run(pending()));
    }

    /// Operations of the miner that reached a block.
    fn carried_out(&self) -> u64 {
        nonce(&self.chain, MINER)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_submission_does_not_make_the_retry_a_second_one() {
    let setting = Setting::new().await;
    setting.start();
    setting.fault("author_submitExtrinsic", Fault::LoseAnswer);
    let receipt = setting.client.submit(&pair(MINER), commit("once")).await;
    assert_eq!(receipt.unwrap().included.number, Block(1));
    assert_eq!(setting.carried_out(), 1);
}

/// Windows are a few blocks long: what was lost goes out again before the next block is over.
#[tokio::test(start_paused = true)]
async fn a_lost_submission_is_sent_again_and_lands_within_two_blocks() {
    let setting = Setting::new().await;
    setting.start();
    setting.fault("author_submitExtrinsic", Fault::LoseRequest);
    let receipt = setting.client.submit(&pair(MINER), commit("once")).await;
    assert!(receipt.unwrap().included.number <= Block(2));
    assert_eq!(setting.carried_out(), 1);
}

/// Failures while looking for an operation that is on its way are sat out.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_for_a_while_after_sending_changes_nothing() {
    let setting = Setting::new().await;
    setting.start();
    for _ in 0..5 {
        setting.fault("chain_getBlock\"", Fault::LoseAnswer);
    }
    setting
        .client
        .submit(&pair(MINER), commit("patience"))
        .await
        .unwrap();
    assert_eq!(setting.carried_out(), 1);
}

/// The operation is in a block, but what the block says about it could not be read.
#[tokio::test(start_paused = true)]
async fn a_failure_while_confirming_neither_loses_nor_repeats_the_operation() {
    let setting = Setting::new().await;
    setting.start();
    setting.fault("author_submitExtrinsic", Fault::Pass);
    setting.fault("chain_getBlock\"", Fault::Pass);
    for _ in 0..3 {
        setting.fault("state_queryStorageAt", Fault::LoseAnswer);
    }
    let receipt = setting.client.submit(&pair(MINER), commit("once")).await;
    assert_eq!(receipt.unwrap().confirmed_by, Confirmation::Effect);
    assert_eq!(setting.carried_out(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_submission_is_taken_up_by_the_next_call() {
    let setting = Setting::new().await;
    let miner = pair(MINER);
    let operation = setting.client.submit(&miner, commit("dropped"));
    // No block comes, so the call hangs after sending and is dropped.
    assert!(
        tokio::time::timeout(Duration::from_secs(3), operation)
            .await
            .is_err()
    );
    setting.start();
    let receipt = setting
        .client
        .submit(&pair(MINER), commit("dropped"))
        .await
        .unwrap();
    assert_eq!(receipt.included.number, Block(1));
    assert_eq!(setting.carried_out(), 1);
}

/// What should not happen: silence reported as success or as failure while it can still land.
#[tokio::test(start_paused = true)]
async fn an_operation_not_seen_is_unknown_until_its_last_block() {
    let setting = Setting::new().await;
    let silent = setting.client.submit(&pair(MINER), commit("silence")).await;
    let Err(ChainError::Unknown { until_block, .. }) = silent else {
        panic!("{silent:?}")
    };
    assert_eq!(until_block, Block(15));

    // The chain comes back within its life: the same operation lands, once.
    setting.start();
    setting
        .client
        .submit(&pair(MINER), commit("silence"))
        .await
        .unwrap();
    assert_eq!(setting.carried_out(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_operation_does_not_wait_for_one_of_unknown_fate() {
    let setting = Setting::new().await;
    let silent = setting.client.submit(&pair(MINER), commit("silence")).await;
    assert!(matches!(silent, Err(ChainError::Unknown { .. })));
    setting.start();
    let second = setting
        .client
        .submit(&pair(MINER), commit("next"))
        .await
        .unwrap();
    assert_eq!((second.included.number, second.index), (Block(1), 2));
    let records = setting.client.commitments(At::Head).await.unwrap().value;
    assert_eq!((records[0].block, records[0].index), (Block(1), 2));
}

/// What a process before this one did is not done again: the chain shows it already.
#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_restart_is_found_and_not_sent_again() {
    let setting = Setting::new().await;
    setting.start();
    let first = setting.client.submit(&pair(MINER), commit("once")).await;
    let restarted = connect(Arc::clone(&setting.chain)).await;
    let again = restarted.submit(&pair(MINER), commit("once")).await;
    assert_eq!(again.unwrap(), first.unwrap());
    assert_eq!(setting.carried_out(), 1);
}

/// An answer that breaks off or is of another kind concerns that question only.
#[tokio::test(start_paused = true)]
async fn an_answer_that_makes_no_sense_names_its_question() {
    #[derive(Clone)]
    struct Garbling(Arc<EmbeddedChain>, Arc<Mutex<Option<&'static [u8]>>>);

    impl RpcTransport for Garbling {
        fn endpoint(&self) -> &str {
            "garbling"
        }

        async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
            let garbled = self.1.lock().unwrap().take();
            Ok(garbled.map_or_else(|| self.0.handle(&body), <[u8]>::to_vec))
        }
    }

    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let garbling = Garbling(chain, Arc::default());
    let client = connect(garbling.clone()).await;
    let answers: [&[u8]; 6] = [
        b"",
        b"{\"jsonrpc\":\"2.0\",\"id\":0,\"resu",
        b"<html>502 Bad Gateway</html>",
        b"{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"number\":7}}",
        b"{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":null}",
        b"[]",
    ];
    for answer in answers {
        *garbling.1.lock().unwrap() = Some(answer);
        let error = client.block(At::Head).await.unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.contains("chain_getHeader"),
            "{}: {shown}",
            String::from_utf8_lossy(answer)
        );
        client.block(At::Head).await.unwrap();
    }
}

/// What should not happen: that half a list of values reads as a subnet without neurons.
#[tokio::test]
async fn a_value_that_is_missing_from_an_answer_is_not_read_as_its_default() {
    #[derive(Clone)]
    struct Forgetful(Arc<EmbeddedChain>, Arc<std::sync::atomic::AtomicBool>);

    impl RpcTransport for Forgetful {
        fn endpoint(&self) -> &str {
            "forgetful"
        }

        async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
            let answer = self.0.handle(&body);
            let asked = String::from_utf8_lossy(&body).contains("state_queryStorageAt");
            if !asked || !self.1.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(answer);
            }
            let mut answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            answer["result"][0]["changes"].as_array_mut().unwrap().pop();
            Ok(answer.to_string().into_bytes())
        }
    }

    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let forgets = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let client = connect(Forgetful(chain, Arc::clone(&forgets))).await;
    forgets.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = client.metagraph(At::Head).await.unwrap_err().to_string();
    assert!(
        error.contains("a key that was asked for is missing"),
        "{error}"
    );
}
