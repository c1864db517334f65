//! The simulated chain: who is registered, what each last wrote, one block after the other.
//!
//! Inputs are writes in the order in which they arrive, and the call that makes the next block of them.
//! The limits are those of the real one (P-11, P-57): one record a hotkey, of at most 512 bytes, 3,100
//! bytes an epoch of 360 blocks with at least 100 a write, weights every 100 blocks, an address every
//! 50. A refusal is told by name. Every block is one snapshot that all nodes share. The last few blocks
//! can be taken back, as a fork does: what was written in them waits again, as in the pool of a node. It
//! knows no time: when a block is made or taken back, and whether at all, is somebody else's affair.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use connito_protocol::announcement::MAXIMUM_ANNOUNCEMENT_BYTES;
use connito_protocol::ids::{Block, BlockHash, Hotkey, Uid};
use connito_protocol::snapshot::{Endpoint, Participant, Participants, Record, Snapshot};

/// Blocks in an epoch, after which everyone may write as much again.
const EPOCH_BLOCKS: u64 = 360;

/// Bytes that a hotkey may write in an epoch.
const SPACE_BYTES: u64 = 3_100;

/// What the shortest record is charged.
const LEAST_CHARGE_BYTES: u64 = 100;

/// Blocks between two settings of weights by one hotkey.
const WEIGHTS_BLOCKS: u64 = 100;

/// Blocks between two addresses of one hotkey.
const SERVING_BLOCKS: u64 = 50;

/// Most blocks that a fork takes back.
pub(crate) const MOST_TAKEN_BACK: u32 = 8;

/// Something that a participant writes.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Its record.
    Record(Vec<u8>),
    /// Its weights. Which ones does not matter to anybody in a run.
    Weights,
    /// Its address.
    Endpoint(Endpoint),
}

/// A participant as it is registered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registration {
    pub(crate) hotkey: Hotkey,
    pub(crate) stake: u64,
    pub(crate) validator_permit: bool,
}

/// What a write has overwritten.
#[derive(Debug)]
enum Overwritten {
    Record(Hotkey, Option<Record>),
    Space(Hotkey, Option<(u64, u64)>),
    Weights(Hotkey, Block),
    Endpoint(Hotkey, Option<Endpoint>, Option<Block>),
}

/// What it takes to take a block back.
#[derive(Debug, Default)]
struct Made {
    /// All that was submitted for it, refused or not, in its order.
    writes: Vec<(Hotkey, Write)>,
    overwritten: Vec<Overwritten>,
}

/// The chain.
#[derive(Debug)]
pub(crate) struct Chain {
    owner: Hotkey,
    /// By slot; `None` where a registration has ended.
    slots: Vec<Option<Participant>>,
    places: BTreeMap<Hotkey, usize>,
    participants: Participants,
    changed: bool,
    records: Arc<BTreeMap<Hotkey, Record>>,
    /// Epoch and bytes written in it.
    space: BTreeMap<Hotkey, (u64, u64)>,
    served: BTreeMap<Hotkey, Block>,
    pending: Vec<(Hotkey, Write)>,
    history: VecDeque<Arc<Snapshot>>,
    kept: usize,
    /// The newest blocks, those that may be taken back; the newest last.
    made: VecDeque<Made>,
    /// How often blocks were taken back.
    forks: u64,
}

impl Chain {
    /// A chain at block 0 with these participants. Of its blocks, the last `kept` can be read.
    pub(crate) fn new(owner: Hotkey, genesis: BlockHash, kept: usize) -> Self {
        let first = Snapshot {
            block: Block(0),
            hash: genesis,
            head: Block(0),
            owner: Some(owner),
            participants: Participants::default(),
            records: Arc::default(),
            readings: Default::default(),
        };
        Self {
            owner,
            slots: Vec::new(),
            places: BTreeMap::new(),
            participants: Participants::default(),
            changed: true,
            records: Arc::default(),
            space: BTreeMap::new(),
            served: BTreeMap::new(),
            pending: Vec::new(),
            history: VecDeque::from([Arc::new(first)]),
            kept: kept.max(1),
            made: VecDeque::new(),
            forks: 0,
        }
    }

    /// Registers somebody, in the first slot that is free, as of the next block.
    pub(crate) fn register(&mut self, registration: Registration) {
        let free = self.slots.iter().position(Option::is_none);
        let place = free.unwrap_or(self.slots.len());
        let participant = Participant {
            uid: Uid(u16::try_from(place).unwrap_or(u16::MAX)),
            hotkey: registration.hotkey,
            stake: registration.stake,
            validator_permit: registration.validator_permit,
            endpoint: None,
            weights_set: self.head().block,
        };
        if place == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[place] = Some(participant);
        self.places.insert(registration.hotkey, place);
        self.changed = true;
    }

    /// Ends a registration, as of the next block.
    pub(crate) fn deregister(&mut self, hotkey: Hotkey) {
        if let Some(place) = self.places.remove(&hotkey) {
            self.slots[place] = None;
            self.changed = true;
        }
    }

    /// Whether a hotkey has a slot.
    pub(crate) fn is_registered(&self, hotkey: Hotkey) -> bool {
        self.places.contains_key(&hotkey)
    }

    /// The stake of a registered hotkey, 0 of any other.
    pub(crate) fn stake(&self, hotkey: Hotkey) -> u64 {
        let place = self.places.get(&hotkey);
        let participant = place.and_then(|place| self.slots.get(*place)?.as_ref());
        participant.map_or(0, |participant| participant.stake)
    }

    /// Takes a write for the next block.
    pub(crate) fn submit(&mut self, hotkey: Hotkey, write: Write) {
        self.pending.push((hotkey, write));
    }

    /// The newest block.
    pub(crate) fn head(&self) -> &Arc<Snapshot> {
        self.history.back().expect("there is always a first block")
    }

    /// A block that can still be read.
    pub(crate) fn block(&self, number: Block) -> Option<&Arc<Snapshot>> {
        let first = self.history.front()?.block.0;
        let place = usize::try_from(number.0.checked_sub(first)?).ok()?;
        self.history.get(place)
    }

    /// The oldest block that can still be read.
    pub(crate) fn oldest(&self) -> Block {
        self.history.front().map_or(Block(0), |first| first.block)
    }

    /// The hash of the next block; `again` counts how often its author has thrown one away.
    pub(crate) fn next_hash(&self, again: u8) -> BlockHash {
        let mut hasher = blake3::Hasher::new_derive_key("connito/1 simulator block");
        hasher.update(&self.head().hash.0);
        hasher.update(&[again]);
        if self.forks > 0 {
            // Of the same parent and author, what replaces a block is another one.
            hasher.update(&self.forks.to_le_bytes());
        }
        BlockHash(*hasher.finalize().as_bytes())
    }

    /// Makes the next block of what was submitted, and names whose writes it refused, and why.
    pub(crate) fn make_block(&mut self, hash: BlockHash) -> Vec<(Hotkey, &'static str)> {
        let block = self.head().block.next();
        let mut refused = Vec::new();
        let writes = std::mem::take(&mut self.pending);
        self.made.push_back(Made::default());
        for (index, (hotkey, write)) in writes.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if let Err(reason) = self.apply((block, index), *hotkey, write.clone()) {
                refused.push((*hotkey, reason));
            }
        }
        if let Some(made) = self.made.back_mut() {
            made.writes = writes;
        }
        while self.made.len() > MOST_TAKEN_BACK as usize {
            self.made.pop_front();
        }
        if std::mem::take(&mut self.changed) {
            self.participants = self.slots.iter().flatten().cloned().collect();
        }
        self.history.push_back(Arc::new(Snapshot {
            block,
            hash,
            head: block,
            owner: Some(self.owner),
            participants: self.participants.clone(),
            records: Arc::clone(&self.records),
            readings: Default::default(),
        }));
        while self.history.len() > self.kept {
            self.history.pop_front();
        }
        refused
    }

    /// Takes back the newest blocks, as many as there are of these, and says how many. Their writes
    /// wait for the next block once more, before all others and in their order; who is registered stays.
    pub(crate) fn take_back(&mut self, blocks: u32) -> u32 {
        self.forks += 1;
        let mut taken = 0;
        while taken < blocks
            && self.history.len() > 1
            && let Some(made) = self.made.pop_back()
        {
            self.history.pop_back();
            for overwritten in made.overwritten.into_iter().rev() {
                self.restore(overwritten);
            }
            self.pending.splice(0..0, made.writes);
            taken += 1;
        }
        self.changed = true;
        taken
    }

    fn restore(&mut self, overwritten: Overwritten) {
        match overwritten {
            Overwritten::Record(hotkey, before) => {
                put(Arc::make_mut(&mut self.records), hotkey, before);
            }
            Overwritten::Space(hotkey, before) => put(&mut self.space, hotkey, before),
            Overwritten::Weights(hotkey, before) => {
                if let Some(participant) = self.participant(hotkey) {
                    participant.weights_set = before;
                }
            }
            Overwritten::Endpoint(hotkey, before, served) => {
                put(&mut self.served, hotkey, served);
                if let Some(participant) = self.participant(hotkey) {
                    participant.endpoint = before;
                }
            }
        }
    }

    fn participant(&mut self, hotkey: Hotkey) -> Option<&mut Participant> {
        let place = *self.places.get(&hotkey)?;
        self.slots.get_mut(place)?.as_mut()
    }

    fn overwrites(&mut self, overwritten: Overwritten) {
        if let Some(made) = self.made.back_mut() {
            made.overwritten.push(overwritten);
        }
    }

    fn apply(
        &mut self,
        (block, index): (Block, u32),
        hotkey: Hotkey,
        write: Write,
    ) -> Result<(), &'static str> {
        let place = *self
            .places
            .get(&hotkey)
            .ok_or("HotKeyNotRegisteredInSubNet")?;
        match write {
            Write::Record(bytes) => {
                self.charge(block, hotkey, bytes.len() as u64)?;
                let record = Record {
                    block,
                    index,
                    bytes: bytes.into(),
                };
                let before = Arc::make_mut(&mut self.records).insert(hotkey, record);
                self.overwrites(Overwritten::Record(hotkey, before));
            }
            Write::Weights => {
                let participant = self.slots[place].as_mut().ok_or("NoSlot")?;
                if !participant.validator_permit {
                    return Err("NeuronNoValidatorPermit");
                }
                if block.0.saturating_sub(participant.weights_set.0) < WEIGHTS_BLOCKS {
                    return Err("SettingWeightsTooFast");
                }
                let before = std::mem::replace(&mut participant.weights_set, block);
                self.overwrites(Overwritten::Weights(hotkey, before));
                self.changed = true;
            }
            Write::Endpoint(endpoint) => {
                let served = self.served.get(&hotkey);
                if served.is_some_and(|served| block.0 - served.0 < SERVING_BLOCKS) {
                    return Err("ServingRateLimitExceeded");
                }
                let participant = self.slots[place].as_mut().ok_or("NoSlot")?;
                let before = participant.endpoint.replace(endpoint);
                let served = self.served.insert(hotkey, block);
                self.overwrites(Overwritten::Endpoint(hotkey, before, served));
                self.changed = true;
            }
        }
        Ok(())
    }

    fn charge(&mut self, block: Block, hotkey: Hotkey, bytes: u64) -> Result<(), &'static str> {
        if bytes > MAXIMUM_ANNOUNCEMENT_BYTES as u64 {
            return Err("TooManyFieldsInCommitmentInfo");
        }
        let epoch = block.0 / EPOCH_BLOCKS;
        let (of, used) = self.space.get(&hotkey).copied().unwrap_or((epoch, 0));
        let used = if of == epoch { used } else { 0 };
        let used = used + bytes.max(LEAST_CHARGE_BYTES);
        if used > SPACE_BYTES {
            return Err("SpaceLimitExceeded");
        }
        let before = self.space.insert(hotkey, (epoch, used));
        self.overwrites(Overwritten::Space(hotkey, before));
        Ok(())
    }
}

/// Puts back what stood there, or nothing.
fn put<T>(values: &mut BTreeMap<Hotkey, T>, hotkey: Hotkey, before: Option<T>) {
    match before {
        Some(before) => values.insert(hotkey, before),
        None => values.remove(&hotkey),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Hotkey = Hotkey([1; 32]);
    const BOB: Hotkey = Hotkey([2; 32]);

    fn chain() -> Chain {
        let mut chain = Chain::new(ALICE, BlockHash([0; 32]), 10);
        for hotkey in [ALICE, BOB] {
            chain.register(Registration {
                hotkey,
                stake: 1,
                validator_permit: hotkey == ALICE,
            });
        }
        chain
    }

    fn make(chain: &mut Chain) -> Vec<(Hotkey, &'static str)> {
        chain.make_block(chain.next_hash(0))
    }

    #[test]
    fn the_last_of_two_records_stands_and_keeps_its_place_in_the_block() {
        let mut chain = chain();
        for byte in [1, 2] {
            chain.submit(BOB, Write::Record(vec![byte]));
        }
        assert!(make(&mut chain).is_empty());
        let record = &chain.head().records[&BOB];
        assert_eq!(
            (record.block, record.index, &record.bytes[..]),
            (Block(1), 1, &[2][..])
        );
    }

    /// Thirty-one writes at the least charge fit into an epoch; the next epoch has room again.
    #[test]
    fn an_epochs_space_runs_out_and_comes_back() {
        let mut chain = chain();
        for _ in 0..31 {
            chain.submit(BOB, Write::Record(vec![0]));
            assert!(make(&mut chain).is_empty());
        }
        chain.submit(BOB, Write::Record(vec![0]));
        assert_eq!(make(&mut chain), [(BOB, "SpaceLimitExceeded")]);
        while chain.head().block.0 + 1 < EPOCH_BLOCKS {
            make(&mut chain);
        }
        chain.submit(BOB, Write::Record(vec![0]));
        assert!(make(&mut chain).is_empty());
    }

    #[test]
    fn who_is_not_registered_or_not_permitted_is_refused_by_name() {
        let mut chain = chain();
        while chain.head().block.0 < WEIGHTS_BLOCKS {
            make(&mut chain);
        }
        chain.deregister(BOB);
        chain.submit(BOB, Write::Record(vec![0]));
        chain.submit(ALICE, Write::Weights);
        chain.submit(ALICE, Write::Weights);
        let refused = make(&mut chain);
        assert_eq!(
            refused,
            [
                (BOB, "HotKeyNotRegisteredInSubNet"),
                (ALICE, "SettingWeightsTooFast")
            ]
        );
        assert!(chain.head().participant(BOB).is_none());
    }

    #[test]
    fn a_free_slot_is_given_out_again_and_old_blocks_are_forgotten() {
        let mut chain = chain();
        chain.deregister(ALICE);
        let carol = Hotkey([3; 32]);
        chain.register(Registration {
            hotkey: carol,
            stake: 0,
            validator_permit: false,
        });
        (0..20).for_each(|_| drop(make(&mut chain)));
        let head = chain.head();
        assert_eq!(head.participant(carol).map(|p| p.uid), Some(Uid(0)));
        assert_eq!(
            (chain.oldest(), chain.block(Block(3)).is_none()),
            (Block(11), true)
        );
        assert_eq!(
            chain.block(Block(12)).map(|snapshot| snapshot.block),
            Some(Block(12))
        );
    }

    /// Three blocks are taken back. What stood before them stands again, and what was written in them is
    /// written once more, in its order and before what came later; nobody is charged twice for it.
    #[test]
    fn blocks_that_are_taken_back_leave_their_writes_to_those_that_replace_them() {
        let mut chain = chain();
        let record = |byte| Write::Record(vec![byte]);
        chain.submit(BOB, record(1));
        make(&mut chain);
        for byte in [2, 3, 4] {
            chain.submit(BOB, record(byte));
            chain.submit(ALICE, record(byte));
            make(&mut chain);
        }
        let before = chain.head().hash;
        chain.submit(BOB, record(5));
        assert_eq!(chain.take_back(3), 3);
        assert_eq!(chain.head().block, Block(1));
        assert_eq!(chain.records, chain.head().records);
        assert_eq!(&chain.records[&BOB].bytes[..], &[1]);
        assert_eq!(chain.space[&BOB], (0, LEAST_CHARGE_BYTES));
        assert_eq!(chain.space.get(&ALICE), None);
        let waiting: Vec<(Hotkey, u8)> = chain
            .pending
            .iter()
            .map(|(hotkey, write)| match write {
                Write::Record(bytes) => (*hotkey, bytes[0]),
                Write::Weights | Write::Endpoint(_) => (*hotkey, 0),
            })
            .collect();
        let both = [2, 3, 4].map(|byte| [(BOB, byte), (ALICE, byte)]);
        assert_eq!(waiting, [both.as_flattened(), &[(BOB, 5)]].concat());
        (0..3).for_each(|_| drop(make(&mut chain)));
        assert_ne!(chain.head().hash, before);
        let record = &chain.head().records[&BOB];
        assert_eq!((record.block, &record.bytes[..]), (Block(2), &[5][..]));
        assert_eq!(chain.space[&BOB], (0, 5 * LEAST_CHARGE_BYTES));
    }

    /// The hash of what replaces a block is another one, although its parent is the same, and so are those
    /// of all blocks after it; and of a second fork to the same block.
    #[test]
    fn no_two_forks_lead_to_the_same_blocks() {
        let mut chain = chain();
        let mut hashes = Vec::new();
        for _ in 0..3 {
            make(&mut chain);
            hashes.push(chain.head().hash);
            chain.take_back(1);
        }
        hashes.sort_unstable_by_key(|hash| hash.0);
        hashes.dedup();
        assert_eq!(hashes.len(), 3);
    }

    /// Limits count blocks that stand: an address or weights that were taken back may be set again at once.
    /// Who has registered or left meanwhile is still registered or gone.
    #[test]
    fn limits_and_addresses_step_back_and_registrations_stay() {
        let mut chain = chain();
        while chain.head().block.0 < WEIGHTS_BLOCKS {
            make(&mut chain);
        }
        let endpoint = Endpoint {
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 1,
        };
        chain.submit(ALICE, Write::Weights);
        chain.submit(ALICE, Write::Endpoint(endpoint));
        assert!(make(&mut chain).is_empty());
        let alice = |chain: &Chain| chain.head().participant(ALICE).cloned().unwrap();
        let as_written = alice(&chain);
        assert_eq!(as_written.endpoint, Some(endpoint));
        let carol = Hotkey([3; 32]);
        chain.register(Registration {
            hotkey: carol,
            stake: 0,
            validator_permit: false,
        });
        chain.deregister(BOB);
        chain.take_back(1);
        assert_eq!(alice(&chain).endpoint, None);
        assert!(make(&mut chain).is_empty(), "neither comes too early");
        assert_eq!(alice(&chain), as_written);
        let head = chain.head();
        assert!(head.participant(carol).is_some() && head.participant(BOB).is_none());
    }

    /// The first block is nobody's to take back, nor are blocks beyond the bound.
    #[test]
    fn a_fork_reaches_no_further_than_it_can() {
        let mut chain = chain();
        assert_eq!(chain.take_back(1), 0);
        make(&mut chain);
        assert_eq!(chain.take_back(5), 1);
        assert_eq!(chain.head().block, Block(0));
        (0..9).for_each(|_| drop(make(&mut chain)));
        assert_eq!(chain.take_back(20), MOST_TAKEN_BACK);
        assert_eq!(chain.head().block, Block(1));
    }
}
