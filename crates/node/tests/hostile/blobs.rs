//! `GET` and `HEAD /v1/blobs/{id}`, `GET /v1/blobs/{id}/outline`: what is named, verified, in ranges.

use std::sync::Arc;

use connito_node::server::{Limits, Served};
use connito_protocol::ids::BlobId;

use crate::loopback::{Loopback, MEBIBYTE, bytes, impatient, server};

#[tokio::test]
async fn a_blob_is_served_whole_or_in_one_range_of_whole_mebibytes() {
    let server = server().await;
    let large = bytes(3 * MEBIBYTE + 9);
    let id = server.blobs.put(&large).unwrap();
    let path = format!("/v1/blobs/{id}");

    let whole = server.get(&path, "").await;
    assert_eq!((whole.status, &whole.body[..]), (200, &large[..]));

    let range = format!("range: bytes={}-{}\r\n", MEBIBYTE, 3 * MEBIBYTE - 1);
    let part = server.get(&path, &range).await;
    assert_eq!(part.status, 206);
    assert_eq!(&part.body[..], &large[MEBIBYTE..3 * MEBIBYTE]);
    let covered = format!("content-range: bytes 1048576-3145727/{}", large.len());
    assert!(part.head.contains(&covered), "{}", part.head);

    for refused in ["bytes=0-9", "bytes=0-1,5-6", "bytes=9-3", "bytes=3145737-"] {
        let answer = server.get(&path, &format!("range: {refused}\r\n")).await;
        answer.assert_refused(416, "bad_range");
        assert!(answer.head.contains("content-range: bytes */3145737"));
    }

    let outline = server.get(&format!("{path}/outline"), "").await;
    assert_eq!(outline.body, server.blobs.outline(&id).unwrap().to_bytes());

    let head = format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let head = server.ask(head.as_bytes()).await;
    assert!(
        head.head.contains("content-length: 3145737"),
        "{}",
        head.head
    );
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn a_blob_longer_than_a_response_is_served_in_ranges_only() {
    let server = server().await;
    let id = server.blobs.put(&bytes(17 * MEBIBYTE)).unwrap();
    let path = format!("/v1/blobs/{id}");
    server.get(&path, "").await.assert_refused(416, "bad_range");
    let answer = server.get(&path, "range: bytes=1048576-\r\n").await;
    assert_eq!((answer.status, answer.body.len()), (206, 16 * MEBIBYTE));
}

/// Each costs a look at the length and no more: no part of the blob is read.
#[tokio::test]
async fn a_range_that_is_not_one_run_of_whole_mebibytes_is_refused() {
    let server = server().await;
    let id = server.blobs.put(&bytes(3 * MEBIBYTE + 9)).unwrap();
    let path = format!("/v1/blobs/{id}");
    for refused in [
        "bytes=0-9",
        "bytes=0-1,5-6",
        "bytes=0-1048575,0-1048575",
        "bytes=9-3",
        "bytes=1-1048576",
        "bytes=3145737-",
        "bytes=-10",
        "bytes=-0",
        "bytes=-",
        "bytes=",
        "bytes",
        "bytes=0-1048575-",
        "bytes= 0-1048575",
        "bytes=0x0-0xfffff",
        "bytes=-18446744073709551616",
        "bytes=18446744073709551615-18446744073709551615",
        "items=0-1",
        "\u{fc}",
    ] {
        let answer = server.get(&path, &format!("range: {refused}\r\n")).await;
        answer.assert_refused(416, "bad_range");
        assert!(answer.head.contains("content-range: bytes */3145737"));
    }
    let many = format!("range: bytes={}\r\n", vec!["0-0"; 3000].join(","));
    server
        .get(&path, &many)
        .await
        .assert_refused(416, "bad_range");
    let twice = "range: bytes=0-1048575\r\nrange: bytes=1048576-2097151\r\n";
    server
        .get(&path, twice)
        .await
        .assert_refused(416, "bad_range");
}

/// What should not happen: telling a blob that is withheld from one that does not exist, or sending
/// bytes that rotted.
#[tokio::test]
async fn a_blob_that_is_withheld_absent_or_rotten_is_not_here() {
    let secret = BlobId::of(b"secret");
    let served: Served = Arc::new(move |id| *id != secret);
    let server = Loopback::serving(Limits::default(), Some(served)).await;
    server.blobs.put(b"secret").unwrap();
    let rotten = server.blobs.put(b"rotten").unwrap();
    let name = rotten.to_string();
    let path = server
        .folder
        .path()
        .join("blobs")
        .join(&name[..2])
        .join(&name);
    std::fs::write(path, b"Rotten").unwrap();
    for id in [secret, BlobId::of(b"absent"), rotten] {
        for path in [format!("/v1/blobs/{id}"), format!("/v1/blobs/{id}/outline")] {
            let answer = server.get(&path, "").await;
            answer.assert_refused(404, "not_found");
            let expected = format!("blob {id} is not here");
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_out_of_the_store() {
    let server = server().await;
    std::fs::write(server.folder.path().join("key"), b"secret").unwrap();
    let id = server.blobs.put(b"x").unwrap().to_string();
    for name in [
        "..%2f..%2fkey",
        "%2e%2e%2fkey",
        "..",
        "../../key",
        "..%5ckey",
        "key%00",
        "%ff%fe",
        &id.to_uppercase(),
        &format!("{}%2f{id}", &id[..2]),
        &format!("{id}%00"),
        &format!("{id}.outline"),
    ] {
        for path in [
            format!("/v1/blobs/{name}"),
            format!("/v1/blobs/{name}/outline"),
            format!("/v1/receipts/7/{name}"),
            format!("/v1/receipts/{name}/{}", server.receiver),
        ] {
            let answer = server.get(&path, "").await;
            assert!(
                matches!(answer.status, 400 | 404),
                "{path}: {}",
                answer.status
            );
            answer.json()["code"].as_str().unwrap();
        }
    }
}

/// A reader that asks for much and takes nothing loses its connection, and its place.
#[tokio::test]
async fn a_reader_that_never_reads_is_dropped() {
    let server = Loopback::start(Limits {
        connections_loopback: 1,
        ..impatient()
    })
    .await;
    let id = server.blobs.put(&bytes(16 * MEBIBYTE)).unwrap();
    let request = format!("GET /v1/blobs/{id} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(4);
    let _idle = server.send(request.as_bytes()).await;
    // The only place is free again once the server has given the reader up.
    while server.get("/v1/health", "").await.status != 200 {}
}
