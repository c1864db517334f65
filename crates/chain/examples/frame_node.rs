//! The adapter's lower layers against a node and a runtime that are not ours: the Rust half of
//! `tools/check_frame.sh`.
//!
//! ```text
//! frame_node URL
//! ```
//!
//! The node is chopsticks with a FRAME runtime that has no subnets, on blocks made by request. Asks
//! for what every chain has: who it is, headers, metadata, storage by name, signed extrinsics that
//! succeed and fail in a block, and each refusal of the pool. Prints one row for each; the first that
//! is not as it should be ends the run with status 1.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use connito_chain::keys::{Keypair, Signer as _};
use connito_chain::rpc::{HttpTransport, RpcTransport as _};
use connito_chain::runtime::{Era, SignedExtrinsic, SigningTerms, Value};
use connito_chain::subtensor::{Node, Outcome};
use connito_chain::{At, BlockRef, ChainError, PoolError, Reject};
use connito_protocol::ids::{Block, BlockHash, Hotkey};
use serde_json::{Value as Json, json};

/// The development account `//Alice`, to whom the genesis gives a balance and the sudo key.
const ALICE: [u8; 32] = [
    0xe5, 0xbe, 0x9a, 0x50, 0x92, 0xb8, 0x1b, 0xca, 0x64, 0xbe, 0x81, 0xd2, 0x12, 0xe7, 0xf2, 0xf9,
    0xeb, 0xa1, 0x83, 0xbb, 0x7a, 0x90, 0x95, 0x4f, 0x7b, 0x76, 0x36, 0x1f, 0x6e, 0xdb, 0x5c, 0x0a,
];
/// An account that the chain has never seen.
const NOBODY: [u8; 32] = [7; 32];
/// `System.Account`, whose entries are read as bytes here: their amounts are wider than a subnet's.
const ACCOUNTS: &str = "0x26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9";
/// Where the free balance stands in such an entry, after four counters of four bytes.
const FREE: std::ops::Range<usize> = 16..32;
const AMOUNT: u64 = 300_000_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

type Row = Result<String, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("usage: frame_node URL");
        return ExitCode::from(2);
    };
    match run(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("differs: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let bench = Bench {
        node: Node::connect(HttpTransport::new(url)?, None, None).await?,
        alice: Keypair::from_seed(&ALICE),
        nobody: Keypair::from_seed(&NOBODY),
    };
    // The node invents the hash of block 0: an era must not begin there.
    bench.make_blocks(3).await?;
    row("connection", bench.connection().await)?;
    row("another chain", bench.another_chain(url).await)?;
    row("headers", bench.headers().await)?;
    row("storage by name", bench.storage().await)?;
    row("shape check", bench.shapes().await)?;
    row("remark", bench.remark().await)?;
    row("transfer", bench.transfer().await)?;
    row("failed transfer", bench.failed_transfer().await)?;
    row("bad signature", bench.bad_signature().await)?;
    row("stale nonce", bench.stale_nonce().await)?;
    row("wrong genesis", bench.wrong_genesis().await)?;
    row("ended era", bench.ended_era().await)?;
    row("empty account", bench.empty_account().await)?;
    row("undecodable bytes", bench.undecodable().await)
}

#[expect(clippy::print_stdout, reason = "the table is what the example is for")]
fn row(what: &str, result: Row) -> Result<(), Box<dyn Error>> {
    let shown = result.map_err(|error| format!("{what}: {error}"))?;
    println!("{what:<18} {shown}");
    Ok(())
}

fn expect(holds: bool, otherwise: impl Into<String>) -> Result<(), Box<dyn Error>> {
    if holds {
        Ok(())
    } else {
        Err(otherwise.into().into())
    }
}

struct Bench {
    node: Node<HttpTransport>,
    alice: Keypair,
    nobody: Keypair,
}

impl Bench {
    async fn connection(&self) -> Row {
        let runtime = self.node.runtime_at(self.head().await?).await?;
        let version = runtime.version();
        Ok(format!(
            "genesis {}, spec {}, metadata read",
            self.node.genesis(),
            version.spec
        ))
    }

    async fn another_chain(&self, url: &str) -> Row {
        let other = Some(BlockHash([0xab; 32]));
        match Node::connect(HttpTransport::new(url)?, other, None).await {
            Err(ChainError::OtherChain { found, .. }) if found == self.node.genesis() => {
                Ok("refused".into())
            }
            Err(error) => Err(error.into()),
            Ok(_) => Err("not refused".into()),
        }
    }

    /// The adapter computes a header's hash from its fields: the node must name the block the same.
    async fn headers(&self) -> Row {
        let head = self.head().await?;
        let mut child: Option<BlockRef> = None;
        for number in (1..=head.number.0).rev() {
            let block = self.node.resolve(At::Number(Block(number))).await?;
            let named = self.ask("chain_getBlockHash", json!([number])).await?;
            expect(
                named == json!(format!("0x{}", block.hash)),
                format!("the node calls block {number} {named}, the adapter {block:?}"),
            )?;
            if let Some(child) = child {
                expect(
                    child.parent == block.hash,
                    format!("block {number} is not the parent of the next"),
                )?;
            }
            child = Some(block);
        }
        Ok(format!("{} hashes computed, each the node's", head.number))
    }

    async fn storage(&self) -> Row {
        let head = self.head().await?;
        let number = self.node.storage(head, ("System", "Number"), &[]).await?;
        let number = number.as_ref().and_then(Value::number);
        expect(number == Some(head.number.0), "System.Number is another")?;
        let parent = head.number.0 - 1;
        let keys = [Value::from(u32::try_from(parent)?)];
        let hash = self.node.storage(head, ("System", "BlockHash"), &keys);
        let hash = hash.await?.as_ref().and_then(Value::as_array);
        expect(
            hash == Some(head.parent.0),
            "System.BlockHash is not the parent",
        )?;
        let sudo = self.node.storage(head, ("Sudo", "Key"), &[]).await?;
        let sudo = sudo.as_ref().and_then(Value::as_hotkey);
        expect(sudo == Some(self.alice.hotkey()), "Sudo.Key is not Alice")?;
        Ok("System.Number, System.BlockHash, Sudo.Key".into())
    }

    /// Amounts have 128 bits here and 64 in a subnet: by name alone nobody would notice.
    async fn shapes(&self) -> Row {
        let head = self.head().await?;
        let runtime = self.node.runtime_at(head).await?;
        runtime.check_storage("System", "Events")?;
        let keys = [Value::from(self.alice.hotkey())];
        let account = self.node.storage(head, ("System", "Account"), &keys).await;
        let refused =
            matches!(&account, Err(ChainError::Shape { item, .. }) if item == "System.Account");
        expect(refused, "System.Account of another width is not refused")?;
        let call = runtime.check_call("Balances", "transfer_keep_alive");
        expect(call.is_err(), "a call of another width is not refused")?;
        let commit = runtime.check_call("Commitments", "set_commitment");
        expect(commit.is_err(), "a call that is absent is not refused")?;
        Ok(format!(
            "{} calls and items of a subnet refused, by name",
            runtime.misfits().len()
        ))
    }

    async fn remark(&self) -> Row {
        let call = self.remark_call().await?;
        let outcome = self.bring_in(&self.alice, &call).await?;
        expect(outcome.failure.is_none(), format!("{:?}", outcome.failure))?;
        Ok(format!("in block {}", outcome.block.number))
    }

    async fn transfer(&self) -> Row {
        let heir = self.nobody.hotkey();
        expect(
            self.free(heir).await?.is_none(),
            "the empty account has a balance",
        )?;
        let before = self.free(self.alice.hotkey()).await?.unwrap_or(0);
        let call = self.transfer_call(AMOUNT).await?;
        let outcome = self.bring_in(&self.alice, &call).await?;
        expect(outcome.failure.is_none(), format!("{:?}", outcome.failure))?;
        let events = self.node.events(outcome.block).await?;
        let mut events = events.iter();
        let moved = events.find(|event| event.pallet == "Balances" && event.name == "Transfer");
        let moved = &moved.ok_or("no event Balances.Transfer")?.fields;
        let of = |name: &str| moved.field(name);
        expect(
            of("to").and_then(Value::as_hotkey) == Some(heir)
                && of("amount").and_then(Value::number) == Some(AMOUNT),
            format!("the event says {moved:?}"),
        )?;
        let after = self.free(self.alice.hotkey()).await?.unwrap_or(0);
        expect(
            self.free(heir).await? == Some(AMOUNT.into()) && before > after + u128::from(AMOUNT),
            "the balances are not as the event says",
        )?;
        let fee = before - after - u128::from(AMOUNT);
        Ok(format!(
            "in block {}, {AMOUNT} moved, fee {fee}",
            outcome.block.number
        ))
    }

    /// Accepted, included, and failed there: what the block says about it goes by the runtime's names.
    async fn failed_transfer(&self) -> Row {
        let call = self.transfer_call(u64::MAX).await?;
        let outcome = self.bring_in(&self.alice, &call).await?;
        match outcome.failure {
            Some(Reject::Dispatch { pallet, name }) => Ok(format!("{pallet}.{name}")),
            other => Err(format!("{other:?}").into()),
        }
    }

    async fn bad_signature(&self) -> Row {
        let mut forged = self.signed(&self.alice, |_| {}).await?;
        // The length, the version, the address and the kind of signature stand before it.
        let signature = 2 + 1 + 33 + 1;
        forged.bytes[signature] ^= 1;
        self.refused(&forged, |error| *error == PoolError::BadProof)
            .await
    }

    async fn stale_nonce(&self) -> Row {
        let stale = self.signed(&self.alice, |terms| terms.nonce = 0).await?;
        self.refused(&stale, |error| *error == PoolError::Stale)
            .await
    }

    async fn wrong_genesis(&self) -> Row {
        let strange = self.signed(&self.alice, |terms| terms.genesis = [1; 32]);
        self.refused(&strange.await?, |error| *error == PoolError::BadProof)
            .await
    }

    /// An era is written down modulo its length, so the chain takes it for a later one, whose first block
    /// has another hash than what was signed.
    async fn ended_era(&self) -> Row {
        let born = self.node.resolve(At::Number(Block(1))).await?;
        let era = Era::Mortal {
            period: 4,
            current: 1,
            hash: born.hash.0,
        };
        let ended = self.signed(&self.alice, |terms| terms.era = era).await?;
        self.refused(&ended, |error| *error == PoolError::BadProof)
            .await
    }

    async fn empty_account(&self) -> Row {
        let pauper = Keypair::from_seed(&[8; 32]);
        let poor = self.signed(&pauper, |_| {}).await?;
        self.refused(&poor, |error| *error == PoolError::CannotPay)
            .await
    }

    async fn undecodable(&self) -> Row {
        let nonsense = SignedExtrinsic {
            bytes: vec![0x12, 0x34],
            hash: [0; 32],
        };
        self.refused(&nonsense, |error| {
            matches!(error, PoolError::Undecodable(_))
        })
        .await
    }

    async fn refused(
        &self,
        extrinsic: &SignedExtrinsic,
        as_it_should: fn(&PoolError) -> bool,
    ) -> Row {
        match self.node.send(extrinsic).await {
            Err(ChainError::Pool(error)) if as_it_should(&error) => Ok(format!("refused: {error}")),
            Err(error) => Err(error.into()),
            Ok(()) => Err("accepted".into()),
        }
    }

    /// Signs, sends, and looks for it in the next block.
    async fn bring_in(&self, signer: &Keypair, call: &[u8]) -> Result<Outcome, Box<dyn Error>> {
        let head = self.head().await?;
        let runtime = self.node.runtime_at(head).await?;
        let terms = self.node.terms(head, signer.hotkey()).await?;
        let extrinsic = runtime.sign(signer, call, &terms)?;
        self.node.send(&extrinsic).await?;
        self.make_blocks(1).await?;
        let block = self.node.await_block(head.number, PATIENCE).await?.block;
        let outcome = self.node.outcome(block, &extrinsic).await?;
        let outcome = outcome.ok_or("the block does not include it")?;
        let next = self.node.next_nonce(signer.hotkey()).await?;
        expect(next == terms.nonce + 1, "the nonce has not moved")?;
        Ok(outcome)
    }

    /// A remark signed under the terms of the head, changed as wanted.
    async fn signed(
        &self,
        signer: &Keypair,
        change: impl FnOnce(&mut SigningTerms),
    ) -> Result<SignedExtrinsic, Box<dyn Error>> {
        let head = self.head().await?;
        let mut terms = self.node.terms(head, signer.hotkey()).await?;
        change(&mut terms);
        let call = self.remark_call().await?;
        let runtime = self.node.runtime_at(head).await?;
        Ok(runtime.sign(signer, &call, &terms)?)
    }

    async fn remark_call(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let runtime = self.node.runtime_at(self.head().await?).await?;
        let remark = Value::from(&b"seen by another node"[..]);
        Ok(runtime.call("System", "remark", &[("remark", remark)])?)
    }

    async fn transfer_call(&self, amount: u64) -> Result<Vec<u8>, Box<dyn Error>> {
        let runtime = self.node.runtime_at(self.head().await?).await?;
        let heir = Value::variant_of("Id", [Value::from(self.nobody.hotkey())]);
        let arguments = [("dest", heir), ("value", Value::from(amount))];
        Ok(runtime.call("Balances", "transfer_allow_death", &arguments)?)
    }

    /// The free balance, out of the bytes of the account's entry; nothing if it has none.
    async fn free(&self, account: Hotkey) -> Result<Option<u128>, Box<dyn Error>> {
        let keys = self.ask("state_getKeysPaged", json!([ACCOUNTS, 1000]));
        let keys = keys.await?;
        let suffix = hex::encode(account.0);
        let mut keys = keys
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str);
        let Some(key) = keys.find(|key| key.ends_with(&suffix)) else {
            return Ok(None);
        };
        let entry = self.ask("state_getStorage", json!([key])).await?;
        let bytes = entry.as_str().and_then(|text| text.strip_prefix("0x"));
        let bytes = hex::decode(bytes.ok_or("the entry of an account is no bytes")?)?;
        let free = bytes.get(FREE).ok_or("the entry of an account is short")?;
        Ok(Some(u128::from_le_bytes(free.try_into()?)))
    }

    async fn head(&self) -> Result<BlockRef, ChainError> {
        self.node.resolve(At::Head).await
    }

    async fn make_blocks(&self, count: u32) -> Result<(), Box<dyn Error>> {
        let made = self.ask("dev_newBlock", json!([{ "count": count }]));
        made.await.map(|_| ())
    }

    /// What the adapter has no name for, asked as it is.
    async fn ask(&self, method: &str, params: Json) -> Result<Json, Box<dyn Error>> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.node.transport().call(body.to_string().into_bytes());
        let mut answer: Json = serde_json::from_slice(&answer.await?)?;
        if let Some(error) = answer.get("error") {
            return Err(format!("{method}: {error}").into());
        }
        Ok(answer["result"].take())
    }
}
