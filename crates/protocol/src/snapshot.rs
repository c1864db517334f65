//! What the chain says as of one block: the only view of the outside that a role machine has of
//! the others.
//!
//! The driver fills it from reads that are pinned to one block hash and hands it over once per block,
//! in order and without gaps. It carries the head beside the block, so that a role that is
//! catching up can tell what is still worth doing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::announcement::{Announcement, Vote};
use crate::assignment::Assignment;
use crate::consensus::Tally;
use crate::ids::{BlobId, Block, BlockHash, Cycle, Hotkey};
use crate::memo::Memo;
pub use crate::participants::{Participant, Participants};
use crate::round::{Commits, CommitsKey};

/// The chain as of one block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The block that was read.
    pub block: Block,
    /// Its hash.
    pub hash: BlockHash,
    /// The newest block that the driver knows of; equal to `block` when it is not catching up.
    pub head: Block,
    /// The subnet owner's hotkey.
    pub owner: Option<Hotkey>,
    /// Registered participants, in the order of their slots.
    pub participants: Participants,
    /// The last record of each participant that has one: of most blocks, those of the block before.
    pub records: Arc<BTreeMap<Hotkey, Record>>,
    /// What was read off it, once for all roles that share it.
    #[serde(skip)]
    pub readings: Readings,
}

/// What was read off a snapshot that several roles share; empty in one that was just made or copied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    announced: Memo<(), Option<(BlobId, Block)>>,
    servers: Memo<(), Arc<[Endpoint]>>,
    /// As of the last block of a seal window, by task, who trains what.
    assignments: Memo<BlobId, Arc<Assignment>>,
    /// As of the last block of a reveal window, what the Commit phase left.
    pub(crate) commits: Memo<CommitsKey, Option<Arc<Commits>>>,
    /// As of the last block of a vote window, by task and cycle, the votes and what they decide.
    pub(crate) counts: Memo<(BlobId, Cycle), Count>,
}

/// Votes, and what they decide.
type Count = (Arc<Vec<(Voter, Vote)>>, Option<Tally>);

/// A record on the chain: bytes, and when they were included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The block of inclusion.
    pub block: Block,
    /// The place within that block: decides between two of one block.
    pub index: u32,
    /// The payload.
    #[serde(with = "hex_bytes")]
    pub bytes: Arc<[u8]>,
}

/// An address of a participant's HTTP server. Untrusted: whoever announced it chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// The base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", SocketAddr::new(self.ip, self.port))
    }
}

/// A validator as far as voting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// Who.
    pub hotkey: Hotkey,
    /// With how much stake, in rao.
    pub stake: u64,
}

impl Snapshot {
    /// The participant with this hotkey.
    #[must_use]
    pub fn participant(&self, hotkey: Hotkey) -> Option<&Participant> {
        self.participants.get(hotkey)
    }

    /// Everyone who may validate, with a stake, in the order of their hotkeys.
    #[must_use]
    pub fn voters(&self) -> &[Voter] {
        self.participants.voters()
    }

    /// What a participant last announced, and its record; nothing when it is not one of ours.
    #[must_use]
    pub fn announcement(&self, hotkey: Hotkey) -> Option<(&Record, Announcement)> {
        let record = self.records.get(&hotkey)?;
        Announcement::decode(&record.bytes).map(|announcement| (record, announcement))
    }

    /// Every announcement, in the order of the hotkeys.
    pub fn announcements(&self) -> impl Iterator<Item = (Hotkey, &Record, Announcement)> {
        self.records.iter().filter_map(|(hotkey, record)| {
            let announcement = Announcement::decode(&record.bytes)?;
            Some((*hotkey, record, announcement))
        })
    }

    /// Who of those with a record trains what in a task, of which some may be known.
    pub(crate) fn assignment(&self, task: BlobId, known: &Assignment) -> Arc<Assignment> {
        let draw = |_: &BlobId| Arc::new(known.knowing(self.records.keys()));
        self.readings.assignments.get(task, draw)
    }

    /// The task that the subnet's owner announces as of this block, and since when.
    pub(crate) fn announced_task(&self) -> Option<(BlobId, Block)> {
        let read = || match self.announcement(self.owner?)? {
            (record, Announcement::Task { task }) => Some((task, record.block)),
            _ => None,
        };
        self.readings.announced.get((), |()| read())
    }

    /// Whether this is the block after that one, and names the same participants and the same task.
    #[must_use]
    pub fn continues(&self, before: &Self) -> bool {
        let task = |snapshot: &Self| snapshot.announced_task().map(|(task, _)| task);
        self.block == before.block.next()
            && self.participants.is_same(&before.participants)
            && task(self) == task(before)
    }

    /// Validators in the order in which an update is offered to them and asked for: by stake, beginning
    /// with another one for each update (P-16).
    pub fn receivers(&self, update: BlobId) -> impl Iterator<Item = (Hotkey, Endpoint)> {
        self.participants.ring(self.first_receiver(update))
    }

    /// The place in the ring of receivers that an update begins with.
    pub(crate) fn first_receiver(&self, update: BlobId) -> usize {
        let all = self.participants.count_serving();
        let drawn = update.0.first_chunk::<8>().copied().unwrap_or_default();
        let first = (u128::from(u64::from_le_bytes(drawn)) * all as u128) >> 64;
        usize::try_from(first).unwrap_or(0)
    }

    /// The servers of [`Snapshot::servers`] for an update that was uploaded to this receiver first.
    pub(crate) fn servers_from(&self, first_receiver: usize, except: Hotkey) -> Arc<[Endpoint]> {
        let owner = self
            .serving_owner()
            .map(|(owner, endpoint)| (owner.hotkey, endpoint));
        let receivers = self.participants.ring(first_receiver);
        let servers = receivers.chain(owner);
        let others = servers.filter(|(hotkey, _)| *hotkey != except);
        others.map(|(_, endpoint)| endpoint).collect()
    }

    /// The owner, where it serves and has no permit to validate.
    fn serving_owner(&self) -> Option<(&Participant, Endpoint)> {
        let owner = self.owner.and_then(|owner| self.participant(owner));
        let owner = owner.filter(|owner| !owner.validator_permit)?;
        Some((owner, owner.endpoint?))
    }

    /// Servers that blobs can be had from: validators and the owner, by stake; never oneself.
    #[must_use]
    pub fn servers(&self, except: Hotkey) -> Arc<[Endpoint]> {
        let is_among = |participant: &Participant| {
            participant.validator_permit || Some(participant.hotkey) == self.owner
        };
        match self.participant(except).is_some_and(is_among) {
            true => self.servers_but_for(Some(except)),
            // Thousands of miners ask the same ones.
            false => self
                .readings
                .servers
                .get((), |()| self.servers_but_for(None)),
        }
    }

    fn servers_but_for(&self, except: Option<Hotkey>) -> Arc<[Endpoint]> {
        let permitted = self.participants.serving();
        let mut serving: Vec<_> = permitted
            .chain(self.serving_owner())
            .filter(|(participant, _)| Some(participant.hotkey) != except)
            .collect();
        serving.sort_by_key(|(participant, _)| (Reverse(participant.stake), participant.uid));
        serving.into_iter().map(|(_, endpoint)| endpoint).collect()
    }
}

/// Bytes as hexadecimal text, so that journals can be read.
pub(crate) mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        bytes: &impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digits(bytes.as_ref()))
    }

    /// An archive holds thousands of records: this is several times as fast as going by way of `char`s.
    fn digits(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = vec![0; 2 * bytes.len()];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        String::from_utf8(digits).unwrap_or_default()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<u8>>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?);
        bytes.map(T::from).map_err(de::Error::custom)
    }
}
