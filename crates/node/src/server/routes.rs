//! The table of routes, and the small ones: health, state manifest, receipts.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/health` | who this is and where it stands, as JSON |
//! | `GET /v1/state` | the current state manifest; its `ETag` is its name, `If-None-Match` is honoured |
//! | `GET`, `HEAD /v1/blobs/{id}` | a blob, or one range of whole mebibytes of it (blob_routes.rs) |
//! | `GET /v1/blobs/{id}/outline` | the hashes that verify each mebibyte on its own |
//! | `PUT /v1/uploads/{cycle}/{id}` | takes a signed update (upload_route.rs) |
//! | `GET /v1/receipts/{cycle}/{hotkey}` | what that participant was told, as JSON |
//!
//! Path segments are parsed into ids before they are used for anything. Health and state are
//! read from watched values: no lock is held while answering, so they answer under any load.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use bytes::Bytes;
use connito_protocol::ids::{BlobId, Block, Cycle, Hotkey, StateId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::upload_route::{UploadDesk, Uploads};
use super::{Limits, blob_routes, upload_route};
use crate::blobs::DiskBlobs;
use crate::receipts::Receipts;
use crate::refusal::{Refusal, RefusalCode, shown};

/// Who a process is and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `chain`, `owner`, `validator` or `miner`.
    pub role: String,
    /// Under which hotkey, if under one.
    pub hotkey: Option<Hotkey>,
    /// The last block handled.
    pub block: Option<Block>,
    /// The cycle of that block.
    pub cycle: Option<Cycle>,
    /// The state that it holds to be current.
    pub state: Option<StateId>,
    /// The program's version.
    pub version: String,
}

/// A state manifest with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateManifest {
    id: BlobId,
    bytes: Bytes,
}

impl StateManifest {
    /// The manifest's name.
    #[must_use]
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Names the manifest, once.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self {
            id: BlobId::of(&bytes),
            bytes,
        }
    }
}

/// Which of the stored blobs are anybody's to read. Called on every request: it must not block.
pub type Served = Arc<dyn Fn(&BlobId) -> bool + Send + Sync>;

/// What a role shows to the world.
#[derive(Clone)]
pub struct Exposed {
    /// Where the process stands.
    pub health: watch::Receiver<Health>,
    /// The current state manifest, once there is one.
    pub state: watch::Receiver<Option<StateManifest>>,
    /// The blobs that are served and into which uploads go.
    pub blobs: DiskBlobs,
    /// Which of them are served; all of them with `None`.
    pub served: Option<Served>,
    /// What participants were told.
    pub receipts: Receipts,
    /// How uploads are taken; not at all with `None`.
    pub uploads: Option<Uploads>,
}

impl fmt::Debug for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposed")
            .field("health", &*self.health.borrow())
            .field("blobs", &self.blobs)
            .field("uploads", &self.uploads.is_some())
            .finish_non_exhaustive()
    }
}

/// The routes of a role. Merge further ones (a dashboard, say) before serving; what no route takes
/// is refused by [`serve`](super::serve).
pub fn routes(exposed: Exposed, limits: &Limits) -> Router {
    let mut router = Router::new()
        .route("/v1/state", get(state))
        .route("/v1/blobs/{id}", get(blob_routes::blob))
        .route("/v1/blobs/{id}/outline", get(blob_routes::outline))
        .route("/v1/receipts/{cycle}/{hotkey}", get(receipt))
        .with_state(exposed.clone());
    if let Some(uploads) = exposed.uploads {
        let desk = UploadDesk::new(uploads, exposed.blobs, limits);
        let route = put(upload_route::upload).with_state(Arc::new(desk));
        router = router.route("/v1/uploads/{cycle}/{id}", route);
    }
    router.merge(health_router(exposed.health))
}

/// The route by which every process says where it stands, for one that has no other.
pub fn health_router(health: watch::Receiver<Health>) -> Router {
    Router::new()
        .route("/v1/health", get(answer_health))
        .with_state(health)
}

/// The path's segments, undecoded by anything but percent signs; what is not text is `malformed`.
pub(super) struct Segments<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(head, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(_) => Err(not_a("a path of texts", head.uri.path())),
        }
    }
}

/// The answer where there is no route, or none for this method.
pub(super) async fn nothing_here(request: Request) -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        format!(
            "no {} {} here",
            shown(request.method().as_str()),
            shown(request.uri().path())
        ),
    )
}

async fn answer_health(State(health): State<watch::Receiver<Health>>) -> axum::Json<Health> {
    axum::Json(health.borrow().clone())
}

async fn state(State(exposed): State<Exposed>, headers: HeaderMap) -> Result<Response, Refusal> {
    let Some(manifest) = exposed.state.borrow().clone() else {
        return Err(Refusal::new(RefusalCode::NotFound, "there is no state yet"));
    };
    let tag = entity_tag(&manifest.id);
    if remembers(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let octets = HeaderValue::from_static("application/octet-stream");
    let headers = [(header::ETAG, tag), (header::CONTENT_TYPE, octets)];
    Ok((headers, manifest.bytes).into_response())
}

/// Whether the client says that it holds what has this tag: one of many, weakly, or by a star.
fn remembers(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    let tags = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    tags.map(<[u8]>::trim_ascii).any(|remembered| {
        let strong = remembered.strip_prefix(b"W/").unwrap_or(remembered);
        strong == tag.as_bytes() || remembered == b"*"
    })
}

async fn receipt(
    State(exposed): State<Exposed>,
    Segments((cycle, hotkey)): Segments<(String, String)>,
) -> Result<Response, Refusal> {
    let cycle = parse_cycle(&cycle)?;
    let hotkey: Hotkey = parse_segment("a hotkey", &hotkey)?;
    let found = blocking(move || exposed.receipts.get(cycle, &hotkey)).await?;
    match found {
        Ok(Some(json)) => {
            let kind = HeaderValue::from_static("application/json");
            Ok(([(header::CONTENT_TYPE, kind)], json).into_response())
        }
        Ok(None) => Err(Refusal::new(
            RefusalCode::NotFound,
            format!("no receipt of {hotkey} for cycle {cycle}"),
        )),
        Err(error) => Err(storage_trouble(&error)),
    }
}

/// A path segment as the id that it must be.
pub(super) fn parse_segment<T: FromStr>(kind: &str, segment: &str) -> Result<T, Refusal> {
    segment.parse().map_err(|_| not_a(kind, segment))
}

fn not_a(kind: &str, segment: &str) -> Refusal {
    let message = format!("`{}` is not {kind}", shown(segment));
    Refusal::new(RefusalCode::Malformed, message)
}

/// A cycle in its only spelling: `007` and `+7` would be other paths to the same thing.
pub(super) fn parse_cycle(segment: &str) -> Result<Cycle, Refusal> {
    match segment.parse::<u64>() {
        Ok(number) if number.to_string() == segment => Ok(Cycle(number)),
        _ => Err(not_a("a cycle", segment)),
    }
}

pub(super) fn entity_tag(id: &BlobId) -> HeaderValue {
    // Hexadecimal digits and quotes are always a header value.
    HeaderValue::try_from(format!("\"{id}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Runs work that waits for the disk or takes long off the async threads. Only a panic in `work` or the runtime's end gives `busy`.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(target: "server", %error, "work ended early");
        Refusal::new(
            RefusalCode::Busy,
            "the server could not finish this request",
        )
    })
}

/// Our disk's trouble is told to the client as `busy`, and to our operator in full.
pub(super) fn storage_trouble(error: &dyn std::error::Error) -> Refusal {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    tracing::error!(target: "server", %error, cause, "storage failed");
    Refusal::new(RefusalCode::Busy, "the server's storage failed").retry_after(60)
}
