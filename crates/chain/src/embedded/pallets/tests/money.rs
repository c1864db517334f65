//! Balances and stakes: who has what, and that nothing appears or disappears unsaid.

use super::*;
use parity_scale_codec::Compact;
use proptest::prelude::*;

const VALIDATOR_COLDKEY: AccountId = {
    let mut coldkey = VALIDATOR;
    coldkey[0] = 100;
    coldkey
};

fn send(dest: AccountId, value: u64) -> call::Balances {
    call::Balances::TransferKeepAlive {
        dest: call::Address::Id(dest),
        value: Compact(value),
    }
}

fn send_all(dest: AccountId, value: u64) -> call::Balances {
    call::Balances::TransferAllowDeath {
        dest: call::Address::Id(dest),
        value: Compact(value),
    }
}

fn stake(hotkey: AccountId, amount_staked: u64) -> call::Subtensor {
    call::Subtensor::AddStake {
        hotkey,
        netuid: NETUID,
        amount_staked,
    }
}

fn unstake(hotkey: AccountId, amount_unstaked: u64) -> call::Subtensor {
    call::Subtensor::RemoveStake {
        hotkey,
        netuid: NETUID,
        amount_unstaked,
    }
}

/// All money is some account's or some stake.
fn check_sums(chain: &Chain) {
    let total = |pallet: &str, item: &str| {
        let total = chain.read(pallet, item, &[]);
        total.number::<u64>().unwrap()
    };
    let balances = total("Balances", "TotalIssuance");
    let staked = total("SubtensorModule", "TotalStake");
    let issued = total("SubtensorModule", "TotalIssuance");
    assert_eq!(issued, balances + staked);
    let prefix = RUNTIME.storage_key("System", "Account", &[]).unwrap();
    let accounts = chain.state.0.iter();
    let accounts = accounts.filter(|(key, _)| key.starts_with(&prefix));
    let held = accounts.map(|(_, bytes)| {
        let account = RUNTIME.storage_value("System", "Account", Some(bytes));
        let account = account.unwrap().unwrap();
        let data = account.field("data").unwrap();
        data.field("free").unwrap().number::<u64>().unwrap()
    });
    assert_eq!(held.sum::<u64>(), balances);
}

#[test]
fn the_faucet_has_a_million_tao_and_gives_some_away() {
    let mut chain = Chain::new(spec());
    check_sums(&chain);
    assert_eq!(chain.free(RICH), 1_000_000 * TAO);
    assert_eq!(chain.call(RICH, send(STRANGER, 5 * TAO)), "ok");
    assert_eq!(chain.happened(), ["NewAccount", "Endowed", "Transfer"]);
    assert_eq!(chain.free(STRANGER), 5 * TAO);
    assert_eq!(chain.call(STRANGER, send(RICH, 5 * TAO)), "NotExpendable");
    assert_eq!(
        chain.call(STRANGER, send(RICH, 5 * TAO + 1)),
        "FundsUnavailable"
    );
    assert_eq!(chain.call(STRANGER, send(MINER, 499)), "BelowMinimum");
    assert_eq!(chain.call(STRANGER, send_all(RICH, 5 * TAO - 10)), "ok");
    assert_eq!(chain.happened(), ["KilledAccount", "DustLost", "Transfer"]);
    assert_eq!(chain.free(STRANGER), 0);
    check_sums(&chain);
}

#[test]
fn the_specification_says_who_has_what() {
    let chain = Chain::with(|spec| {
        spec.faucet_rao = 0;
        spec.balances = vec![crate::embedded::genesis::GenesisBalance {
            account: Hotkey(STRANGER),
            amount_rao: 7 * TAO,
        }];
    });
    assert_eq!((chain.free(STRANGER), chain.free(RICH)), (7 * TAO, 0));
    check_sums(&chain);
}

#[test]
fn stake_moves_rao_for_rao() {
    let mut chain = Chain::new(spec());
    assert_eq!(chain.call(RICH, stake(MINER, 50 * TAO)), "ok");
    assert_eq!(chain.happened(), ["Withdraw", "StakeAdded"]);
    let keys = [Value::Bytes(MINER.to_vec()), number(NETUID)];
    let alpha = |chain: &Chain| chain.read("SubtensorModule", "TotalHotkeyAlpha", &keys);
    assert_eq!(alpha(&chain), number(50 * TAO));
    check_sums(&chain);
    // As much as 5 * 10^10, with 21 digits.
    let keys = [
        Value::Bytes(MINER.to_vec()),
        Value::Bytes(RICH.to_vec()),
        number(NETUID),
    ];
    let share = chain.read("SubtensorModule", "AlphaV2", &keys);
    assert_eq!(share.field("mantissa"), Some(&number(5 * 10_u128.pow(20))));
    assert_eq!(share.field("exponent"), Some(&Value::Signed(-10)));

    assert_eq!(
        chain.call(RICH, unstake(MINER, 50 * TAO + 1)),
        "NotEnoughStakeToWithdraw"
    );
    assert_eq!(
        chain.call(VALIDATOR_COLDKEY, unstake(MINER, TAO)),
        "NotEnoughStakeToWithdraw",
        "somebody else's"
    );
    assert_eq!(chain.call(RICH, unstake(MINER, 20 * TAO)), "ok");
    assert_eq!(chain.happened(), ["Deposit", "StakeRemoved"]);
    assert_eq!(alpha(&chain), number(30 * TAO));
    assert_eq!(chain.free(RICH), 1_000_000 * TAO - 30 * TAO);
    check_sums(&chain);
}

#[test]
fn the_stake_of_the_first_neurons_is_their_coldkeys() {
    let mut chain = Chain::new(spec());
    assert_eq!(
        chain.call(VALIDATOR_COLDKEY, unstake(VALIDATOR, 200 * TAO)),
        "ok"
    );
    assert_eq!(chain.free(VALIDATOR_COLDKEY), 200 * TAO);
    check_sums(&chain);
}

#[test]
fn what_cannot_be_staked_is_refused_by_name() {
    let mut chain = Chain::new(spec());
    assert_eq!(chain.call(RICH, stake(MINER, 1_999_999)), "AmountTooLow");
    assert_eq!(
        chain.call(RICH, stake(STRANGER, TAO)),
        "HotKeyAccountNotExists"
    );
    assert_eq!(
        chain.call(STRANGER, stake(MINER, TAO)),
        "NotEnoughBalanceToStake"
    );
    let elsewhere = call::Subtensor::AddStake {
        hotkey: MINER,
        netuid: 99,
        amount_staked: TAO,
    };
    assert_eq!(chain.call(RICH, elsewhere), "SubnetNotExists");
    let limited = |limit_price| call::Subtensor::AddStakeLimit {
        hotkey: MINER,
        netuid: NETUID,
        amount_staked: TAO,
        limit_price,
        allow_partial: false,
    };
    assert_eq!(chain.call(RICH, limited(TAO - 1)), "SlippageTooHigh");
    assert_eq!(chain.call(RICH, limited(TAO)), "ok");
}

/// On this chain nothing costs a fee, so a hotkey needs no money.
#[test]
fn a_hotkey_without_money_commits_serves_and_weighs() {
    let mut chain = Chain::new(spec());
    assert_eq!(chain.free(VALIDATOR), 0);
    assert_eq!(chain.call(VALIDATOR, weigh(&[(2, 1)], 0)), "ok");
}

fn operation() -> impl Strategy<Value = (u8, u8, u64)> {
    let amount = prop_oneof![
        0_u64..2_000,
        1_990_000_u64..2_010_000,
        TAO..3 * TAO,
        any::<u64>()
    ];
    (0_u8..5, 0_u8..6, amount)
}

proptest! {
    // Every case is a chain with a beacon of its own, which takes its time.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is tried, in whatever order, no money appears or disappears unsaid.
    #[test]
    fn money_is_conserved(operations in proptest::collection::vec(operation(), 0..30)) {
        let mut chain = Chain::with(|spec| spec.registration_burn_rao = TAO);
        let accounts = [RICH, STRANGER, VALIDATOR_COLDKEY, MINER, [77; 32], [78; 32]];
        for (place, (kind, who, amount)) in operations.into_iter().enumerate() {
            let signer = accounts[place % 2];
            let other = accounts[usize::from(who)];
            let call: Call = match kind {
                0 => send(other, amount).into(),
                1 => send_all(other, amount).into(),
                2 => stake(other, amount).into(),
                3 => unstake(other, amount).into(),
                _ => register(other).into(),
            };
            chain.call(signer, call);
            check_sums(&chain);
        }
    }
}
