//! What a block reports: its events, and the names of the errors in them.

use super::{Runtime, ShapeError, Value};

/// One event of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// The place of the extrinsic that caused it; none for what the block itself did.
    pub extrinsic: Option<u32>,
    /// The pallet.
    pub pallet: String,
    /// The event.
    pub name: String,
    /// Its fields: a record, or a list where they have no names.
    pub fields: Value,
}

/// Why a dispatched call failed, by the runtime's own names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchFailure {
    /// The pallet that refused, or the runtime's kind of error: `Dispatch` for its own plain ones
    /// such as `BadOrigin`, else `Token`, `Arithmetic`, `Transactional`, ….
    pub pallet: String,
    /// The error.
    pub name: String,
}

impl Runtime {
    /// The events of a block, out of the value of `System.Events`.
    ///
    /// # Errors
    /// The bytes are not this runtime's events.
    pub fn events(&self, bytes: &[u8]) -> Result<Vec<EventRecord>, ShapeError> {
        let records = self.storage_value("System", "Events", Some(bytes))?;
        let read = |record: &Value| {
            let (phase, place) = record.field("phase")?.variant()?;
            let extrinsic = match phase {
                "ApplyExtrinsic" => Some(place.items()?.first()?.number()?),
                _ => None,
            };
            let (pallet, event) = record.field("event")?.variant()?;
            let (name, fields) = event.items()?.first()?.variant()?;
            Some(EventRecord {
                extrinsic,
                pallet: pallet.to_owned(),
                name: name.to_owned(),
                fields: fields.clone(),
            })
        };
        let records = records.as_ref().and_then(Value::items).unwrap_or_default();
        let records = records.iter().map(|record| {
            read(record).ok_or_else(|| self.misfit("System", "Events", "no list of event records"))
        });
        records.collect()
    }

    /// The names of a dispatch error: field `dispatch_error` of `System.ExtrinsicFailed`. Numbers that
    /// this metadata has no name for are shown as numbers.
    #[must_use]
    pub fn dispatch_error(&self, error: &Value) -> DispatchFailure {
        let failure = |pallet: &str, name: &str| DispatchFailure {
            pallet: pallet.to_owned(),
            name: name.to_owned(),
        };
        let Some((kind, fields)) = error.variant() else {
            return failure("Dispatch", "Undecodable");
        };
        let detail = fields.items().and_then(<[Value]>::first);
        match (kind, detail) {
            ("Module", Some(module)) => self
                .module_error(module)
                .unwrap_or_else(|| failure("Dispatch", "Module")),
            (kind, Some(detail)) => match detail.variant() {
                Some((name, _)) => failure(kind, name),
                None => failure("Dispatch", kind),
            },
            (kind, None) => failure("Dispatch", kind),
        }
    }

    /// `{ index, error: [u8; 4] }`, of which the first byte of the error numbers the variant.
    fn module_error(&self, module: &Value) -> Option<DispatchFailure> {
        let index = module.field("index")?.number::<u8>()?;
        let error = *module.field("error")?.as_bytes()?.first()?;
        let Some((pallet, described)) = self.metadata().pallet_at(index) else {
            return Some(DispatchFailure {
                pallet: format!("pallet {index}"),
                name: format!("error {error}"),
            });
        };
        let errors = described
            .errors
            .map(|id| self.metadata().types.variants(id));
        let mut errors = errors.unwrap_or_default().iter();
        let known = errors.find(|variant| variant.index == error);
        Some(DispatchFailure {
            pallet: pallet.to_owned(),
            name: known.map_or_else(|| format!("error {error}"), |error| error.name.to_string()),
        })
    }
}
