//! Everything the official Python SDK has recorded of a node at spec 461: storage keys and values,
//! calls, payloads, extrinsics, events, answers of runtime APIs, and three samples of every type.
//!
//! The recordings are large and somebody else's; `tools/metadata/fixtures.sh FOLDER` fetches them, and
//! the tests look for them where the environment variable `CONNITO_SDK_FIXTURES` says. They check two
//! things of every sample: that it decodes to what was recorded, and that this encodes to it again.

use std::path::PathBuf;

use connito_chain::keys::{SIGNATURE_BYTES, Signer};
use connito_chain::runtime::{Era, Runtime, RuntimeVersion, SigningTerms, Value, as_version_14};
use connito_protocol::ids::Hotkey;
use frame_metadata::v14::RuntimeMetadataV14;
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use parity_scale_codec::Decode as _;
use scale_info::{PortableRegistry, TypeDef};
use serde_json::Value as Json;

const VARIABLE: &str = "CONNITO_SDK_FIXTURES";

/// A recorded node.
struct Recording {
    golden: Json,
    runtime: Runtime,
    folder: PathBuf,
}

/// The recording; nothing where it is not there.
fn recording() -> Option<Recording> {
    let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        eprintln!("skipped: {VARIABLE} is not set (see tools/metadata/fixtures.sh)");
        return None;
    };
    let golden = json(folder.join("golden.json"));
    let number = |name: &str| golden["network"][name].as_u64().unwrap() as u32;
    let version = RuntimeVersion {
        spec: number("spec_version"),
        transaction: number("transaction_version"),
    };
    // Both formats that were recorded describe the same runtime.
    let older = Runtime::from_metadata(&hex(&golden["metadata"]["v14_hex"]), version).unwrap();
    assert_eq!(older.misfits(), []);
    let runtime = Runtime::from_metadata(&hex(&golden["metadata"]["v15_hex"]), version).unwrap();
    assert_eq!(runtime.misfits(), []);
    Some(Recording {
        golden,
        runtime,
        folder,
    })
}

fn json(path: PathBuf) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn hex(text: &Json) -> Vec<u8> {
    hex::decode(text.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap()
}

fn text<'a>(entry: &'a Json, name: &str) -> &'a str {
    entry[name].as_str().unwrap()
}

/// What the SDK takes as a parameter, as a value: an address is an account, `0x…` are bytes.
fn parameter(json: &Json) -> Value {
    match json {
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => number.as_u64().unwrap().into(),
        Json::String(text) => match (text.parse::<Hotkey>(), text.strip_prefix("0x")) {
            (Ok(account), _) => account.into(),
            (_, Some(digits)) => hex::decode(digits).unwrap().into(),
            _ => text.as_str().into(),
        },
        Json::Array(items) => Value::list(items.iter().map(parameter)),
        _ => panic!("no parameter: {json}"),
    }
}

/// Whether a value is what the SDK decoded the same bytes to. The SDK shows accounts as addresses,
/// bytes as hexadecimal or as text, variants as objects with one key, units as their names.
fn same(value: &Value, json: &Json) -> bool {
    match (value, json) {
        (Value::Bool(value), Json::Bool(json)) => value == json,
        // JSON's numbers end at 64 bits; beyond, the round trip is the exact comparison.
        (Value::Unsigned(value), Json::Number(json)) => match json.as_u64() {
            Some(json) => *value == u128::from(json),
            None => json.as_f64() == Some(*value as f64),
        },
        (Value::Signed(value), Json::Number(json)) => match json.as_i64() {
            Some(json) => *value == i128::from(json),
            None => json.as_f64() == Some(*value as f64),
        },
        (Value::Text(value), Json::String(json)) => value == json,
        (Value::Bytes(bytes), Json::String(json)) => {
            let account = json.parse::<Hotkey>().ok();
            json.as_bytes() == bytes
                || json.strip_prefix("0x") == Some(hex::encode(bytes).as_str())
                || account.is_some_and(|account| account.0 == **bytes)
        }
        (Value::Bytes(bytes), Json::Array(items)) => {
            let items = items
                .iter()
                .map(|item| item.as_u64().map(|byte| byte as u8));
            items.collect::<Option<Vec<_>>>().as_ref() == Some(bytes)
        }
        (Value::List(items), Json::Array(array)) => {
            items.len() == array.len() && items.iter().zip(array).all(|(a, b)| same(a, b))
        }
        (Value::List(items), Json::Null) => items.is_empty(),
        (Value::List(items), Json::Object(object)) => same_map(items, object),
        (Value::List(limbs), Json::Number(json)) => limbs.len() == 4 && same_wide(limbs, json),
        // An event record stands with its event's names beside it, and with the phase's number apart.
        (Value::Record(_), Json::Object(object)) if object.contains_key("extrinsic_idx") => {
            let (phase, place) = value.field("phase").and_then(Value::variant).unwrap();
            let place = place.items().unwrap_or_default().first();
            json["phase"] == phase
                && json["extrinsic_idx"].as_u64() == place.and_then(Value::number)
                && same(value.field("event").unwrap(), &json["event"])
                && same(value.field("topics").unwrap(), &json["topics"])
        }
        (Value::Record(fields), Json::Object(object)) => {
            fields.len() == object.len()
                && fields
                    .iter()
                    .all(|(name, value)| object.get(&**name).is_some_and(|json| same(value, json)))
        }
        (Value::Variant { name, fields }, json) => same_variant(name, fields, json),
        _ => false,
    }
}

/// A map is a list of pairs; the SDK's object has its keys as text.
fn same_map(pairs: &[Value], object: &serde_json::Map<String, Json>) -> bool {
    let is_key = |key: &Value, text: &str| match key {
        Value::Unsigned(number) => number.to_string() == text,
        key => same(key, &text.into()),
    };
    pairs.len() == object.len()
        && pairs.iter().all(|pair| match pair.items() {
            Some([key, value]) => object
                .iter()
                .any(|(text, json)| is_key(key, text) && same(value, json)),
            _ => false,
        })
}

/// A number of 256 bits is four of 64 on the wire, the lowest first.
fn same_wide(limbs: &[Value], json: &serde_json::Number) -> bool {
    let limbs = limbs.iter().rev().map(|limb| limb.number::<u64>().unwrap());
    let number = limbs.fold(0.0, |number, limb| number * 2_f64.powi(64) + limb as f64);
    json.as_f64()
        .is_some_and(|json| (number - json).abs() <= json * f64::EPSILON * 4.0)
}

/// An era is two bytes; the metadata calls the first `Mortal1` to `Mortal255`, the SDK shows what both
/// together mean: period and phase.
fn same_era(name: &str, held: &[Value], json: &Json) -> bool {
    let first = name
        .strip_prefix("Mortal")
        .and_then(|first| first.parse::<u16>().ok());
    let (Some(first), Some(second)) = (first, held.first().and_then(Value::number::<u16>)) else {
        return name == "Immortal" && json == "00";
    };
    let encoded = u64::from(first | second << 8);
    let period = 2_u64 << (encoded % 16);
    let phase = (encoded / 16) * (period / 4_096).max(1);
    *json == serde_json::json!([period, phase])
}

fn same_variant(name: &str, fields: &Value, json: &Json) -> bool {
    let held = fields.items().unwrap_or_default();
    match (name, json) {
        ("None", Json::Null) => return true,
        (name, json) if same_era(name, held, json) => return true,
        ("Some", json) if held.len() == 1 && same(&held[0], json) => return true,
        (name, Json::String(json)) if held.is_empty() => return name == json,
        _ => {}
    }
    let Some(object) = json.as_object() else {
        // A variant that only wraps, as the SDK shows an address.
        return held.len() == 1 && same(&held[0], json);
    };
    if object.contains_key("call_function") {
        let listed = json["call_args"].as_array().unwrap();
        return json["call_module"] == name
            && is_named(held, &json["call_function"], |fields| {
                listed.iter().all(|argument| {
                    let value = fields.field(text(argument, "name"));
                    value.is_some_and(|value| same(value, &argument["value"]))
                })
            });
    }
    if object.contains_key("event_id") {
        return json["module_id"] == name
            && is_named(held, &json["event_id"], |fields| {
                same_fields(fields, &json["attributes"])
            });
    }
    match object.get(name) {
        Some(json) => same_fields(fields, json),
        None => false,
    }
}

/// Whether a variant of an outer enum holds one of this name, with fields of which something is true.
fn is_named(held: &[Value], name: &Json, holds: impl Fn(&Value) -> bool) -> bool {
    let inner = held.first().and_then(Value::variant);
    inner.is_some_and(|(found, fields)| *name == found && holds(fields))
}

/// Whether a variant's fields are these: the SDK shows a single one without a list around it.
fn same_fields(fields: &Value, json: &Json) -> bool {
    match fields.items() {
        Some([only]) => same(only, json) || same(fields, json),
        _ => same(fields, json),
    }
}

/// The samples are random bytes, so a compact integer may exceed its type: the SDK shows it all the
/// same, a runtime and this crate refuse it.
fn is_no_scale(detail: &str) -> bool {
    detail.starts_with("compact integer too large for its type")
}

/// Whether a type refers to an address by index, which is `Compact<()>` in this runtime and has no
/// bytes. The SDK gives it some, so its samples of such types are not that type's bytes.
fn reaches_unit_index(registry: &PortableRegistry, id: u32) -> bool {
    let mut kept = registry.clone();
    kept.retain(|candidate| candidate == id);
    kept.types.iter().any(|entry| {
        entry
            .ty
            .path
            .segments
            .last()
            .is_some_and(|last| last == "MultiAddress")
    }) || matches!(&registry.resolve(id).unwrap().type_def, TypeDef::Compact(of)
            if matches!(&registry.resolve(of.type_param.id).unwrap().type_def, TypeDef::Tuple(_)))
}

/// The types of the recorded metadata, as they stand there.
fn registry(golden: &Json) -> PortableRegistry {
    let metadata = hex(&golden["metadata"]["v15_hex"]);
    let start = metadata.windows(4).position(|window| window == b"meta");
    match RuntimeMetadataPrefixed::decode(&mut &metadata[start.unwrap()..]) {
        Ok(RuntimeMetadataPrefixed(_, RuntimeMetadata::V15(metadata))) => metadata.types,
        _ => panic!("version 15"),
    }
}

/// The node's own metadata of version 15 told as version 14, against its own of version 14: the same pallets,
/// the same types of theirs under the same numbers, and the same extrinsic.
#[test]
fn recorded_metadata_told_as_version_14_is_what_the_node_tells() {
    let Some(recording) = recording() else { return };
    let metadata = &recording.golden["metadata"];
    let version_14 = |bytes: &[u8]| {
        let decoded = RuntimeMetadataPrefixed::decode(&mut &*bytes).unwrap();
        let RuntimeMetadata::V14(metadata) = decoded.1 else {
            panic!("version 14");
        };
        metadata
    };
    let told = version_14(&as_version_14(&hex(&metadata["v15_hex"])).unwrap());
    let own = version_14(&hex(&metadata["v14_hex"]));
    assert_eq!(told.pallets, own.pallets);
    let extensions = |metadata: &RuntimeMetadataV14| -> Vec<String> {
        let extensions = metadata.extrinsic.signed_extensions.iter();
        extensions.map(|one| one.identifier.clone()).collect()
    };
    assert_eq!(extensions(&told), extensions(&own));
    let extrinsic = |metadata: &RuntimeMetadataV14| {
        let ty = metadata.types.resolve(metadata.extrinsic.ty.id).unwrap();
        ty.path.segments.clone()
    };
    assert_eq!(extrinsic(&told), extrinsic(&own));
    // The extrinsic's types come after those of the pallets, in an order of each version's own.
    let of_pallets = own.extrinsic.ty.id as usize;
    assert!(of_pallets > 500);
    let (told, own) = (&told.types.types, &own.types.types);
    assert_eq!(told[..of_pallets], own[..of_pallets]);
}

#[test]
fn recorded_samples_of_every_type_decode_and_encode() {
    let Some(Recording {
        golden,
        runtime,
        folder,
    }) = recording()
    else {
        return;
    };
    let (corpus, registry) = (json(folder.join("corpus.json")), registry(&golden));
    let (mut different, mut refused, mut samples) = (Vec::new(), 0, 0);
    for ty in corpus["types"].as_array().unwrap() {
        let id = ty["id"].as_u64().unwrap() as u32;
        for sample in ty["samples"].as_array().unwrap() {
            samples += 1;
            let bytes = hex(&sample["scale_hex"]);
            let fits = match runtime.decode_type(id, &bytes) {
                Ok(value) => {
                    same(&value, &sample["decoded"])
                        && runtime.encode_type(id, &value).as_deref() == Ok(&bytes)
                }
                Err(error) => {
                    refused += 1;
                    is_no_scale(&error.detail) || reaches_unit_index(&registry, id)
                }
            };
            if !fits {
                different.push(format!("{} ({id}): {}", ty["name"], sample["decoded"]));
            }
        }
    }
    let (count, shown) = (different.len(), different.len().min(10));
    let shown = different[..shown].join("\n");
    assert_eq!(count, 0, "of {samples}:\n{shown}");
    assert_eq!((samples, refused), (2_899, 143));
}

#[test]
fn recorded_storage_has_its_keys_and_values() {
    let Some(Recording {
        golden, runtime, ..
    }) = recording()
    else {
        return;
    };
    let parameters = |entry: &Json| -> Vec<Value> {
        entry["params"]
            .as_array()
            .unwrap()
            .iter()
            .map(parameter)
            .collect()
    };
    for entry in golden["storage_keys"].as_array().unwrap() {
        let (pallet, item) = (text(entry, "pallet"), text(entry, "storage_function"));
        let key = runtime
            .storage_key(pallet, item, &parameters(entry))
            .unwrap();
        assert_eq!(key, hex(&entry["key_hex"]), "{pallet}.{item}");
    }
    for entry in golden["storage_values"].as_array().unwrap() {
        let (pallet, item) = (text(entry, "pallet"), text(entry, "storage_function"));
        let raw = entry["raw_hex"].as_str().map(|_| hex(&entry["raw_hex"]));
        let value = runtime.storage_value(pallet, item, raw.as_deref()).unwrap();
        let matches = match &value {
            Some(value) => same(value, &entry["decoded"]),
            None => entry["decoded"].is_null(),
        };
        assert!(matches, "{pallet}.{item}: {value:?}, {}", entry["decoded"]);
    }
    for map in golden["query_maps"].as_array().unwrap() {
        let (pallet, item) = (text(map, "pallet"), text(map, "storage_function"));
        let given = parameters(map);
        let prefix = runtime.storage_key(pallet, item, &given).unwrap();
        assert_eq!(prefix, hex(&map["prefix_hex"]), "{pallet}.{item}");
        let changes = map["raw_changes"].as_array().unwrap();
        for (change, pair) in changes.iter().zip(map["pairs"].as_array().unwrap()) {
            let keys = runtime
                .storage_keys_of(pallet, item, &hex(&change[0]))
                .unwrap();
            let free = &keys[given.len()..];
            let key = if free.len() == 1 {
                free[0].clone()
            } else {
                Value::List(free.to_vec())
            };
            let value = runtime.storage_value(pallet, item, Some(&hex(&change[1])));
            assert!(
                same(&key, &pair[0]),
                "{pallet}.{item}: {key:?}, {}",
                pair[0]
            );
            assert!(
                same(&value.unwrap().unwrap(), &pair[1]),
                "{pallet}.{item}: {}",
                pair[1]
            );
        }
    }
}

#[test]
fn recorded_calls_read_back_and_compose() {
    let Some(Recording {
        golden, runtime, ..
    }) = recording()
    else {
        return;
    };
    for entry in golden["calls"].as_array().unwrap() {
        let (pallet, call) = (text(entry, "module"), text(entry, "function"));
        let bytes = hex(&entry["data_hex"]);
        let read = runtime.decode_call(&bytes).unwrap();
        assert_eq!((read.pallet.as_str(), read.name.as_str()), (pallet, call));
        let Value::Record(arguments) = &read.arguments else {
            panic!("{pallet}.{call} has arguments");
        };
        let arguments: Vec<_> = arguments.iter().map(|(n, v)| (&**n, v.clone())).collect();
        assert_eq!(
            runtime.call(pallet, call, &arguments).unwrap(),
            bytes,
            "{pallet}.{call}"
        );
        for (name, json) in entry["params"].as_object().unwrap() {
            // Calls inside calls were recorded in a form of the SDK's own.
            if !matches!(name.as_str(), "call" | "calls") {
                let value = read.arguments.field(name).unwrap();
                assert!(
                    same(value, json),
                    "{pallet}.{call}.{name}: {value:?}, {json}"
                );
            }
        }
    }
}

struct Recorded(Hotkey, [u8; SIGNATURE_BYTES]);

impl Signer for Recorded {
    fn hotkey(&self) -> Hotkey {
        self.0
    }

    fn sign(&self, _: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.1
    }
}

fn terms(golden: &Json, entry: &Json) -> SigningTerms {
    let hash = |json: &Json| hex(json).try_into().unwrap();
    let era = &entry["era"];
    SigningTerms {
        genesis: hash(&golden["network"]["genesis_hash"]),
        nonce: entry["nonce"].as_u64().unwrap(),
        tip: entry["tip"].as_u64().unwrap(),
        era: match era["period"].as_u64() {
            None => Era::Immortal,
            Some(period) => Era::Mortal {
                period,
                current: era["current"].as_u64().unwrap(),
                // Of extrinsics it was not recorded: it is signed, not sent.
                hash: match &entry["era_birth_block_hash"] {
                    Json::Null => [0; 32],
                    recorded => hash(recorded),
                },
            },
        },
    }
}

#[test]
fn recorded_payloads_and_extrinsics_are_ours() {
    let Some(Recording {
        golden, runtime, ..
    }) = recording()
    else {
        return;
    };
    for entry in golden["signature_payloads"].as_array().unwrap() {
        let call = hex(&entry["call_data_hex"]);
        let payload = runtime.signing_payload(&call, &terms(&golden, entry));
        assert_eq!(payload.unwrap(), hex(&entry["payload_hex"]));
    }
    for entry in golden["extrinsics"].as_array().unwrap() {
        let call = hex(&entry["call_data_hex"]);
        let signer = Recorded(
            Hotkey(hex(&entry["public_key_hex"]).try_into().unwrap()),
            hex(&entry["signature_hex"]).try_into().unwrap(),
        );
        let signed = runtime
            .sign(&signer, &call, &terms(&golden, entry))
            .unwrap();
        assert_eq!(signed.bytes, hex(&entry["extrinsic_hex"]));
        assert_eq!(signed.hash.to_vec(), hex(&entry["extrinsic_hash"]));
    }
}

#[test]
fn recorded_events_constants_and_answers_decode() {
    let Some(Recording {
        golden, runtime, ..
    }) = recording()
    else {
        return;
    };
    let events = runtime.events(&hex(&golden["events"]["raw_hex"])).unwrap();
    let recorded = golden["events"]["decoded"].as_array().unwrap();
    assert_eq!(events.len(), recorded.len());
    for (event, json) in events.iter().zip(recorded) {
        assert_eq!(
            event.extrinsic.map(u64::from),
            json["extrinsic_idx"].as_u64()
        );
        assert_eq!(
            (&*event.pallet, &*event.name),
            (text(json, "module_id"), text(json, "event_id"))
        );
        assert!(
            same(&event.fields, &json["attributes"]),
            "{event:?}, {json}"
        );
    }
    for entry in golden["constants"].as_array().unwrap() {
        let value = runtime.constant(text(entry, "module"), text(entry, "name"));
        assert!(same(&value.unwrap(), &entry["decoded"]), "{entry}");
    }
    for entry in golden["runtime_calls"].as_array().unwrap() {
        let (api, method) = (text(entry, "api"), text(entry, "method"));
        let answer = runtime.runtime_api_answer(api, method, &hex(&entry["raw_hex"]));
        let answer = answer.unwrap();
        assert!(
            same(&answer, &entry["decoded"]),
            "{api}.{method}: {answer:?}, {}",
            entry["decoded"]
        );
    }
}
