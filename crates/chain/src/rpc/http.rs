//! Requests over HTTP: one POST each, to one configured URL.
//!
//! Polling over POST survives what long-lived sockets do not: idle cut-offs, silent reconnects,
//! lost subscriptions. Every request has a deadline and every answer a size limit, and every
//! error names the URL. Public endpoints are reached over TLS, verified against the roots that
//! browsers trust; their `wss` addresses take requests over `https` all the same.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url, header};
use rustls::{ClientConfig, RootCertStore};

use super::RpcTransport;
use crate::error::{Limit, TransportError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the longest wait the server may hold an answer back for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The metagraph of a full subnet is a few hundred kilobytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Whether a text is the address of an HTTP server.
///
/// # Errors
/// It is no URL, names no host, or another scheme than `http`.
pub fn check_address(address: &str) -> Result<(), TransportError> {
    match Url::parse(address) {
        Err(_) => Err(unusable(address, "not a URL")),
        Ok(url) if url.scheme() != "http" => Err(unusable(address, "not an http URL")),
        Ok(_) => Ok(()),
    }
}

/// The address that takes the same requests over HTTP.
fn over_http(address: &str) -> Option<Url> {
    let text = match address.split_once("://")? {
        ("ws" | "http", rest) => format!("http://{rest}"),
        ("wss" | "https", rest) => format!("https://{rest}"),
        _ => return None,
    };
    Url::parse(&text).ok()
}

/// What every HTTP client of this program begins as: no proxy from the environment, for the addresses
/// are the operator's choice; no redirects, for where requests go is not an answerer's; and TLS verified
/// against the roots that browsers trust, with a provider that needs nothing installed.
pub fn http_client() -> ClientBuilder {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    #[expect(
        clippy::expect_used,
        reason = "the provider has the versions it was built with"
    )]
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring provides TLS 1.2 and 1.3");
    let tls = versions.with_root_certificates(roots).with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(Policy::none())
}

/// A chain's address as messages show it: scheme, host and port. Whom it is lent to stands in the rest, as a
/// password or as a provider's key in its path or query.
fn shown(address: &str) -> String {
    if let Ok(url) = Url::parse(address)
        && let Some(host) = url.host_str()
    {
        let port = url.port().map(|port| format!(":{port}"));
        return format!("{}://{host}{}", url.scheme(), port.unwrap_or_default());
    }
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let host = rest.rsplit('@').next().unwrap_or_default();
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}{host}")
}

fn unusable(address: &str, problem: &str) -> TransportError {
    TransportError {
        retry: false,
        ..TransportError::new(shown(address), problem)
    }
}

/// A chain behind a URL.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    /// For messages.
    shown: String,
    address: Url,
    client: Client,
}

impl HttpTransport {
    /// A transport to this URL, of scheme `http`, `https`, `ws` or `wss`. Nothing is sent yet.
    ///
    /// # Errors
    /// The text is no such URL, or the HTTP client cannot be set up.
    pub fn new(url: &str) -> Result<Self, TransportError> {
        let address = over_http(url).ok_or_else(|| unusable(url, "not the URL of a chain"))?;
        let client = http_client()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| TransportError {
                source: Some(error.into()),
                ..unusable(url, "cannot set up an HTTP client")
            })?;
        Ok(Self {
            shown: shown(url),
            address,
            client,
        })
    }

    fn failed(&self, problem: impl Into<String>, source: Option<reqwest::Error>) -> TransportError {
        TransportError {
            // The message names the URL already.
            source: source.map(|error| error.without_url().into()),
            ..TransportError::new(self.shown.clone(), problem)
        }
    }
}

/// The whole seconds after which the server wants to be asked again, where it says so.
fn pause_of(response: &Response) -> Option<Duration> {
    let after = response.headers().get(header::RETRY_AFTER)?;
    let seconds = after.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

impl RpcTransport for HttpTransport {
    fn endpoint(&self) -> &str {
        &self.shown
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let request = self
            .client
            .post(self.address.clone())
            .header("content-type", "application/json");
        let mut response = request.body(body).send().await.map_err(|error| {
            let problem = match () {
                () if error.is_connect() => "cannot connect",
                () if error.is_timeout() => "no answer in time",
                () => "the request failed",
            };
            self.failed(problem, Some(error))
        })?;
        let status = response.status();
        if !status.is_success() {
            let words = format!("answered with status {status}");
            return Err(match status {
                StatusCode::TOO_MANY_REQUESTS => {
                    let pause = pause_of(&response);
                    TransportError::limited(self.shown.clone(), &words, Limit { pause })
                }
                _ => self.failed(words, None),
            });
        }
        let mut answer = Vec::new();
        loop {
            let chunk = response.chunk().await;
            match chunk.map_err(|error| self.failed("the answer broke off", Some(error)))? {
                None => return Ok(answer),
                Some(chunk) if answer.len() + chunk.len() > MAX_ANSWER_BYTES => {
                    return Err(self.failed("the answer is too large", None));
                }
                Some(chunk) => answer.extend_from_slice(&chunk),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_chain_is_asked_over_http_whatever_its_scheme() {
        let over = |address: &str| over_http(address).map(String::from);
        let finney = Some("https://entrypoint-finney.opentensor.ai/".to_owned());
        assert_eq!(over("wss://entrypoint-finney.opentensor.ai:443"), finney);
        assert_eq!(over("https://entrypoint-finney.opentensor.ai"), finney);
        let local = Some("http://127.0.0.1:9944/".to_owned());
        assert_eq!(over("ws://127.0.0.1:9944"), local);
        for strange in ["127.0.0.1:9944", "ftp://a", "http://", "wss//a"] {
            assert_eq!(over(strange), None, "{strange}");
            assert!(HttpTransport::new(strange).is_err());
        }
        assert!(HttpTransport::new("wss://example.org").is_ok());
    }
}
