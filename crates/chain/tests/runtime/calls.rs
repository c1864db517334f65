//! The bytes of calls, at every version.

use connito_chain::runtime::Value;

use crate::{ALICE, BOB, SPECS, account, bytes, numbers, runtime};

type Vector = (
    &'static str,
    &'static str,
    Vec<(&'static str, Value)>,
    String,
);

fn weights() -> Vec<Vector> {
    let module = "SubtensorModule";
    vec![
        (
            module,
            "set_weights",
            vec![
                ("netuid", 3_u16.into()),
                ("dests", numbers(&[0, 1, 300])),
                ("weights", numbers(&[1, 65_535, 7])),
                ("version_key", 0_u64.into()),
            ],
            "070003000c000001002c010c0100ffff07000000000000000000".into(),
        ),
        (
            module,
            "set_mechanism_weights",
            vec![
                ("netuid", 3_u16.into()),
                ("mecid", 1_u8.into()),
                ("dests", numbers(&[0, 1])),
                ("weights", numbers(&[1, 65_535])),
                ("version_key", 9_u64.into()),
            ],
            "07770300010800000100080100ffff0900000000000000".into(),
        ),
        (
            module,
            "commit_weights",
            vec![("netuid", 3_u16.into()), ("commit_hash", [0xab; 32].into())],
            format!("07600300{}", "ab".repeat(32)),
        ),
        (
            module,
            "reveal_weights",
            vec![
                ("netuid", 3_u16.into()),
                ("uids", numbers(&[1, 2])),
                ("values", numbers(&[3, 4])),
                ("salt", numbers(&[5, 6])),
                ("version_key", 7_u64.into()),
            ],
            "076103000801000200080300040008050006000700000000000000".into(),
        ),
        (
            module,
            "commit_timelocked_mechanism_weights",
            vec![
                ("netuid", 3_u16.into()),
                ("mecid", 0_u8.into()),
                ("commit", vec![1; 100].into()),
                ("reveal_round", 12_345_678_u64.into()),
                ("commit_reveal_version", 4_u16.into()),
            ],
            format!("07760300009101{}4e61bc00000000000400", "01".repeat(100)),
        ),
    ]
}

fn neurons() -> Vec<Vector> {
    let module = "SubtensorModule";
    let register = || vec![("netuid", 3_u16.into()), ("hotkey", account(ALICE).into())];
    let mut limited = register();
    limited.push(("limit_price", 1_000_000_000_u64.into()));
    let transfer = vec![
        ("value", 12_345_u64.into()),
        ("dest", Value::variant_of("Id", [account(BOB).into()])),
    ];
    vec![
        (
            module,
            "serve_axon",
            vec![
                ("netuid", 3_u16.into()),
                ("version", 1_u32.into()),
                (
                    "ip",
                    u128::from(u32::from_be_bytes([203, 0, 113, 7])).into(),
                ),
                ("port", 8_091_u16.into()),
                ("ip_type", 4_u8.into()),
                ("protocol", 4_u8.into()),
                ("placeholder1", 0_u8.into()),
                ("placeholder2", 0_u8.into()),
            ],
            "0704030001000000077100cb0000000000000000000000009b1f04040000".into(),
        ),
        (
            module,
            "burned_register",
            register(),
            format!("07070300{ALICE}"),
        ),
        (
            module,
            "register_limit",
            limited,
            format!("07860300{ALICE}00ca9a3b00000000"),
        ),
        (
            "Balances",
            "transfer_keep_alive",
            transfer,
            format!("050300{BOB}e5c0"),
        ),
    ]
}

fn commitment(fields: impl IntoIterator<Item = Value>, bytes: String) -> Vector {
    let info = Value::record([("fields", Value::list(fields))]);
    let arguments = vec![("netuid", 3_u16.into()), ("info", info)];
    ("Commitments", "set_commitment", arguments, bytes)
}

fn commitments() -> Vec<Vector> {
    let field = |name: &str, bytes: &[u8]| Value::variant_of(name, [bytes.into()]);
    let sealed = [
        ("encrypted", vec![0x22; 64].into()),
        ("reveal_round", 999_u64.into()),
    ];
    let sealed = Value::variant_with("TimelockEncrypted", sealed);
    let several = [
        field("Raw3", &[1, 2, 3]),
        field("Sha256", &[0x11; 32]),
        Value::variant_of("ResetBondsFlag", []),
    ];
    vec![
        commitment([field("Raw5", b"hello")], "12000300040668656c6c6f".into()),
        commitment(
            [field("BigRaw", &[0xaa; 200])],
            format!("1200030004882103{}", "aa".repeat(200)),
        ),
        commitment(
            [field("Sha256", &[0x11; 32])],
            format!("120003000483{}", "11".repeat(32)),
        ),
        commitment(
            [sealed],
            format!("1200030004860101{}e703000000000000", "22".repeat(64)),
        ),
        commitment(
            several,
            format!("120003000c0401020383{}87", "11".repeat(32)),
        ),
    ]
}

fn vectors() -> Vec<Vector> {
    [weights(), neurons(), commitments()].concat()
}

#[test]
fn calls_have_the_official_bytes_at_every_version() {
    for spec in SPECS {
        let runtime = runtime(spec);
        for (pallet, call, arguments, expected) in vectors() {
            let composed = runtime.call(pallet, call, &arguments);
            if (spec, call) == (365, "register_limit") {
                let refusal = composed.unwrap_err().to_string();
                let absent =
                    "SubtensorModule.register_limit of spec 365: the runtime does not have it";
                assert_eq!(refusal, absent);
                continue;
            }
            let composed = hex::encode(composed.unwrap());
            assert_eq!(composed, expected, "{pallet}.{call} at {spec}");
        }
    }
}

#[test]
fn calls_read_back_as_they_were_composed() {
    let runtime = runtime(461);
    for (pallet, call, arguments, expected) in vectors() {
        let read = runtime.decode_call(&bytes(&expected)).unwrap();
        assert_eq!((read.pallet.as_str(), read.name.as_str()), (pallet, call));
        for (name, value) in &arguments {
            assert_eq!(read.arguments.field(name), Some(value), "{call}.{name}");
        }
    }
}

/// An argument is never guessed: what is missing, superfluous, given twice or too large is named.
#[test]
fn arguments_that_do_not_fit_are_refused_by_name() {
    let runtime = runtime(461);
    let refusal = |arguments: &[(&str, Value)]| {
        let refused = runtime.call("SubtensorModule", "set_tempo", arguments);
        refused.unwrap_err().detail
    };
    let netuid = || ("netuid", Value::from(1_u16));
    let tempo = || ("tempo", Value::from(360_u16));
    assert_eq!(refusal(&[netuid()]), "tempo is missing or given twice");
    assert_eq!(
        refusal(&[netuid(), tempo(), tempo()]),
        "tempo is missing or given twice"
    );
    assert_eq!(
        refusal(&[netuid(), tempo(), ("epoch", 1_u8.into())]),
        "there is no epoch"
    );
    assert_eq!(
        refusal(&[netuid(), ("tempo", 70_000_u32.into())]),
        "tempo: u16 expected"
    );
    assert_eq!(
        refusal(&[netuid(), ("tempo", (-1_i64).into())]),
        "tempo: u16 expected"
    );
    let unknown = runtime.call("SubtensorModule", "fly_to_the_moon", &[]);
    assert_eq!(unknown.unwrap_err().detail, "no such call");
}

/// The path in the message leads to the value that does not fit.
#[test]
fn a_value_that_does_not_fit_is_found_inside_others() {
    let field = Value::variant_of("Raw3", [[1_u8; 4].into()]);
    let (pallet, call, arguments, _) = commitment([field], String::new());
    let refusal = runtime(461).call(pallet, call, &arguments).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "Commitments.set_commitment of spec 461: info.fields.0.Raw3.0: [u8; 3] expected"
    );
}

#[test]
fn bytes_left_over_are_no_call() {
    let runtime = runtime(461);
    let mut longer = bytes(&format!("07070300{ALICE}"));
    longer.push(0);
    let refusal = runtime.decode_call(&longer).unwrap_err();
    assert_eq!(refusal.detail, "bytes left over at byte 34");
    assert!(runtime.decode_call(&longer[..20]).is_err());
    assert!(runtime.decode_call(&[250, 0]).is_err());
    assert!(runtime.decode_call(&[7]).is_err());
}
