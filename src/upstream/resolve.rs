//! Resolves names to addresses. The resolver is queried while there is traffic, and the last result outlives a failing
//! resolver.
//!
//! New connections go to the newest result. An address that is missing from it keeps its connections for a while,
//! because some resolvers return only a part of the addresses each time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::address::{Address, Target};
use super::endpoint::{Endpoint, MAX_ADDRESSES, Resolved};
use crate::policy::Place;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// Time that a result is used before the resolver is queried again.
const KEPT: Duration = Duration::from_secs(5);
/// Minimum time between queries after a failed connection.
const KEPT_AFTER_FAILURE: Duration = Duration::from_millis(500);

impl Endpoint {
    fn address(&self, target: Target) -> Arc<Address> {
        let Endpoint { upstream, policy, limits, generation, responded, .. } = self;
        self.addresses.get(upstream, &policy.url, target, *limits, *generation, responded)
    }

    /// Sets the address, if the URL needs no resolver.
    pub(super) fn resolve_literal(&self) {
        let target = match &self.policy.place {
            Place::Unix(path) => Target::Unix(path.clone()),
            Place::Host(host, port) => match host.parse::<IpAddr>() {
                Ok(ip) => Target::Tcp(SocketAddr::new(ip, *port)),
                Err(_) if is_localhost(host) => Target::Localhost(*port),
                Err(_) => return,
            },
        };
        let addresses = vec![self.address(target)];
        self.resolved.store(Arc::new(Resolved { addresses, literal: true, ..Resolved::default() }));
    }

    /// Returns whether the resolver would be queried before a new connection.
    pub(super) fn is_stale(&self, now: Instant, after_failure: bool) -> bool {
        let kept = if after_failure { KEPT_AFTER_FAILURE } else { KEPT };
        self.resolved.load().is_due(kept, now)
    }

    /// Starts a query beside the traffic, if `resolved` is old enough.
    pub(super) fn refresh_behind(self: &Arc<Endpoint>, resolved: &Resolved, timeout: Duration, now: Instant) {
        if !resolved.is_due(KEPT, now) || self.behind.swap(true, Ordering::Relaxed) {
            return;
        }
        let endpoint = self.clone();
        tokio::spawn(async move {
            let _lowered = Lower(&endpoint.behind);
            if endpoint.is_stale(clock::now(), false) {
                // Without a new result the last one is kept, and becomes due again in the same way.
                let _ = endpoint.refresh(timeout).await;
            }
        });
    }

    /// Removes a missing address after a connection to it failed.
    pub(super) fn forget_missing(&self, id: u64) {
        let resolved = self.resolved.load_full();
        if resolved.missing.iter().any(|(address, _)| address.id == id) {
            let missing = resolved.missing.iter().filter(|(address, _)| address.id != id).cloned().collect();
            let Resolved { addresses, at, literal, .. } = &*resolved;
            let next = Resolved { addresses: addresses.clone(), missing, at: *at, literal: *literal };
            // A result that came meanwhile stays; the address is removed at its next failure.
            self.resolved.compare_and_swap(&resolved, Arc::new(next));
        }
    }

    /// Queries the resolver. While a query is in progress, other callers continue with the last result if there is one.
    pub(super) async fn refresh(&self, timeout: Duration) -> Result<(), std::io::Error> {
        let Place::Host(host, port) = &self.policy.place else { return Ok(()) };
        let had = !self.resolved.load().addresses.is_empty();
        if had && self.refreshing.swap(true, Ordering::Acquire) {
            return Ok(());
        }
        // The guard also resets the flag when this future is dropped on the way.
        let _lowered = Lower(&self.refreshing);
        let lookup = tokio::time::timeout(timeout, tokio::net::lookup_host((host.as_str(), *port)));
        let found = match lookup.await {
            Ok(found) => found,
            Err(_) => {
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the resolver did not respond in time"))
            }
        };
        let addresses: Vec<Arc<Address>> = match found {
            Ok(found) => {
                let mut found: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
                found.sort_unstable();
                found.dedup();
                found.into_iter().map(|address| self.address(Target::Tcp(address))).collect()
            }
            Err(error) if had => {
                tracing::debug!(host, %error, "the resolver failed; the last addresses stay in use");
                self.resolved.load().addresses.clone()
            }
            Err(error) => {
                // Remembered for a moment, so that a failing name does not delay every request. Another caller may have
                // succeeded meanwhile.
                if self.resolved.load().addresses.is_empty() {
                    self.remember(Vec::new());
                }
                return Err(error);
            }
        };
        if addresses.is_empty() {
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"));
        }
        self.remember(addresses);
        Ok(())
    }

    /// Takes over the addresses that an older generation resolved for the same name.
    pub(super) fn inherit(&self, older: &Resolved) {
        if older.literal || older.addresses.is_empty() {
            return;
        }
        let addresses = older.addresses.iter().map(|address| self.address(address.target.clone())).collect();
        self.resolved.store(Arc::new(Resolved { addresses, at: older.at, ..Resolved::default() }));
    }

    fn remember(&self, addresses: Vec<Arc<Address>>) {
        let next = self.resolved.load().next(addresses, clock::now());
        self.resolved.store(Arc::new(next));
    }
}

/// Returns whether a name always means this machine (RFC 6761 6.3), so that no resolver is queried for it.
fn is_localhost(name: &str) -> bool {
    name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case("localhost")
}

struct Lower<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Lower<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::address::{Addresses, Limits};

    #[test]
    fn n4_5_what_is_missing_is_used_for_a_while() {
        let known = Addresses::default();
        let limits = Limits { connections: 1, streams: 1, idle: 1, pinned: 1 };
        let address = |last: u8| {
            let target = Target::Tcp(([10, 0, 0, last], 80).into());
            known.get("app", "http://app", target, limits, 0, &Arc::default())
        };
        let all: Vec<Arc<Address>> = (0..4).map(address).collect();
        let pick =
            |places: &[usize]| places.iter().filter_map(|place| all.get(*place).cloned()).collect::<Vec<_>>();
        let begin = clock::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let missing = |resolved: &Resolved, now| {
            resolved
                .missing(now)
                .filter_map(|address| all.iter().position(|known| known.id == address.id))
                .collect::<Vec<_>>()
        };
        let resolved = Resolved::default().next(pick(&[0, 1]), at(0));
        assert!(missing(&resolved, at(0)).is_empty());
        // 0 is missing, 2 is new.
        let resolved = resolved.next(pick(&[1, 2]), at(5));
        assert_eq!(missing(&resolved, at(5)), [0]);
        assert!(resolved.has(all[2].id) && !resolved.has(all[0].id));
        // 1 is missing too; 0 has been for 25 s.
        let resolved = resolved.next(pick(&[2, 3]), at(30));
        assert_eq!(missing(&resolved, at(34)), [0, 1]);
        assert_eq!(missing(&resolved, at(35)), [1], "0 for 30 s");
        // 1 is back, 0 is not remembered.
        let resolved = resolved.next(pick(&[1, 2]), at(40));
        assert_eq!(missing(&resolved, at(40)), [3]);
        assert!(!resolved.is_due(KEPT, at(44)) && resolved.is_due(KEPT, at(45)));
    }
}
