//! Everyone who is registered, as of one block: who is who, who votes, who serves (P-7, P-27).
//!
//! The table is made once and shared: blocks in which nobody came, went or moved have the same one,
//! and looking somebody up does not walk through thousands. Knows nothing of records or cycles.

use std::cmp::Reverse;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Block, Hotkey, Uid};
use crate::lookup::Lookup;
use crate::snapshot::{Endpoint, Voter};

/// A registered participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Its slot, valid in one snapshot only.
    pub uid: Uid,
    /// Who it is.
    pub hotkey: Hotkey,
    /// Stake in rao.
    pub stake: u64,
    /// Whether the chain lets it validate.
    pub validator_permit: bool,
    /// Where it serves, if it said so.
    pub endpoint: Option<Endpoint>,
    /// The block in which it last set weights.
    pub weights_set: Block,
}

/// All participants in the order of their slots.
#[derive(Debug, Clone, Default)]
pub struct Participants(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    by_slot: Vec<Participant>,
    by_hotkey: Lookup<Hotkey, usize>,
    voters: Vec<Voter>,
    /// Those with a permit and an address, the largest stake first, by place in `by_slot`.
    serving: Vec<Serving>,
}

/// A participant with a permit and an address.
#[derive(Debug, Clone, Copy)]
struct Serving {
    place: usize,
    hotkey: Hotkey,
    endpoint: Endpoint,
}

impl Participants {
    /// Whether this is the very same table: nobody came, went or moved.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The participant with this hotkey.
    #[must_use]
    pub fn get(&self, hotkey: Hotkey) -> Option<&Participant> {
        let place = self.0.by_hotkey.get(&hotkey)?;
        self.0.by_slot.get(*place)
    }

    /// Everyone who may validate, with a stake, in the order of their hotkeys.
    #[must_use]
    pub fn voters(&self) -> &[Voter] {
        &self.0.voters
    }

    /// Everyone with a permit and an address, the largest stake first, then by slot.
    pub fn serving(&self) -> impl Iterator<Item = (&Participant, Endpoint)> + Clone {
        let serving = self.0.serving.iter();
        serving.filter_map(|serving| {
            let participant = self.0.by_slot.get(serving.place)?;
            Some((participant, serving.endpoint))
        })
    }

    /// The same, beginning with the one in this place and going round.
    pub(crate) fn ring(&self, first: usize) -> impl Iterator<Item = (Hotkey, Endpoint)> {
        let (before, after) = self.0.serving.split_at(first.min(self.0.serving.len()));
        let all = after.iter().chain(before);
        all.map(|serving| (serving.hotkey, serving.endpoint))
    }

    /// How many have a permit and an address.
    pub(crate) fn count_serving(&self) -> usize {
        self.0.serving.len()
    }
}

impl FromIterator<Participant> for Participants {
    fn from_iter<I: IntoIterator<Item = Participant>>(participants: I) -> Self {
        let by_slot: Vec<Participant> = participants.into_iter().collect();
        // Of two entries of one hotkey, which no chain has, the first counts.
        let places = by_slot.iter().enumerate().rev();
        let by_hotkey = places.map(|(place, p)| (p.hotkey, place)).collect();
        let voting = by_slot.iter().filter(|p| p.validator_permit && p.stake > 0);
        let mut voters: Vec<Voter> = voting
            .map(|p| Voter {
                hotkey: p.hotkey,
                stake: p.stake,
            })
            .collect();
        voters.sort_by_key(|voter| voter.hotkey);
        let permitted = by_slot
            .iter()
            .enumerate()
            .filter(|(_, p)| p.validator_permit);
        let mut serving: Vec<Serving> = permitted
            .filter_map(|(place, participant)| {
                Some(Serving {
                    place,
                    hotkey: participant.hotkey,
                    endpoint: participant.endpoint?,
                })
            })
            .collect();
        let order = |serving: &Serving| &by_slot[serving.place];
        serving.sort_by_key(|serving| (Reverse(order(serving).stake), order(serving).uid));
        Self(Arc::new(Table {
            by_slot,
            by_hotkey,
            voters,
            serving,
        }))
    }
}

impl Deref for Participants {
    type Target = [Participant];

    fn deref(&self) -> &[Participant] {
        &self.0.by_slot
    }
}

impl PartialEq for Participants {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.by_slot == other.0.by_slot
    }
}

impl Serialize for Participants {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.by_slot.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Participants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
