//! Blocks by head, number and hash, and waiting for the next one.
//!
//! A header's hash is computed here from its fields, so that number, parent and hash belong together
//! whatever endpoint answered; a header that was read once is not asked for again. Waiting asks for the
//! head when one is due (`heads.rs`); a server that can hold an answer back until there is a block is
//! asked to, and nothing depends on it. A head that stands still for ten block times, one that the
//! endpoint does not have, and one that no chain can have come to are signs of a broken endpoint: the
//! next one is asked.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use connito_protocol::ids::{Block, BlockHash};
use parity_scale_codec::{Compact, Encode as _};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};

use super::heads::Belief;
use super::json_rpc::{CallError, Question, ask, ask_all, ask_each, misshapen};
use super::node::Node;
use crate::chain::{Arrival, At, BlockRef};
use crate::error::{ChainError, TransportError};
use crate::hash::blake2_256;
use crate::hex_text;
use crate::rpc::RpcTransport;

/// Block times without a new block after which the endpoint counts as stalled.
const STALLED_AFTER_BLOCKS: u32 = 10;
/// Blocks of which headers are asked for together by whoever is behind.
const BLOCKS_AHEAD: u64 = 32;
/// Log items in one header. A real one has two.
const MAX_LOGS: usize = 64;

fn failed(endpoint: String, problem: String) -> ChainError {
    TransportError::new(endpoint, problem).into()
}

/// What a header says, as far as it is read.
pub(super) fn read_header(header: &Json) -> Option<BlockRef> {
    let bytes = |name: &str| -> Option<[u8; 32]> {
        hex_text::decode(header.get(name)?.as_str()?)?
            .try_into()
            .ok()
    };
    let number = number_of(header.get("number")?)?;
    let parent = bytes("parentHash")?;
    let logs = header.get("digest")?.get("logs")?.as_array()?;
    if logs.len() > MAX_LOGS {
        return None;
    }
    let mut encoded = parent.to_vec();
    Compact(u32::try_from(number).ok()?).encode_to(&mut encoded);
    encoded.extend_from_slice(&bytes("stateRoot")?);
    encoded.extend_from_slice(&bytes("extrinsicsRoot")?);
    Compact(u32::try_from(logs.len()).ok()?).encode_to(&mut encoded);
    for log in logs {
        encoded.extend_from_slice(&hex_text::decode(log.as_str()?)?);
    }
    Some(BlockRef {
        number: Block(number),
        hash: BlockHash(blake2_256(&encoded)),
        parent: BlockHash(parent),
        timestamp_ms: None,
    })
}

/// A number as nodes write it: hexadecimal with `0x`, or plain.
fn number_of(value: &Json) -> Option<u64> {
    match value {
        Json::String(text) => u64::from_str_radix(text.strip_prefix("0x")?, 16).ok(),
        value => value.as_u64(),
    }
}

/// The hash in an answer; none if there is no such block.
pub(super) fn read_hash(method: &str, answer: &Json) -> Result<Option<BlockHash>, ChainError> {
    if answer.is_null() {
        return Ok(None);
    }
    let hash = answer.as_str().and_then(hex_text::decode);
    let hash: Option<[u8; 32]> = hash.and_then(|hash| hash.try_into().ok());
    let hash = hash.ok_or_else(|| misshapen(method, "no block hash"))?;
    Ok(Some(BlockHash(hash)))
}

impl<T: RpcTransport> Node<T> {
    /// The block that `at` stands for.
    ///
    /// # Errors
    /// The chain has no such block, the node cannot be reached, or its answer is not a header of it.
    pub async fn resolve(&self, at: At) -> Result<BlockRef, ChainError> {
        match self.look_up(at).await {
            Err(error) => Err(self.dated(error).await),
            block => block,
        }
    }

    async fn look_up(&self, at: At) -> Result<BlockRef, ChainError> {
        match at {
            At::Head => {
                let head = self.header(json!([]), at).await?;
                self.believe(head).await?;
                Ok(head)
            }
            At::Finalized => {
                const METHOD: &str = "chain_getFinalizedHead";
                let answer = ask(&self.transport, Question::new(METHOD, json!([])));
                let answer = answer.await.map_err(|error| error.at(Block(0)))?;
                let hash = read_hash(METHOD, &answer)?.ok_or(ChainError::UnknownBlock(at))?;
                self.by_hash(hash, at).await
            }
            At::Number(number) => {
                // Whoever asks what stands under a number now may have met a fork.
                self.heads.expect_next(std::iter::empty());
                const METHOD: &str = "chain_getBlockHash";
                let answer = ask(&self.transport, Question::new(METHOD, json!([number.0])));
                let answer = answer.await.map_err(|error| error.at(number))?;
                let hash = read_hash(METHOD, &answer)?.ok_or(ChainError::UnknownBlock(at))?;
                self.by_hash(hash, at).await
            }
            At::Hash(hash) => self.by_hash_anywhere(hash).await,
        }
    }

    /// A block named by its hash is the same everywhere: an endpoint that lags behind is passed over.
    async fn by_hash_anywhere(&self, hash: BlockHash) -> Result<BlockRef, ChainError> {
        let at = At::Hash(hash);
        let mut left = 0;
        loop {
            match self.by_hash(hash, at).await {
                Err(ChainError::UnknownBlock(_)) if left != 1 => {
                    let endpoints = self.transport.give_up("does not have a block");
                    left = if left == 0 { endpoints } else { left - 1 };
                }
                answer => return answer,
            }
        }
    }

    async fn by_hash(&self, hash: BlockHash, at: At) -> Result<BlockRef, ChainError> {
        if let Some(block) = self.headers.get(hash) {
            return Ok(block);
        }
        let block = self.header(json!([hex_text::encode(&hash.0)]), at).await?;
        if block.hash == hash {
            return Ok(block);
        }
        Err(misshapen(
            "chain_getHeader",
            format!("the header of {hash} has another hash"),
        ))
    }

    async fn header(&self, params: Json, at: At) -> Result<BlockRef, ChainError> {
        const METHOD: &str = "chain_getHeader";
        let answer = ask(&self.transport, Question::new(METHOD, params)).await;
        let header = match answer {
            Err(CallError::NoBlock) | Ok(Json::Null) => return Err(ChainError::UnknownBlock(at)),
            Err(error) => {
                return Err(error.at(match at {
                    At::Number(number) => number,
                    _ => Block(0),
                }));
            }
            Ok(header) => header,
        };
        let block = read_header(&header).ok_or_else(|| misshapen(METHOD, "no header"))?;
        self.headers.remember(block);
        Ok(block)
    }

    /// Takes note of a head, unless it cannot be the chain's.
    async fn believe(&self, head: BlockRef) -> Result<(), ChainError> {
        let problem = match self.heads.belief(head, self.block_time()) {
            Belief::Linked => None,
            // Blocks of a local chain come as its clock is set, not as time passes.
            Belief::TooFar if !self.holds_answers => {
                let endpoint = self.transport.endpoint().to_owned();
                let problem = format!("is at block {}, which is too far ahead", head.number);
                if !self.heads.doubt(self.transport.give_up(&problem)) {
                    return Err(failed(endpoint, problem));
                }
                self.unnamed(head).await?
            }
            Belief::TooFar | Belief::Unlinked => self.unnamed(head).await?,
        };
        if let Some(problem) = problem {
            return Err(self.pass_over(problem));
        }
        self.heads.remember(head, self.block_time());
        Ok(())
    }

    /// What is wrong with a head that is not the block of its number, on the block before it.
    async fn unnamed(&self, head: BlockRef) -> Result<Option<String>, ChainError> {
        let mut named = BTreeSet::from([head.number]);
        let mut meant = vec![(head.number, head.hash)];
        if let Some(before) = head.number.0.checked_sub(1) {
            named.insert(Block(before));
            meant.insert(0, (Block(before), head.parent));
        }
        let named = self.hashes(&named).await?;
        Ok((named != meant).then(|| {
            format!(
                "calls block {} its newest and does not have it",
                head.number
            )
        }))
    }

    /// The error of an endpoint that is not to be asked any more, as long as there is another.
    fn pass_over(&self, problem: String) -> ChainError {
        let endpoint = self.transport.endpoint().to_owned();
        self.transport.give_up(&problem);
        failed(endpoint, problem)
    }

    /// The block after `after`, as soon as it exists, and the head by then.
    ///
    /// # Errors
    /// `deadline` has passed, the head stands still, or the node cannot be reached.
    pub async fn await_block(
        &self,
        after: Block,
        deadline: Duration,
    ) -> Result<Arrival, ChainError> {
        let give_up = Instant::now() + deadline;
        let mut held_at = None;
        loop {
            // Two block times at most, so that the watchdog looks at the head often enough.
            let patience = give_up.duration_since(Instant::now());
            let patience = patience.min(self.block_time() * 2);
            let seen = self.heads.number().filter(|seen| *seen <= after);
            // Once a head: a server that answers at once and has no block is asked like any other.
            if let Some(seen) = seen.filter(|seen| self.holds_answers && held_at != Some(*seen)) {
                held_at = Some(seen);
                if self.held(seen, patience).await? {
                    self.heads.expect_now();
                }
            }
            let head = self.look(after, give_up).await?;
            if head.number > after {
                return self.arrived(after.next(), head).await;
            }
            self.watch(head.number)?;
            if Instant::now() >= give_up {
                return Err(ChainError::Timeout(after.next()));
            }
        }
    }

    /// The head, when the next one is due or `give_up` has come; at once if somebody has just seen one
    /// beyond `after`.
    async fn look(&self, after: Block, give_up: Instant) -> Result<BlockRef, ChainError> {
        loop {
            let looking = self.heads.looking.lock().await;
            if let Some(head) = self.heads.beyond(after, self.block_time()) {
                return Ok(head);
            }
            let now = Instant::now();
            match self.heads.due() {
                Some(due) if due > now && give_up > now => {
                    drop(looking);
                    sleep_until(due.min(give_up)).await;
                }
                _ => return self.resolve(At::Head).await,
            }
        }
    }

    /// Block `number`, which `head` is or stands on.
    async fn arrived(&self, number: Block, head: BlockRef) -> Result<Arrival, ChainError> {
        let known = self.headers.line(head).get(&number).copied();
        let block = match known {
            Some(hash) => self.resolve(At::Hash(hash)).await?,
            None => match self.heads.ahead(number) {
                Some(block) => block,
                None => self.fetch_ahead(number, head.number).await?,
            },
        };
        Ok(Arrival {
            block,
            head: head.number,
        })
    }

    /// Block `number`, and those after it as far as they are likely to be waited for next. Whoever reads
    /// them sees by their parents if a fork has taken one of them back meanwhile.
    async fn fetch_ahead(&self, number: Block, head: Block) -> Result<BlockRef, ChainError> {
        let last = Block(head.0.min(number.0.saturating_add(BLOCKS_AHEAD - 1)));
        let numbers = (number.0..=last.0).map(Block).collect();
        let hashes = self.hashes(&numbers).await?;
        if hashes.first().is_none_or(|(first, _)| *first != number) {
            let problem = format!("is at block {head} and does not have {number}");
            return Err(self.pass_over(problem));
        }
        let header_of = |(_, hash): &(Block, BlockHash)| {
            Question::new("chain_getHeader", json!([hex_text::encode(&hash.0)]))
        };
        let questions: Vec<Question> = hashes.iter().map(header_of).collect();
        let answers = ask_each(&self.transport, &questions).await;
        let answers = answers.map_err(|error| error.at(number))?;
        let headers = answers
            .iter()
            .map(|answer| read_header(answer.as_ref().ok()?));
        let mut run = hashes
            .iter()
            .zip(headers)
            .map_while(|((number, hash), header)| {
                header.filter(|header| header.number == *number && header.hash == *hash)
            });
        let Some(block) = run.next() else {
            // Asked for alone, it says why it cannot be had.
            return self.resolve(At::Number(number)).await;
        };
        self.headers.remember(block);
        self.heads
            .expect_next(run.inspect(|block| self.headers.remember(*block)));
        Ok(block)
    }

    /// Asks a server that can to answer when there is a block after `after`; whether there is.
    async fn held(&self, after: Block, patience: Duration) -> Result<bool, ChainError> {
        let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let question = Question::new(super::WAIT_METHOD, json!([after.0, timeout_ms]));
        let answer = ask(&self.transport, question).await;
        answer
            .map(|answer| !answer.is_null())
            .map_err(|error| error.at(after))
    }

    /// Notes that the head was seen at `head` and the wanted block not there.
    fn watch(&self, head: Block) -> Result<(), ChainError> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = match *standing {
            Some((seen, since)) if seen == head => since,
            _ => standing.insert((head, now)).1,
        };
        if now.duration_since(since) < self.block_time() * STALLED_AFTER_BLOCKS {
            return Ok(());
        }
        let endpoint = self.transport.endpoint().to_owned();
        let problem = format!("no block after {head} for {STALLED_AFTER_BLOCKS} block times");
        if self.transport.give_up(&problem) > 1 {
            // The next endpoint gets its own time.
            *standing = None;
        }
        Err(failed(endpoint, problem))
    }

    /// Completes the error of a pruned state with the oldest block that is still there.
    pub(super) async fn dated(&self, error: ChainError) -> ChainError {
        match error {
            ChainError::Pruned {
                wanted,
                oldest: None,
            } => {
                let head = self.look_up(At::Head).await;
                let oldest = match head {
                    Ok(head) => self.oldest_readable(head.number).await,
                    Err(_) => None,
                };
                ChainError::Pruned { wanted, oldest }
            }
            other => other,
        }
    }

    /// The oldest block before `head` whose state can still be read, by halving.
    async fn oldest_readable(&self, head: Block) -> Option<Block> {
        let (mut gone, mut there) = (0, head.0);
        if self.readable(Block(gone)).await? {
            return Some(Block(gone));
        }
        while gone + 1 < there {
            let middle = gone + (there - gone) / 2;
            match self.readable(Block(middle)).await? {
                true => there = middle,
                false => gone = middle,
            }
        }
        Some(Block(there))
    }

    /// Whether the state of a block can be read; nothing if that cannot be told.
    async fn readable(&self, number: Block) -> Option<bool> {
        const METHOD: &str = "chain_getBlockHash";
        let answer = ask(&self.transport, Question::new(METHOD, json!([number.0])));
        let Some(hash) = read_hash(METHOD, &answer.await.ok()?).ok()? else {
            return Some(false);
        };
        let params = json!([super::NUMBER_KEY, hex_text::encode(&hash.0)]);
        match ask(&self.transport, Question::new("state_getStorage", params)).await {
            Ok(_) => Some(true),
            Err(CallError::Discarded | CallError::NoBlock) => Some(false),
            Err(CallError::Other(_)) => None,
        }
    }

    /// The extrinsics of a block, as bytes.
    ///
    /// # Errors
    /// The node does not have the block, cannot be reached, or does not answer with a block.
    pub async fn extrinsics(&self, block: BlockRef) -> Result<Vec<Vec<u8>>, ChainError> {
        const METHOD: &str = "chain_getBlock";
        let params = json!([hex_text::encode(&block.hash.0)]);
        let answers = ask_all(&self.transport, vec![Question::new(METHOD, params)]).await;
        let answers = answers.map_err(|error| error.at(block.number))?;
        if answers.first().is_some_and(Json::is_null) {
            return Err(ChainError::UnknownBlock(At::Hash(block.hash)));
        }
        let listed = answers.first().and_then(|answer| {
            let extrinsics = answer.get("block")?.get("extrinsics")?.as_array()?;
            let bytes = extrinsics
                .iter()
                .map(|bytes| hex_text::decode(bytes.as_str()?));
            bytes.collect::<Option<Vec<_>>>()
        });
        listed.ok_or_else(|| misshapen(METHOD, "no list of extrinsics"))
    }
}
