//! Events and the names of errors.

use std::collections::BTreeSet;

use connito_chain::runtime::{Runtime, Value};

use crate::{ALICE, BOB, SPECS, bytes, runtime};

/// The events of a block of a real node at spec 461: an issue, two extrinsics, then a transfer.
fn recorded() -> Vec<u8> {
    let fee = "67890200000000000000";
    bytes(&format!(
        "2002050f00ca9a3b00000000000000000000000022acc34ced5802000000010000000000429a02d765980000\
         0000020000000508{ALICE}{fee}020000000502{ALICE}{BOB}00ca9a3b000000000000020000000507\
         {ALICE}00000000000000000000020000000600{ALICE}678902000000000000000000000000000000020000\
         000000025e344fbd79000000"
    ))
}

/// One event, `System.ExtrinsicFailed` of extrinsic 5 with this error.
fn failed(error: &str) -> Vec<u8> {
    bytes(&format!("0400050000000001{error}0000000000"))
}

#[test]
fn a_blocks_events_are_read_by_name() {
    let events = runtime(461).events(&recorded()).unwrap();
    let names = events.iter().map(|event| {
        let extrinsic = event
            .extrinsic
            .map_or("-".into(), |place| place.to_string());
        format!("{extrinsic} {}.{}", event.pallet, event.name)
    });
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "- Balances.Issued",
            "0 System.ExtrinsicSuccess",
            "1 System.ExtrinsicSuccess",
            "2 Balances.Withdraw",
            "2 Balances.Transfer",
            "2 Balances.Deposit",
            "2 TransactionPayment.TransactionFeePaid",
            "2 System.ExtrinsicSuccess",
        ]
    );
    let transfer = &events[4].fields;
    let to = transfer.field("to").and_then(Value::as_hotkey);
    assert_eq!(to, Some(crate::account(BOB)));
    assert_eq!(transfer.field("amount"), Some(&1_000_000_000_u64.into()));
}

#[test]
fn a_block_without_events_has_none_and_a_cut_one_is_an_error() {
    let runtime = runtime(461);
    assert_eq!(runtime.events(&[0]), Ok(Vec::new()));
    let recorded = recorded();
    for length in 0..recorded.len() {
        assert!(runtime.events(&recorded[..length]).is_err(), "{length}");
    }
}

/// The names by which an error reached us: pallet and error, out of the event as it stands.
fn failure(runtime: &Runtime, error: &str) -> (String, String) {
    let events = runtime.events(&failed(error)).unwrap();
    assert_eq!(
        (events[0].name.as_str(), events[0].extrinsic),
        ("ExtrinsicFailed", Some(5))
    );
    let failure = runtime.dispatch_error(events[0].fields.field("dispatch_error").unwrap());
    (failure.pallet, failure.name)
}

#[test]
fn a_pallets_error_has_its_own_name() {
    let runtime = runtime(461);
    for (number, name) in [
        (4, "HotKeyNotRegisteredInSubNet"),
        (15, "NeuronNoValidatorPermit"),
        (29, "SettingWeightsTooFast"),
        (53, "CommitRevealEnabled"),
        (112, "InvalidRevealRound"),
    ] {
        let found = failure(&runtime, &format!("0307{number:02x}000000"));
        assert_eq!(found, ("SubtensorModule".into(), name.into()));
    }
    let commitments = failure(&runtime, "031202000000");
    assert_eq!(
        commitments,
        ("Commitments".into(), "SpaceLimitExceeded".into())
    );
}

#[test]
fn the_runtimes_own_errors_are_told_by_their_kind() {
    let runtime = runtime(461);
    let name = |error| {
        let (pallet, name) = failure(&runtime, error);
        format!("{pallet}.{name}")
    };
    assert_eq!(name("02"), "Dispatch.BadOrigin");
    assert_eq!(name("0700"), "Token.FundsUnavailable");
    assert_eq!(name("0801"), "Arithmetic.Overflow");
}

#[test]
fn an_error_without_a_name_is_shown_by_its_number() {
    let runtime = runtime(461);
    let unnamed = failure(&runtime, "0307fa000000");
    assert_eq!(unnamed, ("SubtensorModule".into(), "error 250".into()));
    let nowhere = failure(&runtime, "03fa01000000");
    assert_eq!(nowhere, ("pallet 250".into(), "error 1".into()));
    let nonsense = runtime.dispatch_error(&Value::Bool(true));
    assert_eq!(nonsense.name, "Undecodable");
}

/// All errors a version names, as `Pallet.Name`.
fn errors(runtime: &Runtime) -> BTreeSet<String> {
    let all = (0..=255_u8).flat_map(|error| {
        [7_u8, 18].map(|pallet| {
            let module = [("index", pallet.into()), ("error", [error, 0, 0, 0].into())];
            let error = Value::variant_of("Module", [Value::record(module)]);
            let failure = runtime.dispatch_error(&error);
            format!("{}.{}", failure.pallet, failure.name)
        })
    });
    all.collect()
}

/// What rejections are told apart by (see `Reject::from_dispatch`) exists at every version, but for
/// one that came with 439.
#[test]
fn the_errors_that_are_told_apart_have_kept_their_names() {
    let module = [
        "HotKeyNotRegisteredInSubNet",
        "HotKeyNotRegisteredInNetwork",
        "HotKeyAlreadyRegisteredInSubNet",
        "NeuronNoValidatorPermit",
        "NotEnoughStakeToSetWeights",
        "SettingWeightsTooFast",
        "CommittingWeightsTooFast",
        "ServingRateLimitExceeded",
        "TxRateLimitExceeded",
        "WeightVecLengthIsLow",
        "MaxWeightExceeded",
        "WeightVecNotEqualSize",
        "DuplicateUids",
        "UidVecContainInvalidOne",
        "UidsLengthExceedUidsInSubNet",
        "IncorrectWeightVersionKey",
        "CommitRevealEnabled",
        "CommitRevealDisabled",
        "TooManyUnrevealedCommits",
        "InvalidRevealRound",
        "IncorrectCommitRevealVersion",
        "InvalidIpType",
        "InvalidIpAddress",
        "InvalidPort",
        "TooManyRegistrationsThisBlock",
        "TooManyRegistrationsThisInterval",
    ];
    let commitments = [
        "TooManyFieldsInCommitmentInfo",
        "AccountNotAllowedCommit",
        "SpaceLimitExceeded",
    ];
    let module = module.map(|name| format!("SubtensorModule.{name}"));
    let commitments = commitments.map(|name| format!("Commitments.{name}"));
    let wanted: BTreeSet<String> = module.into_iter().chain(commitments).collect();
    for spec in SPECS {
        let missing: Vec<_> = wanted
            .difference(&errors(&runtime(spec)))
            .cloned()
            .collect();
        let newer = (spec < 439).then(|| "SubtensorModule.InvalidRevealRound".to_owned());
        assert_eq!(missing, newer.into_iter().collect::<Vec<_>>(), "{spec}");
    }
}
