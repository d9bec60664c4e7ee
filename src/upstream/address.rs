//! One address of an upstream: its load and its health. All workers share it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::rendering::json_text::EscapedText;
use crate::upstream::queue::Permits;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    /// A port of this machine, on 127.0.0.1 or on ::1: one server, on whichever of them it listens.
    Localhost(u16),
    Unix(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Localhost(port) => write!(f, "localhost:{port}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Concurrency limits of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    pub connections: usize,
    /// Maximum streams without an expected end.
    pub streams: usize,
    /// Maximum idle connections that each worker keeps.
    pub idle: usize,
    /// Maximum idle connections that belong to one client connection and wait for its next request.
    pub pinned: usize,
}

/// The source of a success or a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// A connection for a request, which could not be made. No request can cause this.
    Connection,
    /// An exchange over an existing connection. The request itself may have caused a failure.
    Exchange,
    Probe,
}

/// One address of an upstream, with its load and its health.
#[derive(Debug)]
pub(crate) struct Address {
    /// Number of the address in this process: the key in every worker's pool.
    pub id: u64,
    pub target: Target,
    /// The target in readable form.
    pub name: EscapedText,
    /// The configured URL that led to this address.
    pub url: String,
    /// Host of the URL, or the whole URL for a Unix socket.
    pub host: String,
    /// Port of the URL, or the default of its scheme; none for a Unix socket.
    pub port: Option<u16>,
    /// One permit for each connection in use, over all workers.
    pub permits: Arc<Permits>,
    /// One permit for each stream without an expected end.
    pub streams: Arc<Permits>,
    /// The limits that the permits were created with.
    pub limits: Limits,
    /// Number of requests that wait for a permit.
    pub waiting: AtomicUsize,
    /// Number of requests sent whose response is incomplete.
    pub in_flight: AtomicUsize,
    /// Number of idle connections over all workers.
    pub idle: AtomicUsize,
    /// One permit for each connection that belongs to one client connection and waits for its next request.
    pub pinned: Arc<Permits>,
    /// Whether the last connection to [`Target::Localhost`] went to ::1.
    pub over_ipv6: AtomicBool,
    /// Whether the last connection negotiated HTTP/2.
    pub http2: AtomicBool,
    /// Consecutive failures of requests: of connections and of exchanges.
    failures: AtomicU32,
    /// Consecutive failures of connections for requests.
    connection_failures: AtomicU32,
    /// Consecutive failures of health probes.
    probe_failures: AtomicU32,
    successes: AtomicU32,
    ejected: AtomicBool,
    /// Whether failed connections or probes caused the ejection.
    unreachable: AtomicBool,
    /// Size of the largest request field section, as RFC 9113 6.5.2 counts it, that got a response over HTTP/2 although
    /// the address announces no limit; bytes.
    pub max_head: AtomicUsize,
    /// Whether an address of its URL has ever sent a response; shared by all of them.
    responded: Arc<AtomicBool>,
}

impl Address {
    pub(crate) fn is_healthy(&self) -> bool {
        !self.ejected.load(Ordering::Relaxed)
    }

    /// Returns whether the address takes part and does not fail. The last address is never ejected, so its consecutive
    /// failures count here as well.
    pub(crate) fn is_well(&self, unhealthy_after: u32) -> bool {
        self.is_healthy() && self.failures() < unhealthy_after
    }

    /// Returns whether connections and probes reach the address, as far as is known. The outcome of requests does not
    /// count: one client can make requests fail, and must not cause refusals for all other clients.
    pub(crate) fn is_reachable(&self, unhealthy_after: u32) -> bool {
        !self.unreachable.load(Ordering::Relaxed) && self.reaching_failures() < unhealthy_after
    }

    /// Returns the consecutive failures of connections or of probes, whichever are more.
    fn reaching_failures(&self) -> u32 {
        let connections = self.connection_failures.load(Ordering::Relaxed);
        connections.max(self.probe_failures.load(Ordering::Relaxed))
    }

    /// Returns whether an address of its URL has ever sent a response.
    pub(crate) fn has_responded(&self) -> bool {
        self.responded.load(Ordering::Relaxed)
    }

    /// Records a response. Returns `true` for the first response of its URL.
    pub(crate) fn note_response(&self) -> bool {
        !self.has_responded() && !self.responded.swap(true, Ordering::Relaxed)
    }

    /// Records a success. Returns `true` if it brought the address back. With a health path (`probed`), only probes
    /// bring an address back: a lucky request must not.
    pub(crate) fn succeeded(&self, evidence: Evidence, probed: bool, healthy_after: u32) -> bool {
        self.clear(evidence, probed);
        if self.is_well(1) || (probed && evidence != Evidence::Probe) {
            return false;
        }
        let successes = self.successes.fetch_add(1, Ordering::Relaxed) + 1;
        if successes < healthy_after {
            return false;
        }
        // `healthy_after` probes succeeded in a row, and no request failed between them, perhaps because none came: an
        // upstream that is not ready gets no requests, and would never be ready again.
        self.failures.store(0, Ordering::Relaxed);
        self.connection_failures.store(0, Ordering::Relaxed);
        self.unreachable.store(false, Ordering::Relaxed);
        self.ejected.swap(false, Ordering::Relaxed)
    }

    /// Resets the failures that a success disproves. Responses to requests do not outvote a failing health path, nor
    /// the reverse. A connection probe, used without a health path, counts for both.
    fn clear(&self, evidence: Evidence, probed: bool) {
        let traffic = evidence != Evidence::Probe || !probed;
        let counters = [
            (traffic, &self.failures),
            (traffic, &self.connection_failures),
            (evidence == Evidence::Probe, &self.probe_failures),
        ];
        for (speaks, counter) in counters {
            if speaks && counter.load(Ordering::Relaxed) != 0 {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Records a failure. Returns `true` if the limit is reached; the caller decides whether the address may be
    /// ejected.
    pub(crate) fn failed(&self, evidence: Evidence, unhealthy_after: u32) -> bool {
        self.successes.store(0, Ordering::Relaxed);
        let count = |counter: &AtomicU32| counter.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let failures = match evidence {
            Evidence::Connection => count(&self.connection_failures).max(count(&self.failures)),
            Evidence::Exchange => count(&self.failures),
            Evidence::Probe => count(&self.probe_failures),
        };
        let ejected = self.ejected.load(Ordering::Relaxed);
        if ejected {
            self.note_unreachable(unhealthy_after);
        }
        failures >= unhealthy_after && !ejected
    }

    /// Ejects the address. Returns `true` if it was not ejected before.
    pub(crate) fn eject(&self, unhealthy_after: u32) -> bool {
        self.successes.store(0, Ordering::Relaxed);
        self.note_unreachable(unhealthy_after);
        !self.ejected.swap(true, Ordering::Relaxed)
    }

    /// Marks an ejected address without connections as unreachable until it is back.
    fn note_unreachable(&self, unhealthy_after: u32) {
        if self.reaching_failures() >= unhealthy_after {
            self.unreachable.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the consecutive failures, of requests or of probes, whichever are more.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed).max(self.probe_failures.load(Ordering::Relaxed))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    upstream: String,
    url: String,
    target: Target,
    limits: Limits,
    generation: u64,
}

/// Every address in use, so that a reload or a new DNS result finds it again.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: Mutex<HashMap<Identity, Weak<Address>>>,
    next: AtomicU64,
}

impl Addresses {
    /// Returns the address with this identity, and creates it if it is new.
    pub(super) fn get(
        &self,
        upstream: &str,
        url: &str,
        target: Target,
        limits: Limits,
        generation: u64,
        responded: &Arc<AtomicBool>,
    ) -> Arc<Address> {
        let identity = Identity {
            upstream: upstream.to_owned(),
            url: url.to_owned(),
            target: target.clone(),
            limits,
            generation,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = known.get(&identity).and_then(Weak::upgrade) {
            return address;
        }
        // Removes unused addresses, so that the map stays small.
        known.retain(|_, address| address.strong_count() > 0);
        let (host, port) = host_and_port(url);
        let address = Arc::new(Address {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            name: EscapedText::new(&target.to_string()),
            url: url.to_owned(),
            host: host.to_owned(),
            port,
            target,
            permits: Arc::new(Permits::shared(limits.connections)),
            streams: Arc::new(Permits::shared(limits.streams)),
            limits,
            waiting: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            pinned: Arc::new(Permits::shared(limits.pinned)),
            over_ipv6: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            connection_failures: AtomicU32::new(0),
            probe_failures: AtomicU32::new(0),
            successes: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
            unreachable: AtomicBool::new(false),
            max_head: AtomicUsize::new(0),
            responded: responded.clone(),
        });
        known.insert(identity, Arc::downgrade(&address));
        address
    }
}

fn host_and_port(url: &str) -> (&str, Option<u16>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url, None) };
    let authority = rest.split('/').next().unwrap_or(rest);
    let usual = if scheme == "https" { 443 } else { 80 };
    match authority.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (authority, Some(usual)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Arc<Address> {
        let target = Target::Tcp(([127, 0, 0, 1], 1).into());
        let limits = Limits { connections: 1, streams: 1, idle: 1, pinned: 1 };
        Addresses::default().get("upstream", "http://a", target, limits, 0, &Arc::default())
    }

    #[test]
    fn n3_4_requests_that_fail_eject_and_only_connections_and_probes_make_unreachable() {
        use Evidence::{Connection, Exchange, Probe};
        for (failures, ejected, reachable) in [
            (&[Exchange, Exchange][..], false, true),
            (&[Exchange, Exchange, Exchange], true, true),
            (&[Connection, Exchange, Exchange], true, true),
            (&[Connection, Connection, Connection], true, false),
            (&[Probe, Probe, Probe], true, false),
            (&[Exchange, Exchange, Exchange, Connection, Connection, Connection], true, false),
            (&[Exchange, Exchange, Exchange, Probe, Probe, Probe], true, false),
        ] {
            for last in [false, true] {
                let address = address();
                for failure in failures {
                    if address.failed(*failure, 3) && !last {
                        address.eject(3);
                    }
                }
                assert_eq!(address.is_healthy(), last || !ejected, "{failures:?}");
                assert_eq!(address.is_well(3), !ejected, "{failures:?}");
                assert_eq!(address.is_reachable(3), reachable, "{failures:?}");
                // A probe brings back an address that was not ejected; an ejected one needs two.
                address.succeeded(Probe, false, 2);
                assert_eq!(address.is_reachable(3), reachable || last, "{failures:?}");
                address.succeeded(Probe, false, 2);
                assert!(address.is_well(3) && address.is_reachable(3), "{failures:?}");
            }
        }
    }

    #[test]
    fn hosts_and_ports() {
        for (url, expected) in [
            ("http://app:3000", ("app", Some(3000))),
            ("https://app", ("app", Some(443))),
            ("http://app/", ("app", Some(80))),
            ("h2c://[::1]:50051", ("[::1]", Some(50051))),
            ("http://[::1]", ("[::1]", Some(80))),
            ("unix:/run/app.sock", ("unix:/run/app.sock", None)),
        ] {
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }
}
