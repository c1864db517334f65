//! `GET /v1/state`: one document, named by its tag.

use bytes::Bytes;
use connito_node::server::StateManifest;
use connito_protocol::ids::BlobId;

use crate::loopback::server;

#[tokio::test]
async fn the_state_manifest_is_sent_once_to_who_remembers_its_tag() {
    let server = server().await;
    server
        .get("/v1/state", "")
        .await
        .assert_refused(404, "not_found");
    let manifest = StateManifest::new(Bytes::from_static(b"{}"));
    server.state.send(Some(manifest)).unwrap();
    let answer = server.get("/v1/state", "").await;
    let tag = format!("\"{}\"", BlobId::of(b"{}"));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
    let stated = format!("etag: {tag}");
    assert!(answer.head.contains(&stated), "{}", answer.head);
    let again = format!("if-none-match: {tag}\r\n");
    let answer = server.get("/v1/state", &again).await;
    assert_eq!((answer.status, answer.body.len()), (304, 0));
}

/// Whatever is remembered beside the tag, the answer is the document or that it is known; a tag that
/// only resembles it is another one.
#[tokio::test]
async fn tags_by_the_hundred_are_answered_like_one() {
    let server = server().await;
    let manifest = StateManifest::new(Bytes::from_static(b"{}"));
    server.state.send(Some(manifest)).unwrap();
    let tag = format!("\"{}\"", BlobId::of(b"{}"));
    let other = format!("\"{}\"", BlobId::of(b"other"));
    let many = vec![other.as_str(); 200].join(", ");
    for (remembered, status) in [
        (format!("if-none-match: {many}, {tag}\r\n"), 304),
        (format!("if-none-match: {many}\r\n"), 200),
        (
            format!("if-none-match: {other}\r\nif-none-match: {tag}\r\n"),
            304,
        ),
        (format!("if-none-match: W/{tag}\r\n"), 304),
        ("if-none-match: *\r\n".to_owned(), 304),
        (format!("if-none-match: {}\r\n", tag.trim_matches('"')), 200),
        (format!("if-none-match: {}\r\n", tag.to_uppercase()), 200),
        (format!("if-none-match: {}\r\n", &tag[..40]), 200),
        ("if-none-match:\r\n".to_owned(), 200),
        ("if-none-match: \u{fc}\r\n".to_owned(), 200),
        (format!("if-none-match: {}\r\n", ",".repeat(12_000)), 200),
    ] {
        let answer = server.get("/v1/state", &remembered).await;
        assert_eq!(
            answer.status,
            status,
            "{}",
            &remembered[..40.min(remembered.len())]
        );
        assert_eq!(answer.body.is_empty(), status == 304);
    }
}
