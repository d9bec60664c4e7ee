//! Load balancing: the choice of an address for a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;

use super::address::Address;
use super::call::is_spread;
use super::endpoint::Endpoint;
use super::pool::Pool;
use super::state::Upstream;
use crate::runtime::clock::Instant;

impl Upstream {
    /// Returns the endpoints that a request may go to.
    pub(super) fn endpoints_for(&self, method: &Method) -> &[Arc<Endpoint>] {
        if self.policy.writes_to_any || is_spread(method) { &self.endpoints } else { &self.endpoints[..1] }
    }

    /// Returns the healthy address with the fewest requests in flight. Addresses in `tried` come last, and unhealthy
    /// ones are used only without a healthy one. With a `pool`, addresses missing from the newest DNS result count too,
    /// if the pool has a connection to them.
    pub(super) fn choose<'a>(
        &'a self,
        endpoints: &'a [Arc<Endpoint>],
        tried: &[u64],
        pool: Option<(&Pool, Instant)>,
    ) -> Option<(&'a Endpoint, Arc<Address>)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count: usize = endpoints.iter().map(|endpoint| endpoint.resolved.load().addresses.len()).sum();
        // The address that comes first among equals changes with every request.
        let first = turn % count.max(1);
        // Tried before, unhealthy, requests in flight, distance from the first place.
        type Rank = (bool, bool, usize, usize);
        let mut best: Option<(Rank, &Endpoint, Arc<Address>)> = None;
        let mut place = 0usize;
        for endpoint in endpoints {
            let resolved = endpoint.resolved.load();
            let missing = pool.into_iter().flat_map(|(pool, now)| {
                let used = resolved.missing(now);
                used.filter(|address| !tried.contains(&address.id) && pool.has(address))
            });
            for address in resolved.addresses.iter().chain(missing) {
                let rank = (
                    tried.contains(&address.id),
                    !address.is_healthy(),
                    address.in_flight.load(Ordering::Relaxed),
                    (place + count - first) % count.max(1),
                );
                place += 1;
                if best.as_ref().is_none_or(|(min, _, _)| rank < *min) {
                    best = Some((rank, endpoint, address.clone()));
                }
            }
        }
        best.map(|(_, endpoint, address)| (endpoint, address))
    }
}
