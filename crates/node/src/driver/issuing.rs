//! Receipts on their way to disk: signed and synced on a thread of their own.
//!
//! A cycle ends with a receipt for every submission, and each is synced by itself; the driver has blocks to
//! take meanwhile. None is lost by a crash: the journal holds each before it comes here, and at a start
//! those that are not on disk are issued again.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use connito_chain::keys::{Keypair, Signer};
use connito_protocol::event::Effect;
use connito_protocol::machine::Step;
use connito_protocol::receipt::Receipt;
use tracing::warn;

use crate::chain_link::sentence;
use crate::receipts::Receipts;

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
}

/// Receipts that wait for the disk at most: those of a few cycles. Whoever has more waits with them.
const QUEUED_RECEIPTS: usize = 1 << 12;

/// The thread that keeps receipts, as the driver holds it.
#[derive(Debug)]
pub(super) struct Issuer {
    queue: Option<mpsc::SyncSender<Box<Receipt>>>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    /// Starts the thread.
    pub(super) fn start(receipts: Receipts, keypair: Arc<Keypair>) -> std::io::Result<Self> {
        let (queue, issued) = mpsc::sync_channel::<Box<Receipt>>(QUEUED_RECEIPTS);
        let thread = std::thread::Builder::new()
            .name("receipts".to_owned())
            .spawn(move || {
                for receipt in issued {
                    let signed = SignedReceipt::sign(&receipt, &keypair);
                    if let Err(error) = receipts.put(receipt.cycle, &receipt.hotkey, &signed) {
                        warn!(target: "driver", error = %sentence(&error), "a receipt could not be kept");
                    }
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Keeps a receipt, in its turn.
    pub(super) fn issue(&self, receipt: Box<Receipt>) {
        if let Some(queue) = &self.queue {
            // Only after a panic of the thread, which it has reported.
            let _ = queue.send(receipt);
        }
    }

    /// Issues what a journal says was issued and is not on disk.
    pub(super) fn issue_again(&self, steps: &[Step], receipts: &Receipts) {
        let effects = steps.iter().flat_map(|step| &step.effects);
        for effect in effects {
            if let Effect::Issue(receipt) = effect
                && !receipts.has(receipt.cycle, &receipt.hotkey)
            {
                self.issue(receipt.clone());
            }
        }
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
    use connito_protocol::event::Event;
    use connito_protocol::ids::{Cycle, GroupId, Hotkey, Seed, StateId};
    use connito_protocol::reason::ReasonCode;

    use super::*;

    fn receipt(cycle: u64, hotkey: u8) -> Receipt {
        Receipt {
            cycle: Cycle(cycle),
            hotkey: Hotkey([hotkey; 32]),
            group: GroupId(0),
            base: StateId([2; 32]),
            seed: Seed([3; 32]),
            update: None,
            code: ReasonCode::Accepted,
            measurement: None,
            weight: 0.5,
            reward: 0.25,
            rank: 1,
            validator: Hotkey([9; 32]),
            own: None,
        }
    }

    fn step(receipts: &[Receipt]) -> Step {
        Step {
            event: Event::Started,
            effects: receipts
                .iter()
                .map(|receipt| Effect::Issue(Box::new(receipt.clone())))
                .collect(),
        }
    }

    /// The process dies with receipts under way: only the second of four had reached the disk. What should
    /// not happen: that those of an earlier step are forgotten, or one that was given out is signed anew.
    #[test]
    fn what_a_crash_kept_from_the_disk_is_issued_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let receipts = Receipts::open(folder.path()).unwrap();
        let keypair = Arc::new(Keypair::from_seed(&[1; 32]));
        let start = || Issuer::start(receipts.clone(), Arc::clone(&keypair)).unwrap();
        let all = [receipt(3, 1), receipt(3, 2), receipt(3, 3), receipt(4, 1)];
        let steps = [step(&all[..3]), step(&all[3..]), step(&[])];

        let issuer = start();
        issuer.issue(Box::new(all[1].clone()));
        drop(issuer);
        let read = |receipt: &Receipt| receipts.get(receipt.cycle, &receipt.hotkey).unwrap();
        let given_out = read(&all[1]).unwrap();
        assert!(read(&all[0]).is_none());

        let issuer = start();
        issuer.issue_again(&steps, &receipts);
        drop(issuer);
        for receipt in &all {
            let signed: SignedReceipt = serde_json::from_slice(&read(receipt).unwrap()).unwrap();
            assert_eq!(signed.receipt, *receipt);
        }
        assert_eq!(read(&all[1]).unwrap(), given_out);
    }
}
