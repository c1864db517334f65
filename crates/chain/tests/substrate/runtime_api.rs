//! The runtime's own interfaces, asked as tools ask them.

use connito_chain::runtime::{BUNDLED_VERSION, Runtime, Value};
use serde_json::json;

use crate::network::*;

fn call(network: &Network, api: &str, method: &str, arguments: &[(&str, Value)]) -> Value {
    let data = network.runtime.runtime_api(api, method, arguments).unwrap();
    let name = format!("{api}_{method}");
    let answer = network.result("state_call", json!([name, hex(&data)]));
    let bytes = unhex(answer.as_str().unwrap());
    network
        .runtime
        .runtime_api_answer(api, method, &bytes)
        .unwrap()
}

fn of_subnet(network: &Network, method: &str) -> Value {
    let answer = call(
        network,
        "SubnetInfoRuntimeApi",
        method,
        &[("netuid", NETUID.into())],
    );
    answer.as_option().unwrap().unwrap().clone()
}

#[test]
fn the_metadata_is_handed_out_with_the_chains_own_speed() {
    let network = Network::new();
    let params = json!(["Metadata_metadata_at_version", "0x0f000000"]);
    let answer = network.result("state_call", params);
    let bytes = unhex(answer.as_str().unwrap());
    let runtime = Runtime::from_metadata(&bytes, BUNDLED_VERSION).unwrap();
    assert_eq!(runtime.misfits(), []);
    let slot = runtime.constant("Aura", "SlotDuration").unwrap();
    assert_eq!(slot, 1_000_u64.into());
    let error = network.ask("state_call", json!(["Metadata_metadata_at_block", "0x"]));
    let message = "Client error: Execution failed: Runtime API error: Exported method \
                   Metadata_metadata_at_block is not found";
    assert_eq!(error.unwrap_err()["message"], message);
}

/// What should happen: older tools, which read version 14 alone, are understood, as on every node. What
/// should not: an answer in a format that was not asked for.
#[test]
fn the_metadata_is_told_in_two_formats_and_the_older_one_unless_another_is_asked_for() {
    let network = Network::new();
    let bytes = |method: &str, params| unhex(network.result(method, params).as_str().unwrap());
    let listed = bytes("state_call", json!(["Metadata_metadata_versions", "0x"]));
    assert_eq!(listed, [8, 14, 0, 0, 0, 15, 0, 0, 0]);

    let asked = bytes("state_getMetadata", json!([]));
    assert_eq!(asked[..5], *b"meta\x0e");
    let runtime = Runtime::from_metadata(&asked, BUNDLED_VERSION).unwrap();
    assert_eq!(runtime.misfits(), []);
    let slot = runtime.constant("Aura", "SlotDuration").unwrap();
    assert_eq!(slot, 1_000_u64.into());

    let counted = bytes("state_call", json!(["Metadata_metadata", "0x"]));
    assert!(counted.ends_with(&asked) && counted.len() < asked.len() + 5);
    let at = |version: u32| {
        let data = hex(&version.to_le_bytes());
        bytes("state_call", json!(["Metadata_metadata_at_version", data]))
    };
    assert_eq!(at(14), [&[1], counted.as_slice()].concat());
    assert_eq!(at(15)[5..10], *b"meta\x0f");
    for unknown in [0, 13, 16, u32::MAX] {
        assert_eq!(at(unknown), [0], "version {unknown}");
    }
}

#[test]
fn versions_nonces_and_fees_are_answered() {
    let mut network = Network::new();
    let version = network.result("state_getRuntimeVersion", json!([null]));
    assert_eq!(
        (
            &version["specName"],
            &version["specVersion"],
            &version["transactionVersion"]
        ),
        (&json!("node-subtensor"), &json!(461), &json!(1))
    );
    network.run(MINER, &commit("once"));
    let nonce = call(
        &network,
        "AccountNonceApi",
        "account_nonce",
        &[("account", account(MINER))],
    );
    assert_eq!(nonce, 1_u32.into());

    let bytes = network.signed(MINER, 1, &commit("how much"));
    let data = [bytes.as_slice(), &(bytes.len() as u32).to_le_bytes()].concat();
    let answer = network.result(
        "state_call",
        json!(["TransactionPaymentApi_query_info", hex(&data)]),
    );
    let answer = unhex(answer.as_str().unwrap());
    let info = network
        .runtime
        .runtime_api_answer("TransactionPaymentApi", "query_info", &answer);
    assert_eq!(info.unwrap().field("partial_fee"), Some(&0_u64.into()));
}

#[test]
fn a_metagraph_shows_every_neuron_in_every_column() {
    let mut network = Network::new();
    network.run(VALIDATOR, &weigh(&[(2, 3), (3, 1)]));
    let graph = of_subnet(&network, "get_metagraph");
    assert_eq!(graph.field("block"), Some(&1_u64.into()));
    assert_eq!(graph.field("num_uids"), Some(&4_u16.into()));
    let hotkeys = graph.field("hotkeys").unwrap().items().unwrap();
    assert_eq!(hotkeys[2], account(MINER));
    for column in [
        "coldkeys",
        "axons",
        "active",
        "last_update",
        "rank",
        "alpha_stake",
        "identities",
    ] {
        assert_eq!(
            graph.field(column).unwrap().items().unwrap().len(),
            4,
            "{column}"
        );
    }
    let updates = graph.field("last_update").unwrap().items().unwrap();
    assert_eq!(updates[0], 1_u64.into());
}

/// What a neuron starts with is its own coldkey's.
#[test]
fn stake_is_found_by_who_has_it() {
    let network = Network::new();
    let api = "StakeInfoRuntimeApi";
    let coldkey = [("coldkey_account", account(VALIDATOR))];
    let held = call(&network, api, "get_stake_info_for_coldkey", &coldkey);
    let [position] = held.items().unwrap() else {
        panic!("one position is not {held:?}");
    };
    assert_eq!(position.field("hotkey"), Some(&account(VALIDATOR)));
    assert_eq!(position.field("netuid"), Some(&NETUID.into()));
    assert_eq!(position.field("is_registered"), Some(&true.into()));

    let both = Value::list([account(VALIDATOR), account(MINER)]);
    let all = [("coldkey_accounts", both)];
    let all = call(&network, api, "get_stake_info_for_coldkeys", &all);
    let all = all.items().unwrap();
    assert_eq!(all[0].items().unwrap(), [account(VALIDATOR), held.clone()]);
    let nothing = Value::List(Vec::new());
    assert_eq!(all[1].items().unwrap(), [account(MINER), nothing]);

    let position_of = |seed| {
        let arguments = [
            ("hotkey_account", account(VALIDATOR)),
            ("coldkey_account", account(seed)),
            ("netuid", NETUID.into()),
        ];
        let method = "get_stake_info_for_hotkey_coldkey_netuid";
        let found = call(&network, api, method, &arguments);
        let stake = found.as_option().unwrap().unwrap().field("stake");
        stake.unwrap().number::<u64>().unwrap()
    };
    let whole = position.field("stake").unwrap().number::<u64>().unwrap();
    assert_eq!((position_of(VALIDATOR), position_of(MINER)), (whole, 0));
    assert!(whole > 0);
    let free = [
        ("coldkey_accounts", Value::list([account(VALIDATOR)])),
        (
            "netuids",
            Value::variant_of("Some", [Value::list([NETUID])]),
        ),
    ];
    let free = call(&network, api, "get_stake_availability_for_coldkeys", &free);
    let on_each = free.items().unwrap()[0].items().unwrap()[1].clone();
    let stake = on_each.items().unwrap()[0].items().unwrap()[1].clone();
    assert_eq!(stake.field("available").unwrap().number(), Some(whole));
    assert_eq!(stake.field("locked").unwrap().number(), Some(0_u64));
}

#[test]
fn of_what_this_chain_has_nothing_it_says_so() {
    let network = Network::new();
    let delegates = call(&network, "DelegateInfoRuntimeApi", "get_delegates", &[]);
    assert_eq!(delegates.items().unwrap(), []);
    let stakes = "StakeInfoRuntimeApi";
    let lock = [("coldkey", account(MINER)), ("netuid", NETUID.into())];
    let lock = call(&network, stakes, "get_coldkey_lock", &lock);
    assert_eq!(lock.as_option(), Some(None));
    let conviction = [("hotkey", account(MINER)), ("netuid", NETUID.into())];
    let conviction = call(&network, stakes, "get_hotkey_conviction", &conviction);
    assert_eq!(conviction.field("bits").unwrap().number(), Some(0_u64));
}

#[test]
fn neurons_are_shown_with_their_stake_and_weights() {
    let mut network = Network::new();
    network.run(VALIDATOR, &weigh(&[(2, 65_535), (3, 21_845)]));
    let api = "NeuronInfoRuntimeApi";
    let lite = call(
        &network,
        api,
        "get_neurons_lite",
        &[("netuid", NETUID.into())],
    );
    let lite = lite.items().unwrap();
    assert_eq!(lite.len(), 4);
    assert_eq!(lite[2].field("hotkey"), Some(&account(MINER)));
    let stake = lite[0].field("stake").unwrap().items().unwrap()[0]
        .items()
        .unwrap();
    assert_eq!(stake[1], 200_u64.into());
    assert_eq!(lite[0].field("validator_permit"), Some(&true.into()));

    let place = [("netuid", NETUID.into()), ("uid", 0_u16.into())];
    let full = call(&network, api, "get_neuron", &place);
    let full = full.as_option().unwrap().unwrap();
    let weights = full.field("weights").unwrap().items().unwrap();
    assert_eq!(weights[0], Value::list([2_u16, 65_535]));
    let nobody = [("netuid", NETUID.into()), ("uid", 4_u16.into())];
    let nobody = call(&network, api, "get_neuron", &nobody);
    assert_eq!(nobody.as_option(), Some(None));
}

#[test]
fn parameters_are_those_of_the_state() {
    let network = Network::new();
    for method in ["get_subnet_hyperparams", "get_subnet_hyperparams_v2"] {
        let parameters = of_subnet(&network, method);
        let limit = parameters.field("weights_rate_limit");
        assert_eq!(limit, Some(&spec().weights_rate_limit.into()), "{method}");
        assert_eq!(parameters.field("tempo"), Some(&spec().tempo.into()));
    }
    let listed = of_subnet(&network, "get_subnet_hyperparams_v3");
    let tempo = listed.items().unwrap().iter();
    let mut tempo = tempo.filter(|entry| entry.field("name") == Some(&b"tempo"[..].into()));
    let value = tempo.next().unwrap().field("value").unwrap();
    assert_eq!(value, &Value::variant_of("U16", [spec().tempo.into()]));
    let info = of_subnet(&network, "get_subnet_info");
    assert_eq!(info.field("subnetwork_n"), Some(&4_u16.into()));
}

#[test]
fn only_the_fields_that_are_asked_for_are_in_a_selective_metagraph() {
    let network = Network::new();
    let whole = of_subnet(&network, "get_metagraph");
    // The indices count the fields of the struct: netuid, name, symbol, …, block (7), tempo (8).
    let wanted = [
        ("netuid", NETUID.into()),
        ("metagraph_indexes", Value::list([8_u16])),
    ];
    let some = call(
        &network,
        "SubnetInfoRuntimeApi",
        "get_selective_metagraph",
        &wanted,
    );
    let some = some.as_option().unwrap().unwrap();
    let tempo = some.field("tempo").unwrap().as_option().unwrap();
    assert_eq!(tempo, whole.field("tempo"));
    for other in ["name", "block", "hotkeys"] {
        assert_eq!(
            some.field(other).unwrap().as_option(),
            Some(None),
            "{other}"
        );
    }
}

#[test]
fn a_subnet_that_does_not_exist_has_no_answers() {
    let network = Network::new();
    for method in [
        "get_metagraph",
        "get_subnet_info",
        "get_next_epoch_start_block",
    ] {
        let nowhere = [("netuid", 99_u16.into())];
        let answer = call(&network, "SubnetInfoRuntimeApi", method, &nowhere);
        assert_eq!(answer.as_option(), Some(None), "{method}");
    }
}

/// The schedule as it is shown is the schedule as it is kept.
#[test]
fn the_next_epoch_is_announced_for_the_block_it_comes_in() {
    let network = Network::new();
    let tempo = u64::from(spec().tempo);
    network.chain.advance(tempo / 2).unwrap();
    let announced = of_subnet(&network, "get_next_epoch_start_block");
    let announced: u64 = announced.number().unwrap();
    let index = |network: &Network| {
        let index = network.value("SubtensorModule", "SubnetEpochIndex", &[NETUID.into()]);
        index.and_then(|index| index.number::<u64>()).unwrap_or(0)
    };
    let before = index(&network);
    network.chain.advance(announced - 1 - tempo / 2).unwrap();
    assert_eq!(index(&network), before, "not before block {announced}");
    network.chain.advance(1).unwrap();
    assert_eq!(index(&network), before + 1, "in block {announced}");
}
