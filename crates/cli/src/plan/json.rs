//! A plan as one JSON object on one line: plain numbers under the keys of their figures, and, where they
//! are asked for, formulas under the same keys joined by dots.

use serde_json::{Map, Value, json};

use super::Plan;
use super::figure::Figure;
use super::gpus::{GPUS, RESERVE_BYTES};

/// The whole plan.
pub(super) fn line(plan: &Plan<'_>, explain: bool) -> String {
    let mut object = Map::new();
    let (setup, choice) = (plan.setup, plan.choice);
    let groups = setup.groups.map(|groups| groups.count);
    for (key, value) in [
        ("model", json!(plan.source)),
        ("family", json!(setup.config.family.model_type())),
        ("routing", json!(setup.routing.name())),
        ("experts", json!(choice.experts)),
        ("kept", json!(setup.kept)),
        ("groups", json!(groups)),
        ("seq", json!(setup.sequence_length)),
        ("batch", json!(setup.step.batch)),
        ("threads", json!(setup.step.threads)),
    ] {
        object.insert(key.to_owned(), value);
    }
    for (key, value) in choice.settings.options() {
        object.insert(key.to_owned(), json!(value));
    }
    for figure in plan.figures() {
        insert(&mut object, &figure.key, number(figure));
    }
    let gpu = |gpu: &super::gpus::Gpu| {
        json!({
            "name": gpu.name,
            "memory_bytes": gpu.memory_bytes(),
            "fits": gpu.fits(plan.total),
        })
    };
    object.insert("gpus".to_owned(), GPUS.iter().map(gpu).collect());
    object.insert("gpu_reserve_bytes".to_owned(), json!(RESERVE_BYTES));
    if let Some(budget) = &plan.budget {
        let memory = budget.size.bytes;
        let proposed: Map<String, Value> = budget
            .proposed
            .iter()
            .map(|(name, value)| ((*name).to_owned(), proposal(name, value)))
            .collect();
        let told = json!({
            "memory_bytes": memory,
            "fits": plan.total <= memory,
            "missing_bytes": plan.total.saturating_sub(memory),
            "spare_bytes": memory.saturating_sub(plan.total),
            "proposed": proposed,
        });
        object.insert("budget".to_owned(), told);
    }
    if explain {
        let formula = |figure: &Figure| {
            let (symbols, numbers) = (figure.formula.symbols(), figure.formula.numbers());
            (figure.key.clone(), json!(format!("{symbols} = {numbers}")))
        };
        let formulas: Map<String, Value> = plan.figures().map(formula).collect();
        object.insert("formulas".to_owned(), formulas.into());
    }
    Value::Object(object).to_string()
}

/// A figure's value, which is within the range of JSON's whole numbers.
fn number(figure: &Figure) -> Value {
    let value = figure.value();
    u64::try_from(value).map_or_else(
        |_| json!(i64::try_from(value).unwrap_or(i64::MIN)),
        Value::from,
    )
}

/// The number of experts is a number, as it is outside the proposal.
fn proposal(name: &str, value: &str) -> Value {
    match value.parse::<u64>() {
        Ok(number) if name == "experts" => number.into(),
        _ => value.into(),
    }
}

/// Puts a value where a key with dots says.
fn insert(object: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            object.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let nested = object.entry(first).or_insert_with(|| json!({}));
            if let Value::Object(nested) = nested {
                insert(nested, rest, value);
            }
        }
    }
}
