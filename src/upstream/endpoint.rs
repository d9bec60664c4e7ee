//! One endpoint of an upstream, and the last answer of the resolver for it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::address::{Address, Addresses, Limits};
use crate::policy::{EndpointPolicy, Scheme};
use crate::runtime::clock::Instant;

/// Time that an address missing from the newest result is used if it has a connection.
const MISSING: Duration = Duration::from_secs(30);
/// Maximum addresses taken from one result.
pub(super) const MAX_ADDRESSES: usize = 64;

/// One `url` or replica, and its present addresses.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub policy: EndpointPolicy,
    pub resolved: arc_swap::ArcSwap<Resolved>,
    pub refreshing: AtomicBool,
    /// Whether a background refresh of the name is in progress.
    pub behind: AtomicBool,
    pub addresses: Arc<Addresses>,
    pub upstream: String,
    pub limits: Limits,
    pub generation: u64,
    /// Whether one of its addresses has ever sent a response, under this name and URL.
    pub responded: Arc<AtomicBool>,
}

impl Endpoint {
    /// Returns whether requests to `address` use HTTP/2, as far as is known: by its scheme, or by its last negotiation.
    pub(super) fn speaks_http2(&self, address: &Address) -> bool {
        matches!(self.policy.scheme, Scheme::H2c) || address.http2.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// The addresses; empty while nothing was ever resolved.
    pub addresses: Vec<Arc<Address>>,
    /// Addresses of earlier results that are missing from this one, with the time since which they are; at most
    /// [`MAX_ADDRESSES`].
    pub missing: Vec<(Arc<Address>, Instant)>,
    /// Time of the result; `None` for no result, or one that never changes.
    pub at: Option<Instant>,
    /// Whether the address is written in the URL.
    pub literal: bool,
}

impl Resolved {
    /// Returns the successor of this result when `addresses` is the result at `now`.
    pub(super) fn next(&self, addresses: Vec<Arc<Address>>, now: Instant) -> Resolved {
        let is_new = |address: &Arc<Address>| addresses.iter().any(|known| known.id == address.id);
        let longer = self.missing.iter().filter(|(_, since)| is_missed(*since, now)).cloned();
        let from_now = self.addresses.iter().map(|address| (address.clone(), now));
        let missing = longer.chain(from_now).filter(|(address, _)| !is_new(address));
        let missing = missing.take(MAX_ADDRESSES).collect();
        Resolved { missing, addresses, at: Some(now), literal: false }
    }

    /// Returns the missing addresses that are still used at `now`, if they have a connection.
    pub(super) fn missing(&self, now: Instant) -> impl Iterator<Item = &Arc<Address>> {
        let used = self.missing.iter().filter(move |(_, since)| is_missed(*since, now));
        used.map(|(address, _)| address)
    }

    /// Returns the only address, if there is exactly one.
    pub(super) fn only(&self) -> Option<&Arc<Address>> {
        match &self.addresses[..] {
            [only] if self.missing.is_empty() => Some(only),
            _ => None,
        }
    }

    /// Returns whether new connections go to an address.
    pub(super) fn has(&self, id: u64) -> bool {
        self.addresses.iter().any(|address| address.id == id)
    }

    /// Returns whether the result is old enough at `now` for a new query.
    pub(super) fn is_due(&self, kept: Duration, now: Instant) -> bool {
        !self.literal && self.at.is_none_or(|at| now.saturating_duration_since(at) >= kept)
    }
}

/// Returns whether an address missing since then is still used at `now`.
fn is_missed(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < MISSING
}
