//! Reading storage at one block: keys by name, one round trip for many, nothing from anywhere else.
//!
//! A [`View`] is a block and the runtime that governed it. Whatever it reads is of that block's hash,
//! be it now or a moment ago; a node that no longer has the state makes the read fail, and no other
//! block takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use connito_protocol::ids::{Block, BlockHash};
use parity_scale_codec::{Compact, Decode as _};
use serde_json::{Value as Json, json};

use super::json_rpc::{CallError, Question, ask, ask_all, misshapen};
use super::states::State;
use crate::chain::BlockRef;
use crate::error::ChainError;
use crate::hash::twox128;
use crate::hex_text;
use crate::rpc::RpcTransport;
use crate::runtime::{Runtime, Value};

/// Keys in one `state_queryStorageAt`: all that is read of a subnet with 256 neurons.
const KEYS_PER_QUESTION: usize = 2_048;
/// Keys in one page of a listing: the most that nodes give.
const KEYS_PER_PAGE: usize = 1_000;
/// Pages of one listing: a subnet's items have a few hundred entries.
const MAX_PAGES: usize = 64;

/// The state after one block.
#[derive(Debug)]
pub(super) struct View<'a, T> {
    pub(super) transport: &'a T,
    pub(super) block: BlockRef,
    pub(super) runtime: Runtime,
    pub(super) state: Arc<State>,
}

/// Entries to read together.
#[derive(Debug, Default)]
pub(super) struct Wanted(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    pallet: &'static str,
    item: &'static str,
    key: Vec<u8>,
}

/// The place of an entry among those wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

/// What the wanted entries hold.
#[derive(Debug)]
pub(super) struct Found {
    runtime: Runtime,
    entries: Vec<(Entry, Option<Vec<u8>>)>,
}

impl<T: RpcTransport> View<'_, T> {
    fn named(&self) -> (Block, BlockHash) {
        (self.block.number, self.block.hash)
    }

    fn hash(&self) -> String {
        hex_text::encode(&self.block.hash.0)
    }

    /// Adds an entry to those wanted.
    pub(super) fn want(
        &self,
        wanted: &mut Wanted,
        (pallet, item): (&'static str, &'static str),
        keys: &[Value],
    ) -> Result<Place, ChainError> {
        let key = self.runtime.storage_key(pallet, item, keys)?;
        wanted.0.push(Entry { pallet, item, key });
        Ok(Place(wanted.0.len() - 1))
    }

    /// Reads everything wanted that has not been read of this block yet, in one body.
    pub(super) async fn read(&self, wanted: Wanted) -> Result<Found, ChainError> {
        let keys = wanted.0.iter().map(|entry| entry.key.as_slice());
        let unread = self.state.unread(keys);
        self.state
            .remember(values(self.transport, self.named(), unread).await?);
        let known = |entry: Entry| {
            let value = self.state.look_at(&entry.key);
            Ok((entry, value.ok_or_else(incomplete)?))
        };
        let entries = wanted.0.into_iter().map(known);
        Ok(Found {
            runtime: self.runtime.clone(),
            entries: entries.collect::<Result<_, ChainError>>()?,
        })
    }

    /// One entry.
    pub(super) async fn value(
        &self,
        item: (&'static str, &'static str),
        keys: &[Value],
    ) -> Result<Option<Value>, ChainError> {
        let mut wanted = Wanted::default();
        let place = self.want(&mut wanted, item, keys)?;
        self.read(wanted).await?.value(place)
    }

    /// Every entry whose keys begin with `keys`: all of its keys, and its value.
    pub(super) async fn entries(
        &self,
        (pallet, item): (&'static str, &'static str),
        keys: &[Value],
    ) -> Result<Vec<(Vec<Value>, Value)>, ChainError> {
        let prefix = self.runtime.storage_key(pallet, item, keys)?;
        // Seldom looked at, and much: not remembered.
        let listed = self.keys(&prefix).await?;
        let values = values(self.transport, self.named(), listed).await?;
        let mut entries = Vec::with_capacity(values.len());
        for (key, bytes) in values {
            let keys = self.runtime.storage_keys_of(pallet, item, &key)?;
            let value = self.runtime.storage_value(pallet, item, bytes.as_deref())?;
            entries.extend(value.map(|value| (keys, value)));
        }
        Ok(entries)
    }

    async fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, ChainError> {
        const METHOD: &str = "state_getKeysPaged";
        let mut all: Vec<Vec<u8>> = Vec::new();
        for _ in 0..MAX_PAGES {
            let start = all.last().map(|key| hex_text::encode(key));
            let params = json!([hex_text::encode(prefix), KEYS_PER_PAGE, start, self.hash()]);
            let page = ask(self.transport, Question::new(METHOD, params)).await;
            let page = page.map_err(|error| at(self.transport, self.block.number, error))?;
            let keys = page.as_array().and_then(|keys| {
                let keys = keys.iter().map(|key| hex_text::decode(key.as_str()?));
                keys.collect::<Option<Vec<_>>>()
            });
            let keys = keys.ok_or_else(|| misshapen(METHOD, "no list of keys"))?;
            let last = keys.len() < KEYS_PER_PAGE;
            // A page that does not go on where the last one ended would never end.
            if keys
                .iter()
                .any(|key| all.last().is_some_and(|last| key <= last))
            {
                return Err(misshapen(METHOD, "the page repeats keys"));
            }
            all.extend(keys.into_iter().filter(|key| key.starts_with(prefix)));
            if last {
                return Ok(all);
            }
        }
        Err(misshapen(METHOD, "more keys than a subnet has"))
    }
}

/// What the chain has under each of these keys after a block, in one body.
pub(super) async fn values(
    transport: &impl RpcTransport,
    (number, hash): (Block, BlockHash),
    keys: Vec<Vec<u8>>,
) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, ChainError> {
    const METHOD: &str = "state_queryStorageAt";
    let hash = hex_text::encode(&hash.0);
    let questions = keys.chunks(KEYS_PER_QUESTION).map(|keys| {
        let keys: Vec<String> = keys.iter().map(|key| hex_text::encode(key)).collect();
        Question::new(METHOD, json!([keys, hash]))
    });
    let answers = ask_all(transport, questions.collect()).await;
    let wanted: BTreeSet<Vec<u8>> = keys.into_iter().collect();
    let mut values = BTreeMap::new();
    for answer in answers.map_err(|error| at(transport, number, error))? {
        let changes = changes(&answer).ok_or_else(|| misshapen(METHOD, "no list of changes"))?;
        values.extend(changes.into_iter().filter(|(key, _)| wanted.contains(key)));
    }
    // A node lists what it was asked for, absent values too; half a list is no answer.
    if values.len() < wanted.len() {
        return Err(incomplete());
    }
    Ok(values)
}

fn incomplete() -> ChainError {
    misshapen(
        "state_queryStorageAt",
        "a key that was asked for is missing",
    )
}

/// The error of a read. Of an endpoint that lacks the block, another may have it.
fn at(transport: &impl RpcTransport, number: Block, error: CallError) -> ChainError {
    if matches!(error, CallError::NoBlock) {
        transport.give_up("does not have a block");
    }
    error.at(number)
}

/// The key of an item of the pallet that every runtime has, whatever its metadata.
pub(super) fn system_key(item: &str) -> Vec<u8> {
    [twox128(b"System"), twox128(item.as_bytes())].concat()
}

/// The version in `System.LastRuntimeUpgrade`.
pub(super) fn spec_of(last_upgrade: &[u8]) -> Option<u32> {
    Compact::<u32>::decode(&mut &*last_upgrade)
        .ok()
        .map(u32::from)
}

/// A storage key and its value, if it has one.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// `[{ block, changes: [[key, value or null], …] }]`.
fn changes(answer: &Json) -> Option<Vec<Change>> {
    let sets = answer.as_array()?;
    let mut all = Vec::new();
    for set in sets {
        for change in set.get("changes")?.as_array()? {
            let key = hex_text::decode(change.get(0)?.as_str()?)?;
            let value = match change.get(1)? {
                Json::Null => None,
                value => Some(hex_text::decode(value.as_str()?)?),
            };
            all.push((key, value));
        }
    }
    Some(all)
}

impl Found {
    /// The value, or what the item stands for where nothing was written.
    pub(super) fn value(&self, place: Place) -> Result<Option<Value>, ChainError> {
        let (entry, bytes) = &self.entries[place.0];
        let value = self
            .runtime
            .storage_value(entry.pallet, entry.item, bytes.as_deref())?;
        Ok(value)
    }

    /// What `read` makes of the value; an item without one or of another shape is an error.
    pub(super) fn get<R>(
        &self,
        place: Place,
        read: impl FnOnce(&Value) -> Option<R>,
    ) -> Result<R, ChainError> {
        let value = self.value(place)?;
        let value = value.as_ref().and_then(read);
        value.ok_or_else(|| self.unexpected(place))
    }

    /// As [`Self::get`], for items that may be without a value.
    pub(super) fn maybe<R>(
        &self,
        place: Place,
        read: impl FnOnce(&Value) -> Option<R>,
    ) -> Result<Option<R>, ChainError> {
        let value = self.value(place)?;
        // An optional value is shown as what it holds.
        let Some(value) = value else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.unexpected(place))
    }

    /// An unsigned number.
    pub(super) fn number<N: TryFrom<u128>>(&self, place: Place) -> Result<N, ChainError> {
        self.get(place, Value::number)
    }

    fn unexpected(&self, place: Place) -> ChainError {
        let (entry, bytes) = &self.entries[place.0];
        let detail = match bytes {
            None => "it has no value".to_owned(),
            Some(bytes) => format!("unexpected value of {} bytes", bytes.len()),
        };
        misshapen(&format!("{}.{}", entry.pallet, entry.item), detail)
    }
}
