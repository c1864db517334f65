//! What no route may fall for: one test for each route and abuse.
//!
//! Every route is asked the same things wrong that can be asked wrong of any: too often, by another
//! method, under another spelling, with too much of a head or a body, with two requests in the place of one.

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::loopback::{Answer, CYCLE, Loopback, MEBIBYTE, bytes, impatient, read_answer};
use bytes::Bytes;
use connito_node::server::{Limits, Rate, StateManifest};
use connito_node::upload::UploadWindow;
use connito_protocol::ids::Block;

/// An honest request to one route, in parts that a test may spoil.
struct Request {
    method: &'static str,
    target: String,
    headers: String,
    body: Vec<u8>,
}

impl Request {
    fn get(target: String) -> Self {
        Self {
            method: "GET",
            target,
            headers: String::new(),
            body: Vec::new(),
        }
    }

    fn bytes_as(&self, version: &str, connection: &str) -> Vec<u8> {
        let Self {
            method,
            target,
            headers,
            ..
        } = self;
        let head = format!(
            "{method} {target} {version}\r\nhost: localhost\r\nconnection: {connection}\r\n{headers}\r\n"
        );
        [head.into_bytes(), self.body.clone()].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes_as("HTTP/1.1", "close")
    }
}

/// A route: what it is asked, and how it answers an honest question.
struct Route {
    ask: fn(&Loopback) -> Request,
    status: u16,
}

impl Route {
    fn health() -> Self {
        Self {
            ask: |_| Request::get("/v1/health".to_owned()),
            status: 200,
        }
    }

    fn state() -> Self {
        Self {
            ask: |_| Request::get("/v1/state".to_owned()),
            status: 200,
        }
    }

    fn blob() -> Self {
        Self {
            ask: |server| Request::get(format!("/v1/blobs/{}", stored(server))),
            status: 200,
        }
    }

    fn outline() -> Self {
        Self {
            ask: |server| Request::get(format!("/v1/blobs/{}/outline", stored(server))),
            status: 200,
        }
    }

    fn receipt() -> Self {
        Self {
            ask: |server| Request::get(format!("/v1/receipts/{CYCLE}/{}", server.receiver)),
            status: 200,
        }
    }

    /// The window is shut, so that the answer is the last one that needs no body.
    fn upload() -> Self {
        Self {
            ask: |server| {
                let upload = server.upload_of(b"update");
                let head = String::from_utf8(upload.head()).unwrap();
                let headers = head.split_once("close\r\n").unwrap().1;
                Request {
                    method: "PUT",
                    target: upload.target,
                    headers: headers.trim_end_matches("\r\n").to_owned() + "\r\n",
                    body: upload.body,
                }
            },
            status: 425,
        }
    }

    fn chain() -> Self {
        Self {
            ask: |_| {
                let body = br#"{"jsonrpc":"2.0","id":1,"method":"system_name"}"#;
                Request {
                    method: "POST",
                    target: "/".to_owned(),
                    headers: format!("content-length: {}\r\n", body.len()),
                    body: body.to_vec(),
                }
            },
            status: 200,
        }
    }

    /// A server that has something to say on every route.
    async fn server(limits: Limits) -> Loopback {
        let server = Loopback::start(limits).await;
        let manifest = StateManifest::new(Bytes::from_static(b"{}"));
        server.state.send(Some(manifest)).unwrap();
        let early = UploadWindow::Early {
            opens_at: Block(353),
        };
        server.admission.send_modify(|it| it.window = early);
        let receiver = server.receiver;
        server.receipts.put(CYCLE, &receiver, &"told").unwrap();
        server
    }
}

fn stored(server: &Loopback) -> String {
    server.blobs.put(&bytes(MEBIBYTE + 1)).unwrap().to_string()
}

async fn ask_from(source: &str, server: &Loopback, request: &[u8]) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let address = server.address.parse().unwrap();
    let mut stream: TcpStream = socket.connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    read_answer(stream).await
}

/// A-150. What should not happen: one address's flood being charged to another.
async fn a_flood(route: Route) {
    let server = Route::server(Limits {
        requests_loopback: Rate {
            per_second: 0.001,
            burst: 2.0,
        },
        ..Limits::default()
    })
    .await;
    for _ in 0..2 {
        let answer = server.ask(&(route.ask)(&server).bytes()).await;
        assert_eq!(answer.status, route.status, "{answer:?}");
    }
    for _ in 0..3 {
        let answer = server.ask(&(route.ask)(&server).bytes()).await;
        answer.assert_refused(429, "rate_limited");
        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    }
    let other = ask_from("127.0.0.2", &server, &(route.ask)(&server).bytes()).await;
    assert_eq!(other.status, route.status);
}

/// A-152.
async fn a_large_head(route: Route) {
    let server = Route::server(Limits::default()).await;
    let many: String = (0..65).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(17 << 10));
    let huge = format!("x-huge: {}\r\n", "y".repeat(200 << 10));
    for (headers, answered_in_full) in [(many, true), (long, true), (huge, false)] {
        let mut request = (route.ask)(&server);
        request.headers += &headers;
        let answer = server.ask(&request.bytes()).await;
        assert_eq!(answer.status, 431);
        if answered_in_full {
            answer.assert_refused(431, "header_too_large");
        }
    }
    let mut request = (route.ask)(&server);
    request.target = format!("{}?{}", request.target, "y".repeat(17 << 10));
    let answer = server.ask(&request.bytes()).await;
    answer.assert_refused(431, "header_too_large");
}

/// What should happen: `HEAD` is `GET` without a body; whatever else is not the route's is refused, and
/// little of it is repeated.
async fn another_method(route: Route) {
    let server = Route::server(Limits::default()).await;
    let own = (route.ask)(&server).method;
    let long = "X".repeat(4000);
    let others = [
        "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "FETCH", &long,
    ];
    for method in others.into_iter().filter(|method| *method != own) {
        let target = (route.ask)(&server).target;
        let request = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.ask(request.as_bytes()).await;
        answer.assert_refused(404, "not_found");
        assert!(answer.json()["message"].as_str().unwrap().len() < 450);
    }
    let target = (route.ask)(&server).target;
    let head = format!("HEAD {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = server.ask(head.as_bytes()).await;
    let expected = if own == "GET" { route.status } else { 404 };
    assert_eq!((answer.status, answer.body.len()), (expected, 0));
    let connect = "CONNECT evil.example:80 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = server.ask(connect.as_bytes()).await;
    assert!(answer.status >= 400, "{answer:?}");
}

/// A-159. A path has one spelling: others lead nowhere, inside the store or out of it.
async fn another_spelling(route: Route) {
    let server = Route::server(Limits::default()).await;
    let target = (route.ask)(&server).target;
    let first = target[1..].chars().next();
    let encoded = first.map(|first| format!("/%{:02x}{}", first as u32, &target[2..]));
    let spellings = [
        format!("/{target}"),
        format!("{target}/"),
        format!("{target}%00"),
        format!("{target}%2f"),
        format!("{target}%ff"),
        format!("{target};x"),
        format!("{target}\u{fc}"),
        format!("/.{target}"),
        format!("/x/..{target}"),
        format!("/%2e{target}"),
        format!("/%2e%2e{target}"),
        format!("{target}/..{target}"),
        target.to_uppercase(),
        encoded.unwrap_or_else(|| "/%2f".to_owned()),
    ];
    for spelling in spellings.iter().filter(|spelling| **spelling != target) {
        let mut request = (route.ask)(&server);
        request.target.clone_from(spelling);
        let answer = server.ask(&request.bytes()).await;
        assert!(
            matches!(answer.status, 400 | 401 | 404),
            "{spelling}: {answer:?}"
        );
        let repeated = answer.json()["message"].as_str().unwrap_or_default().len();
        assert!(repeated < 250, "{spelling}");
    }
}

/// What should not happen: anybody downstream reading another request than the server did. A head with
/// two lengths, or with a length and chunks, or with a line that another parser would fold, ends the
/// connection; nothing of what follows it is answered.
async fn two_requests_in_the_place_of_one(route: Route) {
    let server = Route::server(impatient()).await;
    let hidden = "GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n";
    let length = hidden.len();
    for ambiguous in [
        "content-length: 0\r\ncontent-length: 7\r\n".to_owned(),
        format!("content-length: {length}, 0\r\n"),
        format!("content-length: +{length}\r\n"),
        format!("content-length: 0x{length:x}\r\n"),
        format!("content-length: -{length}\r\n"),
        format!("content-length: {length}{length:030}\r\n"),
        format!("content-length : {length}\r\n"),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "x-folded: a\r\n b: c\r\n".to_owned(),
        "no-colon\r\n".to_owned(),
        "x-control: \u{1}\r\n".to_owned(),
        "x\u{e9}: y\r\n".to_owned(),
    ] {
        let Request { method, target, .. } = (route.ask)(&server);
        let request =
            format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{ambiguous}\r\n{hidden}");
        let answers = server.converse(request.as_bytes()).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let at_most_refused = match statuses[..] {
            [] => true,
            [status] => status >= 400,
            _ => false,
        };
        assert!(at_most_refused, "{ambiguous:?}: {statuses:?}");
    }
    // With both, chunks win, and the length is no length.
    let Request { method, target, .. } = (route.ask)(&server);
    let both = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
    );
    let answers = server.converse(both.as_bytes()).await;
    assert!(answers.len() <= 2, "{answers:?}");
}

/// What should not happen: waiting for, or making room for, a body that was promised. A route that takes
/// none answers as ever; one that takes some refuses by the length alone.
async fn a_body_without_bound(route: Route) {
    let server = Route::server(Limits::default()).await;
    let mut request = (route.ask)(&server);
    let takes_a_body = request.headers.contains("content-length");
    let others = request.headers.split_inclusive("\r\n");
    request.headers = others
        .filter(|header| !header.starts_with("content-length"))
        .collect();
    request.headers += &format!("content-length: {}\r\n", u64::MAX / 4);
    request.body = b"{".to_vec();
    let answer = server.ask(&request.bytes()).await;
    if takes_a_body {
        answer.assert_refused(413, "too_large");
    } else {
        assert_eq!(answer.status, route.status, "{answer:?}");
    }
}

/// Requests that follow each other without waiting get an answer each, in order, and no more.
async fn pipelining(route: Route) {
    let server = Route::server(Limits::default()).await;
    let mut requests: Vec<u8> = (0..7)
        .flat_map(|_| (route.ask)(&server).bytes_as("HTTP/1.1", "keep-alive"))
        .collect();
    requests.extend((route.ask)(&server).bytes());
    let answers = server.converse(&requests).await;
    assert!(
        answers.iter().all(|answer| answer.status == route.status),
        "{answers:?}"
    );
    // A refused upload ends its connection: what follows would have to be found behind its body.
    let expected = if route.status < 400 {
        8
    } else {
        answers.len().clamp(1, 8)
    };
    assert_eq!(answers.len(), expected);
}

/// Old versions and the form that proxies are asked in mean the same request.
async fn other_forms_of_a_request(route: Route) {
    let server = Route::server(Limits::default()).await;
    let old = server
        .ask(&(route.ask)(&server).bytes_as("HTTP/1.0", "close"))
        .await;
    assert_eq!(old.status, route.status, "{old:?}");
    let mut absolute = (route.ask)(&server);
    absolute.target = format!("http://localhost{}", absolute.target);
    let answer = server.ask(&absolute.bytes()).await;
    assert_eq!(answer.status, route.status, "{answer:?}");
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/9.9", "http/1.1", ""] {
        let request = (route.ask)(&server).bytes_as(version, "close");
        let answers = server.converse(&request).await;
        assert!(
            answers.iter().all(|answer| answer.status >= 400),
            "{version}: {answers:?}"
        );
    }
}

macro_rules! every_abuse {
    ($($route:ident)*) => {$(
        mod $route {
            use super::Route;

            #[tokio::test]
            async fn a_flood_is_turned_away_and_others_are_not() {
                super::a_flood(Route::$route()).await;
            }

            #[tokio::test]
            async fn a_head_above_its_bounds_is_refused() {
                super::a_large_head(Route::$route()).await;
            }

            #[tokio::test]
            async fn another_method_finds_nothing() {
                super::another_method(Route::$route()).await;
            }

            #[tokio::test]
            async fn another_spelling_of_the_path_finds_nothing() {
                super::another_spelling(Route::$route()).await;
            }

            #[tokio::test]
            async fn a_request_hidden_in_another_is_not_answered() {
                super::two_requests_in_the_place_of_one(Route::$route()).await;
            }

            #[tokio::test]
            async fn a_body_without_bound_is_not_waited_for() {
                super::a_body_without_bound(Route::$route()).await;
            }

            #[tokio::test]
            async fn pipelined_requests_are_answered_one_by_one() {
                super::pipelining(Route::$route()).await;
            }

            #[tokio::test]
            async fn other_forms_of_a_request_mean_the_same_or_nothing() {
                super::other_forms_of_a_request(Route::$route()).await;
            }
        }
    )*};
}

every_abuse!(health state blob outline upload receipt chain);
