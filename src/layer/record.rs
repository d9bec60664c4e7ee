//! What is noted about one request on its way through the stack: every layer writes what it knows,
//! `observe` counts and logs it when the last byte has gone.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use super::live::Snapshot;
use crate::body::{BodyError, Observer};
use crate::clock::{self, Instant};
use crate::error::Fault;
use crate::log::{AccessLog, Line};
use crate::metrics::{Metrics, RouteSeries};
use crate::upstream::Address;

/// The status noted for a client that left before its answer (nginx's word for it).
pub const CLIENT_GONE: u16 = 499;

/// See the head of the file.
pub struct Record {
    /// When the head of the request was whole.
    pub started: Instant,
    /// `X-Request-Id`.
    pub id: HeaderValue,
    /// The method.
    pub method: Method,
    /// The target as it came; for the log.
    pub target: String,
    /// The client's address.
    pub client: std::net::IpAddr,
    /// The protocol, as logs write it.
    pub protocol: &'static str,
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    log: AccessLog,
    series: RefCell<Arc<RouteSeries>>,
    route: Cell<Option<u32>>,
    /// The address that answered, or was tried last.
    pub upstream: RefCell<Option<Arc<Address>>>,
    /// Tries after the first.
    pub retries: Cell<u32>,
    /// From sending to the head of the app's answer.
    pub upstream_time: Cell<Option<Duration>>,
    error: RefCell<Option<(Fault, String)>>,
    status: Cell<Option<StatusCode>>,
    bytes: Cell<u64>,
    done: Cell<bool>,
}

/// What a record is made of.
pub struct Beginning {
    /// See [`Record`].
    pub started: Instant,
    /// See [`Record`].
    pub id: HeaderValue,
    /// See [`Record`].
    pub method: Method,
    /// See [`Record`].
    pub target: String,
    /// See [`Record`].
    pub client: std::net::IpAddr,
    /// See [`Record`].
    pub protocol: &'static str,
}

impl Record {
    /// Begins to observe; the request is in flight from here on.
    pub fn begin(beginning: Beginning, snapshot: Arc<Snapshot>, metrics: Arc<Metrics>, log: AccessLog) -> Record {
        metrics.routes.in_flight.fetch_add(1, Ordering::Relaxed);
        let series = RefCell::new(snapshot.refused().clone());
        let Beginning { started, id, method, target, client, protocol } = beginning;
        Record {
            started,
            id,
            method,
            target,
            client,
            protocol,
            snapshot,
            metrics,
            log,
            series,
            route: Cell::new(None),
            upstream: RefCell::new(None),
            retries: Cell::new(0),
            upstream_time: Cell::new(None),
            error: RefCell::new(None),
            status: Cell::new(None),
            bytes: Cell::new(0),
            done: Cell::new(false),
        }
    }

    /// Notes the route.
    pub fn routed(&self, order: Option<u32>) {
        self.route.set(order);
        *self.series.borrow_mut() = self.snapshot.series(order).clone();
    }

    /// Notes the status of the answer.
    pub fn answered(&self, status: StatusCode) {
        self.status.set(Some(status));
    }

    /// Notes what went wrong, for the log; the first cause is kept.
    pub fn failed(&self, fault: Fault, error: String) {
        self.error.borrow_mut().get_or_insert((fault, error));
    }

    /// Counts a panic.
    pub fn panicked(&self) {
        self.metrics.panics.inc();
    }

    /// The answer has ended, or nobody waits for it any more.
    pub fn finish(&self) {
        if self.done.replace(true) {
            return;
        }
        self.metrics.routes.in_flight.fetch_sub(1, Ordering::Relaxed);
        let duration = clock::now().saturating_duration_since(self.started);
        let gone = StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
        let status = self.status.get().unwrap_or(gone);
        self.series.borrow().record(&self.method, status, duration);
        let policy = &self.snapshot.policy.log;
        let error = self.error.borrow();
        if !self.log.wants(policy, status, error.is_some(), duration) {
            return;
        }
        let route = self.route.get();
        self.log.write(
            policy,
            &Line {
                id: &self.id,
                client: self.client,
                method: &self.method,
                target: &self.target,
                protocol: self.protocol,
                route: &self.snapshot.route(route).label,
                status,
                bytes: self.bytes.get(),
                duration,
                upstream_time: self.upstream_time.get(),
                upstream: self.upstream.borrow().as_ref().map(|address| &address.target as &dyn std::fmt::Display),
                retries: self.retries.get(),
                error: error.as_ref().map(|(fault, error)| (fault.as_str(), error.as_str())),
            },
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.done.get() {
            self.failed(Fault::Client, "the client left".to_owned());
            self.finish();
        }
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("id", &self.id).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Follows an answer's body to its end.
pub struct Ending(pub std::rc::Rc<Record>);

impl Observer for Ending {
    fn data(&mut self, bytes: usize) {
        self.0.bytes.set(self.0.bytes.get() + bytes as u64);
    }

    fn end(&mut self, result: Result<(), &BodyError>) {
        if let Err(error) = result {
            let fault = match error {
                BodyError::UpstreamGone | BodyError::UpstreamMalformed(_) | BodyError::UpstreamSilent => Fault::Upstream,
                BodyError::Http2(_) => Fault::Upstream,
                BodyError::Draining => Fault::Pillion,
                _ => Fault::Client,
            };
            self.0.failed(fault, error.to_string());
        }
        self.0.finish();
    }
}
