//! Storage keys and values, at every version.

use connito_chain::runtime::Value;

use crate::{ALICE, SPECS, account, bytes, runtime};

const MODULE: &str = "SubtensorModule";

/// Pallet, item, keys, and the key that a public node has for them.
fn keys() -> Vec<(&'static str, &'static str, Vec<Value>, String)> {
    let module = "658faa385070e074c85bf6b568cf0555";
    let commitments = "ca407206ec1ab726b2636c4b145ac287";
    vec![
        (
            MODULE,
            "Tempo",
            vec![1_u16.into()],
            format!("{module}7641384bb339f3758acddfd7053d33170100"),
        ),
        (
            MODULE,
            "Keys",
            vec![1_u16.into(), 0_u16.into()],
            format!("{module}9f99a2ce711f3a31b2fc05604c93f17901000000"),
        ),
        (
            MODULE,
            "Uids",
            vec![3_u16.into(), account(ALICE).into()],
            format!(
                "{module}aab1b4e78e1ea8305462ee53b3686dc80300\
                 de1e86a9a8c739864cf3cc5ec2bea59f{ALICE}"
            ),
        ),
        (
            "Commitments",
            "CommitmentOf",
            vec![3_u16.into(), account(ALICE).into()],
            format!("{commitments}419a60ae8b01e6dcaebd7317e43c69bf0300518366b5b1bc7c99{ALICE}"),
        ),
    ]
}

/// The prefixes of items without keys or before them, as published for the main network.
const PREFIXES: [(&str, &str, &str); 8] = [
    (
        "System",
        "Number",
        "26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac",
    ),
    (
        "System",
        "Account",
        "26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9",
    ),
    (
        "System",
        "Events",
        "26aa394eea5630e07c48ae0c9558cef780d41e5e16056765bc8461851072c9d7",
    ),
    (
        "Timestamp",
        "Now",
        "f0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb",
    ),
    (
        MODULE,
        "Axons",
        "658faa385070e074c85bf6b568cf0555b4e0c7b1d5f74994fcd58c28ab601fec",
    ),
    (
        MODULE,
        "TimelockedWeightCommits",
        "658faa385070e074c85bf6b568cf0555119e1c428ff5c7c6dac4c888a10d1443",
    ),
    (
        "Commitments",
        "RevealedCommitments",
        "ca407206ec1ab726b2636c4b145ac2879055a2cffd4b296f38f2de8d9b333cab",
    ),
    (
        "Drand",
        "LastStoredRound",
        "a285cdb66e8b8524ea70b1693c7b1e05087f3dd6e0ceded0e388dd34f810a73d",
    ),
];

#[test]
fn keys_are_those_of_a_real_node_at_every_version() {
    for spec in SPECS {
        let runtime = runtime(spec);
        for (pallet, item, keys, expected) in keys() {
            let key = runtime.storage_key(pallet, item, &keys).unwrap();
            assert_eq!(hex::encode(key), expected, "{pallet}.{item} at {spec}");
        }
        for (pallet, item, expected) in PREFIXES {
            let key = runtime.storage_key(pallet, item, &[]).unwrap();
            assert_eq!(hex::encode(key), expected, "{pallet}.{item} at {spec}");
        }
    }
}

#[test]
fn entries_tell_their_keys() {
    let runtime = runtime(461);
    for (pallet, item, keys, key) in keys() {
        let read = runtime.storage_keys_of(pallet, item, &bytes(&key)).unwrap();
        assert_eq!(read, keys, "{pallet}.{item}");
    }
}

#[test]
fn fewer_keys_are_the_prefix_of_every_entry_under_them() {
    let runtime = runtime(461);
    for (pallet, item, keys, key) in keys() {
        let prefix = runtime.storage_key(pallet, item, &keys[..1]).unwrap();
        assert!(key.starts_with(&hex::encode(prefix)), "{pallet}.{item}");
    }
    let more = runtime.storage_key(MODULE, "Tempo", &[1_u16.into(), 2_u16.into()]);
    assert_eq!(more.unwrap_err().detail, "2 keys given, it has 1");
}

#[test]
fn a_key_of_another_item_or_a_cut_one_tells_nothing() {
    let runtime = runtime(461);
    let (pallet, item, _, key) = keys().swap_remove(2);
    let key = bytes(&key);
    let other = runtime.storage_keys_of(pallet, "Keys", &key).unwrap_err();
    assert_eq!(other.detail, "key of another item");
    for length in 0..key.len() {
        assert!(
            runtime
                .storage_keys_of(pallet, item, &key[..length])
                .is_err()
        );
    }
    let longer = [key, vec![0]].concat();
    assert!(runtime.storage_keys_of(pallet, item, &longer).is_err());
}

/// An item without an entry stands for its default where it has one: the metadata says which.
#[test]
fn an_absent_entry_is_the_items_default_or_nothing() {
    let runtime = runtime(461);
    let absent = |item| runtime.storage_value(MODULE, item, None).unwrap();
    assert_eq!(absent("CommitRevealWeightsEnabled"), Some(true.into()));
    assert_eq!(absent("RevealPeriodEpochs"), Some(1_u64.into()));
    assert_eq!(absent("Weights"), Some(Value::List(Vec::new())));
    assert_eq!(absent("Uids"), None);
    assert_eq!(absent("Axons"), None);
}

#[test]
fn values_are_read_by_name() {
    let runtime = runtime(461);
    let raw = bytes(
        "01000000000000000100000000000000992c29697e8d0300000000000000000000000000\
         0000000000000000000000000000000000000080",
    );
    let account = runtime.storage_value("System", "Account", Some(&raw));
    let account = account.unwrap().unwrap();
    assert_eq!(
        account.field("nonce").and_then(Value::number::<u64>),
        Some(1)
    );
    let data = account.field("data").unwrap();
    assert_eq!(data.field("free"), Some(&999_998_999_833_753_u64.into()));
    assert_eq!(data.field("flags"), Some(&(1_u128 << 127).into()));

    let cut = runtime.storage_value("System", "Account", Some(&raw[..40]));
    assert_eq!(cut.unwrap_err().detail, "unexpected end at byte 40");
}

/// What should happen: the record's kinds are told by name, its bytes are bytes.
#[test]
fn a_commitment_is_read_field_by_field() {
    let runtime = runtime(461);
    let sealed = format!("860101{}e703000000000000", "22".repeat(64));
    let raw = format!(
        "0000000000000000e80300000c0668656c6c6f83{}{sealed}",
        "11".repeat(32)
    );
    let record = runtime.storage_value("Commitments", "CommitmentOf", Some(&bytes(&raw)));
    let record = record.unwrap().unwrap();
    assert_eq!(record.field("block"), Some(&1_000_u32.into()));
    let fields = record.field("info").and_then(|info| info.field("fields"));
    let [hello, digest, sealed] = fields.and_then(Value::items).unwrap() else {
        panic!("three fields");
    };
    assert_eq!(
        hello,
        &Value::variant_of("Raw5", [b"hello".as_slice().into()])
    );
    assert_eq!(digest, &Value::variant_of("Sha256", [[0x11; 32].into()]));
    assert_eq!(
        sealed.variant().map(|(name, _)| name),
        Some("TimelockEncrypted")
    );
    assert_eq!(
        sealed.field("encrypted").and_then(Value::as_bytes),
        Some(&[0x22; 64][..])
    );
    assert_eq!(sealed.field("reveal_round"), Some(&999_u64.into()));
}
