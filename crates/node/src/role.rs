//! One role as a running thing: its folder, its server, its driver.
//!
//! ```text
//! folder/blobs/      everything that it holds, by hash
//! folder/receipts/   what it signed for others, or was signed
//! journal            what happened
//! ```
//!
//! The caller decides who the role is and where it listens; this file opens, connects and starts.

use std::path::PathBuf;
use std::sync::Arc;

use connito_chain::Chain;
use connito_chain::keys::Keypair;
use connito_learning::Learner;
use connito_learning::store::{Blob, BlobSink, BlobStore, StoreError};
use connito_protocol::ids::{BlobId, Cycle};
use connito_protocol::machine::{Character, Role, Step};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::blobs::{BlobError, BlobWriter, DiskBlobs};
use crate::chain_link::sentence;
use crate::client::{BlobClient, ClientLimits};
use crate::driver::{Driver, DriverError, Ports, Views};
use crate::journal::Journal;
use crate::receipts::{ReceiptError, Receipts};
use crate::server::{self, Exposed, Health, Limits, Uploads};
use crate::upload::{Admission, UploadWindow, Uploaded};

/// Stored uploads waiting for the driver, which only journals them.
const QUEUED_UPLOADS: usize = 16;

/// What a role is started with.
#[derive(Debug)]
pub struct Setup {
    /// Who it is.
    pub character: Character,
    /// Its signing key; the character's hotkey is this key's.
    pub keypair: Arc<Keypair>,
    /// Where it keeps its bytes.
    pub folder: PathBuf,
    /// Its journal.
    pub journal: PathBuf,
    /// Where it serves; a miner does not.
    pub listener: Option<TcpListener>,
    /// The task that an owner announces from now on, in its store; none for the one of its character.
    pub task: Option<BlobId>,
}

/// Why a role could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The blob store cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The receipts cannot be used.
    #[error(transparent)]
    Receipts(#[from] ReceiptError),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    /// The driver stopped.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl BlobStore for DiskBlobs {
    fn has(&self, id: BlobId) -> bool {
        Self::has(self, &id)
    }

    fn len(&self, id: BlobId) -> Result<u64, StoreError> {
        Self::len(self, &id).map_err(|error| StoreError(sentence(&error)))
    }

    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        self.get(&id).map_err(|error| StoreError(sentence(&error)))
    }

    fn open(&self, id: BlobId) -> Result<Blob, StoreError> {
        let mapped = self.map(&id);
        mapped
            .map(Blob::from)
            .map_err(|error| StoreError(sentence(&error)))
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        self.put(bytes)
            .map_err(|error| StoreError(sentence(&error)))
    }

    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError> {
        let writer = self.writer();
        writer
            .map(|writer| Box::new(writer) as Box<dyn BlobSink>)
            .map_err(|error| StoreError(sentence(&error)))
    }
}

impl BlobSink for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        Self::write(self, bytes).map_err(|error| StoreError(sentence(&error)))
    }

    fn finish(self: Box<Self>) -> Result<BlobId, StoreError> {
        Self::finish(*self).map_err(|error| StoreError(sentence(&error)))
    }
}

/// Runs a role until `stop` becomes true. `learner` is given the role's blob store; roles without
/// tensor work give none.
///
/// # Errors
/// Its folder, its journal or its server cannot be used.
pub async fn run<C: Chain + 'static>(
    setup: Setup,
    chain: Arc<C>,
    learner: impl FnOnce(DiskBlobs) -> Option<Box<dyn Learner>> + Send,
    stop: watch::Receiver<bool>,
) -> Result<(), RoleError> {
    let blobs = DiskBlobs::open(setup.folder.join("blobs"))?;
    let receipts = Receipts::open(setup.folder.join("receipts"))?;
    let journal: (Journal, Vec<Step>) =
        Journal::create_or_open(&setup.journal, &setup.character).map_err(DriverError::from)?;
    let client =
        BlobClient::new(blobs.clone(), ClientLimits::default()).map_err(RoleError::Client)?;

    let validates = setup.character.role == Role::Validator;
    let (views, exposed, uploads) = exposure(&setup.character, &blobs, &receipts);
    let served = setup.listener.map(|listener| {
        let mut stop = stop.clone();
        let limits = Limits::default();
        let router = server::routes(exposed, &limits);
        tokio::spawn(server::serve(listener, router, limits, async move {
            // An error means that whoever could say stop is gone.
            let _ = stop.wait_for(|stop| *stop).await;
        }))
    });
    let learner = learner(blobs.clone());
    let ports = Ports {
        chain,
        keypair: setup.keypair,
        blobs,
        receipts,
        client,
        uploads: validates.then_some(uploads),
        views,
        task: setup.task,
    };
    Driver::run(setup.character, journal, learner, ports, stop).await?;
    if let Some(served) = served {
        // The server only ends when told to; its own panic has been reported by its task.
        let _ = served.await;
    }
    Ok(())
}

/// What the server shows, what the driver writes it through, and where uploads arrive.
fn exposure(
    character: &Character,
    blobs: &DiskBlobs,
    receipts: &Receipts,
) -> (Views, Exposed, mpsc::Receiver<Uploaded>) {
    let hotkey = character.identity.hotkey;
    let (health, health_view) = watch::channel(Health {
        role: character.role.name().to_owned(),
        hotkey: Some(hotkey),
        block: None,
        cycle: None,
        state: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    let (state, state_view) = watch::channel(None);
    let (admission, admission_view) = watch::channel(closed());
    let (stored, uploads) = mpsc::channel(QUEUED_UPLOADS);
    let validates = character.role == Role::Validator;
    let exposed = Exposed {
        health: health_view,
        state: state_view,
        blobs: blobs.clone(),
        served: None,
        receipts: receipts.clone(),
        uploads: validates.then_some(Uploads {
            receiver: hotkey,
            admission: admission_view,
            stored,
        }),
    };
    let views = Views {
        health,
        state,
        admission,
    };
    (views, exposed, uploads)
}

/// Nothing is taken before the first block says so.
fn closed() -> Admission {
    Admission {
        cycle: Cycle(0),
        window: UploadWindow::Closed,
        max_bytes: u64::MAX,
        miners: std::collections::BTreeSet::new(),
        received: std::collections::BTreeMap::new(),
    }
}
