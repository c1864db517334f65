//! Every case in which a request is or is not believed, with the vectors of the dialect.

use proptest::prelude::*;

use super::*;
use crate::keys::Keypair;

const ALICE_SEED: &str = "e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
const NONCE: u64 = 1_752_076_800_000_000_000;
const BODY: &[u8] = br#"{"prompt": "hello"}"#;
const SECOND: u64 = 1_000_000_000;

fn alice() -> Keypair {
    Keypair::from_seed(&hex::decode(ALICE_SEED).unwrap().try_into().unwrap())
}

fn bob() -> Hotkey {
    BOB.parse().unwrap()
}

fn store() -> ReplayStore {
    ReplayStore::new(8, 8, 0)
}

/// A request from Alice to Bob, and everything about it that a test may want to change.
struct Sent {
    headers: Headers,
    method: &'static str,
    target: &'static str,
    body_sha256: String,
}

impl Sent {
    fn new() -> Self {
        let body_sha256 = body_hash(BODY);
        let (method, target) = ("POST", "/generate?stream=false");
        let request = Request {
            method,
            target,
            body_sha256: &body_sha256,
        };
        let headers = sign(&alice(), &request, Some(bob()), NONCE).unwrap();
        Self {
            headers,
            method,
            target,
            body_sha256,
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            target: self.target,
            body_sha256: &self.body_sha256,
        }
    }

    fn judged_at(&self, now: u64) -> Result<Hotkey, AuthError> {
        Verifier::new(bob()).verify(&self.headers, &self.request(), now, &mut store())
    }

    /// The headers as they travel, with one replaced (or removed by an empty value).
    fn with_header(&self, name: &str, value: &str) -> Result<Headers, AuthError> {
        let mut pairs = self.headers.to_pairs();
        pairs.retain(|(known, _)| *known != name);
        let mut pairs: Vec<_> = pairs.iter().map(|(n, v)| (*n, v.as_str())).collect();
        if !value.is_empty() {
            pairs.push((name, value));
        }
        Headers::parse(pairs)
    }
}

#[test]
fn the_signed_text_is_the_dialects() {
    let sent = Sent::new();
    let expected = "btauth/1\nsr25519\nPOST\n/generate?stream=false\n\
        341c57448e531310fbbe83f44cea2a5e838bd9e8a6b82b269f01d0dbbc23c3cc\n1752076800000000000\n\
        5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY\n\
        5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
    assert_eq!(
        signed_text(&sent.headers, &sent.request()).unwrap(),
        expected
    );

    let unbound = Headers {
        receiver: None,
        ..sent.headers
    };
    assert!(
        signed_text(&unbound, &sent.request())
            .unwrap()
            .ends_with("\n-")
    );
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(body_hash(b""), empty);
}

#[test]
fn a_request_is_believed_once_and_its_sender_known() {
    let sent = Sent::new();
    let verifier = Verifier::new(bob());
    let mut seen = store();
    let judge = |seen: &mut _| verifier.verify(&sent.headers, &sent.request(), NONCE, seen);
    assert_eq!(judge(&mut seen), Ok(alice().hotkey()));
    assert_eq!(judge(&mut seen), Err(AuthError::Replayed));
}

#[test]
fn headers_survive_the_journey_in_any_case_and_among_others() {
    let sent = Sent::new();
    let pairs = sent.headers.to_pairs();
    let lower: Vec<_> = pairs
        .iter()
        .map(|(n, v)| (n.to_lowercase(), v.as_str()))
        .collect();
    let all = lower.iter().map(|(name, value)| (name.as_str(), *value));
    let all = all.chain([
        ("content-type", "application/json"),
        ("x-bittensor-crypto", "SR25519"),
    ]);
    assert_eq!(Headers::parse(all), Ok(sent.headers));
    for scheme in ["sr25519", "Sr25519", " sr25519", "1"] {
        assert_eq!(
            sent.with_header("X-Bittensor-Crypto", scheme),
            Ok(sent.headers)
        );
    }
}

/// Ten seconds old and two seconds ahead are the last accepted moments.
#[test]
fn a_nonce_is_accepted_from_ten_seconds_ago_to_two_ahead() {
    let sent = Sent::new();
    assert!(sent.judged_at(NONCE + 10 * SECOND).is_ok());
    assert_eq!(sent.judged_at(NONCE + 11 * SECOND), Err(AuthError::Stale));
    assert!(sent.judged_at(NONCE - 2 * SECOND).is_ok());
    assert_eq!(sent.judged_at(NONCE - 3 * SECOND), Err(AuthError::Stale));
}

#[test]
fn nothing_that_is_signed_can_be_changed_on_the_way() {
    let tampered = |change: fn(&mut Sent)| {
        let mut sent = Sent::new();
        change(&mut sent);
        sent.judged_at(NONCE)
    };
    let bad = Err(AuthError::BadSignature);
    assert_eq!(tampered(|sent| sent.headers.nonce += 1), bad);
    assert_eq!(tampered(|sent| sent.body_sha256 = body_hash(b"other")), bad);
    assert_eq!(tampered(|sent| sent.method = "PUT"), bad);
    assert_eq!(tampered(|sent| sent.method = "DELETE"), bad);
    assert_eq!(tampered(|sent| sent.target = "/admin"), bad);
    assert_eq!(tampered(|sent| sent.target = "/generate?stream=true"), bad);
    assert_eq!(tampered(|sent| sent.headers.sender = bob()), bad);
    assert_eq!(tampered(|sent| sent.headers.signature[5] ^= 1), bad);
}

/// The ed25519 vector of the dialect: believed as what it says it is, and never taken for sr25519
/// when its scheme header is stripped, nor the other way round.
#[test]
fn a_signature_is_judged_under_the_scheme_that_is_named_and_no_other() {
    let mut sent = Sent::new();
    let other_scheme = sent.with_header("X-Bittensor-Crypto", "ed25519").unwrap();
    let judge = |headers: &Headers, sent: &Sent| {
        Verifier::new(bob()).verify(headers, &sent.request(), NONCE, &mut store())
    };
    assert_eq!(judge(&other_scheme, &sent), Err(AuthError::BadSignature));

    sent.headers.sender = "5FA9nQDVg267DEd8m1ZypXLBnvN7SFxYwV7ndqSYGiN9TTpu"
        .parse()
        .unwrap();
    let signature = "0x1a6b631988bf1f7ea093ab9d5acf61f05c316d0b0e428b24b487b75a5f6ee0e1\
                     a56a26918fdf871b6cf09437e6588023a4ce423cf622621b2a7feee17612f704";
    let stripped = sent
        .with_header("X-Bittensor-Signature", signature)
        .unwrap();
    sent.headers = stripped;
    assert_eq!(sent.judged_at(NONCE), Err(AuthError::BadSignature));
    for scheme in ["ed25519", "ED25519", "0"] {
        let declared = sent.with_header("X-Bittensor-Crypto", scheme).unwrap();
        assert_eq!(judge(&declared, &sent), Ok(sent.headers.sender));
        let text = signed_text(&declared, &sent.request()).unwrap();
        assert!(text.starts_with("btauth/1\ned25519\nPOST\n"), "{text}");
        let pairs = declared.to_pairs();
        assert!(pairs.contains(&("X-Bittensor-Crypto", "ed25519".to_owned())));
    }
}

#[test]
fn a_request_for_somebody_else_or_nobody_is_refused() {
    let mut sent = Sent::new();
    sent.headers.receiver = Some(alice().hotkey());
    assert_eq!(sent.judged_at(NONCE), Err(AuthError::WrongReceiver));

    // Stripping the receiver does not make a bound request unbound: the signed line differs.
    sent.headers = Sent::new().with_header("X-Bittensor-Receiver", "").unwrap();
    assert_eq!(sent.judged_at(NONCE), Err(AuthError::WrongReceiver));
    let open = Verifier::new(bob()).accepting_unbound();
    let stripped = open.verify(&sent.headers, &sent.request(), NONCE, &mut store());
    assert_eq!(stripped, Err(AuthError::BadSignature));

    let unbound = sign(&alice(), &sent.request(), None, NONCE).unwrap();
    assert_eq!(
        open.verify(&unbound, &sent.request(), NONCE, &mut store()),
        Ok(alice().hotkey())
    );
}

#[test]
fn each_header_that_is_missing_or_unparsable_is_malformed() {
    let sent = Sent::new();
    let cases = [
        ("X-Bittensor-Version", ["", "2", "01"]),
        ("X-Bittensor-Hotkey", ["", "alice", "0xd43593c7"]),
        (
            "X-Bittensor-Nonce",
            ["", "not-a-number", "+1752076800000000000"],
        ),
        ("X-Bittensor-Nonce", ["01", "-1", "99999999999999999999999"]),
        ("X-Bittensor-Crypto", ["ecdsa", "sr25519,ed25519", "2"]),
        ("X-Bittensor-Signature", ["", "0xnothex", "1a6b"]),
    ];
    for (name, values) in cases {
        for value in values {
            let parsed = sent.with_header(name, value);
            assert!(
                matches!(parsed, Err(AuthError::Malformed(_))),
                "{name}: {value:?}"
            );
        }
    }
    let receiver = sent.with_header("X-Bittensor-Receiver", "-");
    assert!(matches!(receiver, Err(AuthError::Malformed(_))));
    let pairs = sent.headers.to_pairs();
    let twice = pairs
        .iter()
        .chain(&pairs[..1])
        .map(|(name, value)| (*name, value.as_str()));
    assert_eq!(
        Headers::parse(twice),
        Err(AuthError::Malformed("a header is given twice"))
    );
}

/// What should not happen: one signed text for two different requests.
#[test]
fn a_line_cannot_speak_for_the_next_one() {
    let body_sha256 = &body_hash(b"");
    for (method, target) in [("POST\n/a", "/b"), ("post", "/a"), ("", "/a")] {
        let request = Request {
            method,
            target,
            body_sha256,
        };
        assert!(matches!(
            sign(&alice(), &request, None, 1),
            Err(AuthError::Malformed(_))
        ));
    }
    for target in ["/a\n00", "a", "", "/a b", "/\u{e9}"] {
        let request = Request {
            method: "GET",
            target,
            body_sha256,
        };
        assert!(matches!(
            sign(&alice(), &request, None, 1),
            Err(AuthError::Malformed(_))
        ));
    }
    let upper = body_sha256.to_uppercase();
    let request = Request {
        method: "GET",
        target: "/a",
        body_sha256: &upper,
    };
    assert!(matches!(
        sign(&alice(), &request, None, 1),
        Err(AuthError::Malformed(_))
    ));
}

/// An attacker who knows only addresses must not be able to burn a sender's nonces.
#[test]
fn a_forged_request_leaves_no_trace_in_the_replay_store() {
    let sent = Sent::new();
    let mut forged = sent.headers;
    forged.signature[0] ^= 1;
    let mut seen = store();
    let verifier = Verifier::new(bob());
    let judge = |headers, seen: &mut _| verifier.verify(headers, &sent.request(), NONCE, seen);
    assert_eq!(judge(&forged, &mut seen), Err(AuthError::BadSignature));
    assert_eq!(judge(&sent.headers, &mut seen), Ok(alice().hotkey()));
}

#[test]
fn a_sender_that_floods_is_stopped_without_harming_another() {
    let (flooder, other) = (Hotkey([1; 32]), Hotkey([2; 32]));
    let mut seen = ReplayStore::new(2, 3, 0);
    for nonce in 0..3 {
        assert_eq!(seen.remember(flooder, NONCE + nonce, NONCE), Ok(()));
    }
    assert_eq!(
        seen.remember(flooder, NONCE + 3, NONCE),
        Err(AuthError::Overloaded)
    );
    assert_eq!(seen.remember(other, NONCE, NONCE), Ok(()));
    assert_eq!(
        seen.remember(Hotkey([3; 32]), NONCE, NONCE),
        Err(AuthError::Overloaded)
    );

    // Once the window has passed, the places are free again.
    let later = NONCE + 11 * SECOND;
    assert_eq!(seen.remember(flooder, later, later), Ok(()));
    assert_eq!(seen.remember(Hotkey([3; 32]), later, later), Ok(()));
}

/// A clock set back, or a receiver restarted, must not open the door to what was accepted before.
#[test]
fn what_was_forgotten_stays_refused() {
    let sender = Hotkey([1; 32]);
    let mut seen = ReplayStore::new(2, 2, 0);
    assert_eq!(seen.remember(sender, NONCE, NONCE), Ok(()));
    let later = NONCE + 11 * SECOND;
    assert_eq!(seen.remember(sender, later, later), Ok(()));
    assert_eq!(seen.remember(sender, NONCE, NONCE), Err(AuthError::Stale));

    let mut restarted = ReplayStore::new(2, 2, later + 1);
    assert_eq!(
        restarted.remember(sender, later, later + 1),
        Err(AuthError::Stale)
    );
}

proptest! {
    #[test]
    fn headers_of_any_text_never_panic(
        pairs in proptest::collection::vec(
            ("(?i)(x-bittensor-(version|hotkey|receiver|nonce|crypto|signature)|.*)", ".*"), 0..8
        )
    ) {
        let _ = Headers::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }

    #[test]
    fn headers_parse_back_as_they_were_written(
        sender in any::<[u8; 32]>(),
        receiver in any::<Option<[u8; 32]>>(),
        nonce in any::<u64>(),
        ed25519 in any::<bool>(),
        signature in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let headers = Headers {
            sender: Hotkey(sender),
            receiver: receiver.map(Hotkey),
            nonce,
            scheme: if ed25519 { Scheme::Ed25519 } else { Scheme::Sr25519 },
            signature: signature.try_into().unwrap(),
        };
        let pairs = headers.to_pairs();
        let parsed = Headers::parse(pairs.iter().map(|(name, value)| (*name, value.as_str())));
        prop_assert_eq!(parsed, Ok(headers));
    }
}
