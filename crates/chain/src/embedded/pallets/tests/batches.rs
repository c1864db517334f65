//! Several calls in one extrinsic: what stays of those that fail, and what is said of them.

use super::*;
use crate::embedded::event;
use parity_scale_codec::Compact;

fn send(value: u64) -> Call {
    let dest = call::Address::Id(STRANGER);
    let value = Compact(value);
    call::Balances::TransferKeepAlive { dest, value }.into()
}

/// More than anybody has.
fn fails() -> Call {
    send(u64::MAX)
}

fn batch(calls: Vec<Call>) -> Call {
    Call::Utility(call::Utility::Batch { calls })
}

fn batch_all(calls: Vec<Call>) -> Call {
    Call::Utility(call::Utility::BatchAll { calls })
}

fn force_batch(calls: Vec<Call>) -> Call {
    Call::Utility(call::Utility::ForceBatch { calls })
}

/// What a batch of `//Rich` comes to: its result, what the stranger has then, and what the pallet says.
fn tried(call: Call) -> (String, u64, Vec<String>) {
    let mut chain = Chain::new(spec());
    let result = chain.call(RICH, call);
    let said = chain.happened().into_iter();
    let said = said.filter(|name| name.contains("Batch") || name.contains("Item"));
    (result, chain.free(STRANGER), said.collect())
}

#[test]
fn a_batch_ends_with_the_call_that_fails_and_keeps_what_came_before() {
    let (result, held, said) = tried(batch(vec![send(TAO), send(TAO)]));
    assert_eq!((result.as_str(), held), ("ok", 2 * TAO));
    assert_eq!(said, ["ItemCompleted", "ItemCompleted", "BatchCompleted"]);
    let (result, held, said) = tried(batch(vec![send(TAO), fails(), send(TAO)]));
    assert_eq!((result.as_str(), held), ("ok", TAO));
    assert_eq!(said, ["ItemCompleted", "BatchInterrupted"]);
    assert_eq!(tried(batch(Vec::new())).2, ["BatchCompleted"]);
}

#[test]
fn the_interruption_says_where_and_why() {
    let mut chain = Chain::new(spec());
    chain.call(RICH, batch(vec![send(TAO), send(TAO), fails()]));
    let error = DispatchError::Token(event::TokenError::FundsUnavailable);
    let expected = event::Utility::BatchInterrupted { index: 2, error };
    assert_eq!(chain.events.last(), Some(&Event::Utility(expected)));
}

#[test]
fn nothing_stays_of_a_batch_that_has_to_succeed_as_a_whole() {
    let (result, held, said) = tried(batch_all(vec![send(TAO), send(TAO)]));
    assert_eq!((result.as_str(), held), ("ok", 2 * TAO));
    assert_eq!(said, ["ItemCompleted", "ItemCompleted", "BatchCompleted"]);
    let (result, held, said) = tried(batch_all(vec![send(TAO), fails()]));
    assert_eq!((result.as_str(), held), ("FundsUnavailable", 0));
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn a_forced_batch_goes_on_after_a_call_that_fails() {
    let (result, held, said) = tried(force_batch(vec![send(TAO), fails(), send(TAO)]));
    assert_eq!((result.as_str(), held), ("ok", 2 * TAO));
    let expected = ["ItemCompleted", "ItemFailed", "ItemCompleted"];
    assert_eq!(
        said,
        [&expected[..], &["BatchCompletedWithErrors"]].concat()
    );
}

/// What should not happen: an inner batch whose end makes the outer one forget what it has to take back.
#[test]
fn a_batch_inside_another_is_taken_back_with_it() {
    let inner = || batch(vec![send(TAO), fails()]);
    let (result, held, _) = tried(batch_all(vec![send(TAO), inner(), fails()]));
    assert_eq!((result.as_str(), held), ("FundsUnavailable", 0));
    let (result, held, said) = tried(force_batch(vec![
        batch_all(vec![send(TAO), fails()]),
        inner(),
    ]));
    assert_eq!((result.as_str(), held), ("ok", TAO));
    let ends = ["ItemCompleted", "BatchCompletedWithErrors"];
    assert!(said.ends_with(&ends.map(str::to_owned)), "{said:?}");
}

#[test]
fn no_batch_that_has_to_succeed_is_carried_out_within_another() {
    let inner = || batch_all(vec![send(TAO)]);
    let (result, held, _) = tried(batch_all(vec![inner()]));
    assert_eq!((result.as_str(), held), ("CallFiltered", 0));
    // However deep: the batch between them is interrupted.
    let (result, held, said) = tried(batch_all(vec![batch(vec![send(TAO), inner()])]));
    assert_eq!((result.as_str(), held), ("ok", TAO));
    assert!(said.contains(&"BatchInterrupted".to_owned()), "{said:?}");
    assert_eq!(tried(batch(vec![inner()])).1, TAO);
}

/// A call inside is judged when its turn comes, by the rules of its pallet.
#[test]
fn the_calls_inside_keep_to_the_rules_of_their_pallets() {
    let mut chain = Chain::new(spec());
    let weights = || Call::from(weigh(&[(2, 1)], 0));
    assert_eq!(
        chain.call(VALIDATOR, batch(vec![weights(), weights()])),
        "ok"
    );
    assert_eq!(chain.weights(0), [(2, 65_535)]);
    let said = chain.happened();
    assert_eq!(said.last().map(String::as_str), Some("BatchInterrupted"));
    let error = failure::Subtensor::SettingWeightsTooFast.into();
    let expected = event::Utility::BatchInterrupted { index: 1, error };
    assert_eq!(chain.events.last(), Some(&Event::Utility(expected)));
}

#[test]
fn a_batch_of_too_many_calls_fails() {
    let one = call::Subtensor::TriggerEpoch { netuid: NETUID };
    let calls = vec![Call::from(one); 10_923];
    assert_eq!(tried(force_batch(calls)).0, "TooManyCalls");
}

/// As clients put it together, by the names of the metadata.
#[test]
fn a_batch_has_the_bytes_of_the_runtime() {
    let to = Value::variant_of("Id", [Hotkey(STRANGER).into()]);
    let arguments = [("dest", to), ("value", TAO.into())];
    let one = Value::variant_with("transfer_keep_alive", arguments);
    let one = Value::variant_of("Balances", [one]);
    let calls = vec![send(TAO), send(TAO)];
    for (name, ours) in [
        ("batch", batch(calls.clone())),
        ("batch_all", batch_all(calls.clone())),
        ("force_batch", force_batch(calls.clone())),
    ] {
        let arguments = [("calls", Value::List(vec![one.clone(), one.clone()]))];
        let theirs = RUNTIME.call("Utility", name, &arguments).unwrap();
        assert_eq!(Call::decode(&theirs), Ok(ours), "{name}");
    }
}

/// What should not happen: a stack that ends before the decoder does.
#[test]
fn batches_nested_without_end_are_no_call() {
    let nested = |levels: usize| {
        let mut bytes = [11, 0, 4].repeat(levels);
        bytes.extend([11, 0, 0]);
        bytes
    };
    assert!(Call::decode(&nested(3)).is_ok());
    for levels in [20, 20_000] {
        assert!(Call::decode(&nested(levels)).is_err(), "{levels} levels");
    }
}
