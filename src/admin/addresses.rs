//! The addresses of the upstreams, as health and the page show them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::monitor::Monitor;
use crate::runtime::clock;
use crate::state::live_policy::Snapshot;
use crate::upstream::Upstream;

/// Lists every known upstream address with its health, for the admin API.
pub(super) fn addresses(snapshot: &Snapshot, monitor: &Monitor) -> Vec<Value> {
    let of = |upstream: &Arc<Upstream>| {
        let (name, threshold) = (upstream.policy.name.clone(), upstream.policy.health.unhealthy_after);
        upstream.addresses().into_iter().map(move |(_, address)| {
            let well = address.is_well(threshold);
            json!({
                "name": name,
                "address": address.name.as_str(),
                "healthy": well,
                "answered": address.has_responded(),
                "since": monitor.address_since(address.id, well).map(clock::unix_seconds),
                "failures": address.failures(),
                "in_flight": address.in_flight.load(Ordering::Relaxed),
                "waiting": address.waiting.load(Ordering::Relaxed),
            })
        })
    };
    snapshot.upstreams.iter().flat_map(of).collect()
}
