//! The HTTP client: it believes nobody and waits for nobody longer than stated.
//!
//! Fetching (fetch.rs) verifies every mebibyte before it is kept and goes on with the next mirror
//! where the last one failed. Receipts (receipt.rs) are believed if the validator that was asked
//! signed them. Uploading (upload.rs) streams from the store and signs what it sends.
//! No redirects are followed, no proxy is asked, nothing is decompressed: what is asked of
//! an address comes from that address, in the bytes that were named.
//!
//! Knows nothing of which mirrors exist or who is worth asking: sources are the caller's.

mod fetch;
mod lately;
mod receipt;
mod upload;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use connito_protocol::ids::BlobId;
use serde::de::DeserializeOwned;

use crate::blobs::{BlobError, DiskBlobs};
use crate::pace::{MinimumRate, Pace, TooSlow};

use lately::FailedLately;
pub use upload::Upload;

/// How long the client waits, and for how much.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// For a connection.
    pub connect: Duration,
    /// For the head of a response, as long as there are other sources to ask: one that says nothing must
    /// not cost a window of the cycle. Where none of them brings anything, each is waited for once more,
    /// for as long as `answer`.
    pub first_answer: Duration,
    /// For the head of a response, or for the answer to an upload that was sent whole. A validator
    /// journals an upload before it answers, and its driver may be busy for some seconds.
    pub answer: Duration,
    /// The slowest that a body may come or go.
    pub minimum_rate: MinimumRate,
    /// The longest JSON that [`BlobClient::get_json`] reads.
    pub json_bytes: u64,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_answer: Duration::from_secs(2),
            answer: Duration::from_secs(30),
            minimum_rate: MinimumRate {
                bytes_per_second: 16 << 10,
                window: Duration::from_secs(10),
            },
            json_bytes: 1 << 20,
        }
    }
}

/// What went wrong with one address. Another one may do better.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection, or it was cut.
    #[error("no answer from {url}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// The transport's account.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The response did not begin in time.
    #[error("no answer from {url} within {} s", .waited.as_secs())]
    Silent {
        /// What was asked.
        url: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The transfer fell below the minimum rate.
    #[error("the transfer with {url} is too slow")]
    Slow {
        /// What was asked.
        url: String,
        /// The floor that it fell below.
        source: TooSlow,
    },
    /// An answer, but none that was hoped for.
    #[error("{url} answered with status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is longer than the caller allows.
    #[error("{url} offers more than {max_bytes} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// The bound.
        max_bytes: u64,
    },
    /// The answer's bytes are not what was named, or not in the promised form.
    #[error("{url} answered with {what}")]
    Corrupt {
        /// What was asked.
        url: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// Why a blob could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Every source was asked and every one said that it does not have it.
    #[error("blob {id} is on none of {sources} sources")]
    Absent {
        /// The blob.
        id: BlobId,
        /// How many were asked.
        sources: usize,
    },
    /// At least one source neither delivered nor said that it does not have the blob.
    #[error("blob {id} could not be fetched from any of {sources} sources")]
    Failed {
        /// The blob.
        id: BlobId,
        /// How many were asked.
        sources: usize,
        /// What went wrong last.
        #[source]
        last: SourceError,
    },
    /// It exists and is longer than the caller allows: proven by the blob itself.
    #[error("blob {id} has {bytes} bytes, at most {max_bytes} are allowed")]
    TooLarge {
        /// The blob.
        id: BlobId,
        /// Its length.
        bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// The own store refused.
    #[error("blob {id} could not be stored")]
    Store {
        /// The blob.
        id: BlobId,
        /// The store's account.
        source: BlobError,
    },
}

/// Why an upload got no answer. An answer that refuses is not an error.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The receiver could not be reached, or stalled. The upload may or may not have counted;
    /// repeating it is safe.
    #[error("the upload of blob {id} got no answer")]
    NoAnswer {
        /// The update.
        id: BlobId,
        /// What went wrong.
        source: SourceError,
    },
    /// The update could not be read from the own store.
    #[error("blob {id} could not be read for its upload")]
    Store {
        /// The update.
        id: BlobId,
        /// The store's account.
        source: BlobError,
    },
    /// The receiver's address gives a request that cannot be made or signed.
    #[error("the upload of blob {id} cannot be addressed to {url}")]
    BadAddress {
        /// The update.
        id: BlobId,
        /// The receiver's address.
        url: String,
        /// What stands in the way.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A client with its own store.
#[derive(Debug, Clone)]
pub struct BlobClient {
    http: reqwest::Client,
    uploads: upload::UploadHttp,
    blobs: DiskBlobs,
    limits: ClientLimits,
    failed: FailedLately,
}

impl BlobClient {
    /// A client that keeps what it fetches in `blobs`.
    ///
    /// # Errors
    /// When the HTTP library cannot be set up on this system.
    pub fn new(blobs: DiskBlobs, limits: ClientLimits) -> Result<Self, reqwest::Error> {
        let http = connito_chain::rpc::http_client()
            .connect_timeout(limits.connect)
            // Below the time after which our servers close idle connections.
            .pool_idle_timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self {
            http,
            uploads: upload::http(&limits),
            blobs,
            limits,
            failed: FailedLately::default(),
        })
    }

    /// The store into which blobs are fetched.
    #[must_use]
    pub fn blobs(&self) -> &DiskBlobs {
        &self.blobs
    }

    /// Reads a JSON document of bounded length. `None` when the address says that there is none.
    ///
    /// # Errors
    /// When there is no answer, or it is not JSON of the expected type.
    pub async fn get_json<T: DeserializeOwned>(&self, url: &str) -> Result<Option<T>, SourceError> {
        let Some(json) = self.get_bytes(url, self.limits.json_bytes).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&json)
            .map(Some)
            .map_err(|_| corrupt(url, "something other than the expected JSON"))
    }

    /// Reads a document of at most `max_bytes`. `None` when the address says that there is none.
    ///
    /// # Errors
    /// When there is no answer, or it is too long.
    pub async fn get_bytes(
        &self,
        url: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let response = self
            .send(url, self.http.get(url), self.limits.answer)
            .await?;
        match response.status().as_u16() {
            200 => self.body(url, response, max_bytes).await.map(Some),
            404 => Ok(None),
            status => Err(status_error(url, status)),
        }
    }

    /// Sends a request without a body and returns when the response's head is there.
    async fn send(
        &self,
        url: &str,
        request: reqwest::RequestBuilder,
        waited: Duration,
    ) -> Result<reqwest::Response, SourceError> {
        match tokio::time::timeout(waited, request.send()).await {
            Ok(answer) => answer.map_err(|error| unreachable(url, error)),
            Err(_) => Err(SourceError::Silent {
                url: url.to_owned(),
                waited,
            }),
        }
    }

    /// A response's body, if it is short enough.
    async fn body(
        &self,
        url: &str,
        mut response: reqwest::Response,
        max_bytes: u64,
    ) -> Result<Vec<u8>, SourceError> {
        let mut pace = Pace::new(self.limits.minimum_rate);
        let mut body = Vec::new();
        while let Some(chunk) = next_chunk(url, &mut response, &mut pace).await? {
            if body.len() as u64 + chunk.len() as u64 > max_bytes {
                return Err(SourceError::TooLarge {
                    url: url.to_owned(),
                    max_bytes,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

async fn next_chunk(
    url: &str,
    response: &mut reqwest::Response,
    pace: &mut Pace,
) -> Result<Option<bytes::Bytes>, SourceError> {
    let chunk = match pace.wait(response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| unreachable(url, error))?,
        Err(source) => {
            return Err(SourceError::Slow {
                url: url.to_owned(),
                source,
            });
        }
    };
    pace.moved(chunk.as_ref().map_or(0, bytes::Bytes::len));
    Ok(chunk)
}

fn unreachable(url: &str, error: reqwest::Error) -> SourceError {
    SourceError::Unreachable {
        url: url.to_owned(),
        // The message names it already.
        source: error.without_url().into(),
    }
}

fn status_error(url: &str, status: u16) -> SourceError {
    SourceError::Status {
        url: url.to_owned(),
        status,
    }
}

fn corrupt(url: &str, what: &'static str) -> SourceError {
    SourceError::Corrupt {
        url: url.to_owned(),
        what,
    }
}

/// Runs store work off the async threads.
async fn off_thread<T: Send + 'static>(
    id: BlobId,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    let worked = tokio::task::spawn_blocking(work).await;
    // Only when the runtime stops, or after a panic that was reported already.
    worked.unwrap_or_else(|error| {
        Err(BlobError::Io {
            path: PathBuf::from(id.to_string()),
            action: "finish the work on",
            source: std::io::Error::other(error),
        })
    })
}

/// A path under a source's address, whether or not that ends in a slash.
fn under(source: &str, path: &str) -> String {
    format!("{}/{path}", source.trim_end_matches('/'))
}
