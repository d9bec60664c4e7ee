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

/// One upstream, with all its endpoints.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// The configuration of this upstream.
    pub policy: UpstreamPolicy,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) counters: Arc<Counters>,
    pub(super) budget: Arc<RetryBudget>,
    /// The gate, if `adaptive_concurrency` is on.
    pub(super) gate: Option<Arc<Gate>>,
    /// Rotates the choice between equally busy addresses.
    pub(super) turn: AtomicUsize,
    /// Time at which this generation of the upstream was built.
    pub(super) built: Instant,
}

impl Upstream {
    /// Returns whether all addresses use HTTP/2, as far as is known.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.endpoints.iter().all(|endpoint| {
            let resolved = endpoint.resolved.load();
            let mut addresses = resolved.addresses.iter();
            addresses.len() > 0 && addresses.all(|address| endpoint.speaks_http2(address))
        })
    }

    /// Returns the present addresses, each with its endpoint's URL.
    pub(crate) fn addresses(&self) -> Vec<(String, Arc<Address>)> {
        let of = |endpoint: &Endpoint| {
            let resolved = endpoint.resolved.load();
            let url = endpoint.policy.url.clone();
            resolved.addresses.iter().map(move |address| (url.clone(), address.clone())).collect::<Vec<_>>()
        };
        self.endpoints.iter().flat_map(|endpoint| of(endpoint)).collect()
    }

    /// Returns the endpoints of which one address must respond before readiness.
    fn awaited(&self, awaited: Awaited) -> &[Arc<Endpoint>] {
        match awaited {
            Awaited::Nothing => &[],
            Awaited::AnyAddress => &self.endpoints,
            Awaited::Primary => self.endpoints.get(..1).unwrap_or_default(),
        }
    }

    /// Returns whether readiness still waits for a first response.
    pub(crate) fn is_awaited(&self, awaited: Awaited) -> bool {
        awaited != Awaited::Nothing
            && !self.awaited(awaited).iter().any(|endpoint| endpoint.responded.load(Ordering::Relaxed))
    }

    /// Returns the gate in front of the upstream, if it has one.
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
}
