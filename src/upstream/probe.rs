//! Active health checks. With a health path every address is probed in every interval. Without a path only failing
//! addresses, and those whose first response readiness waits for, are probed by a connection. Probes run beside the
//! workers, so a busy worker does not make an upstream look unhealthy.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, header};

use super::address::{Address, Evidence};
use super::connect::{self, Connected};
use super::endpoint::Endpoint;
use super::http2::{Http2Connection, Passing};
use super::state::Upstream;
use crate::http1::client::{ClientConnection, Outbound, Timeouts};
use crate::http1::encode::Beside;
use crate::http1::head::HeadLimits;
use crate::message::body::Body;
use crate::policy::Awaited;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// Limits on the response of a probed upstream.
const LIMITS: HeadLimits = HeadLimits { size: 64 * 1024, fields: 256 };

/// Interval of probes after the start while readiness waits for the upstream.
const START_INTERVAL: Duration = Duration::from_millis(250);
/// Duration of that start phase; then the upstream's own interval applies.
const START: Duration = Duration::from_secs(30);

/// The addresses, and the endpoints by index, with a probe in progress. A hanging probe delays no other, and no address
/// is probed twice at once. The sets never get larger than the upstream.
#[derive(Default)]
struct Busy {
    addresses: RefCell<HashSet<u64>>,
    endpoints: RefCell<HashSet<usize>>,
}

/// The purpose of one round of probes.
#[derive(Clone, Copy)]
struct Round {
    /// Whether the interval has passed. Otherwise only a first response is sought, and a failure does not count.
    regular: bool,
    /// The first response that readiness waits for.
    awaited: Awaited,
}

/// Watches one upstream while it is in force.
pub(crate) async fn watch(upstream: std::sync::Weak<Upstream>, awaited: Awaited) {
    let busy: Rc<Busy> = Rc::default();
    let mut due = clock::now();
    loop {
        let pause = {
            let Some(upstream) = upstream.upgrade() else { return };
            let now = clock::now();
            let round = Round { regular: now >= due, awaited };
            if round.regular {
                let interval = upstream.policy.health.interval;
                // A random part of up to a tenth keeps replicas of Pillion from probing at the same moment.
                due = now + interval - interval.mul_f64(fastrand::f64() * 0.1);
            }
            for place in 0..upstream.endpoints.len() {
                if busy.endpoints.borrow_mut().insert(place) {
                    tokio::task::spawn_local(probe_endpoint(upstream.clone(), place, round, busy.clone()));
                }
            }
            let pause = due.saturating_duration_since(now);
            let starting = upstream.is_starting(now) && upstream.is_awaited(awaited);
            if starting { pause.min(START_INTERVAL) } else { pause }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn probe_endpoint(upstream: Arc<Upstream>, place: usize, round: Round, busy: Rc<Busy>) {
    if let Some(endpoint) = upstream.endpoints.get(place) {
        let path = upstream.policy.health.path.is_some();
        // Every endpoint without a response so far is probed, even after another one responded: that one may fail
        // later.
        let awaited = round.awaited != Awaited::Nothing && !endpoint.responded.load(Ordering::Relaxed);
        let now = clock::now();
        if ((path && round.regular) || awaited) && endpoint.is_stale(now, upstream.is_starting(now)) {
            // A name that does not resolve yet is tried again in a later round.
            let _ = endpoint.refresh(upstream.policy.connect_timeout).await;
        }
        for address in &endpoint.resolved.load().addresses {
            // Without a path only failing addresses are probed. The last address is never ejected, but may be down all
            // the same.
            let well = address.is_well(upstream.policy.health.unhealthy_after);
            let wanted = awaited || (round.regular && (path || !well));
            if !wanted || !busy.addresses.borrow_mut().insert(address.id) {
                continue;
            }
            let (upstream, address, busy) = (upstream.clone(), address.clone(), busy.clone());
            tokio::task::spawn_local(async move {
                if let Some(endpoint) = upstream.endpoints.get(place) {
                    upstream.probe(endpoint, &address, round).await;
                }
                busy.addresses.borrow_mut().remove(&address.id);
            });
        }
    }
    busy.endpoints.borrow_mut().remove(&place);
}

impl Upstream {
    /// Returns whether the upstream was built so recently that a missing first response is no failure yet.
    pub(crate) fn is_starting(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.built) < START
    }

    async fn probe(&self, endpoint: &Endpoint, address: &Arc<Address>, round: Round) {
        let well = match &self.policy.health.path {
            Some(path) => self.responds(endpoint, address, path).await,
            None if !address.has_responded() => connect::accepts(address, self.policy.health.timeout).await,
            None => self.knock(endpoint, address).await,
        };
        if well {
            self.note_success(address, Evidence::Probe);
        } else if round.regular {
            self.note_failure(address, Evidence::Probe);
        }
    }

    async fn knock(&self, endpoint: &Endpoint, address: &Address) -> bool {
        connect::connect(&endpoint.policy, address, self.policy.health.timeout, false).await.is_ok()
    }

    async fn responds(&self, endpoint: &Endpoint, address: &Address, path: &str) -> bool {
        let timeout = self.policy.health.timeout;
        tokio::time::timeout(timeout, self.get(endpoint, address, path, timeout)).await.unwrap_or(false)
    }

    async fn get(&self, endpoint: &Endpoint, address: &Address, path: &str, timeout: Duration) -> bool {
        let Ok(connected) = connect::connect(&endpoint.policy, address, timeout, false).await else {
            return false;
        };
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::from_str(endpoint.policy.authority.as_str()) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static("pillion-health"));
        let timeouts = Timeouts { response: Some(timeout), body: timeout, stream: timeout };
        let status = match connected {
            Connected::Http1(stream) => {
                let sent = std::cell::Cell::default();
                let outbound = Outbound {
                    method: &Method::GET,
                    target: path.as_bytes(),
                    headers: &headers,
                    beside: Beside::default(),
                    upgrade: None,
                    takes_trailers: false,
                    interim: None,
                    limits: LIMITS,
                    room: None,
                    sent: &sent,
                };
                let (mut connection, mut body) = (ClientConnection::new(stream), Body::empty());
                let mut sending = connection.begin(&outbound, &body, clock::now());
                let head = std::future::poll_fn(|cx| {
                    sending.poll(&mut connection, &outbound, &mut body, timeouts, cx)
                });
                head.await.ok().map(|head| head.parts.status)
            }
            Connected::Http2(stream) => {
                let target = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes()));
                let connection =
                    Http2Connection::new(stream, &address.name, LIMITS, timeout, None, clock::now()).await;
                match (connection, target) {
                    (Ok(connection), Ok(target)) => {
                        let mut request = http::Request::new(Body::empty());
                        let uri = http::Uri::builder()
                            .scheme("http")
                            .authority(endpoint.policy.authority.clone())
                            .path_and_query(target)
                            .build();
                        *request.uri_mut() = uri.unwrap_or_default();
                        *request.headers_mut() = headers;
                        let left = std::cell::Cell::default();
                        let passing = Passing { sent: &left, interim: None, room: None };
                        let sent = Rc::new(connection).send(request, passing, timeouts, clock::now).await;
                        sent.ok().map(|response| response.status())
                    }
                    _ => None,
                }
            }
        };
        status.is_some_and(|status| status.is_success() || status.is_redirection())
    }
}
