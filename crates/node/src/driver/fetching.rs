//! From a machine's wish for a blob to the event that answers it.
//!
//! Inputs are the wish with its bound, the store and the client. The bound holds for what is here already
//! as for what comes: a stranger names blobs too, and may name one that is here and is no document. Knows
//! nothing of what documents say.

use std::sync::Arc;

use connito_protocol::event::{Event, Fetch, Form};
use connito_protocol::received::ReceivedDocument;
use connito_protocol::snapshot::Endpoint;
use tracing::debug;

use crate::blobs::DiskBlobs;
use crate::chain_link::sentence;
use crate::client::{BlobClient, FetchError};

/// Fetches what is not here, and reads what was asked for as a document.
pub(super) async fn fetched(blobs: &DiskBlobs, client: &BlobClient, fetch: &Fetch) -> Event {
    let blob = fetch.blob;
    let failed = |absent| Event::FetchFailed { blob, absent };
    let mut received = 0;
    match blobs.len(&blob) {
        Ok(bytes) if bytes > fetch.maximum_bytes => return failed(false),
        Ok(_) => {}
        Err(_) => {
            let sources: Vec<String> = fetch.sources.iter().map(Endpoint::url).collect();
            match client.fetch(blob, &sources, fetch.maximum_bytes).await {
                Ok(bytes) => received = bytes,
                Err(error) => {
                    debug!(target: "blobs::fetch", error = %sentence(&error), "not fetched");
                    return failed(matches!(error, FetchError::Absent { .. }));
                }
            }
        }
    }
    match fetch.form {
        Form::Blob | Form::Update => Event::Fetched { blob, received },
        Form::Document => match blobs.get(&blob) {
            Ok(bytes) => Event::Document {
                blob,
                document: Arc::new(ReceivedDocument::new(bytes)),
                received,
            },
            Err(_) => failed(false),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientLimits;

    /// What should not happen: a blob that is here for another reason being read without a bound because
    /// somebody called it a document, or taken for an update that nothing can be as long as.
    #[tokio::test]
    async fn what_is_here_and_longer_than_asked_for_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(folder.path()).unwrap();
        let client = BlobClient::new(blobs.clone(), ClientLimits::default()).unwrap();
        let blob = blobs.put(b"eight by").unwrap();
        for form in [Form::Document, Form::Update, Form::Blob] {
            let mut fetch = Fetch {
                blob,
                form,
                maximum_bytes: 7,
                sources: [].into(),
            };
            let refused = fetched(&blobs, &client, &fetch).await;
            assert!(
                matches!(refused, Event::FetchFailed { absent: false, .. }),
                "{refused:?}"
            );
            fetch.maximum_bytes = 8;
            match fetched(&blobs, &client, &fetch).await {
                Event::Document { document, .. } if form == Form::Document => {
                    assert_eq!(document.bytes(), b"eight by");
                }
                Event::Fetched { received: 0, .. } if form != Form::Document => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
