//! What every request must pass before a route sees it: connection caps, head bounds, request rate.
//!
//! The bounds on heads are judged twice. The HTTP parser holds at most twice the allowance and drops
//! whatever exceeds that; between one and two allowances there is a whole request, which gets a
//! proper answer. Knows nothing of routes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::request::Parts;
use tokio::time::Instant;

use super::Limits;
use super::rate::TokenBuckets;
use crate::refusal::{Refusal, RefusalCode};

/// Shared by all connections of one listener.
#[derive(Debug)]
pub(super) struct Guard {
    limits: Limits,
    open: Mutex<OpenConnections>,
    requests: TokenBuckets<IpAddr>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    total: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    guard: Arc<Guard>,
    address: IpAddr,
}

impl Guard {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: Mutex::default(),
            requests: TokenBuckets::new(),
        }
    }

    /// A place for a connection of `peer`, unless all of its places or all places are taken.
    pub(super) fn connect(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let address = counted_as(peer.ip());
        let allowed = if address.is_loopback() {
            self.limits.connections_loopback
        } else {
            self.limits.connections_per_address
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.limits.connections {
            return None;
        }
        let of_address = open.by_address.entry(address).or_default();
        if *of_address >= allowed {
            return None;
        }
        *of_address += 1;
        open.total += 1;
        Some(Place {
            guard: Arc::clone(self),
            address,
        })
    }

    /// Whether the head is within its bounds and its address within its rate.
    pub(super) fn check(&self, head: &Parts, peer: SocketAddr) -> Result<(), Refusal> {
        let limits = &self.limits;
        if head.headers.len() > limits.headers || head_bytes(head) > limits.head_bytes {
            let message = format!(
                "a request head has at most {} headers and {} bytes",
                limits.headers, limits.head_bytes
            );
            return Err(Refusal::new(RefusalCode::HeaderTooLarge, message));
        }
        let address = counted_as(peer.ip());
        let rate = if address.is_loopback() {
            limits.requests_loopback
        } else {
            limits.requests
        };
        self.requests
            .take(address, rate, Instant::now())
            .map_err(|wait| {
                Refusal::new(
                    RefusalCode::RateLimited,
                    "too many requests from this address",
                )
                .retry_after(wait.as_secs().saturating_add(1))
            })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .guard
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(of_address) = open.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// One participant's addresses count as one: an IPv6 network of 64 bits belongs to one of them.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
    }
}

/// The head's length as it came, up to the few bytes of separators.
fn head_bytes(head: &Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |t| t.as_str().len());
    let authority = head.uri.authority().map_or(0, |a| a.as_str().len());
    let headers = head.headers.iter();
    headers
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum::<usize>()
        + head.method.as_str().len()
        + authority
        + target
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(limits: Limits) -> Arc<Guard> {
        Arc::new(Guard::new(limits))
    }

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 4000)
    }

    #[test]
    fn places_are_counted_in_total_and_for_each_address_and_are_given_back() {
        let guard = guard(Limits {
            connections: 3,
            connections_per_address: 2,
            ..Limits::default()
        });
        let first = guard.connect(peer("192.0.2.1")).unwrap();
        let _second = guard.connect(peer("192.0.2.1")).unwrap();
        assert!(guard.connect(peer("192.0.2.1")).is_none(), "address full");
        let _third = guard.connect(peer("192.0.2.2")).unwrap();
        assert!(guard.connect(peer("192.0.2.3")).is_none(), "all full");
        drop(first);
        assert!(guard.connect(peer("192.0.2.1")).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        assert_eq!(
            counted_as("2001:db8::1".parse().unwrap()),
            counted_as("2001:db8::ffff:2".parse().unwrap())
        );
        assert_ne!(
            counted_as("2001:db8::1".parse().unwrap()),
            counted_as("2001:db8:0:1::1".parse().unwrap())
        );
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        assert!(counted_as(mapped).is_loopback());
    }

    #[test]
    fn an_address_above_its_rate_is_told_when_to_come_back() {
        let guard = guard(Limits {
            requests: super::super::Rate {
                per_second: 0.1,
                burst: 1.0,
            },
            ..Limits::default()
        });
        let (head, ()) = axum::http::Request::new(()).into_parts();
        guard.check(&head, peer("192.0.2.1")).unwrap();
        let refusal = guard.check(&head, peer("192.0.2.1")).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::RateLimited);
        assert!(refusal.retry_after.unwrap() >= 9);
        guard.check(&head, peer("192.0.2.2")).unwrap();
    }
}
