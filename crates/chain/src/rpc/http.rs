//! Requests over HTTP: one POST each, to one configured URL.
//!
//! Polling over POST survives what long-lived sockets do not: idle cut-offs, silent reconnects,
//! lost subscriptions. Every request has a deadline and every answer a size limit, and every
//! error names the URL.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use super::RpcTransport;
use crate::error::TransportError;

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

fn unusable(address: &str, problem: &str) -> TransportError {
    TransportError {
        endpoint: address.to_owned(),
        problem: problem.to_owned(),
        retry: false,
        source: None,
    }
}

/// A chain behind a URL.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    url: String,
    client: Client,
}

impl HttpTransport {
    /// A transport to this URL. Nothing is sent yet.
    ///
    /// # Errors
    /// The text is not an `http` URL, or the HTTP client cannot be set up.
    pub fn new(url: &str) -> Result<Self, TransportError> {
        check_address(url)?;
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // The URL is the operator's choice; a proxy from the environment would be a surprise.
            .no_proxy()
            // Nor is it an answerer's choice where the operator's requests go.
            .redirect(Policy::none())
            .build()
            .map_err(|error| TransportError {
                source: Some(error.into()),
                ..unusable(url, "cannot set up an HTTP client")
            })?;
        Ok(Self {
            url: url.to_owned(),
            client,
        })
    }

    fn failed(&self, problem: impl Into<String>, source: Option<reqwest::Error>) -> TransportError {
        TransportError {
            endpoint: self.url.clone(),
            problem: problem.into(),
            retry: true,
            // The message names the URL already.
            source: source.map(|error| error.without_url().into()),
        }
    }
}

impl RpcTransport for HttpTransport {
    fn endpoint(&self) -> &str {
        &self.url
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json");
        let mut response = request.body(body).send().await.map_err(|error| {
            let problem = match () {
                () if error.is_connect() => "cannot connect",
                () if error.is_timeout() => "no answer in time",
                () => "the request failed",
            };
            self.failed(problem, Some(error))
        })?;
        if !response.status().is_success() {
            return Err(self.failed(format!("answered with status {}", response.status()), None));
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
