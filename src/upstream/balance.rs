//! Which address a request goes to, and how much may be tried again.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;

use super::address::{Address, Evidence};
use super::pool::Pool;
use super::{Endpoint, Upstream};
use crate::runtime::clock::Instant;

/// Tries allowed for each request sent.
const SHARE: f64 = 0.2;
/// Tries allowed in each second whatever the traffic.
const MIN_PER_SECOND: f64 = 3.0;
/// How far unused tries add up.
const HORIZON: Duration = Duration::from_secs(10);

/// Methods whose requests are reads, spread over replicas (RFC 9110 9.2.1, RFC 10008).
pub(super) fn is_spread(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || method.as_str() == "QUERY"
}

/// Methods that may be sent twice (RFC 9110 9.2.2, RFC 10008).
pub(super) fn is_idempotent(method: &Method) -> bool {
    is_spread(method) || matches!(*method, Method::PUT | Method::DELETE | Method::TRACE)
}

/// Keeps tries after failure to a share of the traffic, so that a struggling app is not buried.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    /// Requests ever sent: all that the ordinary request pays for.
    requests: AtomicU64,
    state: Mutex<Option<BudgetState>>,
}

#[derive(Debug)]
struct BudgetState {
    tokens: f64,
    requests: u64,
    at: Instant,
}

impl RetryBudget {
    pub(super) fn deposit(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one try if there is one.
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.get_or_insert(BudgetState { tokens: MIN_PER_SECOND, requests: 0, at: now });
        let elapsed = now.saturating_duration_since(state.at);
        let earned =
            elapsed.as_secs_f64() * MIN_PER_SECOND + (requests - state.requests.min(requests)) as f64 * SHARE;
        // What was not used adds up for a while only: neither an idle night nor a busy hour before the
        // trouble began may turn into a storm.
        state.tokens = (state.tokens + earned)
            .min((earned / elapsed.as_secs_f64().max(1.0)).max(MIN_PER_SECOND) * HORIZON.as_secs_f64());
        state.requests = requests;
        state.at = now;
        let granted = state.tokens >= 1.0;
        if granted {
            state.tokens -= 1.0;
        }
        granted
    }
}

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

    /// Notes a failure of `address`, which may take it out unless it is the last.
    pub(super) fn note_failure(&self, address: &Arc<Address>, evidence: Evidence) {
        if !address.failed(evidence, self.policy.health.unhealthy_after) {
            return;
        }
        let another = self.addresses().iter().any(|(_, other)| other.id != address.id && other.is_healthy());
        if another && address.eject(self.policy.health.unhealthy_after) {
            tracing::warn!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "ejected: it keeps failing"
            );
        } else if address.failures() == self.policy.health.unhealthy_after {
            tracing::warn!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "failing, but not ejected: it is the last"
            );
        }
    }

    /// Notes that `address` answered, well or not.
    pub(super) fn note_response(&self, address: &Address) {
        if address.note_response() {
            tracing::info!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "the upstream has answered for the first time"
            );
        }
    }

    /// Notes a success of `address`.
    pub(super) fn note_success(&self, address: &Address, evidence: Evidence) {
        let health = &self.policy.health;
        // Where a health path is asked, only that says that the app is there.
        if evidence == Evidence::Probe || health.path.is_none() {
            self.note_response(address);
        }
        let down = address.is_healthy() && address.failures() >= health.unhealthy_after;
        if address.succeeded(evidence, health.path.is_some(), health.healthy_after) {
            tracing::info!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "back: it answers again"
            );
        } else if down && address.failures() < health.unhealthy_after {
            tracing::info!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "up: it answers again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn the_budget_grants_a_fifth_and_a_trickle() {
        let budget = RetryBudget::default();
        let start = clock::now();
        let granted = |now| (0..10_000).take_while(|_| budget.withdraw(now)).count();
        assert_eq!(granted(start), 3);
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(granted(start), 20);
        assert_eq!(granted(start + Duration::from_secs(1)), 3);
        assert_eq!(
            granted(start + Duration::from_secs(3600)),
            30,
            "what was not used does not add up for ever"
        );
        (0..1_000_000).for_each(|_| budget.deposit());
        assert!(granted(start + Duration::from_secs(7200)) < 1000, "nor does an hour of traffic");
    }
}
