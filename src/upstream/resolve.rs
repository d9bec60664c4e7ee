//! From a name to addresses: asked when a new connection is needed, kept for a while, and the last
//! answer outlives a resolver that fails.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Endpoint;
use super::address::{Address, Target};
use crate::clock::{self, Instant};
use crate::policy::Place;

/// How long an answer is used before the resolver is asked again.
const KEPT: Duration = Duration::from_secs(5);
/// After a failed connection it is asked again no sooner than this.
const KEPT_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// The most addresses taken from one answer.
const MOST_ADDRESSES: usize = 64;

/// An answer.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The addresses, none while nothing was ever resolved.
    pub addresses: Vec<Arc<Address>>,
    /// When it came; `None`: never, or it never changes.
    at: Option<Instant>,
    /// It is written in the URL.
    literal: bool,
}

impl Endpoint {
    fn address(&self, target: Target) -> Arc<Address> {
        self.addresses.get(&self.upstream, &self.policy.url, target, self.limits, self.generation)
    }

    /// Fills in what needs no resolver.
    pub(super) fn resolve_literal(&self) {
        let target = match &self.policy.place {
            Place::Unix(path) => Target::Unix(path.clone()),
            Place::Host(host, port) => match host.parse::<IpAddr>() {
                Ok(ip) => Target::Tcp(SocketAddr::new(ip, *port)),
                Err(_) => return,
            },
        };
        let addresses = vec![self.address(target)];
        self.resolved.store(Arc::new(Resolved { addresses, at: None, literal: true }));
    }

    /// Whether the resolver would be asked before a new connection.
    pub(super) fn is_stale(&self, now: Instant, after_failure: bool) -> bool {
        let resolved = self.resolved.load();
        let kept = if after_failure { KEPT_AFTER_FAILURE } else { KEPT };
        !resolved.literal && resolved.at.is_none_or(|at| now.saturating_duration_since(at) >= kept)
    }

    /// Asks the resolver. While one caller asks, others go on with the last answer if there is one.
    pub(super) async fn refresh(&self, timeout: Duration) -> Result<(), std::io::Error> {
        let Place::Host(host, port) = &self.policy.place else { return Ok(()) };
        let had = !self.resolved.load().addresses.is_empty();
        if had && self.refreshing.swap(true, Ordering::Acquire) {
            return Ok(());
        }
        // Also lowered when this future is dropped on the way.
        let _lowered = Lower(&self.refreshing);
        let lookup = tokio::time::timeout(timeout, tokio::net::lookup_host((host.as_str(), *port)));
        let found = match lookup.await {
            Ok(found) => found,
            Err(_) => {
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the resolver did not answer in time"))
            }
        };
        let addresses: Vec<Arc<Address>> = match found {
            Ok(found) => {
                let mut found: Vec<SocketAddr> = found.take(MOST_ADDRESSES).collect();
                found.sort_unstable();
                found.dedup();
                found.into_iter().map(|address| self.address(Target::Tcp(address))).collect()
            }
            Err(error) if had => {
                tracing::debug!(host, %error, "resolver failed; the last answer is kept");
                self.resolved.load().addresses.clone()
            }
            Err(error) => {
                // Remembered for a moment, so that one name that fails does not hold up every request.
                // Another caller may have had more luck meanwhile.
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

    /// Takes over what an older generation knew of the same name.
    pub(super) fn inherit(&self, older: &Resolved) {
        if older.literal || older.addresses.is_empty() {
            return;
        }
        let addresses = older.addresses.iter().map(|address| self.address(address.target.clone())).collect();
        self.resolved.store(Arc::new(Resolved { addresses, at: older.at, literal: false }));
    }

    fn remember(&self, addresses: Vec<Arc<Address>>) {
        self.resolved.store(Arc::new(Resolved { addresses, at: Some(clock::now()), literal: false }));
    }
}

struct Lower<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Lower<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
