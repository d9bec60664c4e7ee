//! One upstream: the state that all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::address::Address;
use super::admission::Gate;
use super::counters::Counters;
use super::endpoint::Endpoint;
use super::retry::RetryBudget;
use crate::policy::{Awaited, UpstreamPolicy};
use crate::runtime::clock::Instant;

/// One app, with all its endpoints.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// What the configuration says of it.
    pub policy: UpstreamPolicy,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) counters: Arc<Counters>,
    pub(super) budget: Arc<RetryBudget>,
    /// Where `adaptive_concurrency` is on.
    pub(super) gate: Option<Arc<Gate>>,
    /// Turns ties between equally busy addresses.
    pub(super) turn: AtomicUsize,
    /// When this generation of it was built.
    pub(super) built: Instant,
}

impl Upstream {
    /// Whether all its addresses are spoken to in HTTP/2, as far as is known.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.endpoints.iter().all(|endpoint| {
            let resolved = endpoint.resolved.load();
            let mut addresses = resolved.addresses.iter();
            addresses.len() > 0 && addresses.all(|address| endpoint.speaks_http2(address))
        })
    }

    /// Its addresses as known now, each with its endpoint's URL.
    pub(crate) fn addresses(&self) -> Vec<(String, Arc<Address>)> {
        let of = |endpoint: &Endpoint| {
            let resolved = endpoint.resolved.load();
            let url = endpoint.policy.url.clone();
            resolved.addresses.iter().map(move |address| (url.clone(), address.clone())).collect::<Vec<_>>()
        };
        self.endpoints.iter().flat_map(|endpoint| of(endpoint)).collect()
    }

    /// The endpoints of which one address is to answer.
    fn awaited(&self, awaited: Awaited) -> &[Arc<Endpoint>] {
        match awaited {
            Awaited::Nothing => &[],
            Awaited::AnyAddress => &self.endpoints,
            Awaited::Primary => self.endpoints.get(..1).unwrap_or_default(),
        }
    }

    /// Whether readiness still waits for a first answer.
    pub(crate) fn is_awaited(&self, awaited: Awaited) -> bool {
        awaited != Awaited::Nothing
            && !self.awaited(awaited).iter().any(|endpoint| endpoint.responded.load(Ordering::Relaxed))
    }

    /// The gate in front of it, where it has one.
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
}
