//! The one loop between a role machine and the world: event in, journal, effects out.
//!
//! ```text
//! chain feed ─┐
//! compute  ───┤                     ┌─▶ chain writer
//! fetches  ───┼─▶ events ─▶ machine ┼─▶ compute thread
//! uploads  ───┤      │     journal  ├─▶ fetches, deliveries
//! deliveries ─┘      └──── fsync ───┴─▶ blob store, receipts, answers
//! ```
//!
//! Nothing is carried out before the journal holds it. A restart replays the journal into a fresh
//! machine and checks that it asks for the same things; then `Started` makes it ask again for what
//! was never answered. Decisions are the machine's; this file only carries.

mod fetching;
mod issuing;

use std::collections::BTreeMap;
use std::sync::Arc;

use connito_chain::Chain;
use connito_chain::keys::Keypair;
use connito_learning::Learner;
use connito_protocol::Uploads;
use connito_protocol::event::{Delivery, Effect, Event, Fetch, Form, UploadAnswer as Answer};
use connito_protocol::ids::{BlobId, Block, Cycle, Hotkey, StateId};
use connito_protocol::job::Outcome;
use connito_protocol::machine::{Character, Machine, Step};
use connito_protocol::manifest::{Document, StateManifest};
use connito_protocol::snapshot::Endpoint;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::blobs::{BlobError, DiskBlobs};
use crate::chain_link::{Told, Writer, feed, sentence};
use crate::client::{BlobClient, Upload};
use crate::compute::{Compute, Head};
use crate::journal::{Journal, JournalError};
use crate::receipts::Receipts;
use crate::refusal::{Refusal, RefusalCode};
use crate::server;
use crate::upload::{Admission, Decision, UploadAnswer, UploadWindow, Uploaded};

use issuing::Issuer;
pub use issuing::SignedReceipt;

/// Events waiting for the machine. Producers wait when it is full; none of them is waited for by the
/// driver, so nothing can lock up.
const QUEUED_EVENTS: usize = 64;

/// Transfers at a time: enough to use several mirrors, few enough to leave uploads their bandwidth.
const PARALLEL_TRANSFERS: usize = 8;

/// What a driver works with.
pub(crate) struct Ports<C> {
    pub(crate) chain: Arc<C>,
    pub(crate) keypair: Arc<Keypair>,
    pub(crate) blobs: DiskBlobs,
    pub(crate) receipts: Receipts,
    pub(crate) client: BlobClient,
    pub(crate) uploads: Option<mpsc::Receiver<Uploaded>>,
    pub(crate) views: Views,
    /// The task that the operator of an owner wants announced.
    pub(crate) task: Option<BlobId>,
}

/// What the HTTP server shows, written by the driver after every event.
pub(crate) struct Views {
    pub(crate) health: watch::Sender<server::Health>,
    pub(crate) state: watch::Sender<Option<server::StateManifest>>,
    pub(crate) admission: watch::Sender<Admission>,
}

/// Why a driver stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The machine does something else than what was recorded.
    #[error(
        "record {line} of the journal asks for other effects than this program: the journal was \
         altered, or written by another version"
    )]
    Diverged {
        /// The record, the header being line 1.
        line: usize,
    },
    /// The compute thread could not be started.
    #[error("the compute thread cannot be started")]
    Compute(#[source] std::io::Error),
    /// The thread that keeps receipts could not be started.
    #[error("the receipts thread cannot be started")]
    Receipts(#[source] std::io::Error),
    /// The compute thread is gone, or takes no more jobs: its panic has been reported.
    #[error("the compute thread has ended")]
    ComputeEnded,
    /// A document of the machine's own could not be stored, so it must not act as if it were.
    #[error("a document cannot be stored")]
    Store(#[source] BlobError),
}

/// Feeds a journal's steps to a fresh machine.
///
/// # Errors
/// The first step whose effects differ from the recorded ones.
pub fn replay(character: &Character, steps: &[Step]) -> Result<Machine, DriverError> {
    let mut machine = Machine::new(character);
    for (position, step) in steps.iter().enumerate() {
        if machine.handle(&step.event) != step.effects {
            return Err(DriverError::Diverged { line: position + 2 });
        }
    }
    Ok(machine)
}

/// A role machine with everything that it acts on.
pub(crate) struct Driver<C> {
    ports: Ports<C>,
    hotkey: Hotkey,
    machine: Machine,
    journal: Journal,
    compute: Option<Compute>,
    issuer: Issuer,
    writer: Writer,
    events: mpsc::Sender<Event>,
    transfers: Arc<Semaphore>,
    answers: BTreeMap<u64, (BlobId, oneshot::Sender<Decision>)>,
    next_ticket: u64,
    block: Block,
    /// The state that the server shows, and the bound on uploads that follows from it.
    shown: Option<StateId>,
    largest_upload: u64,
    /// The state that the bound is that of.
    bounded_for: Option<StateId>,
}

impl<C: Chain + 'static> Driver<C> {
    /// Runs a role until `stop` says so.
    pub(crate) async fn run(
        character: Character,
        (journal, steps): (Journal, Vec<Step>),
        learner: Option<Box<dyn Learner>>,
        mut ports: Ports<C>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), DriverError> {
        let machine = replay(&character, &steps)?;
        let head = Head::default();
        let (events, mut inbox) = mpsc::channel(QUEUED_EVENTS);
        let (outcomes, mut finished) = mpsc::channel::<Outcome>(1);
        let compute = learner
            .map(|learner| Compute::start(learner, head.clone(), outcomes))
            .transpose()
            .map_err(DriverError::Compute)?;
        let issuer = Issuer::start(ports.receipts.clone(), ports.keypair.clone());
        let issuer = issuer.map_err(DriverError::Receipts)?;
        let mut uploads = ports.uploads.take();
        let told = Told::of(&steps);
        let mut driver = Self {
            hotkey: character.identity.hotkey,
            writer: Writer::start(
                ports.chain.clone(),
                ports.keypair.clone(),
                head.clone(),
                events.clone(),
            ),
            machine,
            journal,
            compute,
            issuer,
            transfers: Arc::new(Semaphore::new(PARALLEL_TRANSFERS)),
            answers: BTreeMap::new(),
            next_ticket: first_free_ticket(&steps),
            block: told.last().unwrap_or_default(),
            shown: None,
            largest_upload: 0,
            bounded_for: None,
            events: events.clone(),
            ports,
        };
        driver.finish_last_step(&steps)?;
        // Before anything is asked for: the bound on updates follows from what is shown.
        driver.show();
        driver.take(Event::Started)?;
        if let Some(task) = driver.ports.task.take() {
            driver.take(Event::TaskGiven { task })?;
        }
        let feeder = tokio::spawn(feed(driver.ports.chain.clone(), told, head, events));
        let result = driver
            .turns(&mut inbox, &mut finished, &mut uploads, stop)
            .await;
        feeder.abort();
        info!(target: "driver", hotkey = %driver.hotkey.short(), "stopped");
        result
    }

    /// Takes whatever comes, until `stop` says so.
    async fn turns(
        &mut self,
        inbox: &mut mpsc::Receiver<Event>,
        finished: &mut mpsc::Receiver<Outcome>,
        uploads: &mut Option<mpsc::Receiver<Uploaded>>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), DriverError> {
        loop {
            let event = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                Some(event) = inbox.recv() => event,
                outcome = finished.recv(), if self.compute.is_some() => match outcome {
                    Some(outcome) => Event::Finished { outcome, entropy: entropy() },
                    None => return Err(DriverError::ComputeEnded),
                },
                Some(uploaded) = receive(uploads) => self.ticket(uploaded),
            };
            self.take(event)?;
        }
    }

    /// One turn: the machine decides, the journal remembers, then it is done.
    fn take(&mut self, event: Event) -> Result<(), DriverError> {
        if let Event::Block(snapshot) = &event {
            self.block = snapshot.block;
        }
        let effects = self.machine.handle(&event);
        let step = Step { event, effects };
        tokio::task::block_in_place(|| self.journal.append(&step))?;
        for effect in step.effects {
            self.carry_out(effect)?;
        }
        self.show();
        Ok(())
    }

    /// Carries out again what the process may have died before: what the last step stored or dropped,
    /// and receipts. `Started` asks again for everything else.
    fn finish_last_step(&mut self, steps: &[Step]) -> Result<(), DriverError> {
        for effect in steps.last().into_iter().flat_map(|step| &step.effects) {
            if matches!(effect, Effect::Store { .. } | Effect::Forget { .. }) {
                self.carry_out(effect.clone())?;
            }
        }
        self.issuer.issue_again(steps);
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), DriverError> {
        match effect {
            Effect::Fetch(fetch) => self.fetch(fetch),
            Effect::Store { bytes } => {
                self.ports.blobs.put(&bytes).map_err(DriverError::Store)?;
            }
            Effect::Forget { blobs } => self.forget(&blobs),
            Effect::Announce { .. } | Effect::SetWeights { .. } | Effect::Serve { .. } => {
                self.writer.write(&effect);
            }
            Effect::Deliver {
                cycle,
                blob,
                to,
                endpoint,
            } => self.deliver((cycle, blob), to, endpoint),
            Effect::Run(job) => {
                let queued = self
                    .compute
                    .as_ref()
                    .is_some_and(|compute| compute.run(job));
                if !queued {
                    return Err(DriverError::ComputeEnded);
                }
            }
            Effect::Answer { ticket, answer } => self.answer(ticket, answer),
            Effect::Issue(receipts) => self.issuer.issue(receipts),
            Effect::AskReceipt { cycle, from } => self.ask_receipt(cycle, from),
            Effect::Tell(milestone) => debug!(target: "driver", ?milestone),
        }
        Ok(())
    }

    /// Drops blobs. One that the disk does not let go of costs its space and nothing else.
    fn forget(&self, blobs: &[BlobId]) {
        for blob in blobs {
            if let Err(error) = self.ports.blobs.remove(blob) {
                warn!(target: "driver", %blob, error = %sentence(&error), "a blob could not be dropped");
            }
        }
    }

    fn fetch(&self, mut fetch: Fetch) {
        if fetch.form == Form::Update {
            fetch.maximum_bytes = fetch.maximum_bytes.min(self.largest_upload);
        }
        let (blobs, client, events) = (
            self.ports.blobs.clone(),
            self.ports.client.clone(),
            self.events.clone(),
        );
        let transfers = self.transfers.clone();
        tokio::spawn(async move {
            let _permit = transfers.acquire().await;
            let event = fetching::fetched(&blobs, &client, &fetch).await;
            // A closed channel means that the role has stopped.
            let _ = events.send(event).await;
        });
    }

    fn deliver(&self, (cycle, blob): (Cycle, BlobId), to: Hotkey, endpoint: Endpoint) {
        let (client, events, transfers) = (
            self.ports.client.clone(),
            self.events.clone(),
            self.transfers.clone(),
        );
        let keypair = self.ports.keypair.clone();
        tokio::spawn(async move {
            let _permit = transfers.acquire().await;
            let upload = Upload {
                cycle,
                blob,
                receiver: to,
                address: endpoint.url(),
            };
            let answer = client.upload(&upload, &*keypair).await;
            let answer = match answer {
                Ok(UploadAnswer::Received(_)) => Delivery::Accepted,
                Ok(UploadAnswer::Refused(refusal)) if passing(&refusal) => {
                    Delivery::Unreachable(refusal.to_string())
                }
                Ok(UploadAnswer::Refused(refusal)) => Delivery::Refused(refusal.to_string()),
                Err(error) => Delivery::Unreachable(sentence(&error)),
            };
            let _ = events.send(Event::Delivered { blob, to, answer }).await;
        });
    }

    fn ask_receipt(&self, cycle: Cycle, from: Vec<(Hotkey, Endpoint)>) {
        let (client, events, hotkey) =
            (self.ports.client.clone(), self.events.clone(), self.hotkey);
        tokio::spawn(async move {
            let receipt = client.receipt(cycle, hotkey, &from).await.map(Box::new);
            // A closed channel means that the role has stopped.
            let _ = events.send(Event::Receipt { cycle, receipt }).await;
        });
    }

    fn ticket(&mut self, uploaded: Uploaded) -> Event {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let Uploaded {
            hotkey,
            cycle,
            blob,
            reply,
            ..
        } = uploaded;
        self.answers.insert(ticket, (blob, reply));
        Event::Uploaded {
            ticket,
            hotkey,
            cycle,
            blob,
        }
    }

    fn answer(&mut self, ticket: u64, answer: Answer) {
        let Some((blob, reply)) = self.answers.remove(&ticket) else {
            return;
        };
        let refuse = |code, message: &str| {
            let refusal = Refusal::new(code, message);
            if self.machine.knows(blob) {
                Decision::RefusedButKept(refusal)
            } else {
                Decision::Refused(refusal)
            }
        };
        let decision = match answer {
            Answer::Accepted | Answer::Repeated => Decision::Accepted,
            Answer::AlreadySubmitted => refuse(
                RefusalCode::AlreadySubmitted,
                "another update of this hotkey was received in this cycle",
            ),
            Answer::TooEarly => refuse(RefusalCode::TooEarly, "uploads have not opened"),
            Answer::TooLate => refuse(RefusalCode::TooLate, "uploads of this cycle have closed"),
            Answer::NotSealed => refuse(
                RefusalCode::NotRegistered,
                "no sealed commitment of this hotkey is on the chain",
            ),
        };
        // The uploader may have gone; the update is kept all the same.
        let _ = reply.send(decision);
    }

    /// Brings what the server shows up to date.
    fn show(&mut self) {
        let state = self.machine.canonical();
        let cycle = self.machine.admission().map(|admission| admission.cycle);
        let block = self.block;
        self.ports.views.health.send_modify(|health| {
            health.block = Some(block);
            health.state = state;
            health.cycle = cycle.or(health.cycle);
        });
        if let Some(state) = state.filter(|state| self.shown != Some(*state))
            && let Ok(bytes) = self.ports.blobs.get(&state.manifest_blob())
        {
            self.shown = Some(state);
            let manifest = server::StateManifest::new(bytes.into());
            self.ports.views.state.send_replace(Some(manifest));
        }
        if let Some(admission) = self.machine.admission() {
            self.bound_uploads();
            let admission = admit(admission, self.largest_upload);
            self.ports.views.admission.send_if_modified(|shown| {
                let changed = *shown != admission;
                *shown = admission;
                changed
            });
        }
    }

    /// An update in f32 is as long as its group's shard; no codec makes it longer. The bound is looked up
    /// once for each state, as soon as the shards are here: another task may have other groups (P-39).
    fn bound_uploads(&mut self) {
        if self.bounded_for == self.shown {
            return;
        }
        let manifest = self.ports.views.state.borrow().as_ref().and_then(|shown| {
            let bytes = self.ports.blobs.get(&shown.id()).ok()?;
            StateManifest::from_bytes(&bytes).ok()
        });
        let shards = manifest.into_iter().flat_map(|manifest| manifest.groups);
        let lengths = shards.map(|group| self.ports.blobs.len(&group.shard).ok());
        let lengths: Vec<Option<u64>> = lengths.collect();
        if let Some(longest) = lengths.iter().flatten().max() {
            self.largest_upload = *longest;
        }
        if !lengths.is_empty() && lengths.iter().all(Option::is_some) {
            self.bounded_for = self.shown;
        }
    }
}

/// Tickets are not given out twice in one journal.
fn first_free_ticket(steps: &[Step]) -> u64 {
    let tickets = steps.iter().filter_map(|step| match step.event {
        Event::Uploaded { ticket, .. } => Some(ticket + 1),
        _ => None,
    });
    tickets.max().unwrap_or(0)
}

/// Whether the same upload may be taken a little later.
fn passing(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        RefusalCode::TooEarly
            | RefusalCode::Busy
            | RefusalCode::RateLimited
            | RefusalCode::StaleRequest
            | RefusalCode::NotRegistered
            | RefusalCode::SlowClient
    )
}

fn admit(admission: connito_protocol::Admission, max_bytes: u64) -> Admission {
    let window = match admission.uploads {
        Uploads::NotBefore(opens_at) => UploadWindow::Early { opens_at },
        Uploads::Open => UploadWindow::Open,
        Uploads::Over => UploadWindow::Closed,
    };
    Admission {
        cycle: admission.cycle,
        window,
        max_bytes,
        miners: admission.eligible.into_iter().collect(),
        received: admission.received,
    }
}

async fn receive(uploads: &mut Option<mpsc::Receiver<Uploaded>>) -> Option<Uploaded> {
    match uploads {
        Some(uploads) => uploads.recv().await,
        None => std::future::pending().await,
    }
}

/// Random bytes of the operating system, for the machine's salts.
fn entropy() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}
