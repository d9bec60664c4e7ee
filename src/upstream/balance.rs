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
    /// The endpoints a request may go to.
    pub(super) fn endpoints_for(&self, method: &Method) -> &[Arc<Endpoint>] {
        if self.policy.writes_to_any || is_spread(method) { &self.endpoints } else { &self.endpoints[..1] }
    }

    /// The well address with the fewest requests in flight, those in `tried` last; sick ones only
    /// when there is no other. With a `pool` also one that is missing from the newest answer and has a connection there.
    pub(super) fn choose<'a>(
        &'a self,
        endpoints: &'a [Arc<Endpoint>],
        tried: &[u64],
        pool: Option<(&Pool, Instant)>,
    ) -> Option<(&'a Endpoint, Arc<Address>)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count: usize = endpoints.iter().map(|endpoint| endpoint.resolved.load().addresses.len()).sum();
        // The place that goes first among equals moves on with every request.
        let first = turn % count.max(1);
        // Tried before, not well, busy, its turn.
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
