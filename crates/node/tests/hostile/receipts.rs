//! `GET /v1/receipts/{cycle}/{hotkey}`: what one participant was told, under one spelling.

use connito_chain::keys::{Keypair, SIGNATURE_BYTES, Signer, verify};
use connito_node::blobs::DiskBlobs;
use connito_node::client::{BlobClient, ClientLimits};
use connito_node::driver::SignedReceipt;
use connito_protocol::ids::{BlobId, GroupId, Hotkey, Seed, StateId};
use connito_protocol::job::Finding;
use connito_protocol::reason::ReasonCode;
use connito_protocol::receipt::Receipt;
use connito_protocol::report::Measurement;

use crate::loopback::{CYCLE, server};

/// Numbers of which most have no short decimal form: what is signed is how they are written.
fn receipt(hotkey: Hotkey, validator: Hotkey) -> Receipt {
    let measurement = Measurement {
        utility: 0.1 + 0.2,
        standard_error: 1.0 / 3.0,
    };
    Receipt {
        cycle: CYCLE,
        hotkey,
        group: GroupId(1),
        base: StateId([2; 32]),
        seed: Seed([3; 32]),
        update: Some(BlobId::of(b"update")),
        code: ReasonCode::Accepted,
        measurement: Some(measurement),
        weight: 1.0 / 7.0,
        reward: f64::MIN_POSITIVE,
        rank: 1,
        validator,
        own: Some(Finding::Refused {
            code: ReasonCode::Unscored,
        }),
    }
}

/// Whether the answer's receipt, as it stands there, has the signature of this validator.
fn is_signed(answer: &[u8], validator: Hotkey) -> bool {
    let text = std::str::from_utf8(answer).unwrap();
    let signed: SignedReceipt = serde_json::from_str(text).unwrap();
    let (receipt, _) = text.rsplit_once(",\"signature\":").unwrap();
    let receipt = receipt.strip_prefix("{\"receipt\":").unwrap();
    let mut signature = [0; SIGNATURE_BYTES];
    hex::decode_to_slice(&signed.signature, &mut signature).unwrap();
    verify(validator, receipt.as_bytes(), &signature)
}

/// P-42. What should happen: a miner that knows the validator's hotkey verifies what it was given. What
/// should not: any other number, name or issuer passing for it.
#[tokio::test]
async fn a_receipt_is_served_as_its_validator_signed_it() {
    let server = server().await;
    let validator = Keypair::from_seed(&[2; 32]);
    let miner = server.miner.hotkey();
    let receipt = receipt(miner, validator.hotkey());
    let signed = SignedReceipt::sign(&receipt, &validator);
    server.receipts.put(CYCLE, &miner, &signed).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let store = DiskBlobs::open(folder.path()).unwrap();
    let client = BlobClient::new(store, ClientLimits::default()).unwrap();
    let url = format!("{}/v1/receipts/{CYCLE}/{miner}", server.url());
    let answer = client.get_bytes(&url, 1 << 20).await.unwrap().unwrap();
    let found: Option<SignedReceipt> = client.get_json(&url).await.unwrap();
    assert_eq!(found.unwrap().receipt, receipt);
    assert!(is_signed(&answer, validator.hotkey()));

    assert!(!is_signed(&answer, miner), "it is not its own issuer");
    let text = String::from_utf8(answer).unwrap();
    for (told, forged) in [
        ("\"rank\":1", "\"rank\":2"),
        ("\"cycle\":7", "\"cycle\":8"),
        ("accepted", "duplicate"),
        (&*miner.to_string(), &*validator.hotkey().to_string()),
    ] {
        assert!(text.contains(told), "{told} in {text}");
        let forged = text.replacen(told, forged, 1);
        assert!(!is_signed(forged.as_bytes(), validator.hotkey()));
    }
}

#[tokio::test]
async fn a_receipt_is_found_under_one_spelling_of_its_cycle_and_hotkey() {
    let server = server().await;
    let hotkey = server.receiver;
    server.receipts.put(CYCLE, &hotkey, &"told").unwrap();
    let answer = server.get(&format!("/v1/receipts/7/{hotkey}"), "").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\"told\""[..]));
    for cycle in ["07", "+7", "7.0", "", "-7", "7%20", "99999999999999999999"] {
        let path = format!("/v1/receipts/{cycle}/{hotkey}");
        let answer = server.get(&path, "").await;
        assert!(matches!(answer.status, 400 | 404), "{path}");
    }
}

/// Enumeration: there is no list, and nothing but a pair of a cycle and an address leads anywhere.
#[tokio::test]
async fn receipts_cannot_be_listed_and_unknown_ones_are_all_alike() {
    let server = server().await;
    let hotkey = server.receiver;
    server.receipts.put(CYCLE, &hotkey, &"told").unwrap();
    for path in [
        "/v1/receipts",
        "/v1/receipts/",
        "/v1/receipts/7",
        "/v1/receipts/7/",
    ] {
        let answer = server.get(path, "").await;
        assert!(matches!(answer.status, 400 | 404), "{path}");
    }
    let stranger = Hotkey([9; 32]);
    for (cycle, hotkey) in [(7, stranger), (8, hotkey), (u64::MAX, hotkey)] {
        let answer = server
            .get(&format!("/v1/receipts/{cycle}/{hotkey}"), "")
            .await;
        answer.assert_refused(404, "not_found");
    }
}

/// What a folder of receipts may hold beside them is nobody's to read.
#[tokio::test]
async fn a_folder_or_a_file_of_another_name_is_no_receipt() {
    let server = server().await;
    let hotkey = server.receiver;
    let folder = server.folder.path().join("receipts/7");
    std::fs::create_dir_all(folder.join(format!("{hotkey}.json"))).unwrap();
    std::fs::write(folder.join("notes"), b"secret").unwrap();
    let answer = server.get(&format!("/v1/receipts/7/{hotkey}"), "").await;
    answer.assert_refused(503, "busy");
    for name in ["notes", "notes.json", "..%2f7%2fnotes", "%2e%2e/7/notes"] {
        let answer = server.get(&format!("/v1/receipts/7/{name}"), "").await;
        assert!(matches!(answer.status, 400 | 404), "{name}");
        assert!(!answer.body.windows(6).any(|window| window == b"secret"));
    }
}
