//! The client among mirrors that cut, lie, stall or are gone, and uploading to receivers that refuse.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use connito_chain::keys::{Keypair, Signer};
use connito_node::blobs::{DiskBlobs, Outline};
use connito_node::client::{
    BlobClient, ClientLimits, FetchError, SourceError, Upload, UploadError,
};
use connito_node::refusal::RefusalCode;
use connito_node::server::{Health, Limits, MinimumRate};
use connito_node::upload::{UploadAnswer, UploadWindow};
use connito_protocol::ids::{BlobId, Block};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::loopback::{CYCLE, Loopback, MEBIBYTE, begin, bytes};

const NO_BOUND: u64 = 1 << 40;

/// A client with a store of its own, which a test may close and open again.
struct Own {
    folder: tempfile::TempDir,
}

impl Own {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn client(&self) -> BlobClient {
        self.client_with(ClientLimits::default())
    }

    fn client_with(&self, limits: ClientLimits) -> BlobClient {
        let blobs = DiskBlobs::open(self.folder.path()).unwrap();
        BlobClient::new(blobs, limits).unwrap()
    }
}

/// What a mirror of one blob does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Breaks the connection after so many bytes of blob, over all requests together.
    CutAfter(u64),
    /// Changes the byte at this position.
    Flip(usize),
    /// States that the blob is this long.
    Length(u64),
    /// Begins an answer and says nothing more.
    Stall,
    /// Answers with this status.
    Status(u16),
    /// Sends the outline of other bytes.
    OtherOutline,
}

/// A mirror that serves one blob, with a fault, and counts the bytes of blob that it sent.
struct Mirror {
    url: String,
    sent: Arc<AtomicU64>,
    requests: Arc<Mutex<Vec<String>>>,
    _stop: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Content {
    blob: Arc<Vec<u8>>,
    fault: Fault,
    sent: Arc<AtomicU64>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    async fn of(blob: &[u8], fault: Fault) -> Self {
        let content = Content {
            blob: Arc::new(blob.to_vec()),
            fault,
            sent: Arc::default(),
            requests: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/blobs/{id}", get(serve_blob))
            .route("/v1/blobs/{id}/outline", get(serve_outline))
            .with_state(content.clone());
        let (address, stop, _) = begin(router, Limits::default()).await;
        Self {
            url: format!("http://{address}"),
            sent: content.sent,
            requests: content.requests,
            _stop: stop,
        }
    }

    /// This mirror as the only source.
    fn alone(&self) -> &[String] {
        std::slice::from_ref(&self.url)
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

async fn serve_outline(State(content): State<Content>, Path(_): Path<String>) -> Response {
    match content.fault {
        Fault::OtherOutline => Outline::of(&vec![1; content.blob.len()]).to_bytes(),
        _ => Outline::of(&content.blob).to_bytes(),
    }
    .into_response()
}

async fn serve_blob(State(content): State<Content>, request: Request) -> Response {
    let range = request.headers()[header::RANGE]
        .to_str()
        .unwrap()
        .to_owned();
    content.requests.lock().unwrap().push(range.clone());
    if let Fault::Status(status) = content.fault {
        let elsewhere = [(header::LOCATION, "http://127.0.0.1:1/")];
        return (StatusCode::from_u16(status).unwrap(), elsewhere).into_response();
    }
    let (first, last) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let first: usize = first.parse().unwrap();
    let end = content.blob.len().min(last.parse::<usize>().unwrap() + 1);
    let mut part = content.blob[first..end].to_vec();
    if let Fault::Flip(position) = content.fault
        && (first..end).contains(&position)
    {
        part[position - first] ^= 1;
    }
    let length = match content.fault {
        Fault::Length(length) => length,
        _ => content.blob.len() as u64,
    };
    let covered = format!("bytes {first}-{}/{length}", end - 1);
    let size = part.len();
    let headers = [
        (header::CONTENT_RANGE, covered),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    (
        StatusCode::PARTIAL_CONTENT,
        headers,
        faulty_body(&content, part),
    )
        .into_response()
}

fn faulty_body(content: &Content, mut part: Vec<u8>) -> Body {
    let allowed = match content.fault {
        Fault::CutAfter(bytes) => bytes.saturating_sub(content.sent.load(Ordering::SeqCst)),
        Fault::Stall => 10,
        _ => u64::MAX,
    };
    let is_cut = (part.len() as u64) > allowed;
    part.truncate(usize::try_from(allowed).unwrap_or(usize::MAX));
    content.sent.fetch_add(part.len() as u64, Ordering::SeqCst);
    if !is_cut {
        return Body::from(part);
    }
    let stalls = content.fault == Fault::Stall;
    let beginning = stream::once(async move { Ok(part) });
    let ending = stream::once(async move {
        if stalls {
            std::future::pending::<()>().await;
        }
        Err(std::io::Error::other("cut"))
    });
    Body::from_stream(stream::StreamExt::chain(beginning, ending))
}

#[tokio::test]
async fn a_small_blob_comes_in_one_request_and_an_empty_one_too() {
    let server = Loopback::start(Limits::default()).await;
    let own = Own::new();
    let client = own.client();
    for blob in [&b"small"[..], b"", &bytes(MEBIBYTE)] {
        let id = server.blobs.put(blob).unwrap();
        client.fetch(id, &[server.url()], NO_BOUND).await.unwrap();
        assert_eq!(client.blobs().get(&id).unwrap(), blob);
    }
    let mirror = Mirror::of(b"mirrored", Fault::None).await;
    let id = BlobId::of(b"mirrored");
    for _ in 0..2 {
        client.fetch(id, mirror.alone(), 8).await.unwrap();
    }
    assert_eq!(mirror.requests(), 1, "what is here is not asked for");
}

#[tokio::test]
async fn a_large_blob_is_fetched_from_a_server_whole() {
    let server = Loopback::start(Limits::default()).await;
    let blob = bytes(19 * MEBIBYTE + 3);
    let id = server.blobs.put(&blob).unwrap();
    let own = Own::new();
    let client = own.client();
    client.fetch(id, &[server.url()], NO_BOUND).await.unwrap();
    assert_eq!(client.blobs().get(&id).unwrap(), blob);
}

/// What should happen: wherever the connection breaks, also across a restart of the client, every
/// mebibyte that had arrived whole is kept and not sent a second time.
/// What should not happen: the blob being visible before it is whole.
#[tokio::test]
async fn a_transfer_cut_anywhere_is_resumed_where_it_stopped() {
    let blob = bytes(5 * MEBIBYTE + 100);
    let id = BlobId::of(&blob);
    let mebibyte = MEBIBYTE as u64;
    let cuts = [
        0,
        1,
        mebibyte - 1,
        mebibyte,
        mebibyte + 50,
        mebibyte + 100,
        2 * mebibyte + 99,
        2 * mebibyte + 100,
        3 * mebibyte + (64 << 10),
        5 * mebibyte + 99,
    ];
    for cut in cuts {
        let own = Own::new();
        let cutting = Mirror::of(&blob, Fault::CutAfter(cut)).await;
        let client = own.client();
        let failed = client.fetch(id, cutting.alone(), NO_BOUND).await;
        assert!(
            matches!(failed, Err(FetchError::Failed { .. })),
            "cut {cut}"
        );
        assert!(!client.blobs().has(&id), "cut {cut}");
        drop(client);

        let client = own.client();
        let honest = Mirror::of(&blob, Fault::None).await;
        client.fetch(id, honest.alone(), NO_BOUND).await.unwrap();
        assert_eq!(client.blobs().get(&id).unwrap(), blob, "cut {cut}");
        // First and last mebibyte are kept together, once the length is proven; then one by one.
        let kept = match cut.checked_sub(mebibyte + 100) {
            Some(more) => mebibyte + 100 + more / mebibyte * mebibyte,
            None => 0,
        };
        assert_eq!(honest.sent(), blob.len() as u64 - kept, "cut {cut}");
    }
}

#[tokio::test]
async fn what_one_mirror_breaks_off_the_next_one_continues() {
    let blob = bytes(4 * MEBIBYTE);
    let id = BlobId::of(&blob);
    let own = Own::new();
    let client = own.client();
    let cutting = Mirror::of(&blob, Fault::CutAfter(3 * MEBIBYTE as u64 + 7)).await;
    let honest = Mirror::of(&blob, Fault::None).await;
    let sources = [cutting.url.clone(), honest.url.clone()];
    client.fetch(id, &sources, NO_BOUND).await.unwrap();
    assert_eq!(client.blobs().get(&id).unwrap(), blob);
    assert_eq!(honest.sent(), MEBIBYTE as u64, "only what was missing");
}

/// Whatever is wrong with the first mirror, the blob comes from the second, and a mirror that sent
/// a wrong byte is not asked again.
#[tokio::test]
async fn a_mirror_that_lies_is_dropped_and_another_one_is_asked() {
    let blob = bytes(3 * MEBIBYTE + 5);
    let id = BlobId::of(&blob);
    for fault in [
        Fault::Flip(0),
        Fault::Flip(2 * MEBIBYTE + 1),
        Fault::Flip(3 * MEBIBYTE + 4),
        Fault::Length(5),
        Fault::Length(2 * MEBIBYTE as u64),
        Fault::Length(NO_BOUND + 1),
        Fault::OtherOutline,
        Fault::Status(500),
        Fault::Status(302),
        Fault::Status(404),
    ] {
        let own = Own::new();
        let client = own.client();
        let lying = Mirror::of(&blob, fault).await;
        let honest = Mirror::of(&blob, Fault::None).await;
        let sources = [lying.url.clone(), honest.url.clone()];
        client.fetch(id, &sources, NO_BOUND).await.unwrap();
        assert_eq!(client.blobs().get(&id).unwrap(), blob);
        let asked = lying.requests();
        assert!(asked <= 3, "asked {asked} times");
    }
    let own = Own::new();
    let lying = Mirror::of(b"tiny", Fault::Flip(2)).await;
    let only = own
        .client()
        .fetch(BlobId::of(b"tiny"), lying.alone(), 9)
        .await;
    let Err(FetchError::Failed { last, .. }) = only else {
        panic!("{only:?}");
    };
    assert!(matches!(last, SourceError::Corrupt { .. }), "{last}");
    assert_eq!(lying.requests(), 1);
}

#[tokio::test]
async fn a_mirror_that_stalls_is_given_up_for_another_one() {
    let blob = bytes(2 * MEBIBYTE);
    let own = Own::new();
    let client = own.client_with(ClientLimits {
        minimum_rate: MinimumRate {
            bytes_per_second: 16 << 10,
            window: Duration::from_millis(50),
        },
        ..ClientLimits::default()
    });
    let stalling = Mirror::of(&blob, Fault::Stall).await;
    let id = BlobId::of(&blob);
    let alone = client.fetch(id, stalling.alone(), NO_BOUND).await;
    let Err(FetchError::Failed { last, .. }) = alone else {
        panic!("{alone:?}");
    };
    assert!(matches!(last, SourceError::Slow { .. }), "{last}");
    let honest = Mirror::of(&blob, Fault::None).await;
    let sources = [stalling.url.clone(), honest.url.clone()];
    client.fetch(id, &sources, NO_BOUND).await.unwrap();
}

/// A server that takes connections and says nothing on the first `silent` of them; later ones are passed
/// on to another. Counts them.
async fn hanging(silent: usize, behind: String) -> (String, Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            if held.len() < silent {
                held.push(stream);
                continue;
            }
            let address = behind.trim_start_matches("http://").to_owned();
            tokio::spawn(async move {
                let mut other = tokio::net::TcpStream::connect(address).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
            });
        }
    });
    (url, asked)
}

/// What should happen: the next source is asked soon, and a silent one last from then on. What should not:
/// that one of many servers costs everybody the window in which bodies must be mirrored.
#[tokio::test]
async fn a_source_that_says_nothing_costs_little_and_only_once() {
    let own = Own::new();
    let client = own.client_with(ClientLimits {
        first_answer: Duration::from_millis(50),
        // Longer than the test may take.
        answer: Duration::from_secs(3600),
        ..ClientLimits::default()
    });
    let (silent, asked) = hanging(usize::MAX, String::new()).await;
    for blob in [bytes(100), bytes(101), bytes(3 * MEBIBYTE)] {
        let honest = Mirror::of(&blob, Fault::None).await;
        let sources = [silent.clone(), honest.url.clone()];
        let id = BlobId::of(&blob);
        client.fetch(id, &sources, NO_BOUND).await.unwrap();
        assert_eq!(client.blobs().get(&id).unwrap(), blob);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

/// Slow is not dead: where nobody else has it, a source is waited for as long as ever.
#[tokio::test]
async fn a_source_that_was_silent_is_asked_again_when_no_other_brings_anything() {
    let own = Own::new();
    let client = own.client_with(ClientLimits {
        first_answer: Duration::from_millis(50),
        ..ClientLimits::default()
    });
    let blob = bytes(100);
    let honest = Mirror::of(&blob, Fault::None).await;
    let (slow, asked) = hanging(1, honest.url.clone()).await;
    let without = Mirror::of(b"", Fault::Status(404)).await;
    let sources = [slow, without.url.clone()];
    let id = BlobId::of(&blob);
    client.fetch(id, &sources, NO_BOUND).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_blob_is_absent_only_when_every_source_said_so() {
    let own = Own::new();
    let client = own.client();
    let id = BlobId::of(b"nowhere");
    let without = Mirror::of(b"", Fault::Status(404)).await;
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let absent = client.fetch(id, without.alone(), NO_BOUND).await;
    assert!(matches!(absent, Err(FetchError::Absent { sources: 1, .. })));
    let unknown = client
        .fetch(id, &[gone, without.url.clone()], NO_BOUND)
        .await;
    assert!(
        matches!(unknown, Err(FetchError::Failed { .. })),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_blob_above_the_caller_s_bound_is_not_fetched() {
    let own = Own::new();
    let client = own.client();
    for blob in [bytes(100), bytes(2 * MEBIBYTE)] {
        let mirror = Mirror::of(&blob, Fault::None).await;
        let id = BlobId::of(&blob);
        let bound = blob.len() as u64 - 1;
        let refused = client.fetch(id, mirror.alone(), bound).await;
        let Err(FetchError::Failed { last, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(matches!(last, SourceError::TooLarge { .. }), "{last}");
    }
}

#[tokio::test]
async fn json_is_read_and_its_absence_is_no_error() {
    let server = Loopback::start(Limits::default()).await;
    let own = Own::new();
    let client = own.client();
    let health = client
        .get_json::<Health>(&format!("{}/v1/health", server.url()))
        .await;
    assert_eq!(health.unwrap().unwrap().role, "validator");
    let nothing = client
        .get_json::<String>(&format!(
            "{}/v1/receipts/1/{}",
            server.url(),
            server.receiver
        ))
        .await;
    assert_eq!(nothing.unwrap(), None);
    let other = client
        .get_json::<u64>(&format!("{}/v1/health", server.url()))
        .await;
    assert!(matches!(other, Err(SourceError::Corrupt { .. })));
}

fn upload_to(server: &Loopback, blob: BlobId) -> Upload {
    Upload {
        cycle: CYCLE,
        blob,
        receiver: server.receiver,
        address: server.url(),
    }
}

#[tokio::test]
async fn an_update_is_uploaded_once_and_a_second_time_gets_the_first_answer() {
    let mut server = Loopback::start(Limits::default()).await;
    let own = Own::new();
    let client = own.client();
    let update = bytes(3 * MEBIBYTE + 1);
    let id = client.blobs().put(&update).unwrap();
    let (upload, miner) = (upload_to(&server, id), server.miner.clone());
    let (answer, _) = tokio::join!(client.upload(&upload, &miner), server.accept_next());
    let UploadAnswer::Received(received) = answer.unwrap() else {
        panic!("refused");
    };
    assert_eq!((received.blob, received.cycle), (id, CYCLE));
    assert_eq!(server.blobs.get(&id).unwrap(), update);

    let again = client.upload(&upload, &miner).await.unwrap();
    let UploadAnswer::Refused(refusal) = again else {
        panic!("taken twice");
    };
    assert_eq!(refusal.code, RefusalCode::AlreadySubmitted);
    assert_eq!(refusal.first.as_deref(), Some(&received));
}

/// What should happen: the refusal of a long body is read every time, resets notwithstanding.
#[tokio::test]
async fn a_refusal_reaches_a_client_with_a_long_body() {
    let server = Loopback::start(Limits::default()).await;
    let own = Own::new();
    let client = own.client();
    let id = client.blobs().put(&bytes(24 * MEBIBYTE)).unwrap();
    let upload = upload_to(&server, id);
    let early = UploadWindow::Early {
        opens_at: Block(353),
    };
    server.admission.send_modify(|it| it.window = early);
    for _ in 0..10 {
        let answer = client.upload(&upload, &server.miner).await.unwrap();
        let UploadAnswer::Refused(refusal) = answer else {
            panic!("taken too early");
        };
        assert_eq!(refusal.code, RefusalCode::TooEarly);
    }
}

/// Uploads `update` to a receiver that answers `busy` as soon as it has read up to `end`. Returns
/// all that it was sent, to the end of the connection.
async fn sent_to_a_busy_receiver(end: &[u8]) -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = Own::new();
    let client = own.client();
    let upload = Upload {
        cycle: CYCLE,
        blob: client.blobs().put(b"update").unwrap(),
        receiver: Keypair::from_seed(&[2; 32]).hotkey(),
        address: format!("http://{}", listener.local_addr().unwrap()),
    };
    let miner = Keypair::from_seed(&[1; 32]);
    let receiver = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(end) {
            stream.read_buf(&mut request).await.unwrap();
        }
        let refusal = r#"{"code":"busy","message":"later"}"#;
        let length = refusal.len();
        let answer = format!("HTTP/1.1 503 -\r\ncontent-length: {length}\r\n\r\n{refusal}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.read_to_end(&mut request).await.unwrap();
        request
    };
    let (answer, request) = tokio::join!(client.upload(&upload, &miner), receiver);
    let UploadAnswer::Refused(refusal) = answer.unwrap() else {
        panic!("not refused");
    };
    assert_eq!(refusal.code, RefusalCode::Busy);
    request
}

#[tokio::test]
async fn a_body_is_not_sent_to_a_receiver_that_refuses_when_asked() {
    let request = sent_to_a_busy_receiver(b"\r\n\r\n").await;
    assert!(request.ends_with(b"\r\n\r\n"), "not a byte of the body");
}

/// One behind a proxy that swallows the question would otherwise never get an update.
#[tokio::test]
async fn a_receiver_that_says_nothing_when_asked_gets_the_body_after_a_while() {
    sent_to_a_busy_receiver(b"\r\n\r\nupdate").await;
}

#[tokio::test]
async fn an_upload_of_a_blob_that_is_not_here_or_to_nobody_is_an_error() {
    let server = Loopback::start(Limits::default()).await;
    let own = Own::new();
    let client = own.client();
    let missing = upload_to(&server, BlobId::of(b"missing"));
    let failed = client.upload(&missing, &server.miner).await;
    assert!(matches!(failed, Err(UploadError::Store { .. })));

    let nobody = Upload {
        address: "http://127.0.0.1:1".to_owned(),
        ..upload_to(&server, client.blobs().put(b"update").unwrap())
    };
    let failed = client.upload(&nobody, &server.miner).await;
    assert!(matches!(failed, Err(UploadError::NoAnswer { .. })));
}
