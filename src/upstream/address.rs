//! One address of an app: how busy it is, whether it is well. Shared by all workers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
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
pub struct Limits {
    /// Requests with a connection.
    pub connections: usize,
    /// Streams without an expected end.
    pub streams: usize,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Address {
    /// Its number in this process: the key of every worker's pool.
    pub id: u64,
    /// Where it is.
    pub target: Target,
    /// One permit for each connection in use, over all workers.
    pub permits: Arc<Semaphore>,
    /// One permit for each stream without an expected end.
    pub streams: Arc<Semaphore>,
    /// The size of `permits`.
    pub limits: Limits,
    /// Requests that wait for a permit.
    pub waiting: AtomicUsize,
    /// Requests sent and not yet answered whole.
    pub in_flight: AtomicUsize,
    /// Idle connections over all workers.
    pub idle: AtomicUsize,
    failures: AtomicU32,
    successes: AtomicU32,
    ejected: AtomicBool,
}

impl Address {
    /// Whether it takes part.
    pub fn is_healthy(&self) -> bool {
        !self.ejected.load(Ordering::Relaxed)
    }

    /// Notes a success; true when it brought the address back.
    pub fn succeeded(&self, healthy_after: u32) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if !self.ejected.load(Ordering::Relaxed) {
            return false;
        }
        let successes = self.successes.fetch_add(1, Ordering::Relaxed) + 1;
        successes >= healthy_after && self.ejected.swap(false, Ordering::Relaxed)
    }

    /// Notes a failure; true when it was one too many. The caller decides whether it may go.
    pub fn failed(&self, unhealthy_after: u32) -> bool {
        self.successes.store(0, Ordering::Relaxed);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        failures >= unhealthy_after && !self.ejected.load(Ordering::Relaxed)
    }

    /// Takes it out; true for the one that did.
    pub fn eject(&self) -> bool {
        self.successes.store(0, Ordering::Relaxed);
        !self.ejected.swap(true, Ordering::Relaxed)
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
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
pub struct Addresses {
    known: Mutex<HashMap<Identity, Weak<Address>>>,
    next: AtomicU64,
}

impl Addresses {
    /// The address with this identity, made at its first sight.
    pub fn get(&self, upstream: &str, url: &str, target: Target, limits: Limits, generation: u64) -> Arc<Address> {
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
        let address = Arc::new(Address {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            target,
            permits: Arc::new(Semaphore::new(limits.connections)),
            streams: Arc::new(Semaphore::new(limits.streams)),
            limits,
            waiting: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            successes: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
        });
        known.insert(identity, Arc::downgrade(&address));
        address
    }
}
