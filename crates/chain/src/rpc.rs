//! How a chain is reached: one request body, one answer body, whatever carries them.

mod http;

use std::future::Future;

use crate::error::TransportError;

pub use http::{HttpTransport, check_address, http_client};

/// Carries one request body to a chain and its answer back.
///
/// An error means that no answer was received, which does not mean that the request had no effect.
/// Dropping the future may or may not have sent the request.
pub trait RpcTransport: Send + Sync {
    /// Where requests go, for error messages.
    fn endpoint(&self) -> &str;

    /// One request body, one answer body.
    fn call(&self, body: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, TransportError>> + Send;

    /// The answers of the endpoint in use are of no use any more: another one, if there is one, is
    /// asked from now on. Returns how many endpoints there are.
    fn give_up(&self, problem: &str) -> usize {
        let _ = problem;
        1
    }
}
