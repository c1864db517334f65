//! Storage keys and values by name.
//!
//! A key is the hash of the pallet's prefix, the hash of the item's name, and the item's own keys, each
//! as its hasher leaves it. Hashers that append the key itself (`…Concat`, `Identity`) can be read
//! back, so that the entries of a map tell their keys.

use frame_metadata::v14::StorageHasher;

use super::decode::{Decoder, decode};
use super::encode::encode;
use super::metadata::StorageItem;
use super::{Runtime, ShapeError, Value};
use crate::hash::{blake2_128, blake2_256, twox64, twox128};

impl Runtime {
    /// The storage key of an entry. Fewer keys than the item has give the prefix of all entries that
    /// begin with them.
    ///
    /// # Errors
    /// The item is absent or no longer as expected, or a key does not fit.
    pub fn storage_key(
        &self,
        pallet: &str,
        item: &str,
        keys: &[Value],
    ) -> Result<Vec<u8>, ShapeError> {
        let found = self.storage_item(pallet, item)?;
        if keys.len() > found.keys.len() {
            let detail = format!("{} keys given, it has {}", keys.len(), found.keys.len());
            return Err(self.misfit(pallet, item, detail));
        }
        let mut out = self.storage_prefix(pallet, item);
        for (place, (key, (hasher, ty))) in keys.iter().zip(&found.keys).enumerate() {
            let mut bytes = Vec::new();
            encode(&self.metadata().types, *ty, key, &mut bytes)
                .map_err(|unfit| self.misfit(pallet, item, unfit.below(format!("key {place}"))))?;
            append_hashed(hasher, &bytes, &mut out);
        }
        Ok(out)
    }

    /// The item's own keys out of a storage key.
    ///
    /// # Errors
    /// The item is absent or no longer as expected, the key is not one of its entries', or one of its
    /// hashers does not keep the key.
    pub fn storage_keys_of(
        &self,
        pallet: &str,
        item: &str,
        key: &[u8],
    ) -> Result<Vec<Value>, ShapeError> {
        let found = self.storage_item(pallet, item)?;
        let prefix = self.storage_prefix(pallet, item);
        let appended = key.strip_prefix(prefix.as_slice());
        let appended = appended.ok_or_else(|| self.misfit(pallet, item, "key of another item"))?;
        let mut decoder = Decoder::new(&self.metadata().types, appended);
        let mut keys = Vec::with_capacity(found.keys.len());
        for (hasher, ty) in &found.keys {
            let hash = kept_behind(hasher)
                .ok_or_else(|| self.misfit(pallet, item, "its hasher does not keep the key"))?;
            let skipped = decoder.reader().take(hash);
            let key = skipped.and_then(|_| decoder.value(*ty));
            keys.push(key.map_err(|error| self.misfit(pallet, item, error))?);
        }
        decoder
            .finish()
            .map_err(|error| self.misfit(pallet, item, error))?;
        Ok(keys)
    }

    /// The value of an entry. Without bytes it is what an absent entry stands for: the item's default,
    /// or nothing.
    ///
    /// # Errors
    /// The item is absent or no longer as expected, or the bytes are not of its type.
    pub fn storage_value(
        &self,
        pallet: &str,
        item: &str,
        bytes: Option<&[u8]>,
    ) -> Result<Option<Value>, ShapeError> {
        let found = self.storage_item(pallet, item)?;
        let Some(bytes) = bytes.or(found.default.as_deref()) else {
            return Ok(None);
        };
        decode(&self.metadata().types, found.value, bytes)
            .map(Some)
            .map_err(|error| self.misfit(pallet, item, error))
    }

    fn storage_item(&self, pallet: &str, item: &str) -> Result<&StorageItem, ShapeError> {
        self.check_storage(pallet, item)?;
        let items = self.metadata().pallets.get(pallet).map(|p| &p.storage);
        let found = items.and_then(|items| items.get(item));
        found.ok_or_else(|| self.misfit(pallet, item, "no such storage item"))
    }

    fn storage_prefix(&self, pallet: &str, item: &str) -> Vec<u8> {
        let prefix = self.metadata().pallets.get(pallet).map(|p| &*p.prefix);
        let prefix = prefix.unwrap_or(pallet);
        [twox128(prefix.as_bytes()), twox128(item.as_bytes())].concat()
    }
}

fn append_hashed(hasher: &StorageHasher, key: &[u8], out: &mut Vec<u8>) {
    match hasher {
        StorageHasher::Identity => {}
        StorageHasher::Twox64Concat => out.extend_from_slice(&twox64(key, 0).to_le_bytes()),
        StorageHasher::Twox128 => out.extend_from_slice(&twox128(key)),
        StorageHasher::Twox256 => {
            let parts = (0..4).flat_map(|seed| twox64(key, seed).to_le_bytes());
            out.extend(parts);
        }
        StorageHasher::Blake2_128 | StorageHasher::Blake2_128Concat => {
            out.extend_from_slice(&blake2_128(key));
        }
        StorageHasher::Blake2_256 => out.extend_from_slice(&blake2_256(key)),
    }
    if kept_behind(hasher).is_some() {
        out.extend_from_slice(key);
    }
}

/// How many bytes of hash stand before the key itself, where the hasher keeps it.
fn kept_behind(hasher: &StorageHasher) -> Option<usize> {
    match hasher {
        StorageHasher::Identity => Some(0),
        StorageHasher::Twox64Concat => Some(8),
        StorageHasher::Blake2_128Concat => Some(16),
        StorageHasher::Twox128
        | StorageHasher::Twox256
        | StorageHasher::Blake2_128
        | StorageHasher::Blake2_256 => None,
    }
}
