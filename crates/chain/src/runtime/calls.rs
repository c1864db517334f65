//! Calls by name: to bytes for signing, and back for showing what a block holds.

use super::decode::Decoder;
use super::encode::{Unfit, named};
use super::types::{Fields, Variant};
use super::{Runtime, ShapeError, Value};

/// A call, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedCall {
    /// The pallet.
    pub pallet: String,
    /// The call.
    pub name: String,
    /// Its arguments: a record, or the empty list where it has none.
    pub arguments: Value,
}

impl Runtime {
    /// The bytes of a call: the numbers of pallet and call in this runtime, then the arguments.
    ///
    /// # Errors
    /// The call is absent or no longer as expected; an argument is unknown, missing, given twice, or
    /// does not fit.
    pub fn call(
        &self,
        pallet: &str,
        call: &str,
        arguments: &[(&str, Value)],
    ) -> Result<Vec<u8>, ShapeError> {
        self.check_call(pallet, call)?;
        let found = self.metadata().pallets.get(pallet);
        let found = found.and_then(|p| Some((p.index, p.call(&self.metadata().types, call)?)));
        let (index, variant) = found.ok_or_else(|| self.misfit(pallet, call, "no such call"))?;
        let mut out = vec![index, variant.index];
        self.put_arguments(variant, arguments, &mut out)
            .map_err(|unfit| self.misfit(pallet, call, unfit))?;
        Ok(out)
    }

    /// Reads a call.
    ///
    /// # Errors
    /// The bytes are no call of this runtime.
    pub fn decode_call(&self, bytes: &[u8]) -> Result<DecodedCall, ShapeError> {
        let types = &self.metadata().types;
        let [pallet, call, ..] = bytes else {
            return Err(self.shape("call", "fewer than two bytes"));
        };
        let pallet = self.metadata().pallet_at(*pallet);
        let found = pallet.and_then(|(name, pallet)| {
            let mut calls = types.variants(pallet.calls?).iter();
            Some((name, calls.find(|variant| variant.index == *call)?))
        });
        let (pallet, variant) =
            found.ok_or_else(|| self.shape("call", format!("no call has index {call}")))?;
        let mut decoder = Decoder::new(types, &bytes[2..]);
        let arguments = decoder.fields(&variant.fields);
        let arguments = arguments.and_then(|arguments| decoder.finish().map(|()| arguments));
        Ok(DecodedCall {
            pallet: pallet.to_owned(),
            name: variant.name.to_string(),
            arguments: arguments.map_err(|error| self.misfit(pallet, &variant.name, error))?,
        })
    }

    fn put_arguments(
        &self,
        variant: &Variant,
        arguments: &[(&str, Value)],
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        let wanted = match &variant.fields {
            Fields::Named(wanted) => wanted.as_slice(),
            Fields::Unnamed(none) if none.is_empty() => &[],
            Fields::Unnamed(_) => return Err(Unfit::new("its arguments have no names")),
        };
        let given: Vec<_> = arguments
            .iter()
            .map(|(name, value)| (*name, value))
            .collect();
        named(&self.metadata().types, wanted, &given, out)
    }
}
