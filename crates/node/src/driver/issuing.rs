//! Receipts on their way to disk: signed and synced on a thread of their own.
//!
//! A cycle ends with a receipt for every submission, and each is synced by itself; the driver has blocks to
//! take meanwhile. None is lost by a crash: the journal holds them before they come here, and at a start
//! those that are not on disk are issued again.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use connito_chain::keys::{Keypair, Signer};
use connito_protocol::event::Effect;
use connito_protocol::machine::Step;
use connito_protocol::receipt::{CycleReceipts, Receipt};
use tracing::warn;

use crate::chain_link::sentence;
use crate::receipts::{ReceiptError, Receipts};

/// A receipt with the validator's signature over its JSON.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SignedReceipt {
    /// What is signed.
    pub receipt: Receipt,
    /// sr25519 over the receipt's JSON as it stands here, hexadecimal.
    pub signature: String,
}

impl SignedReceipt {
    /// A receipt as its issuer puts it out.
    #[must_use]
    pub fn sign(receipt: &Receipt, keypair: &Keypair) -> Self {
        let text =
            serde_json::to_vec(receipt).expect("receipts hold only finite numbers and string keys");
        Self {
            signature: hex::encode(keypair.sign(&text)),
            receipt: receipt.clone(),
        }
    }

    /// Whether this is another signature of the same receipt, as JSON.
    fn says_the_same(&self, json: &[u8]) -> bool {
        let other: Result<Self, _> = serde_json::from_slice(json);
        other.is_ok_and(|other| other.receipt == self.receipt)
    }
}

/// Cycles whose receipts wait for the disk at most. Whoever has more waits with them.
const QUEUED_CYCLES: usize = 4;

/// Cycles whose receipts a crash can keep from the disk: those that wait, the one that is being written,
/// and the one that is put in line.
const CYCLES_UNDER_WAY: usize = QUEUED_CYCLES + 2;

/// The thread that keeps receipts, as the driver holds it.
#[derive(Debug)]
pub(super) struct Issuer {
    queue: Option<mpsc::SyncSender<Box<CycleReceipts>>>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    /// Starts the thread.
    pub(super) fn start(receipts: Receipts, keypair: Arc<Keypair>) -> std::io::Result<Self> {
        let (queue, issued) = mpsc::sync_channel::<Box<CycleReceipts>>(QUEUED_CYCLES);
        let thread = std::thread::Builder::new()
            .name("receipts".to_owned())
            .spawn(move || {
                for cycle in issued {
                    keep_all(&cycle, &receipts, &keypair);
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Keeps a cycle's receipts, in their turn.
    pub(super) fn issue(&self, receipts: Box<CycleReceipts>) {
        if let Some(queue) = &self.queue {
            // Only after a panic of the thread, which it has reported.
            let _ = queue.send(receipts);
        }
    }

    /// Issues what a journal says was issued last, as far as a crash can have kept it from the disk.
    pub(super) fn issue_again(&self, steps: &[Step]) {
        let effects = steps
            .iter()
            .rev()
            .flat_map(|step| step.effects.iter().rev());
        let issued = effects.filter_map(|effect| match effect {
            Effect::Issue(receipts) => Some(receipts),
            _ => None,
        });
        let last: Vec<_> = issued.take(CYCLES_UNDER_WAY).collect();
        for receipts in last.into_iter().rev() {
            self.issue(receipts.clone());
        }
    }
}

/// Keeps a cycle's receipts. One that the disk refuses does not keep the others from it.
fn keep_all(cycle: &CycleReceipts, receipts: &Receipts, keypair: &Keypair) {
    for receipt in cycle.iter() {
        if let Err(error) = keep(&receipt, receipts, keypair) {
            warn!(target: "driver", error = %sentence(&error), "a receipt could not be kept");
        }
    }
}

/// Signs and keeps a receipt. One that was given out stays as it is, unless it says something else:
/// blocks that were taken back may have changed the verdict.
fn keep(receipt: &Receipt, receipts: &Receipts, keypair: &Keypair) -> Result<(), ReceiptError> {
    let signed = SignedReceipt::sign(receipt, keypair);
    match receipts.get(receipt.cycle, &receipt.hotkey)? {
        Some(kept) if signed.says_the_same(&kept) => Ok(()),
        _ => receipts.put(receipt.cycle, &receipt.hotkey, &signed),
    }
}

impl Drop for Issuer {
    /// Waits until everything that was issued is on disk.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic has already been reported by its thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use connito_protocol::consensus::Verdict;
    use connito_protocol::event::Event;
    use connito_protocol::ids::{Cycle, GroupId, Hotkey, Seed, StateId};
    use connito_protocol::reason::ReasonCode;
    use connito_protocol::receipt::Graded;
    use connito_protocol::rewards::Standing;

    use super::*;

    /// A cycle's receipts of these miners.
    fn cycle(cycle: u64, rank: u32, hotkeys: &[u8]) -> CycleReceipts {
        let verdicts: Vec<Verdict> = hotkeys
            .iter()
            .map(|hotkey| Verdict {
                hotkey: Hotkey([*hotkey; 32]),
                group: GroupId(0),
                update: None,
                code: ReasonCode::Accepted,
                measurement: None,
                weight: 0.1,
            })
            .collect();
        let standing = Standing { rank, reward: 0.3 };
        let standings = vec![standing; verdicts.len()];
        CycleReceipts {
            cycle: Cycle(cycle),
            base: StateId([2; 32]),
            seed: Seed([3; 32]),
            validator: Hotkey([9; 32]),
            graded: Arc::new(Graded::new(&verdicts, standings)),
            own: BTreeMap::new(),
        }
    }

    fn step(receipts: &CycleReceipts) -> Step {
        Step {
            event: Event::Started,
            effects: vec![Effect::Issue(Box::new(receipts.clone()))],
        }
    }

    fn read(receipts: &Receipts, receipt: &Receipt) -> Option<Vec<u8>> {
        receipts.get(receipt.cycle, &receipt.hotkey).unwrap()
    }

    /// The process dies with receipts under way: only one of four had reached the disk. What should not
    /// happen: that those of an earlier step are forgotten, or one that was given out is signed anew.
    #[test]
    fn what_a_crash_kept_from_the_disk_is_issued_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let receipts = Receipts::open(folder.path()).unwrap();
        let keypair = Arc::new(Keypair::from_seed(&[1; 32]));
        let start = || Issuer::start(receipts.clone(), Arc::clone(&keypair)).unwrap();
        let (third, fourth) = (cycle(3, 1, &[1, 2, 3]), cycle(4, 1, &[1]));

        let issuer = start();
        issuer.issue(Box::new(cycle(3, 1, &[2])));
        drop(issuer);
        let all: Vec<Receipt> = third.iter().chain(fourth.iter()).collect();
        let given_out = read(&receipts, &all[1]).unwrap();
        assert!(read(&receipts, &all[0]).is_none());

        let issuer = start();
        issuer.issue_again(&[step(&third), step(&fourth)]);
        drop(issuer);
        for receipt in &all {
            let signed = read(&receipts, receipt).unwrap();
            let signed: SignedReceipt = serde_json::from_slice(&signed).unwrap();
            assert_eq!(signed.receipt, *receipt);
        }
        assert_eq!(read(&receipts, &all[1]).unwrap(), given_out);
    }

    /// A fork took back the blocks that a cycle was judged by, and it was judged anew.
    #[test]
    fn a_receipt_that_says_something_else_takes_the_place_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let receipts = Receipts::open(folder.path()).unwrap();
        let keypair = Arc::new(Keypair::from_seed(&[1; 32]));
        let issuer = Issuer::start(receipts.clone(), keypair).unwrap();
        let (first, second) = (cycle(3, 1, &[1]), cycle(3, 2, &[1]));
        issuer.issue(Box::new(first));
        issuer.issue(Box::new(second.clone()));
        drop(issuer);
        let expected = second.of(Hotkey([1; 32])).unwrap();
        let signed = read(&receipts, &expected).unwrap();
        let signed: SignedReceipt = serde_json::from_slice(&signed).unwrap();
        assert_eq!(signed.receipt, expected);
        assert_eq!(second.of(Hotkey([2; 32])), None);
    }
}
