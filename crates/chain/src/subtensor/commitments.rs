//! Every neuron's commitment record at one block, and which of two of one block came first.
//!
//! The chain keeps the block of a record but not its place within the block; that is the place of
//! the extrinsic that wrote it, which the block's events tell. They are read once for each block that
//! has records and remembered by its hash; the hashes are those of the line below the block that is
//! read at, whatever fork it is of. A record of more than [`LOOK_BACK_BLOCKS`] ago, and every
//! record of a block whose events are gone, counts as written last: nobody gains precedence by being
//! forgotten, and old records cost nobody a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use connito_protocol::ids::{Block, BlockHash, Hotkey, Netuid};

use super::SubtensorChain;
use super::metagraph;
use super::view::{View, Wanted};
use crate::chain::CommitmentRecord;
use crate::error::ChainError;
use crate::fields::Field;
use crate::rpc::RpcTransport;
use crate::runtime::{EventRecord, Value};

const PALLET: &str = "Commitments";
/// How old a record may be for its place to be asked for: precedence matters within a window.
const LOOK_BACK_BLOCKS: u64 = 512;
/// The place of a record that is older, or whose block's events cannot be read.
const LAST: u32 = u32::MAX;

type Places = Arc<BTreeMap<Hotkey, u32>>;

/// Where in their blocks records were written.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<BTreeMap<Block, (BlockHash, Places)>>);

impl Written {
    fn of(&self, number: Block, hash: BlockHash) -> Option<Places> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, places) = known.get(&number)?;
        (*at == hash).then(|| Arc::clone(places))
    }

    fn remember(&self, (number, hash): (Block, BlockHash), places: &Places) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(number, (hash, Arc::clone(places)));
        let oldest = Block(number.0.saturating_sub(LOOK_BACK_BLOCKS));
        known.retain(|number, _| *number >= oldest);
    }
}

impl<T: RpcTransport> SubtensorChain<T> {
    /// The records, in the order of hotkeys.
    pub(super) async fn records(
        &self,
        view: &View<'_, T>,
    ) -> Result<Vec<CommitmentRecord>, ChainError> {
        let netuid = self.identity.netuid;
        let hotkeys = metagraph::hotkeys(view, netuid).await?;
        let mut wanted = Wanted::default();
        let mut places = Vec::with_capacity(hotkeys.len());
        for hotkey in hotkeys {
            let keys = [netuid.0.into(), hotkey.0.into()];
            places.push((
                hotkey,
                view.want(&mut wanted, (PALLET, "CommitmentOf"), &keys)?,
            ));
        }
        let found = view.read(wanted).await?;
        let mut records = Vec::new();
        for (hotkey, place) in places {
            if let Some((block, fields)) = found.maybe(place, record_of)? {
                records.push(CommitmentRecord {
                    hotkey,
                    block,
                    index: LAST,
                    fields,
                });
            }
        }
        let written: BTreeSet<Block> = records.iter().map(|record| record.block).collect();
        let places = self.places(view, written).await?;
        for record in &mut records {
            let place = places
                .get(&record.block)
                .and_then(|in_block| in_block.get(&record.hotkey));
            record.index = place.copied().unwrap_or(LAST);
        }
        records.sort_unstable_by_key(|record| record.hotkey);
        Ok(records)
    }

    /// Who wrote where in each of these blocks; blocks too old to matter are left out.
    async fn places(
        &self,
        view: &View<'_, T>,
        mut blocks: BTreeSet<Block>,
    ) -> Result<BTreeMap<Block, Places>, ChainError> {
        let now = view.block.number.0;
        blocks.retain(|block| block.0 <= now && now - block.0 < LOOK_BACK_BLOCKS);
        let mut hashes = self.node.headers.line(view.block);
        hashes.retain(|number, _| blocks.contains(number));
        blocks.retain(|number| !hashes.contains_key(number));
        hashes.extend(self.node.hashes(&blocks).await?);
        let mut places = BTreeMap::new();
        for (number, hash) in hashes {
            let known = match self.written.of(number, hash) {
                Some(known) => known,
                None => {
                    let found = Arc::new(self.places_in((number, hash)).await?);
                    self.written.remember((number, hash), &found);
                    found
                }
            };
            places.insert(number, known);
        }
        Ok(places)
    }

    /// Nothing of a block whose events are gone or cannot be read: that is so for everybody who asks.
    async fn places_in(
        &self,
        block: (Block, BlockHash),
    ) -> Result<BTreeMap<Hotkey, u32>, ChainError> {
        match self.node.events_in(block).await {
            Ok(events) => Ok(places_of(&events, self.identity.netuid)),
            Err(ChainError::Pruned { .. } | ChainError::Shape { .. }) => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
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
