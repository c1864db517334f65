//! Our bytes for what another codec is asked too: the other half of `tools/metadata/compare_codec.py`.
//!
//! ```text
//! codec METADATA SPEC < questions > answers
//! ```
//!
//! A question is one line of JSON, its answer one line: hexadecimal for `call`, `key` and `payload`, a
//! value for `value`, the used items with their layouts for `items`, and `! reason` where there is none.
//! Values stand as JSON does it, but for integers, which are decimal text (`"300"`), bytes (`"0x…"`),
//! and variants, which are an object with one key `=Name` and the fields under it.

use std::error::Error;
use std::io::{BufRead as _, Write as _};

use connito_chain::runtime::{
    Era, ItemKind, Runtime, RuntimeVersion, SigningTerms, Value, used_items,
};
use serde_json::{Map, Value as Json, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, spec] = arguments.as_slice() else {
        return Err("usage: codec METADATA SPEC".into());
    };
    let version = RuntimeVersion {
        spec: spec.parse()?,
        transaction: 1,
    };
    let runtime = Runtime::from_metadata(&std::fs::read(path)?, version)?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match answer(&runtime, &serde_json::from_str(&line?)?) {
            Ok(answer) => writeln!(out, "{answer}")?,
            Err(error) => writeln!(out, "! {error}")?,
        }
    }
    Ok(())
}

fn answer(runtime: &Runtime, question: &Json) -> Result<String, Box<dyn Error>> {
    let text = |name: &str| question[name].as_str().unwrap_or_default();
    let (pallet, name) = (text("pallet"), text("name"));
    let bytes = match text("ask") {
        "items" => return Ok(items(runtime).to_string()),
        "call" => {
            let arguments = value(&question["arguments"])?;
            let Value::Record(arguments) = &arguments else {
                return Err("arguments have names".into());
            };
            let arguments: Vec<_> = arguments.iter().map(|(n, v)| (&**n, v.clone())).collect();
            runtime.call(pallet, name, &arguments)?
        }
        "key" => {
            let keys = question["keys"].as_array().ok_or("keys are a list")?;
            let keys = keys.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            runtime.storage_key(pallet, name, &keys)?
        }
        "value" => {
            let bytes = hex::decode(text("bytes"))?;
            let read = runtime.storage_value(pallet, name, Some(&bytes))?;
            return Ok(read.as_ref().map_or(Json::Null, json_of).to_string());
        }
        "payload" => runtime.signing_payload(&hex::decode(text("call"))?, &terms(question)?)?,
        _ => return Err("not a question".into()),
    };
    Ok(hex::encode(bytes))
}

/// What the adapter uses and this runtime has.
fn items(runtime: &Runtime) -> Json {
    let there = used_items().filter(|item| {
        let misfits = runtime.misfits();
        misfits.iter().all(|misfit| misfit.used != *item)
    });
    let item = |item: connito_chain::runtime::UsedItem| {
        let is_call = item.kind == ItemKind::Call;
        json!({ "call": is_call, "pallet": item.pallet, "name": item.name, "layout": item.layout })
    };
    there.map(item).collect()
}

fn terms(question: &Json) -> Result<SigningTerms, Box<dyn Error>> {
    let number = |name: &str| question[name].as_u64().ok_or("a number is missing");
    let era = match question["period"].as_u64() {
        None => Era::Immortal,
        Some(period) => Era::Mortal {
            period,
            current: number("current")?,
            hash: [2; 32],
        },
    };
    Ok(SigningTerms {
        genesis: [1; 32],
        nonce: number("nonce")?,
        tip: number("tip")?,
        era,
    })
}

fn value(json: &Json) -> Result<Value, Box<dyn Error>> {
    Ok(match json {
        Json::Bool(value) => (*value).into(),
        Json::String(text) => match text.strip_prefix("0x") {
            Some(digits) => hex::decode(digits)?.into(),
            None if text.starts_with('-') => text.parse::<i128>()?.into(),
            None => text.parse::<u128>()?.into(),
        },
        Json::Array(items) => Value::List(items.iter().map(value).collect::<Result<_, _>>()?),
        Json::Object(object) => match variant_in(object) {
            Some((name, fields)) => Value::Variant {
                name: name.into(),
                fields: Box::new(value(fields)?),
            },
            None => {
                let fields = object.iter().map(|(name, json)| {
                    let field: Result<_, Box<dyn Error>> = Ok((name.as_str().into(), value(json)?));
                    field
                });
                Value::Record(fields.collect::<Result<_, _>>()?)
            }
        },
        Json::Null | Json::Number(_) => return Err("integers are text".into()),
    })
}

fn variant_in(object: &Map<String, Json>) -> Option<(&str, &Json)> {
    let (name, fields) = object.iter().next()?;
    Some((name.strip_prefix('=')?, fields))
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::Unsigned(number) => json!(number.to_string()),
        Value::Signed(number) => json!(number.to_string()),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!(format!("0x{}", hex::encode(bytes))),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Record(fields) => {
            let fields = fields.iter().map(|(n, v)| (n.to_string(), json_of(v)));
            Json::Object(fields.collect())
        }
        Value::Variant { name, fields } => json!({ format!("={name}"): json_of(fields) }),
    }
}
