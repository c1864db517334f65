//! Endpoints: what may be published, and how often.

use std::net::IpAddr;

use super::*;

/// An endpoint as the official client sends it.
pub(super) fn axon(ip: &str, port: u16) -> call::Axon {
    let (ip, ip_type) = match ip.parse().unwrap() {
        IpAddr::V4(ip) => (u32::from(ip).into(), 4),
        IpAddr::V6(ip) => (u128::from(ip), 6),
    };
    call::Axon {
        version: 1,
        ip,
        port,
        ip_type,
        protocol: 4,
        placeholder1: 0,
        placeholder2: 0,
    }
}

fn serve(axon: call::Axon) -> call::Subtensor {
    call::Subtensor::ServeAxon {
        netuid: NETUID,
        axon,
    }
}

fn field(chain: &Chain, hotkey: AccountId, field: &str) -> Value {
    let keys = [number(NETUID), Value::Bytes(hotkey.to_vec())];
    let axon = chain.read("SubtensorModule", "Axons", &keys);
    axon.field(field).unwrap().clone()
}

#[test]
fn endpoints_that_cannot_be_are_refused_before_they_reach_a_block() {
    let mut chain = Chain::with(|spec| spec.allow_loopback = false);
    let mut odd = axon("10.0.0.1", 1);
    odd.ip_type = 5;
    let asks = |hotkey, axon| chain.asks(hotkey, serve(axon));
    assert_eq!(asks(STRANGER, axon("10.0.0.1", 1)), Err(10));
    assert_eq!(asks(MINER, axon("127.0.0.1", 1)), Err(11));
    assert_eq!(asks(MINER, axon("::1", 1)), Err(11));
    assert_eq!(asks(MINER, axon("255.255.255.255", 1)), Err(11));
    assert_eq!(asks(MINER, axon("10.0.0.1", 0)), Err(13));
    assert_eq!(asks(MINER, odd), Err(255));
    // A block that gets them all the same refuses them by name.
    chain.next();
    assert_eq!(
        chain.include(MINER, serve(axon("127.0.0.1", 1))),
        "InvalidIpAddress"
    );
    assert_eq!(
        chain.include(MINER, serve(axon("10.0.0.1", 0))),
        "InvalidPort"
    );
    assert_eq!(chain.include(MINER, serve(odd)), "InvalidIpType");
    assert_eq!(
        chain.include(STRANGER, serve(axon("10.0.0.1", 1))),
        "HotKeyNotRegisteredInNetwork"
    );
}

/// Nobody on the chain looks further: whoever connects has to.
#[test]
fn private_and_nonsensical_addresses_are_accepted() {
    for ip in [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "fe80::1",
    ] {
        let mut chain = Chain::with(|spec| spec.allow_loopback = false);
        assert_eq!(chain.call(MINER, serve(axon(ip, 1))), "ok", "{ip}");
        assert_eq!(chain.happened(), ["AxonServed"]);
    }
}

#[test]
fn this_chain_lets_a_machine_serve_itself() {
    let mut chain = Chain::new(spec());
    assert_eq!(chain.call(MINER, serve(axon("127.0.0.1", 8_091))), "ok");
    assert_eq!(field(&chain, MINER, "ip"), number(0x7f00_0001_u32));
    assert_eq!(field(&chain, MINER, "port"), number(8_091_u16));
    assert_eq!(field(&chain, MINER, "block"), number(1_u16));
    assert_eq!(chain.call(SECOND_MINER, serve(axon("::1", 8_091))), "ok");
}

#[test]
fn an_endpoint_is_published_at_most_every_fifty_blocks() {
    let mut chain = Chain::new(spec());
    assert_eq!(chain.call(MINER, serve(axon("10.0.0.1", 1))), "ok");
    let again = serve(axon("10.0.0.2", 2));
    assert_eq!(
        chain.include(MINER, again.clone()),
        "ServingRateLimitExceeded",
        "a second one in the same block"
    );
    chain.advance_to(49);
    assert_eq!(chain.asks(MINER, again.clone()), Err(12), "in block 50");
    chain.advance_to(50);
    assert_eq!(chain.call(MINER, again), "ok", "in block 51");
}

#[test]
fn a_certificate_is_stored_with_its_algorithm_and_goes_with_the_neuron() {
    let mut chain = Chain::with(|spec| (spec.max_uids, spec.immunity_period) = (4, 0));
    let tls = |certificate: Vec<u8>| call::Subtensor::ServeAxonTls {
        netuid: NETUID,
        axon: axon("10.0.0.1", 1),
        certificate,
    };
    let stored = |chain: &Chain, hotkey: AccountId| {
        let keys = [number(NETUID), Value::Bytes(hotkey.to_vec())];
        chain.read("SubtensorModule", "NeuronCertificates", &keys)
    };
    assert_eq!(chain.call(MINER, tls([&[7], &[1; 64][..]].concat())), "ok");
    let certificate = stored(&chain, MINER);
    assert_eq!(certificate.field("algorithm"), Some(&number(7_u8)));
    assert_eq!(
        certificate.field("public_key"),
        Some(&Value::Bytes(vec![1; 64]))
    );
    assert_eq!(chain.call(SECOND_MINER, tls(vec![0; 66])), "ok", "too long");
    assert_eq!(stored(&chain, SECOND_MINER), Value::List(Vec::new()));

    assert_eq!(chain.call(RICH, register(STRANGER)), "ok");
    assert_eq!(chain.uid(MINER), None);
    assert_eq!(stored(&chain, MINER), Value::List(Vec::new()));
}
