//! The other side of a runtime API: arguments to values, and an answer to bytes.
//!
//! What answers knows some fields by name and shall not have to know them all. An answer is therefore
//! *completed* along its type: fields that were not given get the value that means nothing (zero, false,
//! empty, the first variant), fields that the type does not have are left out, and a plain value where the
//! type has an `Option` is the `Some` of it.

use super::decode::Decoder;
use super::encode::encode;
use super::types::{Fields, Type, TypeId, Types};
use super::{Runtime, ShapeError, Value};

/// Elements of an array that can be completed: more than any account or signature has.
const MAX_ARRAY: u32 = 4_096;
/// Levels of nesting of what is completed.
const MAX_DEPTH: usize = 32;

impl Runtime {
    /// The arguments of a runtime API, in the order of its declaration.
    ///
    /// # Errors
    /// The metadata describes no such method, or the bytes are not its arguments.
    pub fn runtime_api_arguments(
        &self,
        api: &str,
        method: &str,
        bytes: &[u8],
    ) -> Result<Vec<Value>, ShapeError> {
        let found = self.api_method(api, method)?;
        let mut decoder = Decoder::new(&self.metadata().types, bytes);
        let inputs = found.inputs.iter();
        let values = inputs
            .map(|(_, id)| decoder.value(*id))
            .collect::<Result<_, _>>();
        let values = values.and_then(|values| decoder.finish().map(|()| values));
        values.map_err(|error| self.misfit(api, method, error))
    }

    /// The bytes of a runtime API's answer, completed from what is given.
    ///
    /// # Errors
    /// The metadata describes no such method, or a given field does not fit its type.
    pub fn runtime_api_result(
        &self,
        api: &str,
        method: &str,
        given: &Value,
    ) -> Result<Vec<u8>, ShapeError> {
        let found = self.api_method(api, method)?;
        let types = &self.metadata().types;
        let completed = complete(types, found.output, Some(given), MAX_DEPTH);
        let mut out = Vec::new();
        encode(types, found.output, &completed, &mut out)
            .map_err(|unfit| self.misfit(api, method, unfit))?;
        Ok(out)
    }
}

/// A value of the type, or one that [`encode`] will refuse where none can be made.
fn complete(types: &Types, id: TypeId, given: Option<&Value>, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else {
        return Value::List(Vec::new());
    };
    let below = |id: TypeId, given: Option<&Value>| complete(types, id, given, depth);
    match (types.get(id), given) {
        (Type::Composite(Fields::Named(wanted)), given) => {
            let known = |name: &str| given.and_then(|given| given.field(name));
            let fields = wanted
                .iter()
                .map(|(name, id)| (name.clone(), below(*id, known(name))));
            Value::Record(fields.collect())
        }
        (Type::Composite(Fields::Unnamed(wanted)), given) => {
            let known = given.and_then(Value::items).unwrap_or_default();
            let fields = wanted.iter().enumerate();
            Value::List(fields.map(|(at, id)| below(*id, known.get(at))).collect())
        }
        (Type::Enum(variants), given) => match given {
            Some(variant @ Value::Variant { name, fields }) => {
                let inner = variants.iter().find(|variant| variant.name == *name);
                match (inner.map(|inner| &inner.fields), fields.items()) {
                    (Some(Fields::Unnamed(wanted)), Some(items)) => {
                        let fields = wanted.iter().enumerate();
                        let fields = fields.map(|(at, id)| below(*id, items.get(at)));
                        Value::variant_of(name, fields)
                    }
                    _ => variant.clone(),
                }
            }
            Some(plain) => some(types, id, plain, depth),
            None => first_variant(types, variants, depth),
        },
        (Type::Sequence(of), Some(Value::List(items))) => {
            Value::List(items.iter().map(|item| below(*of, Some(item))).collect())
        }
        (Type::Compact(of), given) => below(*of, given),
        (_, Some(given)) => given.clone(),
        (ty, None) => nothing(types, ty, depth),
    }
}

/// The value of a type without fields that means nothing.
fn nothing(types: &Types, ty: &Type, depth: usize) -> Value {
    match ty {
        Type::Bool => Value::Bool(false),
        Type::Char => Value::Text("\0".to_owned()),
        Type::Text => Value::Text(String::new()),
        Type::Unsigned(_) => Value::Unsigned(0),
        Type::Signed(_) => Value::Signed(0),
        Type::Wide => Value::Bytes(vec![0; 32]),
        Type::Array(count, of) if types.is_byte(*of) => {
            Value::Bytes(vec![0; (*count).min(MAX_ARRAY) as usize])
        }
        Type::Array(count, of) => Value::List(
            (0..(*count).min(MAX_ARRAY))
                .map(|_| complete(types, *of, None, depth))
                .collect(),
        ),
        _ => Value::List(Vec::new()),
    }
}

/// A plain value in the place of an `Option`.
fn some(types: &Types, id: TypeId, plain: &Value, depth: usize) -> Value {
    let variant = types.variants(id).iter().find(|v| &*v.name == "Some");
    match variant.and_then(|some| some.fields.types().next()) {
        Some(of) => Value::variant_of("Some", [complete(types, of, Some(plain), depth)]),
        None => plain.clone(),
    }
}

fn first_variant(types: &Types, variants: &[super::types::Variant], depth: usize) -> Value {
    let Some(first) = variants.iter().min_by_key(|variant| variant.index) else {
        return Value::List(Vec::new());
    };
    match &first.fields {
        Fields::Unnamed(wanted) => {
            let fields = wanted.iter().map(|id| complete(types, *id, None, depth));
            Value::variant_of(&first.name, fields)
        }
        Fields::Named(wanted) => {
            let fields = wanted
                .iter()
                .map(|(name, id)| (&**name, complete(types, *id, None, depth)));
            Value::variant_with(&first.name, fields)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BUNDLED_VERSION, bundled};
    use super::*;

    fn runtime() -> Runtime {
        Runtime::from_metadata(bundled(), BUNDLED_VERSION).unwrap()
    }

    fn answered(api: &str, method: &str, given: &Value) -> Value {
        let bytes = runtime().runtime_api_result(api, method, given).unwrap();
        runtime().runtime_api_answer(api, method, &bytes).unwrap()
    }

    /// What should happen: the fields that are known are shown, and the others mean nothing.
    #[test]
    fn an_answer_is_completed_along_its_type() {
        let given = Value::record([
            ("netuid", 3_u16.into()),
            ("owner", [7; 32].into()),
            ("no such field", 1_u8.into()),
        ]);
        let answer = answered("SubnetInfoRuntimeApi", "get_subnet_info", &given);
        let answer = answer.as_option().unwrap().unwrap();
        assert_eq!(answer.field("netuid"), Some(&3_u16.into()));
        assert_eq!(answer.field("owner"), Some(&[7; 32].into()));
        assert_eq!(answer.field("tempo"), Some(&0_u16.into()));
        assert_eq!(answer.field("no such field"), None);
    }

    #[test]
    fn an_absent_answer_stays_absent() {
        let none = Value::variant_of("None", []);
        let answer = answered("SubnetInfoRuntimeApi", "get_metagraph", &none);
        assert_eq!(answer.as_option(), Some(None));
    }

    #[test]
    fn every_answer_of_every_interface_can_be_given_empty() {
        let runtime = runtime();
        let empty = Value::record([]);
        for (api, methods) in &runtime.metadata().apis {
            for (method, found) in methods {
                if matches!(
                    runtime.metadata().types.get(found.output),
                    Type::Composite(_)
                ) {
                    assert!(
                        runtime.runtime_api_result(api, method, &empty).is_ok(),
                        "{api}.{method}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_arguments_are_read_to_their_end() {
        let (api, method) = ("SubnetInfoRuntimeApi", "get_next_epoch_start_block");
        let text = Value::Text("soon".to_owned());
        assert!(runtime().runtime_api_result(api, method, &text).is_err());
        let arguments = |bytes: &[u8]| runtime().runtime_api_arguments(api, method, bytes);
        assert_eq!(arguments(&[3, 0]), Ok(vec![3_u16.into()]));
        assert!(arguments(&[3]).is_err());
        assert!(arguments(&[3, 0, 0]).is_err());
    }
}
