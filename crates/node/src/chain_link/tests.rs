//! The feed and the writer over a chain that does what it is told: forks, and drops sealed weights.

use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use connito_chain::{
    Arrival, ChainId, ChainKind, CommitmentRecord, Confirmation, EpochState, Metagraph,
    OperationId, Pinned, SubnetParams, WeightRow,
};
use connito_protocol::ids::Netuid;

use super::*;

const PATIENCE: Duration = Duration::from_secs(600);

/// A chain of empty blocks, weights as they are set here, and what was asked of it.
struct Scripted {
    identity: ChainId,
    blocks: Mutex<Vec<BlockRef>>,
    rows: Mutex<Vec<WeightRow>>,
    /// What it says once of its head.
    boast: Mutex<Option<BlockRef>>,
    /// The first block that takes weights.
    takes_weights_at: Mutex<Block>,
    submitted: mpsc::Sender<Op>,
}

/// The hash of block `number` on side `side` of a fork.
fn hash(side: u8, number: u64) -> BlockHash {
    BlockHash([side.max(1) * 16 + number as u8; 32])
}

/// The blocks of a chain that leaves the first side behind block `common`.
fn blocks(side: u8, common: u64, last: u64) -> Vec<BlockRef> {
    let named = |number| hash(if number > common { side } else { 1 }, number);
    let block = |number: u64| BlockRef {
        number: Block(number),
        hash: named(number),
        parent: named(number.saturating_sub(1)),
        timestamp_ms: None,
    };
    (0..=last).map(block).collect()
}

fn chain(blocks: Vec<BlockRef>) -> (Arc<Scripted>, mpsc::Receiver<Op>) {
    let (submitted, operations) = mpsc::channel(16);
    let chain = Scripted {
        identity: ChainId {
            genesis: hash(1, 0),
            netuid: Netuid(1),
            block_time_ms: 1_000,
            kind: ChainKind::Local,
        },
        blocks: Mutex::new(blocks),
        rows: Mutex::default(),
        boast: Mutex::default(),
        takes_weights_at: Mutex::default(),
        submitted,
    };
    (Arc::new(chain), operations)
}

impl Scripted {
    fn blocks(&self) -> std::sync::MutexGuard<'_, Vec<BlockRef>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, at: At) -> Result<BlockRef, ChainError> {
        let blocks = self.blocks();
        let found = match at {
            At::Head | At::Finalized => blocks.last(),
            At::Number(number) => blocks.iter().find(|block| block.number == number),
            At::Hash(hash) => blocks.iter().find(|block| block.hash == hash),
        };
        found.copied().ok_or(ChainError::UnknownBlock(at))
    }

    fn show(&self, validator: &Keypair, weights: &[(u16, u16)]) {
        let weights = weights.iter().map(|(uid, weight)| (Uid(*uid), *weight));
        *self.rows.lock().unwrap() = vec![WeightRow {
            validator: validator.hotkey(),
            weights: weights.collect(),
        }];
    }
}

impl Chain for Scripted {
    fn identity(&self) -> &ChainId {
        &self.identity
    }

    async fn block(&self, at: At) -> Result<BlockRef, ChainError> {
        match self.boast.lock().unwrap().take() {
            Some(boast) => Ok(boast),
            None => self.find(at),
        }
    }

    async fn wait_block(&self, after: Block, deadline: Duration) -> Result<Arrival, ChainError> {
        let give_up = tokio::time::Instant::now() + deadline;
        loop {
            match self.find(At::Number(after.next())) {
                Ok(block) => {
                    let head = self.find(At::Head)?.number;
                    return Ok(Arrival { block, head });
                }
                Err(_) if tokio::time::Instant::now() < give_up => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(_) => return Err(ChainError::Timeout(after.next())),
            }
        }
    }

    async fn metagraph(&self, at: At) -> Result<Pinned<Metagraph>, ChainError> {
        let value = Metagraph {
            netuid: Netuid(1),
            owner: None,
            neurons: Vec::new(),
            params: SubnetParams {
                weights_rate_limit: 100,
                serving_rate_limit: 50,
                min_allowed_weights: 1,
                max_weight_limit: u16::MAX,
                weights_version_key: 0,
                immunity_period: 100,
                max_uids: 256,
                max_validators: 64,
                stake_threshold_rao: 0,
                activity_cutoff: 5_000,
                commit_reveal: true,
                commit_space: 3_100,
                burn_rao: 0,
            },
            epoch: EpochState {
                tempo: 360,
                last_epoch_block: Block(0),
                index: 0,
                next_epoch_block: None,
            },
        };
        let at = self.find(at)?;
        Ok(Pinned { at, value })
    }

    async fn commitments(&self, at: At) -> Result<Pinned<Vec<CommitmentRecord>>, ChainError> {
        let at = self.find(at)?;
        Ok(Pinned {
            at,
            value: Vec::new(),
        })
    }

    async fn weights(&self, at: At) -> Result<Pinned<Vec<WeightRow>>, ChainError> {
        let value = self.rows.lock().unwrap().clone();
        let at = self.find(at)?;
        Ok(Pinned { at, value })
    }

    /// Takes every operation in its time, and seals weights until block 10.
    async fn submit(
        &self,
        _: &dyn connito_chain::keys::Signer,
        op: Op,
    ) -> Result<Receipt, ChainError> {
        let sealed = matches!(op, Op::SetWeights { .. });
        let first = *self.takes_weights_at.lock().unwrap();
        if sealed && self.find(At::Head)?.number.next() < first {
            let retry_at = Some(first);
            return Err(Reject::RateLimited { retry_at }.into());
        }
        self.submitted.send(op).await.unwrap();
        Ok(Receipt {
            operation: OperationId([0; 32]),
            included: self.find(At::Head)?,
            index: 1,
            confirmed_by: Confirmation::Effect,
            reveal: sealed.then_some(RevealPlan {
                round: 7,
                visible_by: Block(10),
            }),
        })
    }
}

/// The next block that the driver is given.
async fn next_told(inbox: &mut mpsc::Receiver<Event>) -> (u64, BlockHash) {
    match tokio::time::timeout(PATIENCE, inbox.recv()).await {
        Ok(Some(Event::Block(snapshot))) => (snapshot.block.0, snapshot.hash),
        other => panic!("{other:?}"),
    }
}

/// These blocks come next, as one side of a fork has them.
async fn are_told(inbox: &mut mpsc::Receiver<Event>, side: u8, numbers: RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(next_told(inbox).await, (number, hash(side, number)));
    }
}

/// Every replaced block, once, from the first that differs; none that still stands.
#[tokio::test(start_paused = true)]
async fn blocks_that_stand_in_the_place_of_others_are_handed_on() {
    let (chain, _) = chain(blocks(1, 9, 5));
    let (events, mut inbox) = mpsc::channel(4);
    let fed = feed(Arc::clone(&chain), Told::default(), Head::default(), events);
    let fed = tokio::spawn(fed);
    are_told(&mut inbox, 1, 1..=5).await;
    *chain.blocks() = blocks(2, 3, 6);
    are_told(&mut inbox, 2, 4..=6).await;
    fed.abort();
}

/// What should not happen: that a role which was down during a fork goes on over it.
#[tokio::test(start_paused = true)]
async fn a_fork_that_nobody_watched_is_noticed_by_what_the_journal_holds() {
    let (before, _) = chain(blocks(1, 9, 5));
    let mut steps = Vec::new();
    for number in 1..=5 {
        let at = At::Number(Block(number));
        let seen = snapshot(&*before, at, Block(5)).await.unwrap();
        steps.push(Step {
            event: Event::Block(Arc::new(seen)),
            effects: Vec::new(),
        });
    }
    let told = Told::of(&steps);
    assert_eq!(told.last(), Some(Block(5)));

    let (after, _) = chain(blocks(2, 3, 6));
    let (events, mut inbox) = mpsc::channel(4);
    let fed = tokio::spawn(feed(after, told, Head::default(), events));
    are_told(&mut inbox, 2, 4..=6).await;
    fed.abort();
}

/// A chain shorter than it was, as an endpoint that lags behind shows it, has taken nothing back.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_lags_behind_is_waited_for() {
    let (chain, _) = chain(blocks(1, 9, 5));
    let (events, mut inbox) = mpsc::channel(8);
    let fed = feed(Arc::clone(&chain), Told::default(), Head::default(), events);
    let fed = tokio::spawn(fed);
    for number in 1..=5 {
        assert_eq!(next_told(&mut inbox).await.0, number);
    }
    *chain.blocks() = blocks(1, 9, 2);
    let silence = tokio::time::timeout(Duration::from_secs(90), inbox.recv()).await;
    assert!(silence.is_err(), "{silence:?}");
    *chain.blocks() = blocks(1, 9, 6);
    assert_eq!(next_told(&mut inbox).await, (6, hash(1, 6)));
    fed.abort();
}

/// A role without a journal begins below the head. What should not happen: that it waits for ever below
/// one that never was.
#[tokio::test(start_paused = true)]
async fn a_made_up_head_at_the_beginning_is_forgotten_with_the_next() {
    let (chain, _) = chain(blocks(1, 9, 5));
    let made_up = BlockRef {
        number: Block(4_000_000_000),
        ..chain.find(At::Head).unwrap()
    };
    *chain.boast.lock().unwrap() = Some(made_up);
    let (events, mut inbox) = mpsc::channel(8);
    let fed = feed(Arc::clone(&chain), Told::default(), Head::default(), events);
    let fed = tokio::spawn(fed);
    assert_eq!(next_told(&mut inbox).await, (1, hash(1, 1)));
    fed.abort();
}

struct Writing {
    chain: Arc<Scripted>,
    operations: mpsc::Receiver<Op>,
    keypair: Arc<Keypair>,
    head: Head,
    writer: Writer,
    /// Closed when the test ends, which ends the writer.
    _inbox: mpsc::Receiver<Event>,
}

impl Writing {
    /// Weights 1 : 3 for uids 2 and 3 have been set, sealed until block 10.
    async fn sealed() -> (Self, Op) {
        let (chain, operations) = chain(blocks(1, 9, 5));
        let keypair = Arc::new(Keypair::from_seed(&[1; 32]));
        let (events, inbox) = mpsc::channel(4);
        let head = Head::default();
        let writer = Writer::start(
            Arc::clone(&chain),
            Arc::clone(&keypair),
            head.clone(),
            events,
        );
        let mut writing = Self {
            chain,
            operations,
            keypair,
            head,
            writer,
            _inbox: inbox,
        };
        writing.writer.write(&Effect::SetWeights {
            weights: vec![(Uid(2), 1.0), (Uid(3), 3.0)],
        });
        let set = writing.next().await.unwrap();
        (writing, set)
    }

    /// The next operation, or nothing for minutes.
    async fn next(&mut self) -> Option<Op> {
        let next = tokio::time::timeout(PATIENCE, self.operations.recv()).await;
        next.ok().flatten()
    }
}

#[tokio::test(start_paused = true)]
async fn sealed_weights_that_the_chain_dropped_are_set_again_when_they_should_show() {
    let (mut writing, set) = Writing::sealed().await;
    writing.head.set(Block(9));
    assert_eq!(writing.next().await, None, "it is not time yet");
    writing.head.set(Block(10));
    assert_eq!(writing.next().await, Some(set));
}

#[tokio::test(start_paused = true)]
async fn sealed_weights_that_show_are_left_alone() {
    let (mut writing, _) = Writing::sealed().await;
    writing
        .chain
        .show(&writing.keypair, &[(2, 21_845), (3, 65_535)]);
    writing.head.set(Block(10));
    assert_eq!(writing.next().await, None);
}

/// What should not happen: weights that were meant for whoever had a slot before, set for its successor.
#[tokio::test(start_paused = true)]
async fn weights_without_a_slot_that_was_taken_over_count_as_shown() {
    let (mut writing, _) = Writing::sealed().await;
    writing.chain.show(&writing.keypair, &[(2, 65_535)]);
    writing.head.set(Block(10));
    assert_eq!(writing.next().await, None);
}

/// Those of an earlier setting are no proof.
#[tokio::test(start_paused = true)]
async fn other_weights_than_those_that_were_sealed_do_not_count() {
    let (mut writing, set) = Writing::sealed().await;
    writing
        .chain
        .show(&writing.keypair, &[(2, 65_535), (3, 65_535)]);
    writing.head.set(Block(10));
    assert_eq!(writing.next().await, Some(set));
}

impl Writing {
    /// The chain takes no weights before block 8, and has refused some.
    async fn refused() -> (Self, Op) {
        let (mut writing, first) = Self::sealed().await;
        *writing.chain.takes_weights_at.lock().unwrap() = Block(8);
        writing.head.set(Block(5));
        let Op::SetWeights { weights, .. } = &first else {
            panic!("{first:?}")
        };
        let weights = weights
            .iter()
            .map(|(uid, weight)| (*uid, f64::from(*weight)));
        writing.writer.write(&Effect::SetWeights {
            weights: weights.collect(),
        });
        assert_eq!(writing.next().await, None, "too soon");
        (writing, first)
    }

    /// Block `number` comes.
    fn goes_on_to(&self, number: u64) {
        *self.chain.blocks() = blocks(1, 9, number);
        self.head.set(Block(number));
    }
}

#[tokio::test(start_paused = true)]
async fn weights_that_come_too_soon_are_set_in_the_first_block_that_takes_them() {
    let (mut writing, refused) = Writing::refused().await;
    writing.goes_on_to(6);
    assert_eq!(writing.next().await, None, "the next is block 7");
    writing.goes_on_to(7);
    assert_eq!(writing.next().await, Some(refused));
    assert_eq!(writing.next().await, None, "once");
}

/// What should not happen: old weights in the place of those that were set meanwhile.
#[tokio::test(start_paused = true)]
async fn weights_that_came_too_soon_are_dropped_for_newer_ones() {
    let (mut writing, refused) = Writing::refused().await;
    writing.writer.write(&Effect::SetWeights {
        weights: vec![(Uid(4), 1.0)],
    });
    writing.goes_on_to(7);
    let newer = writing.next().await;
    assert!(newer.is_some_and(|newer| newer != refused));
    assert_eq!(writing.next().await, None);
}
