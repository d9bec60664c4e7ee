//! One endpoint of an upstream, and the last answer of the resolver for it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::address::{Address, Addresses, Limits};
use crate::policy::{EndpointPolicy, Scheme};
use crate::runtime::clock::Instant;

/// How long an address that is missing from the newest answer is used where it has a connection.
const MISSING: Duration = Duration::from_secs(30);
/// The most addresses taken from one answer.
pub(super) const MAX_ADDRESSES: usize = 64;

/// One `url` or replica, and the addresses it has now.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub policy: EndpointPolicy,
    pub resolved: arc_swap::ArcSwap<Resolved>,
    pub refreshing: AtomicBool,
    /// Whether the resolver is to be asked beside the traffic already.
    pub behind: AtomicBool,
    pub addresses: Arc<Addresses>,
    pub upstream: String,
    pub limits: Limits,
    pub generation: u64,
    /// Whether one of its addresses has ever answered, under this name and URL.
    pub responded: Arc<AtomicBool>,
}

impl Endpoint {
    /// Whether requests to `address` go over HTTP/2, as far as is known: by its scheme, or by what it chose last.
    pub(super) fn speaks_http2(&self, address: &Address) -> bool {
        matches!(self.policy.scheme, Scheme::H2c) || address.http2.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// The addresses, none while nothing was ever resolved.
    pub addresses: Vec<Arc<Address>>,
    /// Addresses of earlier answers that are missing from this one, with when that was first so; as many at most.
    pub missing: Vec<(Arc<Address>, Instant)>,
    /// When it came; `None`: never, or it never changes.
    pub at: Option<Instant>,
    /// It is written in the URL.
    pub literal: bool,
}

impl Resolved {
    /// What follows this one when `addresses` is the answer at `now`.
    pub(super) fn next(&self, addresses: Vec<Arc<Address>>, now: Instant) -> Resolved {
        let is_new = |address: &Arc<Address>| addresses.iter().any(|known| known.id == address.id);
        let longer = self.missing.iter().filter(|(_, since)| is_missed(*since, now)).cloned();
        let from_now = self.addresses.iter().map(|address| (address.clone(), now));
        let missing = longer.chain(from_now).filter(|(address, _)| !is_new(address));
        let missing = missing.take(MAX_ADDRESSES).collect();
        Resolved { missing, addresses, at: Some(now), literal: false }
    }

    /// Addresses that are missing but still used at `now`, where they have a connection.
    pub(super) fn missing(&self, now: Instant) -> impl Iterator<Item = &Arc<Address>> {
        let used = self.missing.iter().filter(move |(_, since)| is_missed(*since, now));
        used.map(|(address, _)| address)
    }

    /// The one address there is.
    pub(super) fn only(&self) -> Option<&Arc<Address>> {
        match &self.addresses[..] {
            [only] if self.missing.is_empty() => Some(only),
            _ => None,
        }
    }

    /// Whether new connections go to an address.
    pub(super) fn has(&self, id: u64) -> bool {
        self.addresses.iter().any(|address| address.id == id)
    }

    /// Whether it is old enough at `now` to be asked for again.
    pub(super) fn is_due(&self, kept: Duration, now: Instant) -> bool {
        !self.literal && self.at.is_none_or(|at| now.saturating_duration_since(at) >= kept)
    }
}

/// Whether what has been missing since then is still used at `now`.
fn is_missed(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < MISSING
}
