//! Everybody's commitment records at one block, and which of two of one block came first.
//!
//! The chain keeps the block of a record but not its place within the block; that is the place of
//! the extrinsic that wrote it, which the block's events tell. They are read once for each block that
//! has records and remembered for as long as cycles look back. Of a block whose events are gone
//! every record counts as written last: nobody gains precedence by being forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use connito_protocol::ids::{Block, Hotkey, Netuid};

use super::SubtensorChain;
use super::view::View;
use crate::chain::{At, BlockRef, CommitmentRecord};
use crate::error::ChainError;
use crate::fields::Field;
use crate::rpc::RpcTransport;
use crate::runtime::{EventRecord, Value};

const PALLET: &str = "Commitments";
/// Blocks whose events are remembered: a few cycles.
const REMEMBERED_BLOCKS: usize = 512;
/// The place of a record whose block's events cannot be read.
const LAST: u32 = u32::MAX;

type Places = Arc<BTreeMap<Hotkey, u32>>;

/// Where in their blocks records were written.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<BTreeMap<Block, (BlockRef, Places)>>);

impl Written {
    fn of(&self, block: BlockRef) -> Option<Places> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, places) = known.get(&block.number)?;
        (at.hash == block.hash).then(|| Arc::clone(places))
    }

    fn remember(&self, block: BlockRef, places: &Places) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(block.number, (block, Arc::clone(places)));
        while known.len() > REMEMBERED_BLOCKS {
            known.pop_first();
        }
    }
}

impl<T: RpcTransport> SubtensorChain<T> {
    /// The records, in the order of hotkeys.
    pub(super) async fn records(
        &self,
        view: &View<'_, T>,
    ) -> Result<Vec<CommitmentRecord>, ChainError> {
        let netuid = self.identity.netuid;
        let entries = view
            .entries((PALLET, "CommitmentOf"), &[netuid.0.into()])
            .await?;
        let mut records = Vec::new();
        for (keys, value) in entries {
            let hotkey = keys.get(1).and_then(Value::as_hotkey);
            let read = hotkey.and_then(|hotkey| Some((hotkey, record_of(&value)?)));
            let (hotkey, (block, fields)) = read.ok_or_else(|| ChainError::Shape {
                item: "Commitments.CommitmentOf".to_owned(),
                spec: None,
                detail: "no block and list of fields".to_owned(),
            })?;
            let index = self.place(view, hotkey, block).await?;
            records.push(CommitmentRecord {
                hotkey,
                block,
                index,
                fields,
            });
        }
        records.sort_unstable_by_key(|record| record.hotkey);
        Ok(records)
    }

    /// The place within its block at which `hotkey` wrote its record of `block`.
    async fn place(
        &self,
        view: &View<'_, T>,
        hotkey: Hotkey,
        block: Block,
    ) -> Result<u32, ChainError> {
        let places = match self.places(view, block).await {
            Ok(places) => places,
            Err(ChainError::Pruned { .. }) => return Ok(LAST),
            Err(error) => return Err(error),
        };
        Ok(places.get(&hotkey).copied().unwrap_or(LAST))
    }

    async fn places(&self, view: &View<'_, T>, number: Block) -> Result<Places, ChainError> {
        let block = if number == view.block.number {
            view.block
        } else {
            self.node.resolve(At::Number(number)).await?
        };
        if let Some(places) = self.written.of(block) {
            return Ok(places);
        }
        let events = self.node.events(block).await?;
        let places = Arc::new(places_of(&events, self.identity.netuid));
        self.written.remember(block, &places);
        Ok(places)
    }
}

/// Who wrote a record at which place; the last one of a hotkey holds.
fn places_of(events: &[EventRecord], netuid: Netuid) -> BTreeMap<Hotkey, u32> {
    let written = |event: &EventRecord| {
        let ours = event.pallet == PALLET
            && matches!(&*event.name, "Commitment" | "TimelockCommitment")
            && event.fields.field("netuid")?.number() == Some(netuid.0);
        let who = event.fields.field("who")?.as_hotkey()?;
        ours.then_some((who, event.extrinsic?))
    };
    events.iter().filter_map(written).collect()
}

/// `{ deposit, block, info: { fields } }`.
pub(super) fn record_of(value: &Value) -> Option<(Block, Vec<Field>)> {
    let block = Block(value.field("block")?.number()?);
    let info = value.field("info")?;
    let fields = info.field("fields").unwrap_or(info).items()?;
    let mut read = Vec::with_capacity(fields.len());
    for field in fields {
        read.push(field_of(field)?);
        // What follows a field of an unknown kind may belong to it.
        if matches!(read.last(), Some(Field::Unknown(_))) {
            break;
        }
    }
    Some((block, read))
}

fn field_of(value: &Value) -> Option<Field> {
    let (kind, fields) = value.variant()?;
    let bytes = || {
        let first = fields.items().and_then(<[Value]>::first);
        first.or(Some(fields))?.as_bytes()
    };
    let digest = || -> Option<[u8; 32]> { bytes()?.try_into().ok() };
    Some(match kind {
        "None" => Field::Raw(Vec::new()),
        "BigRaw" => Field::BigRaw(bytes()?.to_vec()),
        "BlakeTwo256" => Field::Blake2_256(digest()?),
        "Sha256" => Field::Sha256(digest()?),
        "Keccak256" => Field::Keccak256(digest()?),
        "ShaThree256" => Field::Sha3_256(digest()?),
        "ResetBondsFlag" => Field::ResetBonds,
        "TimelockEncrypted" => Field::Timelocked {
            ciphertext: fields.field("encrypted")?.as_bytes()?.to_vec(),
            round: fields.field("reveal_round")?.number()?,
        },
        raw if raw.starts_with("Raw") => Field::Raw(bytes().unwrap_or_default().to_vec()),
        unknown => Field::Unknown(unknown.to_owned()),
    })
}

/// The fields as an argument of `set_commitment`.
pub(super) fn info_of(fields: &[Field]) -> Option<Value> {
    let fields = fields.iter().map(|field| {
        let one = |name: &str, bytes: &[u8]| Value::variant_of(name, [Value::from(bytes)]);
        Some(match field {
            Field::Raw(bytes) => one(&format!("Raw{}", bytes.len()), bytes),
            Field::BigRaw(bytes) => one("BigRaw", bytes),
            Field::Blake2_256(digest) => one("BlakeTwo256", digest),
            Field::Sha256(digest) => one("Sha256", digest),
            Field::Keccak256(digest) => one("Keccak256", digest),
            Field::Sha3_256(digest) => one("ShaThree256", digest),
            Field::ResetBonds => Value::variant_of("ResetBondsFlag", []),
            Field::Timelocked { ciphertext, round } => Value::variant_with(
                "TimelockEncrypted",
                [
                    ("encrypted", ciphertext.as_slice().into()),
                    ("reveal_round", (*round).into()),
                ],
            ),
            Field::Unknown(_) => return None,
        })
    });
    let fields = fields.collect::<Option<Vec<_>>>()?;
    Some(Value::record([("fields", Value::List(fields))]))
}
