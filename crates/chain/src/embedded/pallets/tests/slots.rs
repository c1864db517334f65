//! Slots: who gets one, whose it was, what is left of it.

use super::*;

fn last_update(chain: &Chain, uid: u16) -> u64 {
    neurons::entry(&neurons::LAST_UPDATE, &chain.state, NETUID, uid)
}

/// The coldkey signs and owns; the slot works at once, but its first weights wait for the rate limit.
#[test]
fn a_registration_takes_the_next_slot_at_once() {
    let mut chain = Chain::new(spec());
    assert_eq!(chain.call(RICH, register(STRANGER)), "ok");
    assert_eq!(chain.happened(), ["NeuronRegistered"]);
    assert_eq!(chain.uid(STRANGER), Some(4));
    assert_eq!(neurons::OWNER.get(&chain.state, &(STRANGER,)), Some(RICH));
    assert_eq!(
        neurons::OWNED_HOTKEYS.get(&chain.state, &(RICH,)),
        Some(vec![STRANGER])
    );
    assert_eq!(last_update(&chain, 4), 1);
    for vector in [
        "Active",
        "ValidatorPermit",
        "LastUpdate",
        "Incentive",
        "Emission",
    ] {
        assert_eq!(
            chain.of_subnet(vector).items().unwrap().len(),
            5,
            "{vector}"
        );
    }
    assert_eq!(chain.of_subnet("SubnetworkN"), number(5_u16));
    assert_eq!(
        chain.call(RICH, register(STRANGER)),
        "HotKeyAlreadyRegisteredInSubNet"
    );
}

#[test]
fn a_new_validator_waits_a_hundred_blocks_before_its_first_commitment() {
    let mut chain = Chain::with(|spec| spec.commit_reveal = true);
    assert_eq!(chain.call(RICH, register(STRANGER)), "ok");
    let commit = || call::Subtensor::CommitWeights {
        netuid: NETUID,
        commit_hash: [9; 32],
    };
    assert_eq!(
        chain.include(STRANGER, commit()),
        "CommittingWeightsTooFast"
    );
    chain.advance_to(99);
    assert_eq!(chain.asks(STRANGER, commit()), Err(6), "in block 100");
    chain.advance_to(100);
    assert_eq!(chain.call(STRANGER, commit()), "ok", "in block 101");
}

#[test]
fn a_slot_costs_its_price_and_the_price_has_a_limit() {
    let mut chain = Chain::with(|spec| spec.registration_burn_rao = 3 * TAO);
    let before = chain.free(RICH);
    let offer = |limit_price| call::Subtensor::RegisterLimit {
        netuid: NETUID,
        hotkey: STRANGER,
        limit_price,
    };
    assert_eq!(
        chain.call(RICH, offer(3 * TAO - 1)),
        "RegistrationPriceLimitExceeded"
    );
    assert_eq!(
        chain.call(STRANGER, offer(3 * TAO)),
        "NotEnoughBalanceToStake",
        "who has nothing"
    );
    assert_eq!(chain.free(RICH), before);
    assert_eq!(chain.call(RICH, offer(3 * TAO)), "ok");
    assert_eq!(chain.free(RICH), before - 3 * TAO);
    assert_eq!(chain.happened(), ["Withdraw", "NeuronRegistered"]);
}

#[test]
fn what_cannot_be_registered_is_refused_by_name() {
    let mut chain = Chain::new(spec());
    let at = |netuid| call::Subtensor::BurnedRegister {
        netuid,
        hotkey: STRANGER,
    };
    assert_eq!(
        chain.call(RICH, at(0)),
        "RegistrationNotPermittedOnRootSubnet"
    );
    assert_eq!(chain.call(RICH, at(99)), "SubnetNotExists");
    // Registered elsewhere by somebody else.
    let network = call::Subtensor::RegisterNetwork { hotkey: STRANGER };
    assert_eq!(chain.call(RICH, network), "ok");
    assert_eq!(chain.call(ROOT, register(STRANGER)), "NonAssociatedColdKey");
}

/// What should happen: the neuron worth least goes, and its slot starts from nothing.
/// What should not happen: the owner goes, a newcomer before an older one, or anything is inherited.
#[test]
fn a_full_subnet_prunes_the_neuron_that_is_worth_least() {
    let mut chain = Chain::with(|spec| {
        (spec.max_uids, spec.immunity_period, spec.tempo) = (4, 5, 20);
        (spec.owner, spec.owner_coldkey) = (Hotkey(MINER), None);
    });
    chain.next();
    let axon = endpoints::axon("10.0.0.1", 1);
    let serve = call::Subtensor::ServeAxon {
        netuid: NETUID,
        axon,
    };
    assert_eq!(chain.include(SECOND_MINER, serve), "ok");
    assert_eq!(chain.include(VALIDATOR, weigh(&[(2, 1), (3, 1)], 0)), "ok");
    assert_eq!(
        chain.include(SECOND_VALIDATOR, weigh(&[(2, 1), (3, 1)], 0)),
        "ok"
    );
    assert_eq!(chain.include(SECOND_MINER, weigh(&[(3, 1)], 0)), "ok");

    chain.advance_to(6);
    assert_eq!(chain.include(RICH, register(STRANGER)), "ok");
    assert_eq!(chain.uid(STRANGER), Some(3), "it had no stake");
    assert_eq!(chain.uid(SECOND_MINER), None);
    assert_eq!(chain.weights(0), [(2, 65_535)], "what others said of it");
    assert_eq!(chain.weights(3), [], "what it said");
    let axons = [number(NETUID), Value::Bytes(SECOND_MINER.to_vec())];
    assert_eq!(
        chain.read("SubtensorModule", "Axons", &axons),
        Value::List(Vec::new())
    );
    assert_eq!(last_update(&chain, 3), 6);
    let member = |hotkey: AccountId| {
        let keys = [Value::Bytes(hotkey.to_vec()), number(NETUID)];
        chain.read("SubtensorModule", "IsNetworkMember", &keys)
    };
    assert_eq!(
        [SECOND_MINER, STRANGER].map(member),
        [Value::Bool(false), Value::Bool(true)]
    );

    // After an epoch the validators have earned and the newcomer has not, but it is immune: it goes
    // only when nobody else can, and the owner never does.
    chain.advance_to(20);
    assert_eq!(chain.include(RICH, register([50; 32])), "ok");
    assert_eq!(
        chain.uid(STRANGER),
        None,
        "at block 20 it is immune no more"
    );
    chain.advance(1);
    assert_eq!(chain.include(RICH, register([51; 32])), "ok");
    assert_eq!(chain.uid(SECOND_VALIDATOR), None, "its slot earned less");
    assert!(chain.uid([50; 32]).is_some(), "it is immune");
    chain.advance(1);
    assert_eq!(chain.include(RICH, register([52; 32])), "ok");
    assert_eq!(chain.uid(VALIDATOR), None);
    chain.advance(1);
    assert_eq!(chain.include(RICH, register([53; 32])), "ok");
    assert!(chain.uid([50; 32]).is_none(), "the oldest of the immune");
    assert_eq!(chain.uid(MINER), Some(2));
}

#[test]
fn a_subnet_of_owners_has_no_slot_to_give() {
    let mut chain = Chain::with(|spec| {
        spec.max_uids = 1;
        spec.neurons.truncate(1);
        (spec.owner, spec.owner_coldkey) = (Hotkey(VALIDATOR), None);
    });
    assert_eq!(chain.call(RICH, register(STRANGER)), "NoNeuronIdAvailable");
}

/// A subnet of one's own costs a thousand TAO, has the main network's parameters, and can be staked on
/// only when its owner has started it.
#[test]
fn a_further_subnet_begins_with_the_main_networks_parameters() {
    let mut chain = Chain::new(spec());
    let found = || call::Subtensor::RegisterNetwork { hotkey: STRANGER };
    assert_eq!(chain.call(STRANGER, found()), "CannotAffordLockCost");
    let before = chain.free(RICH);
    assert_eq!(chain.call(RICH, found()), "ok");
    assert_eq!(
        chain.happened(),
        ["Withdraw", "NetworkAdded", "NeuronRegistered"]
    );
    assert_eq!(chain.free(RICH), before - 1_000 * TAO);
    let of_first = |item| chain.read("SubtensorModule", item, &[number(1_u16)]);
    assert_eq!(of_first("Tempo"), number(360_u16));
    assert_eq!(of_first("CommitRevealWeightsEnabled"), Value::Bool(true));
    assert_eq!(of_first("MinAllowedWeights"), number(1_024_u16));
    assert_eq!(of_first("SubnetworkN"), number(1_u16));
    assert_eq!(
        chain.read("SubtensorModule", "TotalNetworks", &[]),
        number(3_u16)
    );

    let stake = || call::Subtensor::AddStake {
        hotkey: STRANGER,
        netuid: 1,
        amount_staked: TAO,
    };
    let start = || call::Subtensor::StartCall { netuid: 1 };
    assert_eq!(chain.call(RICH, stake()), "SubtokenDisabled");
    assert_eq!(chain.call(ROOT, start()), "NotSubnetOwner");
    assert_eq!(chain.call(RICH, start()), "ok");
    assert_eq!(
        chain.call(RICH, start()),
        "FirstEmissionBlockNumberAlreadySet"
    );
    assert_eq!(chain.call(RICH, stake()), "ok");
}
