//! One address of an app: how busy it is, whether it is well. Shared by all workers.

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
    Unix(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How much one address may be given at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    pub connections: usize,
    /// Streams without an expected end.
    pub streams: usize,
    /// Connections that each worker keeps for the next request.
    pub idle: usize,
    /// Connections that wait, each for the next request of the one client connection they belong to.
    pub pinned: usize,
}

/// What a success or a failure was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// A connection that could not be made for a request. No request can cause it.
    Connection,
    /// What came of a request over a connection that was there. A failure may be the doing of that request.
    Exchange,
    Probe,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Address {
    /// Its number in this process: the key of every worker's pool.
    pub id: u64,
    pub target: Target,
    /// The same as people read it.
    pub name: EscapedText,
    /// What led there, as the configuration has it.
    pub url: String,
    /// The host in it, or all of it where that is a Unix socket.
    pub host: String,
    /// The port in it, or that of its scheme; a Unix socket has none.
    pub port: Option<u16>,
    /// One permit for each connection in use, over all workers.
    pub permits: Arc<Permits>,
    /// One permit for each stream without an expected end.
    pub streams: Arc<Permits>,
    /// The size of `permits`.
    pub limits: Limits,
    /// Requests that wait for a permit.
    pub waiting: AtomicUsize,
    /// Requests sent and not yet answered whole.
    pub in_flight: AtomicUsize,
    /// Idle connections over all workers.
    pub idle: AtomicUsize,
    /// One permit for each connection that belongs to one client connection and waits for its next request.
    pub pinned: Arc<Permits>,
    /// Whether it chose HTTP/2 when it was last connected to.
    pub http2: AtomicBool,
    /// In a row, of requests: connections that could not be made, and exchanges.
    failures: AtomicU32,
    /// In a row, of connections for requests alone.
    connection_failures: AtomicU32,
    /// In a row, of probes.
    probe_failures: AtomicU32,
    successes: AtomicU32,
    ejected: AtomicBool,
    /// Ejected by failed connections or probes.
    unreachable: AtomicBool,
    /// The longest field section of a request, as RFC 9113 6.5.2 counts it, that it has responded to over HTTP/2 although
    /// it announces no limit; bytes.
    pub max_head: AtomicUsize,
    /// Whether an address of its URL has ever answered; shared by all of them.
    responded: Arc<AtomicBool>,
}

impl Address {
    pub(crate) fn is_healthy(&self) -> bool {
        !self.ejected.load(Ordering::Relaxed)
    }

    /// Whether it takes part and does not fail: the last address is never taken out, and its failures in a row tell
    /// all the same.
    pub(crate) fn is_well(&self, unhealthy_after: u32) -> bool {
        self.is_healthy() && self.failures() < unhealthy_after
    }

    /// Whether connections and probes reach it, as far as is known. What becomes of requests does not count: one client
    /// can make them fail, and must not turn everybody away with that.
    pub(crate) fn is_reachable(&self, unhealthy_after: u32) -> bool {
        !self.unreachable.load(Ordering::Relaxed) && self.reaching_failures() < unhealthy_after
    }

    /// Failures in a row of connections or of probes, whichever are more.
    fn reaching_failures(&self) -> u32 {
        let connections = self.connection_failures.load(Ordering::Relaxed);
        connections.max(self.probe_failures.load(Ordering::Relaxed))
    }

    /// Whether an address of its URL has ever answered.
    pub(crate) fn has_responded(&self) -> bool {
        self.responded.load(Ordering::Relaxed)
    }

    /// Notes that it answered; true for the first answer of its URL.
    pub(crate) fn note_response(&self) -> bool {
        !self.has_responded() && !self.responded.swap(true, Ordering::Relaxed)
    }

    /// Notes a success; true when it brought the address back. Where a health path is asked
    /// (`probed`), only the probe brings back: a lucky request must not.
    pub(crate) fn succeeded(&self, evidence: Evidence, probed: bool, healthy_after: u32) -> bool {
        self.clear(evidence, probed);
        if self.is_well(1) || (probed && evidence != Evidence::Probe) {
            return false;
        }
        let successes = self.successes.fetch_add(1, Ordering::Relaxed) + 1;
        if successes < healthy_after {
            return false;
        }
        // So many probes in a row, and no request failed between them. Perhaps as none came: whoever is not ready is
        // sent none, and would never be ready again.
        self.failures.store(0, Ordering::Relaxed);
        self.connection_failures.store(0, Ordering::Relaxed);
        self.unreachable.store(false, Ordering::Relaxed);
        self.ejected.swap(false, Ordering::Relaxed)
    }

    /// A success speaks against failures of its own kind alone: answers to requests do not outvote a
    /// health path that fails, nor the reverse. A knock, where no path is asked, speaks for both.
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

    /// Notes a failure; true when it was one too many. The caller decides whether it may go.
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

    /// Takes it out; true for the one that did.
    pub(crate) fn eject(&self, unhealthy_after: u32) -> bool {
        self.successes.store(0, Ordering::Relaxed);
        self.note_unreachable(unhealthy_after);
        !self.ejected.swap(true, Ordering::Relaxed)
    }

    /// An ejected address that could not be reached stays unreachable until it is back.
    fn note_unreachable(&self, unhealthy_after: u32) {
        if self.reaching_failures() >= unhealthy_after {
            self.unreachable.store(true, Ordering::Relaxed);
        }
    }

    /// Failures in a row, of the kind that has more.
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

/// Every address anybody still holds, so that a reload or a new answer from DNS finds it again.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: Mutex<HashMap<Identity, Weak<Address>>>,
    next: AtomicU64,
}

impl Addresses {
    /// The address with this identity, made at its first sight.
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
        // The map stays as small as what is alive.
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
                // One probe that succeeds brings back what was not ejected, two what was.
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
