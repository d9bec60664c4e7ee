//! One worker's connections to upstreams: idle ones, of which the last used is taken first, and shared HTTP/2 ones.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use super::address::Address;
use super::http2::Http2Connection;
use crate::http1::client::ClientConnection;
use crate::runtime::clock::Instant;

struct Idle {
    connection: Box<ClientConnection>,
    address: Arc<Address>,
    until: Instant,
}

/// The pool of one worker.
#[derive(Default)]
pub(crate) struct Pool {
    /// Idle connections by address, oldest first; at most [`super::address::Limits::idle`] for each.
    idle: RefCell<HashMap<u64, VecDeque<Idle>>>,
    http2: RefCell<HashMap<u64, Vec<Rc<Http2Connection>>>>,
}

impl Pool {
    /// Takes an idle connection to `address` that is still usable.
    pub(super) fn take(&self, address: &Address, now: Instant) -> Option<Box<ClientConnection>> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(&address.id)?;
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(mut candidate) = waiting.pop_back() {
            address.idle.fetch_sub(1, Ordering::Relaxed);
            if candidate.until > now && candidate.connection.is_silent(&mut cx) {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Returns whether there may be a connection to `address` that a request can use.
    pub(super) fn has(&self, address: &Address) -> bool {
        let idle = self.idle.borrow().get(&address.id).is_some_and(|idle| !idle.is_empty());
        idle || self
            .http2
            .borrow()
            .get(&address.id)
            .is_some_and(|connections| connections.iter().any(|connection| connection.has_room()))
    }

    /// Keeps a connection for the next request to `address`.
    pub(super) fn put(
        &self,
        address: &Arc<Address>,
        mut connection: Box<ClientConnection>,
        keep_alive: Duration,
        now: Instant,
    ) {
        // An announced Keep-Alive timeout is respected, less a second for the transmission (contract, keep_alive).
        let told =
            connection.keep_alive_timeout.map(|seconds| Duration::from_secs(seconds.saturating_sub(1)));
        let keep = told.map_or(keep_alive, |told| told.min(keep_alive));
        if keep.is_zero() {
            return;
        }
        connection.release_grown();
        let idle = Idle { connection, address: address.clone(), until: now + keep };
        let mut pools = self.idle.borrow_mut();
        let pool = pools.entry(address.id).or_default();
        // Connections of ended streams return here too, so there may be more than the limit.
        if pool.len() >= address.limits.idle {
            pool.pop_front();
        } else {
            address.idle.fetch_add(1, Ordering::Relaxed);
        }
        pool.push_back(idle);
    }

    /// Closes connections that have expired or were closed by the upstream.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut cx = Context::from_waker(Waker::noop());
        self.idle.borrow_mut().retain(|_, waiting| {
            waiting.retain_mut(|idle| {
                // A connection that was not used since the last sweep frees its buffers.
                idle.connection.release();
                let keep = idle.until > now && idle.connection.is_silent(&mut cx);
                if !keep {
                    idle.address.idle.fetch_sub(1, Ordering::Relaxed);
                }
                keep
            });
            !waiting.is_empty()
        });
        self.http2.borrow_mut().retain(|_, connections| {
            connections.retain(|connection| connection.is_kept(now));
            !connections.is_empty()
        });
    }

    /// Returns an HTTP/2 connection to `address` with room for another stream.
    pub(super) fn shared(&self, address: &Address) -> Option<Rc<Http2Connection>> {
        let mut http2 = self.http2.borrow_mut();
        let connections = http2.get_mut(&address.id)?;
        connections.retain(|connection| connection.is_open());
        connections.iter().find(|connection| connection.has_room()).cloned()
    }

    /// Adds an HTTP/2 connection for sharing.
    pub(super) fn share(&self, address: &Address, connection: Rc<Http2Connection>) {
        self.http2.borrow_mut().entry(address.id).or_default().push(connection);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for idle in self.idle.borrow().values().flatten() {
            idle.address.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
