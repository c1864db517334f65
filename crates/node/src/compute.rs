//! The one thread on which tensors are touched.
//!
//! A role has at most one job at a time, so the queue holds one job and one more that a restart may
//! repeat. "Now" reaches the learner as a block number that the chain feed keeps up to date, also
//! downwards: what an endpoint once said of the chain's head binds nobody. When the role stops it jumps
//! to the end of time and stays there, and a running job sees that its window has closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use connito_learning::Learner;
use connito_protocol::ids::Block;
use connito_protocol::job::{Job, Outcome};
use tokio::sync::mpsc;

/// One running job and one that a restart asks for again.
const QUEUED_JOBS: usize = 2;

/// A block that no chain comes to: the role has stopped.
const END: u64 = u64::MAX;

/// The newest block that this process knows of, shared with the compute thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head(Arc<AtomicU64>);

impl Head {
    /// The newest block.
    #[must_use]
    pub(crate) fn block(&self) -> Block {
        Block(self.0.load(Ordering::Relaxed))
    }

    /// The newest block is this one, unless time has ended.
    pub(crate) fn set(&self, block: Block) {
        let order = Ordering::Relaxed;
        let before_end = |now| (now != END).then_some(block.0.min(END - 1));
        // Failing is how the end says that it stays.
        let _ = self.0.fetch_update(order, order, before_end);
    }

    fn end(&self) {
        self.0.store(END, Ordering::Relaxed);
    }
}

/// The compute thread, as the driver holds it.
#[derive(Debug)]
pub(crate) struct Compute {
    jobs: Option<mpsc::Sender<Job>>,
    head: Head,
    thread: Option<JoinHandle<()>>,
}

impl Compute {
    /// Starts the thread. Outcomes go to `outcomes`, which the driver drains.
    pub(crate) fn start(
        mut learner: Box<dyn Learner>,
        head: Head,
        outcomes: mpsc::Sender<Outcome>,
    ) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUED_JOBS);
        let now = head.clone();
        let thread = std::thread::Builder::new()
            .name("compute".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    let outcome = learner.run(&job, &|| now.block());
                    if outcomes.blocking_send(outcome).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            head,
            thread: Some(thread),
        })
    }

    /// Queues a job; `false` when the queue is full or the thread has ended.
    pub(crate) fn run(&self, job: Job) -> bool {
        self.jobs
            .as_ref()
            .is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

impl Drop for Compute {
    /// Lets the running job notice that time is up, and waits for the thread.
    fn drop(&mut self) {
        self.head.end();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the learner has already been reported by its thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What should not happen: that a made-up head closes every window until the process ends; or that
    /// a stopped role's job goes on because one more block was heard of.
    #[test]
    fn the_head_follows_what_is_heard_until_the_end() {
        let head = Head::default();
        for heard in [7, 4_000_000_000, 8, u64::MAX, 9] {
            head.set(Block(heard));
            assert_eq!(head.block(), Block(heard.min(u64::MAX - 1)));
        }
        head.end();
        head.set(Block(10));
        assert_eq!(head.block(), Block(u64::MAX));
    }
}
