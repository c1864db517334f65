//! Where an audit reads blobs: a folder that it leaves as it is, or a server.
//!
//! Every blob is verified against its name when it is opened. What a server gives is kept in a temporary
//! folder until the audit ends. Which blobs were opened is remembered, so that in the end the others can
//! be looked at too.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, anyhow};
use connito_chain::rpc::check_address;
use connito_learning::audit::Required;
use connito_learning::store::{Blob, BlobSink, BlobStore, HashSink, StoreError};
use connito_node::blobs::{DiskBlobs, ForeignBlobs};
use connito_node::client::{BlobClient, ClientLimits, FetchError, SourceError};
use connito_node::server::Health;
use connito_protocol::ids::BlobId;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::exit::{Blame, Failure};

/// The blobs that are audited. Results are named and not kept.
#[derive(Debug)]
pub(super) struct AuditedBlobs {
    source: Source,
    opened: Mutex<BTreeSet<BlobId>>,
}

#[derive(Debug)]
enum Source {
    Folder(ForeignBlobs),
    Server(Box<Server>),
}

#[derive(Debug)]
struct Server {
    url: String,
    client: BlobClient,
    fetched: DiskBlobs,
    runtime: Handle,
    /// The first time that it did not answer.
    unanswered: Mutex<Option<anyhow::Error>>,
    /// Held until the audit ends: it is removed then.
    _folder: TempDir,
}

impl AuditedBlobs {
    /// The blobs in a folder, or behind an address. To be used from blocking code.
    pub(super) async fn open(place: &str) -> Result<Self, Failure> {
        let source = if is_address(place) {
            Source::Server(Box::new(Server::open(place).await?))
        } else {
            Source::Folder(ForeignBlobs::open(Path::new(place)).input()?)
        };
        Ok(Self {
            source,
            opened: Mutex::default(),
        })
    }

    /// Which updates have to be there.
    pub(super) fn required(&self) -> Required {
        match self.source {
            Source::Folder(_) => Required::Judged,
            Source::Server(_) => Required::Accepted,
        }
    }

    /// Why blobs could not be asked for, if that happened: what was found since may be owed to it.
    pub(super) fn unanswered(&self) -> Option<anyhow::Error> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Server(server) => server.lock().take(),
        }
    }

    /// Looks at what was not opened yet, where that can be listed. Gives how many blobs there are that
    /// nothing named.
    ///
    /// # Errors
    /// The first that is not what its name says.
    pub(super) fn look_at_the_rest(&self) -> anyhow::Result<usize> {
        let Source::Folder(folder) = &self.source else {
            return Ok(0);
        };
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = folder.ids()?;
        rest.retain(|id| !opened.contains(id));
        for id in &rest {
            folder
                .map(id)
                .context("a blob that no record names cannot be read")?;
        }
        Ok(rest.len())
    }
}

/// Whether a place is an address and not a folder.
pub(super) fn is_address(place: &str) -> bool {
    place.contains("://")
}

impl Server {
    async fn open(url: &str) -> Result<Self, Failure> {
        check_address(url)
            .map_err(|error| anyhow!("{url} is {}", error.problem))
            .input()?;
        let folder = tempfile::tempdir()
            .context("no temporary folder can be made")
            .environment()?;
        let fetched = DiskBlobs::open(folder.path()).environment()?;
        let client = BlobClient::new(fetched.clone(), ClientLimits::default())
            .context("the HTTP client cannot be built")
            .environment()?;
        let url = url.trim_end_matches('/').to_owned();
        // So that a server that is not there is not taken for one without the first blob.
        client
            .get_json::<Health>(&format!("{url}/v1/health"))
            .await
            .environment()?;
        Ok(Self {
            url,
            client,
            fetched,
            runtime: Handle::current(),
            unanswered: Mutex::default(),
            _folder: folder,
        })
    }

    fn fetch(&self, id: BlobId) -> Result<(), StoreError> {
        let sources = [self.url.clone()];
        let fetched = self.client.fetch(id, &sources, u64::MAX);
        let fetched = self.runtime.block_on(fetched);
        fetched.map(|_bytes| ()).map_err(|error| {
            let unanswered = is_unanswered(&error);
            let error = anyhow::Error::new(error);
            let told = StoreError(format!("{error:#}"));
            if unanswered {
                self.lock().get_or_insert(error);
            }
            told
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<anyhow::Error>> {
        self.unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing is known of a blob because nobody said anything of it.
fn is_unanswered(error: &FetchError) -> bool {
    match error {
        FetchError::Absent { .. } | FetchError::TooLarge { .. } => false,
        FetchError::Failed { last, .. } => !matches!(
            last,
            SourceError::Corrupt { .. } | SourceError::TooLarge { .. }
        ),
        FetchError::Store { .. } => true,
    }
}

impl BlobStore for AuditedBlobs {
    fn has(&self, id: BlobId) -> bool {
        match &self.source {
            Source::Folder(folder) => folder.has(id),
            // What nobody has to keep is not asked for: it may be of any length.
            Source::Server(server) => server.fetched.has(&id),
        }
    }

    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        self.open(id).map(|blob| blob.to_vec())
    }

    fn open(&self, id: BlobId) -> Result<Blob, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.insert(id);
        drop(opened);
        match &self.source {
            Source::Folder(folder) => folder.open(id),
            Source::Server(server) => {
                server.fetch(id)?;
                BlobStore::open(&server.fetched, id)
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        Ok(BlobId::of(bytes))
    }

    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError> {
        Ok(Box::<HashSink>::default())
    }
}
